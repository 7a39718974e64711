// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"slices"

	"github.com/twscope/twscope/internal/event"
)

// maxAccounts bounds how many destinations have an account of their own.
const maxAccounts = 4096

// givenAtOnce is how many of them give way at a time, because to find the
// idlest all have to be put in order.
const givenAtOnce = maxAccounts / 8

// total adds up a count that begins anew when whoever counts has forgotten.
type total struct{ before, last uint64 }

func (t *total) take(n uint64) {
	if n < t.last {
		t.before = plus(t.before, t.last)
	}
	t.last = n
}

func (t *total) sum() uint64 { return plus(t.before, t.last) }

// account is what is known of one destination.
type account struct {
	Target
	// Of the events: connections of this host that entered TIME_WAIT, failures
	// of connect(), SYNs refused.
	entered, failures, unanswered, stale uint64
	// silent are the connect() calls behind unanswered.
	silent uint64
	// Of the budgets, totals.
	here, there, reset, failed, failedCalls total

	peakRate float64
	peakWait uint32
	use      PortUse
	pid      uint32
	comm     string
	open     opening
}

// opening measures how long connections stay open: those open, times the time
// that passed, divided by those that ended (Little's law).
type opening struct {
	from, to     int64 // ns: the first and the last look
	since        uint64
	looks, inUse uint64
}

// Fewer looks, or fewer connections ended, tell no mean.
const (
	minLooks = 3
	minEnded = 20
)

func (o *opening) look(at int64, inUse uint32, ended uint64) {
	if o.looks == 0 {
		o.from, o.since = at, ended
	}
	o.to = at
	o.looks++
	o.inUse = plus(o.inUse, uint64(inUse))
}

// mean returns the seconds that a connection stays open, 0 if that is not
// known, and how many are open at a time.
func (o *opening) mean(ended uint64) (seconds, inUse float64) {
	if o.looks < minLooks || ended < o.since || ended-o.since < minEnded {
		return 0, 0
	}
	inUse = float64(o.inUse) / float64(o.looks)
	return inUse * float64(o.to-o.from) / 1e9 / float64(ended-o.since), inUse
}

func (a *account) closedHere() uint64 { return max(a.entered, a.here.sum()) }

// made are the connections that have ended.
func (a *account) made() uint64 {
	return plus(a.closedHere(), plus(a.there.sum(), a.reset.sum()))
}

func (a *account) failedKernel() uint64 { return max(a.failures, a.failed.sum()) }

// weight orders destinations.
func (a *account) weight() uint64 {
	return plus(plus(a.made(), a.failedKernel()), plus(a.unanswered, a.stale))
}

// used notes how many ports were used.
func (a *account) used(used, total uint32) {
	if total == 0 {
		return
	}
	used = min(used, total)
	looks := a.use.Looks + 1
	if share := float64(used) / float64(total); a.use.Total == 0 || share > a.use.Share {
		a.use = PortUse{Target: a.Target, Used: used, Total: total, Share: share}
	}
	a.use.Looks = looks
}

// occupied is how many ports of a budget connect() cannot have.
func occupied(d *event.Destination) uint32 {
	used := uint64(d.InUse) + uint64(d.TimeWait) - uint64(min(d.Reusable, d.TimeWait))
	return uint32(min(used, uint64(d.PortsTotal)))
}

func (a *account) budget(at int64, d *event.Destination) {
	a.here.take(d.ClosedHere)
	a.there.take(d.ClosedThere)
	a.reset.take(d.ClosedReset)
	a.failed.take(d.Failed)
	a.failedCalls.take(d.FailedCalls)
	a.peakRate = max(a.peakRate, d.Rate)
	a.peakWait = max(a.peakWait, d.TimeWait)
	a.used(occupied(d), d.PortsTotal)
	if d.PID != 0 || d.Comm != "" {
		a.pid, a.comm = d.PID, clip(d.Comm, maxName)
	}
	a.open.look(at, d.InUse, a.made())
}

func (a *account) destination() Destination {
	d := Destination{
		Target: a.Target, PID: a.pid, Comm: a.comm, Made: a.made(),
		ClosedHere: a.closedHere(), ClosedThere: a.there.sum(), Reset: a.reset.sum(),
		PeakPerS: rounded(a.peakRate), TimeWaitPeak: a.peakWait, PortsUsed: a.use.Used, PortsTotal: a.use.Total,
		Failed: a.failedKernel(), FailedCalls: a.failedCalls.sum(), Unanswered: a.unanswered, StaleACKs: a.stale,
	}
	open, _ := a.open.mean(a.made())
	d.OpenS = rounded(open)
	return d
}

// accounts are those of all destinations.
type accounts struct {
	by map[Target]*account
	// given are the sums of those that were given up for others.
	given struct{ here, there, reset, failed, calls uint64 }
	// crowded counts events of destinations for which there was no place.
	crowded uint64
}

func targetOf(s *event.Socket) Target {
	return Target{
		NetNS: s.NetNS, Laddr: s.Local.Addr().Unmap().WithZone(""),
		Raddr: s.Remote.Addr().Unmap().WithZone(""), Rport: s.Remote.Port(),
	}
}

// of returns the account that an event belongs to, nil if there is no place.
func (l *accounts) of(s *event.Socket) *account {
	t := targetOf(s)
	if a := l.by[t]; a != nil {
		return a
	}
	if len(l.by) >= maxAccounts {
		l.crowded++
		return nil
	}
	return l.open(t)
}

func (l *accounts) open(t Target) *account {
	if l.by == nil {
		l.by = map[Target]*account{}
	}
	a := &account{Target: t}
	l.by[t] = a
	return a
}

// listed returns the account of a destination that a destinations event
// lists. These are the busiest, so the idlest ones give way.
func (l *accounts) listed(d *event.Destination) *account {
	t := Target{d.NetNS, d.Laddr, d.Raddr, d.Rport}
	if a := l.by[t]; a != nil {
		return a
	}
	if len(l.by) >= maxAccounts {
		for _, a := range l.sorted()[maxAccounts-givenAtOnce:] {
			l.giveUp(a)
		}
	}
	return l.open(t)
}

func (l *accounts) giveUp(a *account) {
	g := &l.given
	g.here, g.there, g.reset = plus(g.here, a.closedHere()), plus(g.there, a.there.sum()), plus(g.reset, a.reset.sum())
	g.failed, g.calls = plus(g.failed, a.failedKernel()), plus(g.calls, a.failedCalls.sum())
	l.crowded++
	delete(l.by, a.Target)
}

// order puts the busiest first, without ties.
func order(a, b *account) int {
	return cmp.Or(cmp.Compare(b.weight(), a.weight()), a.compare(&b.Target))
}

func (t *Target) compare(o *Target) int {
	return cmp.Or(t.Raddr.Compare(o.Raddr), cmp.Compare(t.Rport, o.Rport), t.Laddr.Compare(o.Laddr), cmp.Compare(t.NetNS, o.NetNS))
}

// sorted returns all accounts, the busiest first.
func (l *accounts) sorted() []*account {
	list := make([]*account, 0, len(l.by))
	for _, a := range l.by {
		list = append(list, a)
	}
	slices.SortFunc(list, order)
	return list
}
