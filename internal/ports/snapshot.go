// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"net/netip"

	"github.com/twscope/twscope/internal/event"
)

// Open is a connection that holds a local port and is not in TIME_WAIT, in
// SYN_SENT too.
type Open struct {
	Local, Remote netip.AddrPort
	Role          event.Role // those of servers are passed over
	Bound         bool       // the port was taken by bind() without IP_BIND_ADDRESS_NO_PORT
	Foreign       bool       // of a program that the run is not about
}

// Opens replaces what the book holds of open connections in a namespace by a
// snapshot, which must be complete. The time is that at which the snapshot was
// begun. What happened to a connection after that stands.
func (b *Book) Opens(netns uint32, at int64, list []Open) {
	at = b.arrive(at)
	ns := b.namespace(netns)
	if ns == nil {
		b.counter.Ignored++
		return
	}
	ns.snapshot++
	ns.openAt = max(at, 1)
	for i := range list {
		o := &list[i]
		if o.Role == event.RoleServer {
			continue
		}
		s := event.Socket{NetNS: netns, Local: o.Local, Remote: o.Remote}
		if d, tag := b.home(&s, o.Role); d != nil && tag == 0 {
			b.found(d, o, at)
			d.chosen = d.chosen || !o.Foreign
		}
	}
	for _, id := range ns.dests {
		d := b.dests[id]
		b.sweepOpen(d, at)
		d.begun.measure(d, at)
	}
}

// found notes that a snapshot has an open connection.
func (b *Book) found(d *destination, o *Open, at int64) {
	port := o.Local.Port()
	i := b.table.find(d.id, port, 0)
	if i != 0 {
		s := b.table.at(i)
		switch {
		case s.flags&flagOpen != 0:
			s.mark, s.born = d.ns.snapshot, ms(at)
			if was := s.flags&flagBound != 0; was != o.Bound { // another one by now
				b.uncount(s)
				s.flags ^= flagBound
				b.count(s)
			}
			return
		case !before(s.born, ms(at)):
			return // it has closed since
		}
		// Its TIME_WAIT had ended, and nobody told.
		b.unlist(i, s)
		b.release(i, s)
	}
	b.admit(d, port, at, o.Bound)
	b.touch(d, at)
}

// sweepOpen removes the open connections of a destination that a snapshot has
// not shown.
func (b *Book) sweepOpen(d *destination, at int64) {
	for i := d.openList; i != 0; {
		s := b.table.at(i)
		next := s.next
		// one of weeks ago is no later one, whatever before says
		later := s.born-ms(at) < horizon
		if s.mark != d.ns.snapshot && !later {
			b.forget(i, s)
		}
		i = next
	}
}

// measure derives rates from a snapshot and the one before.
func (m *begun) measure(d *destination, at int64) {
	back := d.there + d.reset
	total := back + uint64(d.open)
	if m.at != 0 {
		s := float64(at-m.at) / 1e9
		if s < 0.2 {
			return // too short to tell a rate
		}
		// total falls when open connections enter TIME_WAIT
		m.rate = float64(int64(total-m.total)) / s
		m.freed = float64(back-m.back) / s
		was := m.slope
		m.slope = (float64(d.open) - float64(m.open)) / s
		if m.slope <= 0 || was < m.slope/1.5 || was > m.slope*1.5 {
			m.alike, m.base = 0, m.open
		} else {
			m.alike = min(m.alike+1, 2)
		}
		m.steady = m.alike == 2 && significant(d.open, m.base)
	}
	m.at, m.total, m.back, m.open = at, total, back, d.open
}

// significant tells whether two counts differ by more than chance makes them.
func significant(a, b uint32) bool {
	diff := float64(a) - float64(b)
	return diff*diff > 9*float64(max(a, b, 1))
}

// Closed tells how many connections to a destination have ended without
// TIME_WAIT on this host since the start: closed by the peer first, and by RST.
// A total that is below the one before has begun anew.
func (b *Book) Closed(netns uint32, at int64, local netip.Addr, remote netip.AddrPort, there, reset uint64) {
	at = b.arrive(at)
	if !local.IsValid() || !remote.IsValid() {
		b.counter.Ignored++
		return
	}
	s := event.Socket{NetNS: netns, Local: netip.AddrPortFrom(local, 0), Remote: remote}
	a := addressOf(&s)
	d := b.lookup(&a)
	if d == nil {
		ns := b.namespace(netns)
		if ns == nil {
			b.counter.Ignored++
			return
		}
		if d = b.destination(&a, ns); d == nil {
			return // no place
		}
	}
	if there < d.there || reset < d.reset {
		d.begun.at = 0
	}
	if there != d.there || reset != d.reset {
		d.chosen = true
		b.touch(d, at)
	}
	d.there, d.reset = there, reset
}

// BeginRecount begins to replace what the book holds of TIME_WAIT in a
// namespace, which is needed when TimeWait differs from /proc/net/sockstat for
// longer than events are under way: sockets were killed, or events lost. The
// time is that at which the census was begun. Census must be called for each
// socket that it found, and then EndRecount; other events may come in between.
func (b *Book) BeginRecount(netns uint32, at int64) {
	at = b.arrive(at)
	if ns := b.namespace(netns); ns != nil {
		ns.census++
		ns.censusAt = max(at, 1)
	}
}

// EndRecount removes the sockets that the census has not found. It looks at
// every socket of the book, and returns how many it removed.
func (b *Book) EndRecount(netns uint32) (removed int) {
	ns := b.namespaces[netns]
	if ns == nil || ns.censusAt == 0 {
		return 0
	}
	at := ms(ns.censusAt)
	ns.censusAt = 0
	for i := uint32(1); i < b.table.top; i++ {
		s := b.table.at(i)
		if s.dest == 0 || s.flags&flagOpen != 0 || b.dests[s.dest].ns != ns || s.mark == ns.census {
			continue
		}
		born := s.born
		if s.flags&flagTagged != 0 {
			born = s.due - timeWaitLen // or a little earlier
		}
		if !before(born, at) {
			continue
		}
		b.unlist(i, s)
		b.release(i, s)
		removed++
	}
	return removed
}
