// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"time"

	"github.com/twscope/twscope/internal/event"
)

// Errors of connect(), include/uapi/asm-generic/errno.h.
const (
	eADDRNOTAVAIL = 99
	eNETDOWN      = 100
	eNETUNREACH   = 101
	eHOSTUNREACH  = 113
)

// tinyRange is the number of ports below which a range itself is to blame:
// it sustains half a connection per second.
const tinyRange = 32

// Fail explains a connect() that failed before it sent a SYN: it fills in the
// cause and the numbers at that instant. Where the book's numbers do not
// explain the failure, the cause is "other".
func (b *Book) Fail(e *event.ConnectFail) {
	at := b.arrive(e.Time)
	e.Refused, e.PortsTotal, e.PortsTimeWait, e.PortsInUse = event.Refused{}, 0, 0, 0
	e.Timestamps = event.TimestampsUnknown
	if e.Cause = causeOfErrno(e); e.Cause != event.CauseUnknown {
		return
	}
	if !e.Local.IsValid() || !e.Remote.IsValid() || e.Remote.Port() == 0 {
		b.counter.Ignored++
		e.Cause = event.CauseOther
		return
	}
	ns := b.namespace(e.NetNS)
	if ns == nil {
		b.counter.Ignored++
		e.Cause = event.CauseOther
		return
	}
	a := addressOf(&e.Socket)
	d := b.destination(&a, ns)
	if d == nil {
		b.counter.Crowded++
		ns.crowded = b.now
		e.Cause = event.CauseOther
		return
	}
	d.chosen = true
	if e.Local.Port() != 0 {
		b.failBound(e, d)
	} else {
		b.failSearch(e, d)
	}
	e.Timestamps = d.timestampUse()
	b.failed(e, d, at)
}

// causeOfErrno returns the cause that the error alone tells, CauseUnknown if
// it does not: only EADDRNOTAVAIL is about ports. Without a source address it
// means that there is none for this peer (ipv6_dev_get_saddr).
func causeOfErrno(e *event.ConnectFail) event.Cause {
	switch e.Errno {
	case eNETDOWN, eNETUNREACH, eHOSTUNREACH:
		return event.CauseNoRouteOrAddress
	case eADDRNOTAVAIL:
		if local := e.Local.Addr(); local.IsValid() && local.IsUnspecified() && local.Is6() {
			return event.CauseNoRouteOrAddress
		}
		return event.CauseUnknown
	}
	return event.CauseOther
}

// failed keeps account of a failure.
func (b *Book) failed(e *event.ConnectFail, d *destination, at int64) {
	if d.lastFail == 0 || at-d.lastFail > int64(time.Minute) {
		b.urgent = true
	}
	d.lastFail = max(d.lastFail, at)
	d.failed++
	if e.PerCall > 0 {
		if d.pending++; d.pending >= e.PerCall {
			d.pending = 0
			d.failedCalls++
		}
	}
	d.owner.cast(&e.Owner)
	b.touch(d, at)
}

// failBound explains the failure of a connect() whose port was chosen before:
// the one check that __inet_hash_connect then makes has found the 4-tuple.
func (b *Book) failBound(e *event.ConnectFail, d *destination) {
	e.Cause = event.CauseExplicitBindConflict
	s := d.supply()
	e.PortsTotal = s.total()
	i := b.table.find(d.id, e.Local.Port(), 0)
	if i == 0 {
		return
	}
	s = supply{}
	b.add(&s, b.table.at(i))
	e.PortsTimeWait, e.PortsInUse = s.wait, s.open
	// With a port of its own connect() asks neither tcp_tw_reuse nor the
	// delay, so of all reasons these two are left.
	e.Refused = event.Refused{FinWait2: s.finWait2, NoTimestamps: s.untimed}
}

// failSearch explains the failure of a search for a port.
func (b *Book) failSearch(e *event.ConnectFail, d *destination) {
	ns := d.ns
	in := span{e.RangeLow, e.RangeHigh}
	if in.high == 0 || in.low > in.high {
		in = ns.facts.span()
	}
	var s supply
	own := in != ns.facts.span()
	switch {
	case in.high == 0:
		e.Cause = event.CauseOther
		return
	case own || d.timeWait != d.timeWaitIn || d.open != d.openIn:
		s = b.survey(d, in)
	default:
		s = d.supply()
	}
	var reusable uint32
	e.Refused, reusable = d.refused(&s)
	e.PortsTotal, e.PortsTimeWait, e.PortsInUse = s.total(), s.wait, s.open
	e.Cause = s.cause(reusable)
	switch {
	case own && ns.replaced(in, b.now):
	case own && ns.known():
		d.ranged = b.now
	case e.Cause != event.CauseOther:
		d.lastDry = b.now
	}
}

// special is the latest survey of a destination.
type special struct {
	span
	at     int64 // ns, 0: none
	supply supply
}

// survey counts the ports of a range one by one. That costs up to 100 ns a
// port, so it is not done again before 20 times as long has passed: a flood of
// failures must not keep the book busy.
func (b *Book) survey(d *destination, in span) supply {
	c := &d.special
	pause := (int64(in.high) - int64(in.low) + 1) * 2000
	if c.at != 0 && c.span == in && b.now-c.at < pause {
		return c.supply
	}
	var s supply
	for p := uint32(in.low); p <= uint32(in.high); p++ {
		port := uint16(p)
		if d.ns.facts.Reserved.Has(port) {
			s.reserved++
			continue
		}
		s.size++
		if i := b.table.find(d.id, port, 0); i != 0 {
			b.add(&s, b.table.at(i))
		} else if d.ns.blocks(port) {
			s.blocked++
		}
	}
	*c = special{span: in, at: max(b.now, 1), supply: s}
	return s
}

// add counts one socket.
func (b *Book) add(s *supply, k *socket) {
	bound := k.flags&flagBound != 0
	if k.flags&flagOpen != 0 {
		s.open++
		if bound {
			s.openBound++
		}
		return
	}
	s.wait++
	switch {
	case bound:
		s.waitBound++
	case k.flags&flagFinWait2 != 0:
		s.finWait2++
	case k.flags&flagTimestamps == 0:
		s.untimed++
	case k.flags&flagYoung != 0:
		s.young++
	default:
		s.aged++
	}
}

// cause returns why a search among the ports of a supply finds none, of which
// so many in TIME_WAIT could be taken over: what holds the most of them.
func (s *supply) cause(reusable uint32) event.Cause {
	taken := s.blocked + s.open + s.wait - reusable
	// Events and snapshots are a little behind the kernel, and a search in
	// an odd range leaves out a port.
	slack := 2 + s.size/64
	if taken+slack < s.size {
		return event.CauseOther
	}
	if all := s.size + s.reserved; all < tinyRange {
		return event.CauseRangeTiny
	} else if s.size < tinyRange || s.reserved >= all/10*9 {
		return event.CauseReserved
	}
	wait := s.wait - s.waitBound - reusable
	open := s.open - s.openBound
	bound := s.blocked + s.openBound + s.waitBound
	switch max(wait, open, bound) {
	case wait:
		return event.CauseTimeWaitNotReusable
	case open:
		return event.CausePortsInUse
	}
	return event.CauseBoundWithoutNoPort
}
