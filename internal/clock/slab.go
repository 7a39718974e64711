// SPDX-License-Identifier: Apache-2.0

package clock

import "unsafe" // for Sizeof alone

// sizes are the tiers above tier 0: places for chains and for lone SYNs, and
// of how many sources one has a record there at most.
var sizes = [...]struct{ chains, lone, share int }{
	{2, 4, 12},
	{12, 16, 52},
	{64, 64, 1000},
}

const (
	maxChains = 64
	maxLone   = 64
	// minRecords is what each tier has room for, however few sources there
	// may be.
	minRecords = 64
	// recordChunk is how many records are allocated at once.
	recordChunk = 32
)

// header is the fixed part of a record.
type header struct {
	key    packedKey
	owner  uint32 // its slot; 1+the next of the list for a record given back
	epoch  uint32 // half windows since the start, see window
	raw    [2]uint16
	stacks [maxStacks]stack
	chains uint8 // places of chains that were ever in use
	lone   uint8 // places of lone SYNs that are in use
	flags  uint8
}

// Flags of a header.
const (
	headSaturated = 1 << iota // a chain found no place
	headFree                  // given back
)

type packedKey struct {
	netns      uint32
	src, local [16]byte
}

// record is where the record of a source is.
type record struct {
	h *header
	c []chain
	o []lone
}

// lines is how many lines a SYN may meet, at most.
func (r *record) lines() int { return 2*int(r.h.chains) + int(r.h.lone) }

// slab holds the records of one tier.
type slab struct {
	heads  [][]header
	chains [][]chain
	lone   [][]lone
	nc, no int
	top    int // first record never used
	limit  int
	used   int
	free   uint32 // 1+the first of a list of records given back
	hand   int
}

func newSlab(tier, sources int) slab {
	return slab{
		nc: sizes[tier].chains, no: sizes[tier].lone,
		limit: max(minRecords, sources/sizes[tier].share),
	}
}

func (s *slab) at(i uint32) record {
	c, r := i/recordChunk, int(i%recordChunk)
	return record{
		h: &s.heads[c][r],
		c: s.chains[c][r*s.nc : (r+1)*s.nc : (r+1)*s.nc],
		o: s.lone[c][r*s.no : (r+1)*s.no : (r+1)*s.no],
	}
}

// take returns a record that is all zero, and false when all are in use.
func (s *slab) take() (uint32, bool) {
	var i uint32
	switch {
	case s.free != 0:
		i = s.free - 1
		s.free = s.at(i).h.owner
	case s.top < s.limit:
		if s.top/recordChunk == len(s.heads) {
			s.heads = append(s.heads, make([]header, recordChunk))
			s.chains = append(s.chains, make([]chain, recordChunk*s.nc))
			s.lone = append(s.lone, make([]lone, recordChunk*s.no))
		}
		i = uint32(s.top)
		s.top++
	default:
		return 0, false
	}
	r := s.at(i)
	*r.h = header{}
	clear(r.c)
	clear(r.o)
	s.used++
	return i, true
}

func (s *slab) give(i uint32) {
	h := s.at(i).h
	*h = header{owner: s.free, flags: headFree}
	s.free = i + 1
	s.used--
}

// bytes returns the memory of the slab.
func (s *slab) bytes() int {
	const one = int(unsafe.Sizeof(header{}) + 3*unsafe.Sizeof([]header{})/recordChunk)
	each := one + s.nc*int(unsafe.Sizeof(chain{})) + s.no*int(unsafe.Sizeof(lone{}))
	return len(s.heads) * recordChunk * each
}
