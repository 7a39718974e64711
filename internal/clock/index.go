// SPDX-License-Identifier: Apache-2.0

package clock

import "unsafe" // for Sizeof alone

// slot is what is kept of every source address: all of it for one that was
// seen once (tier 0), and where the rest is for others. It holds no pointers,
// so that the garbage collector does not look at a million of them.
type slot struct {
	hash  uint64
	value uint32 // tier 0: TSval; else the record's index in its slab
	sec   uint32 // of the last SYN, and in tier 0 of the SYN that value is from
	ms    uint16 // its remainder
	tag   uint16 // tier 0: of its ports
	stack uint16 // tier 0: see stackOf
	flags uint8
	tier  uint8 // 0, or 1+index of the slab; slotFree: not in use
}

// Flags of a slot.
const (
	slotUsed      = 1 << iota // since the hand passed
	slotValidated             // a handshake completed
)

const slotFree = 0xff

const (
	chunkBits = 11
	chunkSize = 1 << chunkBits
	indexBits = 24
	indexMask = 1<<indexBits - 1
	// maxSources is what the bits of an index entry suffice for.
	maxSources = indexMask - 1
)

// table finds slots by hash. Slots stay where they are; the index is open
// addressing with linear probing, half full at most. An entry is 8 bits of the
// hash, by which nearly all others are told apart without a look at them, and
// the slot's number plus one; 0 is none.
type table struct {
	chunks []*[chunkSize]slot
	index  []uint32
	shift  uint // 64 minus the bits of len(index)
	used   int
	top    int // first slot never used
	limit  int
	hand   int    // of CLOCK
	free   uint32 // 1+the first of a list of slots given back, by value; 0: none
}

func newTable(limit int) table {
	return table{index: make([]uint32, 64), shift: 64 - 6, limit: limit}
}

func (t *table) at(i int) *slot { return &t.chunks[i>>chunkBits][i&(chunkSize-1)] }

func mark(h uint64) uint32 { return uint32(h) &^ indexMask }

// find returns the slot of a hash, or -1.
func (t *table) find(h uint64) int {
	m := uint32(len(t.index) - 1)
	for p := uint32(h>>t.shift) & m; ; p = (p + 1) & m {
		e := t.index[p]
		if e == 0 {
			return -1
		}
		if e&^indexMask != mark(h) {
			continue
		}
		if i := int(e&indexMask) - 1; t.at(i).hash == h {
			return i
		}
	}
}

// insert takes a slot for a hash that find does not find, or returns -1 when
// all are in use.
func (t *table) insert(h uint64) int {
	var i int
	switch {
	case t.free != 0:
		i = int(t.free - 1)
		t.free = t.at(i).value
	case t.top < t.limit:
		if t.top>>chunkBits == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSize]slot))
		}
		i = t.top
		t.top++
	default:
		return -1
	}
	if 2*(t.used+1) > len(t.index) {
		t.grow()
	}
	t.used++
	*t.at(i) = slot{hash: h}
	t.enter(h, i)
	return i
}

func (t *table) enter(h uint64, i int) {
	m := uint32(len(t.index) - 1)
	p := uint32(h>>t.shift) & m
	for t.index[p] != 0 {
		p = (p + 1) & m
	}
	t.index[p] = mark(h) | uint32(i+1)
}

// grow doubles the index.
func (t *table) grow() {
	t.index = make([]uint32, 2*len(t.index))
	t.shift--
	for i := range t.top {
		if s := t.at(i); s.tier != slotFree {
			t.enter(s.hash, i)
		}
	}
}

// remove gives a slot back.
func (t *table) remove(i int) {
	m := uint32(len(t.index) - 1)
	p := uint32(t.at(i).hash>>t.shift) & m
	for t.index[p]&indexMask != uint32(i+1) {
		p = (p + 1) & m
	}
	// What comes behind moves up, unless it stands before its home then.
	for q := (p + 1) & m; t.index[q] != 0; q = (q + 1) & m {
		home := uint32(t.at(int(t.index[q]&indexMask)-1).hash>>t.shift) & m
		if (q-home)&m >= (q-p)&m {
			t.index[p] = t.index[q]
			p = q
		}
	}
	t.index[p] = 0
	*t.at(i) = slot{tier: slotFree, value: t.free}
	t.free = uint32(i + 1)
	t.used--
}

// bytes returns the memory of the table.
func (t *table) bytes() int {
	return len(t.chunks)*chunkSize*int(unsafe.Sizeof(slot{})) + 4*cap(t.index) + 8*cap(t.chunks)
}
