// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"math/rand/v2"
	"time"

	"github.com/twscope/twscope/internal/bpf"
)

// table knows the 4-tuples in TIME_WAIT, for the rungs that see sockets enter
// it but not leave. Nearly all of them leave in the order in which they came,
// 60 s later, so the entries are a queue, found by an index of their numbers.
//
// It needs 24 bytes for an entry and 8 to 16 for the index, and allocates only
// to grow.
type table struct {
	ends   bool   // somebody wants to know of every end
	factor uint64 // of the hash: odd, and a secret
	pairs  *pairs
	// the queue: chunks in use, by the number of their first entry modulo
	// tableMax; spare is one that fell free
	chunks [tableMax / chunkLen]*chunk
	spare  *chunk
	head   uint64 // number of the oldest entry
	tail   uint64 // number of the next one
	live   int
	index  []uint32 // open addressing: entry number modulo tableMax, + 1; 0: free
	latest uint64   // end of the entry that ends last
	early  []early  // a heap: entries that end before an older one does
}

// early is an entry that the queue would come to too late. It may be gone by
// then.
type early struct {
	expires uint64
	number  uint64
}

type tableEntry struct {
	entered      uint64 // CLOCK_BOOTTIME, ns
	lasts        uint32 // ms; 0: gone before its time
	sndNxt       uint32
	pair         uint32
	lport, rport uint16
}

func (e *tableEntry) expires() uint64 { return e.entered + uint64(e.lasts)*uint64(time.Millisecond) }

const (
	chunkLen = 1 << 12
	indexMin = 1 << 11
	// tableMax bounds the memory to 72 MiB; beyond it the oldest entries are
	// given up.
	tableMax = 1 << 21
)

type chunk [chunkLen]tableEntry

func newTable(ends bool) *table {
	return &table{ends: ends, factor: rand.Uint64() | 1, pairs: newPairs(), index: make([]uint32, indexMin)}
}

func (t *table) at(number uint64) *tableEntry {
	place := number % tableMax
	return &t.chunks[place/chunkLen][place%chunkLen]
}

// hash is multiply-shift hashing, of which no peer can choose its ports to make
// others collide.
func (t *table) hash(pair uint32, lport, rport uint16) uint32 {
	key := uint64(pair)<<32 | uint64(lport)<<16 | uint64(rport)
	return uint32(key * t.factor >> 32)
}

// enter adds a socket. If its 4-tuple was in TIME_WAIT already, it returns that
// entry; else one that is zero.
func (t *table) enter(tuple *bpf.Tuple, sndNxt uint32, now uint64, timeoutMS uint32) (was tableEntry) {
	// one chunk stays free, so that the ends of the queue never share one
	if t.tail-t.head == tableMax-chunkLen {
		t.giveUp()
	}
	if 2*(t.live+1) > len(t.index) {
		t.reindex(2 * len(t.index))
	}
	pair := t.pairs.hold(tuple)
	slot, known := t.search(pair, tuple.Lport, tuple.Rport)
	if known {
		old := t.numbered(t.index[slot])
		if old.expires() > now {
			was = *old
		}
		old.lasts = 0
		t.pairs.release(pair)
	} else {
		t.live++
	}
	e := t.push()
	*e = tableEntry{now, max(1, timeoutMS), sndNxt, pair, tuple.Lport, tuple.Rport}
	t.index[slot] = indexed(t.tail - 1)
	if e.expires() < t.latest && len(t.early) < tableMax {
		t.pushEarly(early{e.expires(), t.tail - 1})
	}
	t.latest = max(t.latest, e.expires())
	return was
}

// push makes room for an entry at the end of the queue.
func (t *table) push() *tableEntry {
	c := &t.chunks[t.tail%tableMax/chunkLen]
	if *c == nil {
		if t.spare == nil {
			t.spare = new(chunk)
		}
		*c, t.spare = t.spare, nil
	}
	t.tail++
	return t.at(t.tail - 1)
}

// pop takes the oldest entry out of the queue.
func (t *table) pop() {
	t.head++
	if t.head%chunkLen == 0 {
		c := &t.chunks[(t.head-1)%tableMax/chunkLen]
		t.spare, *c = *c, nil
	}
}

// giveUp drops the oldest entry although its socket is still there.
func (t *table) giveUp() {
	if e := t.at(t.head); e.lasts != 0 {
		t.drop(e)
	}
	t.pop()
}

func (t *table) pushEarly(e early) {
	t.early = append(t.early, e)
	for i := len(t.early) - 1; i > 0; {
		up := (i - 1) / 2
		if t.early[up].expires <= t.early[i].expires {
			return
		}
		t.early[up], t.early[i] = t.early[i], t.early[up]
		i = up
	}
}

func (t *table) popEarly() early {
	h := t.early
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		next := 2*i + 1
		if next+1 < last && h[next+1].expires < h[next].expires {
			next++
		}
		if next >= last || h[i].expires <= h[next].expires {
			break
		}
		h[i], h[next] = h[next], h[i]
		i = next
	}
	t.early = h
	return first
}

// rearm: the kernel has restarted the timer for another TCP_TIMEWAIT_LEN.
func (t *table) rearm(tuple bpf.Tuple, now uint64) {
	if e := t.find(&tuple); e != nil {
		lasts := (now - e.entered) / uint64(time.Millisecond)
		t.enter(&tuple, e.sndNxt, e.entered, uint32(lasts)+timeWaitMS)
	}
}

// timeWaitMS is TCP_TIMEWAIT_LEN (include/net/tcp.h).
const timeWaitMS = 60_000

// take removes the entry of a 4-tuple that a connect() has got, and returns it.
func (t *table) take(tuple *bpf.Tuple) (tableEntry, bool) {
	e := t.find(tuple)
	if e == nil {
		return tableEntry{}, false
	}
	taken := *e
	t.drop(e)
	return taken, true
}

// expire gives up what has ended by now and tells of it.
func (t *table) expire(now uint64, told func(tuple bpf.Tuple, entered, expires uint64)) {
	end := func(e *tableEntry) {
		tuple, entered, expires := t.tuple(e), e.entered, e.expires()
		t.drop(e)
		told(tuple, entered, expires)
	}
	for len(t.early) > 0 && t.early[0].expires <= now {
		gone := t.popEarly()
		if gone.number < t.head {
			continue
		}
		if e := t.at(gone.number); e.lasts != 0 && e.expires() == gone.expires {
			end(e)
		}
	}
	for t.head < t.tail {
		e := t.at(t.head)
		if e.expires() > now {
			return
		}
		if e.lasts != 0 {
			end(e)
		}
		t.pop()
	}
}

func (t *table) tuple(e *tableEntry) bpf.Tuple {
	p := &t.pairs.list[e.pair]
	return bpf.Tuple{Laddr: p.laddr, Raddr: p.raddr, Lport: e.lport, Rport: e.rport, Netns: p.netns}
}

func (t *table) find(tuple *bpf.Tuple) *tableEntry {
	pair, ok := t.pairs.find(tuple)
	if !ok {
		return nil
	}
	slot, ok := t.search(pair, tuple.Lport, tuple.Rport)
	if !ok {
		return nil
	}
	return t.numbered(t.index[slot])
}

// numbered returns the entry that an index slot means.
func (t *table) numbered(slot uint32) *tableEntry { return t.at(uint64(slot - 1)) }

// indexed is what an index slot holds for an entry.
func indexed(number uint64) uint32 { return uint32(number%tableMax) + 1 }

// search returns the index slot of a 4-tuple, or the free one where it belongs.
func (t *table) search(pair uint32, lport, rport uint16) (slot int, ok bool) {
	mask := len(t.index) - 1
	i := int(t.hash(pair, lport, rport)) & mask
	for ; t.index[i] != 0; i = (i + 1) & mask {
		e := t.numbered(t.index[i])
		if e.lport == lport && e.rport == rport && e.pair == pair {
			return i, true
		}
	}
	return i, false
}

// drop takes an entry out of the index and leaves a dead one in the queue.
func (t *table) drop(e *tableEntry) {
	if slot, ok := t.search(e.pair, e.lport, e.rport); ok {
		t.free(slot)
		t.live--
	}
	e.lasts = 0
	t.pairs.release(e.pair)
}

// free empties an index slot and closes the gap in the run behind it.
func (t *table) free(i int) {
	mask := len(t.index) - 1
	for j := (i + 1) & mask; t.index[j] != 0; j = (j + 1) & mask {
		e := t.numbered(t.index[j])
		home := int(t.hash(e.pair, e.lport, e.rport)) & mask
		if (j-home)&mask >= (j-i)&mask {
			t.index[i] = t.index[j]
			i = j
		}
	}
	t.index[i] = 0
}

// reindex makes an index of another size.
func (t *table) reindex(size int) {
	t.index = make([]uint32, size)
	for n := t.head; n < t.tail; n++ {
		e := t.at(n)
		if e.lasts == 0 {
			continue
		}
		slot, _ := t.search(e.pair, e.lport, e.rport)
		t.index[slot] = indexed(n)
	}
}
