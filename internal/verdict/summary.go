// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"maps"
	"slices"

	"github.com/twscope/twscope/internal/event"
)

// What a verdict lists at most, beside findings and remedies.
const (
	listedDestinations = 5
	listedNotSeen      = 16
	listedLosses       = 12
	listedDoubts       = 12
	listedCounters     = 8
	listedFilters      = 8
)

// Verdict says what was found up to now. It changes nothing, so it may be
// asked at any time.
func (c *Collector) Verdict() Verdict {
	accounts, found := c.accounts.sorted(), c.findings.sorted()
	v := Verdict{
		Schema: Schema, Severity: SeverityNone, Run: c.run(),
		Connections: c.connections(accounts), TimeWait: c.waiting(),
		Failures: c.failed(accounts), Refusals: c.refused(), Ports: portUse(accounts),
		Destinations: []Destination{}, Findings: []Finding{}, Codes: c.findings.listCodes(c.ranks),
		NotSeen: c.notSeen(), Lost: c.lost(), Unreconciled: c.unreconciled(),
	}
	for _, a := range accounts[:min(len(accounts), listedDestinations)] {
		v.Destinations = append(v.Destinations, a.destination())
	}
	v.DestinationsOmitted = uint64(len(accounts) - len(v.Destinations))
	if c.latest != nil {
		v.DestinationsOmitted = max(v.DestinationsOmitted, c.latest.Omitted)
	}
	for _, f := range found[:min(len(found), listedFindings)] {
		v.Findings = append(v.Findings, f.finding())
	}
	v.FindingsOmitted = uint64(len(found) - len(v.Findings))
	if len(v.Codes) > 0 {
		v.Severity = v.Codes[0].Severity
	}
	v.Doubts = c.doubts(&v)
	v.Answer, v.Basis = c.answer(&v, accounts, found)
	v.Answer = clip(v.Answer, maxAnswer)
	v.Remedies = remediesOf(found, v.calm())
	if n := len(v.Remedies); n > listedRemedies {
		v.Remedies, v.RemediesOmitted = v.Remedies[:listedRemedies], uint64(n-listedRemedies)
	}
	return v
}

// calm tells whether the answer is that nothing failed.
func (v *Verdict) calm() bool {
	switch v.Basis {
	case BasisNotClient, BasisNotServer, BasisSlow, BasisOpen, BasisNothing:
		return true
	}
	return false
}

func (c *Collector) run() Run {
	r := Run{
		Began: instant(c.began), Ended: instant(c.now), DurationS: rounded(float64(c.now-c.began) / 1e9),
		Filters: map[string][]string{}, Earlier: c.earlier,
	}
	if s := c.start; s != nil {
		r.Version, r.Host, r.Kernel = clip(s.Version, maxName), clip(s.Host, maxName), clip(s.Kernel, maxName)
		names := slices.Sorted(maps.Keys(s.Filters))
		for _, k := range names[:min(len(names), listedFilters)] {
			r.Filters[clip(k, maxName)] = clips(s.Filters[k], listedFilters, maxName)
		}
	}
	if c.stop != nil {
		r.Reason = clip(c.stop.Reason, maxName)
	}
	return r
}

func clips(list []string, most, length int) []string {
	out := []string{}
	for _, s := range list[:min(len(list), most)] {
		out = append(out, clip(s, length))
	}
	return out
}

func (c *Collector) connections(accounts []*account) Connections {
	g := &c.accounts.given
	n := Connections{
		ClosedHere: g.here, ClosedThere: g.there, Reset: g.reset,
		Accepted: c.entered[event.RoleServer], RoleUnknown: c.entered[event.RoleUnknown],
	}
	for _, a := range accounts {
		n.ClosedHere, n.ClosedThere, n.Reset = plus(n.ClosedHere, a.closedHere()), plus(n.ClosedThere, a.there.sum()), plus(n.Reset, a.reset.sum())
	}
	n.ClosedHere = max(n.ClosedHere, c.entered[event.RoleClient])
	// The kernel side counts those too whose lines are missing, but not by
	// who opened them.
	if all := plus(n.ClosedHere, plus(n.Accepted, n.RoleUnknown)); c.seen(event.KindTimeWait) > all {
		missing := c.seen(event.KindTimeWait) - all
		switch {
		case n.Accepted == 0 && n.RoleUnknown == 0:
			n.ClosedHere += missing
		case n.ClosedHere == 0 && n.RoleUnknown == 0:
			n.Accepted += missing
		default:
			n.RoleUnknown += missing
		}
	}
	n.Made = plus(n.ClosedHere, plus(n.ClosedThere, n.Reset))
	if n.Made > 0 {
		n.ActiveS = rounded(max(float64(c.last-c.first)/1e9, 1))
		n.MeanPerS = rounded(float64(n.Made) / n.ActiveS)
	}
	n.PeakPerS = rounded(max(c.ratePeak, float64(c.flow.busiest), n.MeanPerS))
	return n
}

// seen is what the kernel side has counted, which is exact where lines are
// missing.
func (c *Collector) seen(k event.Kind) uint64 {
	if c.totals == nil {
		return 0
	}
	return c.totals.Seen[k.String()]
}

func (c *Collector) waiting() TimeWait {
	t := TimeWait{
		Entered: max(c.entered[0]+c.entered[1]+c.entered[2], c.seen(event.KindTimeWait)),
		Peak:    max(c.flow.most(), c.waitPeak), Reused: max(c.reused, c.seen(event.KindTWReuse)),
	}
	if c.start != nil {
		for _, n := range c.start.Census {
			t.Before = plus(t.Before, n.TimeWait)
		}
	}
	t.Peak = max(t.Peak, t.Before)
	return t
}

func portUse(accounts []*account) *PortUse {
	var most *PortUse
	for _, a := range accounts {
		if a.use.Total > 0 && (most == nil || a.use.Share > most.Share) {
			most = &a.use
		}
	}
	if most == nil {
		return nil
	}
	out := *most
	out.Share = rounded(out.Share)
	return &out
}

func (c *Collector) failed(accounts []*account) Failures {
	f := Failures{Kernel: c.accounts.given.failed, Calls: c.accounts.given.calls, NoPort: c.noPort, ByCause: []CauseFailure{}}
	for _, a := range accounts {
		f.Kernel, f.Calls = plus(f.Kernel, a.failedKernel()), plus(f.Calls, a.failedCalls.sum())
	}
	var events uint64
	for cause := range c.failures {
		n := &c.failures[cause]
		if n.kernel == 0 {
			continue
		}
		one := CauseFailure{Cause: event.Cause(cause).String(), Kernel: n.kernel}
		if !n.unknown {
			one.Calls = uint64(n.calls + 1e-6)
		}
		f.ByCause = append(f.ByCause, one)
		events += n.kernel
	}
	f.Kernel = max(f.Kernel, events, c.seen(event.KindConnectFail))
	slices.SortStableFunc(f.ByCause, func(a, b CauseFailure) int { return cmp.Compare(b.Kernel, a.Kernel) })
	return f
}

func (c *Collector) refused() Refusals {
	r := Refusals{
		Unanswered: c.refusals.out[event.SignatureSilence], StaleACKs: c.refusals.out[event.SignatureChallengeACK],
		ByVerdict: map[string]uint64{}, Segments: c.refusals.segments, ListenDrops: c.refusals.drops,
	}
	for v, n := range c.refusals.here {
		r.RefusedHere = plus(r.RefusedHere, n)
		if n > 0 && event.Verdict(v) != event.VerdictNone {
			r.ByVerdict[event.Verdict(v).String()] = n
		}
	}
	return r
}

// lost lists what is missing, what the log itself withheld included.
func (c *Collector) lost() []Loss {
	list := []Loss{}
	for _, at := range c.losses.order {
		list = append(list, *c.losses.by[at])
	}
	if c.totals != nil {
		for _, hop := range []struct{ name, why string }{
			{"rate", "more lines in one second than --rate allows"}, {"write", "the log could not be written"},
		} {
			if n := c.totals.Lost[hop.name]; n > 0 {
				list = append(list, Loss{Hop: hop.name, Count: n, Why: hop.why})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Loss) int { return cmp.Compare(b.Count, a.Count) })
	return list[:min(len(list), listedLosses)]
}

// unreconciled lists the counters of the kernel that ours differ from.
func (c *Collector) unreconciled() []event.Reconciliation {
	list := []event.Reconciliation{}
	if c.totals == nil {
		return list
	}
	for _, r := range c.totals.Reconcile {
		if r.Difference != 0 {
			r.Counter, r.Why = clip(r.Counter, maxName), clip(r.Why, maxText)
			list = append(list, r)
		}
	}
	slices.SortStableFunc(list, func(a, b event.Reconciliation) int { return cmp.Compare(size(b.Difference), size(a.Difference)) })
	return list[:min(len(list), listedCounters)]
}

// size is the magnitude of a difference.
func size(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// The observations that a verdict rests on, as a start event names them, and
// what it is not to have them.
func essential() []struct{ name, without string } {
	return []struct{ name, without string }{
		{"time_wait", "sockets that enter TIME_WAIT, so connections that this host closes first"},
		{"connect_fail", "whether connect() failed for want of a local port"},
		{"syn_refused", "whether a target left SYNs unanswered or refused them"},
		{"paws_time_wait", "whether this host refused SYNs in TIME_WAIT (PAWS)"},
		{"syn_reject", "whether this host refused SYNs in TIME_WAIT for their sequence number"},
	}
}

// sees tells whether an observation was made.
func (c *Collector) sees(observation string) bool {
	if c.start == nil {
		return false
	}
	rung := c.start.Coverage[observation]
	return rung != "" && rung != "none"
}

// notSeen says in words what the session could not see.
func (c *Collector) notSeen() []string {
	list := []string{}
	if c.start == nil {
		return append(list, "what was observed, and how: the log has no start event")
	}
	for _, o := range essential() {
		if !c.sees(o.name) {
			list = append(list, o.without)
		}
	}
	if c.latest != nil {
		for i := range c.latest.List {
			for _, u := range c.latest.List[i].Unknown {
				if u = clip(u, maxText); !slices.Contains(list, u) && len(list) < listedNotSeen {
					list = append(list, u)
				}
			}
		}
		if n := c.latest.Omitted; n > 0 {
			list = append(list, "the budgets of "+several(n, "destination", "destinations")+" beyond those listed")
		}
	}
	for _, s := range c.start.Lost {
		if s = clip(s, maxText); !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list[:min(len(list), listedNotSeen)]
}
