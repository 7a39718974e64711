// SPDX-License-Identifier: Apache-2.0

package clock

// sweep is how many places the hand of CLOCK passes at most, so that no SYN
// waits for it.
const sweep = 16

func (t *Tracker) record(sl *slot) record { return t.slabs[sl.tier-1].at(sl.value) }

// slot returns a slot for a hash, that of another source if need be.
func (t *Tracker) slot(h uint64, now moment) int {
	if i := t.table.insert(h); i >= 0 {
		return i
	}
	i := t.victim(now)
	if i < 0 {
		return -1
	}
	sl := t.table.at(i)
	if !sl.idle(now) {
		t.stats.Evicted++
		if sl.rank() > 0 {
			t.stats.EvictedKept++
		}
	}
	t.demote(sl)
	t.table.remove(i)
	return t.table.insert(h)
}

// rank tells how dear a slot is. A SYN without handshake may be forged, a
// million a second, so that it never costs another kind its place while there
// is one of its own kind in reach of the hand.
func (s *slot) rank() int {
	switch {
	case s.tier > 0:
		return 2
	case s.flags&slotValidated != 0:
		return 1
	}
	return 0
}

// victim passes the hand over the slots until it finds one of the lowest rank
// that was not used since the last time.
func (t *Tracker) victim(now moment) int {
	best := -1
	for range min(sweep, t.table.top) {
		i := t.table.hand
		if t.table.hand++; t.table.hand == t.table.top {
			t.table.hand = 0
		}
		sl := t.table.at(i)
		if sl.idle(now) || sl.rank() == 0 && sl.flags&slotUsed == 0 {
			return i
		}
		if best < 0 || sl.rank() < t.table.at(best).rank() {
			best = i
		}
		if sl.rank() == 0 {
			sl.flags &^= slotUsed
		}
	}
	if best >= 0 && t.table.at(best).rank() == 2 {
		return -1 // a lone SYN is not worth a source with a record
	}
	return best
}

// demote gives back the record of a slot.
func (t *Tracker) demote(sl *slot) {
	if sl.tier > 0 {
		t.slabs[sl.tier-1].give(sl.value)
		sl.tier = 0
	}
}

// lift gives a source with one SYN a record of the smallest kind.
func (t *Tracker) lift(i int, sl *slot, s *SYN, sec uint32) bool {
	n, ok := t.take(0, sec)
	if !ok {
		return false
	}
	r := t.slabs[0].at(n)
	r.h.owner = uint32(i)
	r.h.key = packedKey{s.NetNS, s.Source.As16(), s.Local.As16()}
	r.h.epoch = sl.sec / window
	validated := sl.flags&slotValidated != 0
	o := lone{v: sl.value, t: sl.at(), tag: sl.tag, stack: r.h.stack(sl.stack)}
	if validated {
		o.flags = chainValidated
	}
	r.o[0], r.h.lone = o, 1
	r.h.count(o)
	sl.value, sl.tier = n, 1
	return true
}

// grow moves a record one tier up, if it is not in the last and there is room.
func (t *Tracker) grow(sl *slot, r record) (record, bool) {
	if int(sl.tier) == len(t.slabs) {
		return r, false
	}
	n, ok := t.take(int(sl.tier), sl.sec)
	if !ok {
		t.stats.Refused++
		return r, false
	}
	to := t.slabs[sl.tier].at(n)
	*to.h = *r.h
	copy(to.c, r.c)
	copy(to.o, r.o)
	t.slabs[sl.tier-1].give(sl.value)
	sl.value = n
	sl.tier++
	return to, true
}

// take returns a record of a slab, that of another source if that was not
// heard of since the hand last passed.
func (t *Tracker) take(tier int, sec uint32) (uint32, bool) {
	s := &t.slabs[tier]
	if i, ok := s.take(); ok {
		return i, true
	}
	for range min(sweep, s.top) {
		i := uint32(s.hand)
		if s.hand++; s.hand == s.top {
			s.hand = 0
		}
		sl := t.table.at(int(s.at(i).h.owner))
		if sl.flags&slotUsed != 0 && !sl.idle(moment{sec: sec}) {
			sl.flags &^= slotUsed
			continue
		}
		if !sl.idle(moment{sec: sec}) {
			t.stats.Evicted++
			t.stats.EvictedKept++
		}
		owner := int(s.at(i).h.owner)
		t.demote(sl)
		t.table.remove(owner)
		return s.take()
	}
	return 0, false
}
