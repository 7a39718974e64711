// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"hash/maphash"
	"time"

	"github.com/twscope/twscope/internal/bpf"
)

// table knows the 4-tuples in TIME_WAIT, for the rungs that see sockets enter
// it but not leave. Nearly all of them leave in the order in which they came,
// 60 s later, so the entries are a queue, found by an index of their numbers.
//
// It needs 64 bytes for an entry and 4 to 16 for the index, and allocates only
// to grow.
type table struct {
	ends    bool // somebody wants to know of every end
	seed    maphash.Seed
	entries []tableEntry // a ring; the length is a power of two
	head    uint64       // number of the oldest entry
	tail    uint64       // number of the next one
	live    int
	index   []uint32 // open addressing: entry number + 1, modulo 2^32; 0: free
	latest  uint64   // end of the entry that ends last
	early   []early  // a heap: entries that end before an older one does
}

// early is an entry that the queue would come to too late. It may be gone by
// then.
type early struct {
	expires uint64
	tuple   bpf.Tuple
}

type tableEntry struct {
	tuple   bpf.Tuple
	entered uint64 // CLOCK_BOOTTIME, ns
	expires uint64 // 0: gone before its time
	hash    uint32
	sndNxt  uint32
}

const (
	tableMin = 1 << 10
	// tableMax bounds the memory to about 160 MiB; beyond it the oldest
	// entries are given up.
	tableMax = 1 << 21
)

func newTable(ends bool) *table {
	return &table{
		ends:    ends,
		seed:    maphash.MakeSeed(),
		entries: make([]tableEntry, tableMin),
		index:   make([]uint32, 2*tableMin),
	}
}

func (t *table) at(number uint64) *tableEntry {
	return &t.entries[number&uint64(len(t.entries)-1)]
}

func (t *table) hash(tuple *bpf.Tuple) uint32 {
	return uint32(maphash.Comparable(t.seed, *tuple))
}

// enter adds a socket. If its 4-tuple was in TIME_WAIT already, it returns that
// entry; else one that is zero.
func (t *table) enter(tuple *bpf.Tuple, sndNxt uint32, now, timeout uint64) (was tableEntry) {
	if t.tail-t.head == uint64(len(t.entries)) {
		t.makeRoom()
	}
	h := t.hash(tuple)
	slot, known := t.search(tuple, h)
	if known {
		old := t.numbered(t.index[slot])
		if old.expires > now {
			was = *old
		}
		old.expires = 0
	} else {
		t.live++
	}
	expires := now + timeout
	*t.at(t.tail) = tableEntry{tuple: *tuple, entered: now, expires: expires, hash: h, sndNxt: sndNxt}
	t.index[slot] = t.indexed(t.tail)
	t.tail++
	if expires < t.latest && len(t.early) < tableMax {
		t.pushEarly(early{expires, *tuple})
	}
	t.latest = max(t.latest, expires)
	return was
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
		since := e.entered
		t.enter(&tuple, e.sndNxt, since, now+uint64(60*time.Second)-since)
	}
}

// take removes the entry that was alive at an instant, and tells since when,
// and where its sequence numbers ended.
func (t *table) take(tuple bpf.Tuple, at uint64) (entered uint64, sndNxt uint32, ok bool) {
	e := t.find(&tuple)
	if e == nil || e.entered > at || e.expires <= at {
		return 0, 0, false
	}
	entered, sndNxt = e.entered, e.sndNxt
	t.remove(&tuple)
	return entered, sndNxt, true
}

// expire gives up what has ended by now and tells of it.
func (t *table) expire(now uint64, told func(tuple bpf.Tuple, entered, expires uint64)) {
	for len(t.early) > 0 && t.early[0].expires <= now {
		gone := t.popEarly()
		if e := t.find(&gone.tuple); e != nil && e.expires == gone.expires {
			entered := e.entered
			t.remove(&gone.tuple)
			told(gone.tuple, entered, gone.expires)
		}
	}
	for t.head < t.tail {
		e := t.at(t.head)
		if e.expires > now {
			return
		}
		if e.expires != 0 {
			tuple, entered, expires := e.tuple, e.entered, e.expires
			t.remove(&tuple)
			told(tuple, entered, expires)
		}
		t.head++
	}
}

func (t *table) find(tuple *bpf.Tuple) *tableEntry {
	if slot, ok := t.search(tuple, t.hash(tuple)); ok {
		return t.numbered(t.index[slot])
	}
	return nil
}

// numbered returns the entry that an index slot means.
func (t *table) numbered(slot uint32) *tableEntry {
	return t.at(uint64(slot - 1))
}

// indexed is what an index slot holds for an entry.
func (t *table) indexed(number uint64) uint32 {
	return uint32(number&uint64(len(t.entries)-1)) + 1
}

// search returns the index slot of a 4-tuple, or the free one where it belongs.
func (t *table) search(tuple *bpf.Tuple, h uint32) (slot int, ok bool) {
	mask := len(t.index) - 1
	i := int(h) & mask
	for ; t.index[i] != 0; i = (i + 1) & mask {
		e := t.numbered(t.index[i])
		if e.hash == h && e.tuple == *tuple {
			return i, true
		}
	}
	return i, false
}

// remove takes an entry out of the index and leaves a dead one in the queue.
func (t *table) remove(tuple *bpf.Tuple) {
	i, ok := t.search(tuple, t.hash(tuple))
	if !ok {
		return
	}
	t.numbered(t.index[i]).expires = 0
	t.live--
	t.free(i)
}

// free empties an index slot and closes the gap in the run behind it.
func (t *table) free(i int) {
	mask := len(t.index) - 1
	for j := (i + 1) & mask; t.index[j] != 0; j = (j + 1) & mask {
		home := int(t.numbered(t.index[j]).hash) & mask
		if (j-home)&mask >= (j-i)&mask {
			t.index[i] = t.index[j]
			i = j
		}
	}
	t.index[i] = 0
}

// makeRoom doubles the table, or drops dead and oldest entries at the limit.
func (t *table) makeRoom() {
	size := len(t.entries)
	if t.live > size/2 && size < tableMax {
		size *= 2
	}
	old := *t
	t.entries = make([]tableEntry, size)
	t.index = make([]uint32, 2*size)
	t.head, t.tail, t.live = 0, 0, 0
	skip := 0
	if old.live > size-size/8 {
		skip = size / 8
	}
	for n := old.head; n < old.tail; n++ {
		e := old.at(n)
		if e.expires == 0 {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		*t.at(t.tail) = *e
		slot, _ := t.search(&e.tuple, e.hash)
		t.index[slot] = t.indexed(t.tail)
		t.tail++
		t.live++
	}
}
