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

	next uint32 // in the list of the wheel, of the destination's open ones, or of free places
	prev uint32 // or listHead and where that is
	born uint32 // ms: when it entered TIME_WAIT, or was last seen in use
	due  uint32 // ms: when the kernel lets it go; nothing for one in use
}

const (
	chunkBits = 12
	chunkSize = 1 << chunkBits
	// maxSockets bounds the memory to 128 MiB, and the bits of an index.
	indexBits  = 22
	maxSockets = 1 << indexBits

	bucketBits = 9 // of the number of buckets in a chunk
	bucketSize = 1 << bucketBits
	// bucketLoad is how many sockets a bucket has on average when the table
	// grows.
	bucketLoad = 5
)

// bucket holds sockets of the same hash: 10 other bits of it, by which nearly
// all others are told apart without a look at them, and an index. They come
// first; 0 is none. The last is the number of a bucket with more, or 0.
type bucket [8]uint32

const more = len(bucket{}) - 1

// table holds the sockets, found by destination and port. Index 0 is none. It
// grows by chunks, and its buckets are split one at a time (linear hashing), so
// that no growth makes anyone wait.
type table struct {
	chunks  []*[chunkSize]socket
	buckets []*[bucketSize]bucket
	spill   []*[bucketSize]bucket // of full buckets
	free    uint32                // list of sockets given back
	top     uint32                // first index never used
	spare   uint32                // list of spill buckets given back
	spilled uint32                // first spill bucket never used
	used    int
	level   uint   // the buckets were 1<<level when the round of splits began
	split   uint32 // next bucket to be split
	moving  []uint32
}

func newTable() table {
	return table{
		chunks:  []*[chunkSize]socket{new([chunkSize]socket)},
		buckets: []*[bucketSize]bucket{new([bucketSize]bucket)},
		spill:   []*[bucketSize]bucket{new([bucketSize]bucket)},
		top:     1,
		spilled: 1,
		level:   bucketBits,
	}
}

func (t *table) at(i uint32) *socket { return &t.chunks[i>>chunkBits][i&(chunkSize-1)] }

// hash mixes what identifies a socket; tag is 0 unless flagTagged.
func hash(dest uint32, port uint16, tag uint32) uint32 {
	hi, lo := bits.Mul64((uint64(dest)<<16|uint64(port))^0x9e3779b97f4a7c15, uint64(tag)<<1^0xd6e8feb86659fd93)
	hi, lo = bits.Mul64(hi^lo, 0xa0761d6478bd642f)
	return uint32(hi ^ lo)
}

func (s *socket) hash() uint32 { return hash(s.dest, s.port, s.tag()) }

func (s *socket) tag() uint32 {
	if s.flags&flagTagged != 0 {
		return s.born
	}
	return 0
}

// bucket returns the bucket of a hash.
func (t *table) bucket(h uint32) *bucket {
	b := h & (1<<t.level - 1)
	if b < t.split {
		b = h & (2<<t.level - 1)
	}
	return &t.buckets[b>>bucketBits][b&(bucketSize-1)]
}

func (t *table) next(b *bucket) *bucket { return &t.spill[b[more]>>bucketBits][b[more]&(bucketSize-1)] }

// entry is what a bucket holds of a socket.
func entry(h, i uint32) uint32 { return h>>indexBits<<indexBits | i }

// find returns the socket of a destination and port, 0 if there is none.
func (t *table) find(dest uint32, port uint16, tag uint32) uint32 {
	h := hash(dest, port, tag)
	for b := t.bucket(h); ; b = t.next(b) {
		for _, e := range b[:more] {
			if e == 0 {
				return 0
			}
			if (e^h)>>indexBits != 0 {
				continue
			}
			i := e & (maxSockets - 1)
			if s := t.at(i); s.dest == dest && s.port == port && s.tag() == tag {
				return i
			}
		}
		if b[more] == 0 {
			return 0
		}
	}
}

// insert adds a socket that find does not find, with no flags but flagTagged,
// and returns its index, 0 when the table is full.
func (t *table) insert(dest uint32, port uint16, tag uint32) uint32 {
	i := t.free
	switch {
	case i != 0:
		t.free = t.at(i).next
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
	h := hash(dest, port, tag)
	t.add(h, entry(h, i))
	t.used++
	if uint64(t.used) > bucketLoad*(1<<t.level+uint64(t.split)) {
		t.grow()
	}
	return i
}

// add puts an entry into the bucket of a hash.
func (t *table) add(h, e uint32) {
	b := t.bucket(h)
	for {
		for k := range b[:more] {
			if b[k] == 0 {
				b[k] = e
				return
			}
		}
		if b[more] == 0 {
			b[more] = t.newSpill()
		}
		b = t.next(b)
	}
}

func (t *table) newSpill() uint32 {
	n := t.spare
	if n != 0 {
		b := &t.spill[n>>bucketBits][n&(bucketSize-1)]
		t.spare = b[more]
		b[more] = 0
		return n
	}
	if int(t.spilled>>bucketBits) == len(t.spill) {
		t.spill = append(t.spill, new([bucketSize]bucket))
	}
	t.spilled++
	return t.spilled - 1
}

// giveBack frees the spill bucket that follows b, which is empty and the last.
func (t *table) giveBack(b *bucket) {
	last := t.next(b)
	last[more], t.spare, b[more] = t.spare, b[more], 0
}

// grow splits one bucket.
func (t *table) grow() {
	created := 1<<t.level + t.split
	if int(created>>bucketBits) == len(t.buckets) {
		t.buckets = append(t.buckets, new([bucketSize]bucket))
	}
	t.moving = t.moving[:0]
	t.drain(t.bucket(t.split))
	if t.split++; t.split == 1<<t.level {
		t.level, t.split = t.level+1, 0
	}
	for _, e := range t.moving {
		t.add(t.at(e&(maxSockets-1)).hash(), e)
	}
}

// drain takes all entries out of a bucket and those that follow it.
func (t *table) drain(b *bucket) {
	if b[more] != 0 {
		t.drain(t.next(b))
		t.giveBack(b)
	}
	for k := range b[:more] {
		if b[k] != 0 {
			t.moving = append(t.moving, b[k])
			b[k] = 0
		}
	}
}

// remove gives a socket's place back. It must be in no list any more.
func (t *table) remove(i uint32) {
	s := t.at(i)
	h := s.hash()
	gone := entry(h, i)
	var hole *uint32
	var before *bucket
	b := t.bucket(h)
	for {
		for k := range b[:more] {
			if hole == nil && b[k] == gone {
				hole = &b[k]
			}
		}
		if b[more] == 0 {
			break
		}
		before, b = b, t.next(b)
	}
	// the last entry of all takes its place
	last := 0
	for last < more-1 && b[last+1] != 0 {
		last++
	}
	*hole = b[last]
	b[last] = 0
	if last == 0 && before != nil {
		t.giveBack(before)
	}
	*s = socket{next: t.free}
	t.free = i
	if t.used--; t.used == 0 && len(t.chunks) > 1 {
		*t = newTable() // a storm is over: its memory goes too
	}
}
