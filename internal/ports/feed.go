// SPDX-License-Identifier: Apache-2.0

package ports

import "github.com/twscope/twscope/internal/event"

// Enter notes that a socket has entered TIME_WAIT.
func (b *Book) Enter(e *event.TimeWait) {
	if d := b.takeIn(e); d != nil {
		d.here++
		d.chosen = true
	}
}

// Foreign takes in a *event.TimeWait or *event.TWReuse of a program that the
// run is not about. It holds its port as others do, but is no connection of the
// run.
func (b *Book) Foreign(ev event.Event) {
	switch e := ev.(type) {
	case *event.TimeWait:
		b.takeIn(e)
	case *event.TWReuse:
		b.takeOver(e)
	}
}

// takeIn puts a socket into the book that has entered TIME_WAIT. It returns the
// destination, nil if that is none of its own.
func (b *Book) takeIn(e *event.TimeWait) *destination {
	at := b.arrive(e.Time)
	armed := min(e.TimeoutMS, timeWaitLen)
	w := wait{at: at, flags: flags(e.Timestamps, e.Bound)}
	if e.Substate == event.SubstateFinWait2 && armed < timeWaitLen {
		w.flags |= flagAssumed
	}
	// The FIN that ends FIN_WAIT2 starts TIME_WAIT with its full length.
	w.due = b.timer.end(at, timeWaitLen, timeWaitLen)
	d := b.enter(&e.Socket, e.Role, w)
	if d == nil || d.pseudo {
		return nil
	}
	d.begins(at)
	d.owner.cast(&e.Owner)
	d.timestamps = use(e.Timestamps)
	return d
}

// use is what one connection tells of a peer.
func use(timestamps bool) event.TimestampUse {
	if timestamps {
		return event.TimestampsYes
	}
	return event.TimestampsNo
}

// tooLate is how old an event may be before it counts as one of that age.
const tooLate = 2 * lifetime

// arrive lets time pass up to an event and returns its time.
func (b *Book) arrive(at int64) int64 {
	b.advance(at)
	return max(clampTime(at), b.now-tooLate)
}

// Census notes a socket that is in TIME_WAIT as a look at the kernel's table
// shows it: before the first events, or within a recount.
func (b *Book) Census(e *event.Census) {
	at := b.arrive(e.Time)
	left := min(e.RemainingMS, timeWaitLen)
	// the timer may have been started anew, which is not told here
	born := at - int64(timeWaitLen-left)*msPerNS
	w := wait{at: born, seen: at, flags: flags(e.Timestamps, e.Bound)}
	if e.Substate == event.SubstateFinWait2 {
		w.flags |= flagFinWait2
	}
	if ns := b.namespaces[e.NetNS]; ns != nil && e.Reuse == event.ReuseRefusedTooYoung {
		w.at = max(born, at+int64(min(e.ReuseInMS, ns.delay+1))*msPerNS-int64(ns.delay+1)*msPerNS)
	}
	w.due = b.timer.end(at, left, timeWaitLen)
	if d := b.enter(&e.Socket, e.Role, w); d != nil && !d.pseudo {
		d.timestamps = use(e.Timestamps)
	}
}

// wait is a socket that is in TIME_WAIT.
type wait struct {
	at, seen, due int64 // ns: entered, found by a census (0: by its event), ends
	flags         uint8
}

func flags(timestamps, bound bool) uint8 {
	var f uint8
	if timestamps {
		f |= flagTimestamps
	}
	if bound {
		f |= flagBound
	}
	return f
}

// enter puts a socket in TIME_WAIT into the book. It returns its destination,
// nil if there was nothing to put.
func (b *Book) enter(e *event.Socket, role event.Role, w wait) *destination {
	d, tag := b.home(e, role)
	if d == nil {
		return nil
	}
	i := b.table.find(d.id, e.Local.Port(), tag)
	if i == 0 {
		if i = b.table.insert(d.id, e.Local.Port(), tag); i == 0 {
			b.counter.Dropped++
			return nil
		}
	} else {
		s := b.table.at(i)
		open := s.flags&flagOpen != 0
		if w.seen != 0 && open && !before(s.born, ms(w.seen)) {
			return nil // taken over since the census looked
		}
		switch {
		case w.seen == 0 && !open:
			b.counter.Replaced++
		case w.seen != 0 && !open && sameAge(s.born, ms(w.at)):
			w.flags |= s.flags & flagBound // which the kernel's table does not show
		}
		b.uncount(s)
		b.unlist(i, s)
	}
	s := b.table.at(i)
	s.flags, s.mark, s.due = w.flags, d.ns.census, ms(w.due)
	if tag != 0 {
		s.flags = flagTagged
	} else {
		s.born = ms(w.at)
		if d.ns.inSet(s.port) {
			s.flags |= flagInSet
		}
		if s.timed() && (d.young == 0 || before(d.lastTimed, s.born)) {
			d.lastTimed = s.born
		}
	}
	b.schedule(i, s)
	b.count(s)
	b.touch(d, max(w.at, w.seen))
	return d
}

// sameAge tells whether a socket that a census has found is the one that the
// book holds: its timer tells its age to a tick, and the peer's FIN, which
// starts it anew, is mostly a round trip behind.
func sameAge(a, b uint32) bool {
	const off = 100 // ms
	return a-b+off <= 2*off
}

// home returns the destination that a socket belongs to, and its tag if that
// is none of its own; nil for an event that names no socket.
func (b *Book) home(e *event.Socket, role event.Role) (*destination, uint32) {
	if !complete(e) {
		b.counter.Ignored++
		return nil, 0
	}
	ns := b.namespace(e.NetNS)
	if ns == nil {
		b.counter.Ignored++
		return nil, 0
	}
	if role != event.RoleServer {
		a := addressOf(e)
		if d := b.lookup(&a); d != nil {
			return d, 0
		}
		// Where the role is not known, a port that connect() would not have
		// chosen is a server's.
		if role == event.RoleClient || ns.connects(e.Local.Port()) {
			if d := b.destination(&a, ns); d != nil {
				return d, 0
			}
			b.counter.Crowded++
			ns.crowded = b.now
		}
	}
	if ns.rest == nil {
		ns.rest = b.open(ns)
		ns.rest.pseudo = true
	}
	return ns.rest, b.tag(e)
}

// seek returns the socket of an event that tells of an end, 0 if the book does
// not hold it.
func (b *Book) seek(e *event.Socket) uint32 {
	ns := b.namespaces[e.NetNS]
	if !complete(e) || ns == nil {
		return 0
	}
	a := addressOf(e)
	if d := b.lookup(&a); d != nil {
		if i := b.table.find(d.id, e.Local.Port(), 0); i != 0 {
			return i
		}
	}
	if ns.rest == nil {
		return 0
	}
	return b.table.find(ns.rest.id, e.Local.Port(), b.tag(e))
}

// Leave notes that a socket has left TIME_WAIT. Only ends that were seen must
// be fed: one that was worked out from the 60 s of TIME_WAIT lacks the rounding
// of the kernel's timer wheel, which the book knows.
func (b *Book) Leave(e *event.TimeWaitEnd) {
	b.advance(e.Time)
	i := b.seek(&e.Socket)
	if i == 0 || b.table.at(i).flags&flagOpen != 0 {
		// the second of an end and a re-use that are the same
		if e.Reason != event.EndReused {
			b.counter.Unmatched++
		}
		return
	}
	s := b.table.at(i)
	b.unlist(i, s)
	b.release(i, s)
}

// Reuse notes that connect() has taken over a socket in TIME_WAIT.
func (b *Book) Reuse(e *event.TWReuse) {
	if d := b.takeOver(e); d != nil {
		d.reused++
		d.chosen = true
	}
}

// takeOver is what a re-use changes in the book. It returns the destination,
// nil if that is none of its own.
func (b *Book) takeOver(e *event.TWReuse) *destination {
	at := b.arrive(e.Time)
	d, tag := b.home(&e.Socket, event.RoleClient)
	if d == nil {
		return nil
	}
	i := b.seek(&e.Socket)
	if i != 0 && b.table.at(i).flags&flagOpen == 0 {
		s := b.table.at(i)
		b.unlist(i, s)
		b.release(i, s)
	} else if i == 0 && !b.ends {
		b.counter.Unmatched++
	}
	if tag != 0 {
		return nil
	}
	d.owner.cast(&e.Owner)
	b.touch(d, at)
	// Without snapshots nothing would tell of its end.
	if d.ns.openAt != 0 && b.table.find(d.id, e.Local.Port(), 0) == 0 {
		b.admit(d, e.Local.Port(), at, false)
	}
	return d
}

// admit adds a connection that is open to the book.
func (b *Book) admit(d *destination, port uint16, at int64, bound bool) {
	i := b.table.insert(d.id, port, 0)
	if i == 0 {
		b.counter.Dropped++
		return
	}
	s := b.table.at(i)
	s.flags, s.mark, s.born = flagOpen, d.ns.snapshot, ms(at)
	if bound {
		s.flags |= flagBound
	}
	if d.ns.inSet(port) {
		s.flags |= flagInSet
	}
	b.list(i, s)
	b.count(s)
}
