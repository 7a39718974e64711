// SPDX-License-Identifier: Apache-2.0

package refusal

// sweep is how many places the hand of CLOCK passes at most, so that no event
// waits for it.
const sweep = 16

// pool keeps a bounded number of records by key.
type pool[K comparable, V any] struct {
	index   map[K]int32
	slots   []slot[K, V]
	free    []int32
	hand    int
	limit   int
	evicted uint64 // that were neither stale nor removed
}

type slot[K comparable, V any] struct {
	key   K
	value V
	until int64 // ns: when it is stale
	taken bool
	used  bool // since the hand passed
	dear  bool // a completed handshake vouches for it
}

func newPool[K comparable, V any](limit int) pool[K, V] {
	return pool[K, V]{index: map[K]int32{}, limit: limit}
}

// get returns the record of a key, nil if there is none or it is stale.
func (p *pool[K, V]) get(k K, now int64) *V {
	i, ok := p.index[k]
	if !ok || now > p.slots[i].until {
		return nil
	}
	p.slots[i].used = true
	return &p.slots[i].value
}

// put returns the record of a key, a new one if need be. It is nil if there is
// no room, and valid until the next call. dear, once given, stays.
func (p *pool[K, V]) put(k K, dear bool, now, until int64) *V {
	i, ok := p.index[k]
	if ok {
		s := &p.slots[i]
		if now > s.until {
			*s = slot[K, V]{key: k, taken: true}
		}
		s.used, s.dear, s.until = true, s.dear || dear, max(s.until, until)
		return &s.value
	}
	if i = p.place(dear, now); i < 0 {
		return nil
	}
	p.slots[i] = slot[K, V]{key: k, until: until, taken: true, dear: dear}
	p.index[k] = i
	return &p.slots[i].value
}

// place returns a slot for a newcomer, or -1.
func (p *pool[K, V]) place(dear bool, now int64) int32 {
	if n := len(p.free); n > 0 {
		i := p.free[n-1]
		p.free = p.free[:n-1]
		return i
	}
	if len(p.slots) < p.limit {
		p.slots = append(p.slots, slot[K, V]{})
		return int32(len(p.slots) - 1)
	}
	i := p.victim(dear, now)
	if i >= 0 {
		if now <= p.slots[i].until {
			p.evicted++
		}
		delete(p.index, p.slots[i].key)
	}
	return i
}

// victim finds the slot that is worth least of those in reach of the hand.
func (p *pool[K, V]) victim(dear bool, now int64) int32 {
	best := int32(-1)
	for range min(sweep, len(p.slots)) {
		i := int32(p.hand)
		if p.hand++; p.hand == len(p.slots) {
			p.hand = 0
		}
		s := &p.slots[i]
		if now > s.until || !s.dear && !s.used {
			return i
		}
		if best < 0 || s.worth() < p.slots[best].worth() {
			best = i
		}
		if dear || !s.dear {
			s.used = false
		}
	}
	if best >= 0 && p.slots[best].dear && !dear {
		return -1
	}
	return best
}

func (s *slot[K, V]) worth() int {
	w := 0
	if s.dear {
		w = 2
	}
	if s.used {
		w++
	}
	return w
}

// forget removes the records whose key is of a kind.
func (p *pool[K, V]) forget(kind func(K) bool) {
	for i := range p.slots {
		if s := &p.slots[i]; s.taken && kind(s.key) {
			delete(p.index, s.key)
			*s = slot[K, V]{}
			p.free = append(p.free, int32(i))
		}
	}
}
