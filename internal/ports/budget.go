// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// supply is the ports of one range, and what holds them towards one
// destination.
type supply struct {
	size     uint32 // ports of the range that are not reserved
	reserved uint32 // those that are
	blocked  uint32 // of size: blocked by bind buckets of others

	open, openBound          uint32 // in use
	wait, waitBound          uint32 // in TIME_WAIT
	finWait2, untimed, young uint32 // of wait, without waitBound
	aged                     uint32 // the rest of wait
}

// total is the ports that connect() may choose of.
func (s *supply) total() uint32 { return s.size - min(s.blocked, s.size) }

// supply returns the supply of a destination from the range of its namespace.
func (d *destination) supply() supply {
	s := supply{
		size: d.ns.size, reserved: d.ns.reserved,
		blocked: d.ns.blocked - min(d.boundIn, d.ns.blocked),
		open:    d.open, wait: d.timeWait, waitBound: d.boundWait, openBound: d.bound - d.boundWait,
		finWait2: d.finWait2, untimed: d.untimed, young: d.young,
	}
	s.aged = s.wait - s.waitBound - s.finWait2 - s.untimed - s.young
	return s
}

// refused divides sockets in TIME_WAIT by tcp_twsk_unique (net/ipv4/tcp_ipv4.c),
// for a connect() that chooses its own port. FIN_WAIT2 is refused since 6.12
// and in stable kernels (0d9e5df4a257); what older ones do is not promised. A
// bound port is in neither: the search does not come as far as asking.
func (d *destination) refused(s *supply) (r event.Refused, reusable uint32) {
	r.FinWait2 = s.finWait2
	switch {
	case d.reuses():
		r.NoTimestamps, r.TooYoung = s.untimed, s.young
		reusable = s.aged
	case d.ns.facts.TWReuse == 2:
		r.LoopbackOnly = s.untimed + s.young + s.aged
	default:
		r.NoTimestamps, r.Disabled = s.untimed, s.young+s.aged
	}
	return r, reusable
}

// timestampUse tells whether the peer negotiates timestamps: by the sockets in
// TIME_WAIT, and else by the latest connection.
func (d *destination) timestampUse() event.TimestampUse {
	told := d.timeWait - d.boundWait - d.finWait2
	switch {
	case told == 0:
		return d.timestamps
	case d.untimed == 0:
		return event.TimestampsYes
	case d.untimed == told:
		return event.TimestampsNo
	}
	return event.TimestampsMixed
}

// timedShare is the share of connections that tcp_tw_reuse lets go early; 0
// where it does not apply.
func (d *destination) timedShare() float64 {
	if !d.reuses() {
		return 0
	}
	if d.timeWait == 0 {
		if d.timestamps == event.TimestampsYes {
			return 1
		}
		return 0
	}
	return 1 - float64(d.boundWait+d.finWait2+d.untimed)/float64(d.timeWait)
}

// sustainable returns how many connections per second, closed by this host
// first, a number of ports sustains. A port is lost to the next connection
// for 60 s, or, if connect() may take it over, for tcp_tw_reuse_delay. With a
// share p of such sockets:
//
//	ports / (p * delay + (1 - p) * 60 s)
//
// Time in which a connection is open is not in it, and neither is the rounding
// of the kernel's timers, by which TIME_WAIT lasts up to 2.048 s longer at
// HZ=250, 4.096 s at HZ=1000 and 5.12 s at HZ=100, see timer: a load of exactly
// this pace fails now and then, one of 96, 93 or 92 % of it does not.
func sustainable(ports uint32, p float64, delayMS uint32) float64 {
	held := p*float64(max(delayMS, 1)) + (1-p)*timeWaitLen
	return float64(ports) * 1000 / held
}

// Budgets returns the budgets of the busiest n destinations at an instant:
// those first where connect() has failed within a minute, then by ports in use
// and in TIME_WAIT, then by connections ended, then by address. Destinations
// without ports and without events for two minutes are not counted in Omitted,
// nor are those that Options.Chosen leaves out.
func (b *Book) Budgets(at int64, n int) *event.Destinations {
	b.advance(at)
	out := &event.Destinations{Header: event.Header{Time: at}, Evicted: b.counter.Evicted}
	var top []*destination
	var listed uint64
	for id := b.recent.newest; id != 0; {
		d := b.dests[id]
		id = d.older
		if b.passes(d) || d.timeWait+d.open == 0 && b.now-d.active > 2*int64(time.Minute) {
			continue
		}
		listed++
		if n <= 0 || len(top) == n && b.busier(d, top[n-1]) >= 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(top, d, func(x, y *destination) int { return b.busier(x, y) })
		if len(top) == n {
			top = top[:n-1]
		}
		top = slices.Insert(top, i, d)
	}
	out.Omitted = listed - uint64(len(top))
	out.List = make([]event.Destination, len(top))
	for i, d := range top {
		b.fill(&out.List[i], d)
	}
	return out
}

// passes tells whether the run is not about a destination.
func (b *Book) passes(d *destination) bool { return b.onlyChosen && !d.chosen }

// busier orders destinations, the busiest first, without ties.
func (b *Book) busier(x, y *destination) int {
	failing := func(d *destination) int {
		if d.lastFail != 0 && b.now-d.lastFail < int64(time.Minute) {
			return 0
		}
		return 1
	}
	ended := func(d *destination) uint64 { return d.here + d.there + d.reset }
	if c := cmp.Or(
		cmp.Compare(failing(x), failing(y)),
		cmp.Compare(y.timeWait+y.open, x.timeWait+x.open),
		cmp.Compare(ended(y), ended(x)),
		cmp.Compare(x.netns, y.netns),
		cmp.Compare(x.port, y.port),
	); c != 0 {
		return c
	}
	return cmp.Or(bytes.Compare(x.local[:], y.local[:]), bytes.Compare(x.remote[:], y.remote[:]))
}

// fill writes the budget of a destination.
func (b *Book) fill(o *event.Destination, d *destination) {
	s := d.supply()
	local, remote := d.addrs()
	*o = event.Destination{
		NetNS: d.netns, Laddr: local, Raddr: remote, Rport: d.port,
		PortsTotal: s.total(), PortsReserved: s.reserved, PortsBlocked: s.blocked,
		InUse: s.open, TimeWait: s.wait,
		Timestamps: d.timestampUse(),
		RateOut:    d.rate(&d.deaths, b.now, usualWindow),
		Reused:     d.reused, Failed: d.failed, FailedCalls: d.failedCalls,
		ClosedHere: d.here, ClosedThere: d.there, ClosedReset: d.reset,
		Bound: d.bound, PID: d.owner.process(), Comm: d.owner.comm,
		Unknown: b.unknown(d),
	}
	o.Refused, o.Reusable = d.refused(&s)
	if o.Refused.TooYoung > 0 {
		left := int32(d.lastTimed + d.ns.delay + 1 - ms(b.now))
		o.ReusableInMS = uint32(min(max(left, 1), int32(d.ns.delay+1)))
	}
	rate := d.rate(&d.births, b.now, b.window(d))
	if m := &d.begun; m.at != 0 && b.now-m.at < int64(time.Minute) {
		rate += m.rate
		o.RateOut += m.freed
	}
	o.Rate = max(rate, 0)
	o.SustainableRate = sustainable(o.PortsTotal, d.timedShare(), d.ns.delay)
	o.ExhaustedInS = b.exhausted(d)
}

// unknown says in words which parts of a budget are not known.
func (b *Book) unknown(d *destination) []string {
	u := slices.Clone(b.unfed)
	ns := d.ns
	if !ns.known() {
		u = append(u, "the port range, reserved and blocked ports of this network namespace")
	}
	if ns.facts.TWReuse < 0 {
		u = append(u, "net.ipv4.tcp_tw_reuse, taken for 0")
	}
	if ns.openAt == 0 {
		u = append(u, "ports in use")
	}
	if !b.ends && !b.timer.known && d.timeWait > 0 {
		u = append(u, "when exactly the kernel's timer ends a TIME_WAIT: to within "+
			time.Duration(b.timer.granularity(timeWaitLen)).String())
	}
	if d.assumed > 0 {
		u = append(u, "whether the peer has closed too, where tcp_fin_timeout is below 60 s: assumed")
	}
	if b.now < d.crowdedUntil {
		u = append(u, "sockets that were in TIME_WAIT before there was a place for this destination")
	}
	if d.ranged != 0 && b.now-d.ranged < int64(10*time.Minute) {
		u = append(u, "the ports of sockets with a range of their own (IP_LOCAL_PORT_RANGE)")
	}
	return u
}
