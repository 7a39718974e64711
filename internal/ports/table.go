// SPDX-License-Identifier: Apache-2.0

package ports

import "math/bits"

// Flags of a socket.
const (
	flagOpen       = 1 << iota // in use: not in TIME_WAIT
	flagTimestamps             // negotiated
	flagFinWait2               // a census found it in FIN_WAIT2
	flagBound                  // the port was taken by bind()
	flagYoung                  // within tcp_tw_reuse_delay; in the wheel for the end of that
	flagInSet                  // the port is one that connect() may choose
	flagTagged                 // of no destination of its own: born holds a hash
	flagAssumed                // entered in FIN_WAIT2, with less than 60 s
)

// socket is what is kept of a port in use or in TIME_WAIT towards a
// destination. It holds no pointers, so that the garbage collector does not
// look at a million of them. Times are Unix ms modulo 2^32: sockets live for
// two minutes at most, and times are compared by their difference.
type socket struct {
	dest  uint32 // index of its destination
	port  uint16 // local
	flags uint8
	mark  uint8 // the latest census, or snapshot, that found it

	chain uint32 // next socket in the bucket of the hash; next free one
	next  uint32 // in the list of the wheel, or of the destination's open ones
	prev  uint32 // or listHead and where that is
	born  uint32 // ms: when it entered TIME_WAIT, or was first seen in use
	due   uint32 // ms: when the kernel lets it go; nothing for one in use
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
	// chainLoad is how many sockets a bucket has on average when full.
	chainLoad = 2
	// maxSockets bounds the memory to 120 MiB.
	maxSockets = 1 << 22
)

// table holds the sockets, found by destination and port. Index 0 is none. It
// grows by chunks, and the buckets of its hash are split one at a time (linear
// hashing), so that no growth makes anyone wait.
type table struct {
	chunks []*[chunkSize]socket
	heads  []*[chunkSize]uint32
	free   uint32 // list of sockets given back
	top    uint32 // first index never used
	used   int
	level  uint   // the buckets were 1<<level when the round of splits began
	split  uint32 // next bucket to be split
}

func newTable() table {
	return table{
		chunks: []*[chunkSize]socket{new([chunkSize]socket)},
		heads:  []*[chunkSize]uint32{new([chunkSize]uint32)},
		top:    1,
		level:  chunkBits,
	}
}

func (t *table) at(i uint32) *socket { return &t.chunks[i>>chunkBits][i&(chunkSize-1)] }

func (t *table) head(b uint32) *uint32 { return &t.heads[b>>chunkBits][b&(chunkSize-1)] }

// hash mixes what identifies a socket; tag is 0 unless flagTagged.
func hash(dest uint32, port uint16, tag uint32) uint32 {
	hi, lo := bits.Mul64((uint64(dest)<<16|uint64(port))^0x9e3779b97f4a7c15, uint64(tag)<<1^0xd6e8feb86659fd93)
	hi, lo = bits.Mul64(hi^lo, 0xa0761d6478bd642f)
	return uint32(hi ^ lo)
}

func (s *socket) tag() uint32 {
	if s.flags&flagTagged != 0 {
		return s.born
	}
	return 0
}

func (t *table) bucket(h uint32) uint32 {
	b := h & (1<<t.level - 1)
	if b < t.split {
		b = h & (2<<t.level - 1)
	}
	return b
}

// find returns the socket of a destination and port, 0 if there is none.
func (t *table) find(dest uint32, port uint16, tag uint32) uint32 {
	i := *t.head(t.bucket(hash(dest, port, tag)))
	for i != 0 {
		s := t.at(i)
		if s.dest == dest && s.port == port && s.tag() == tag {
			return i
		}
		i = s.chain
	}
	return 0
}

// insert adds a socket that find does not find, and returns its index, 0 when
// the table is full. Its flags and tag must be set by way of the arguments.
func (t *table) insert(dest uint32, port uint16, tag uint32) uint32 {
	i := t.free
	switch {
	case i != 0:
		t.free = t.at(i).chain
	case t.top >= maxSockets:
		return 0
	default:
		if int(t.top>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, new([chunkSize]socket))
		}
		i = t.top
		t.top++
	}
	s := t.at(i)
	*s = socket{dest: dest, port: port}
	if tag != 0 {
		s.flags, s.born = flagTagged, tag
	}
	head := t.head(t.bucket(hash(dest, port, tag)))
	s.chain, *head = *head, i
	t.used++
	if uint64(t.used) > chainLoad*uint64(1<<t.level+t.split) {
		t.grow()
	}
	return i
}

// grow splits one bucket.
func (t *table) grow() {
	created := 1<<t.level + t.split
	if int(created>>chunkBits) == len(t.heads) {
		t.heads = append(t.heads, new([chunkSize]uint32))
	}
	from, to := t.head(t.split), t.head(created)
	i := *from
	*from, *to = 0, 0
	for i != 0 {
		s := t.at(i)
		next := s.chain
		head := from
		if hash(s.dest, s.port, s.tag())>>t.level&1 != 0 {
			head = to
		}
		s.chain, *head = *head, i
		i = next
	}
	if t.split++; t.split == 1<<t.level {
		t.level, t.split = t.level+1, 0
	}
}

// remove gives a socket's place back. It must be in no list any more.
func (t *table) remove(i uint32) {
	s := t.at(i)
	link := t.head(t.bucket(hash(s.dest, s.port, s.tag())))
	for *link != i {
		link = &t.at(*link).chain
	}
	*link = s.chain
	*s = socket{chain: t.free}
	t.free = i
	if t.used--; t.used == 0 && len(t.chunks) > 1 {
		*t = newTable() // a storm is over: its memory goes too
	}
}
