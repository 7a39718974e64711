// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

var noAddr netip.Addr

const (
	// recycleShare and recycleLeast are from when on it is told what an old
	// server would do: one in so many SYNs, and so many of them.
	recycleShare = 100
	recycleLeast = 10
	// recycleGap is how long after the last such SYN they count as coming.
	recycleGap = 300 * second
)

// source is what is known of a source of SYNs.
type source struct {
	told   event.Source // as the latest sources event that names it has it
	at     int64        // ns, of that event; 0: none has
	listed bool         // it is in the latest one
	lanes  int          // listeners with refusals
	// would is when SYNs that a server with tcp_tw_recycle would refuse came
	// last, did those that this one refused.
	would int64 // ns
	did   series
}

func (s *source) last() int64 { return max(s.at, s.did.last) }

// wouldRefuse is how many SYNs a server with tcp_tw_recycle would refuse: by
// that of the two rules that refuses more.
func (s *source) wouldRefuse() uint64 { return max(s.told.Recycle2632, s.told.Recycle310) }

// nat tells whether something points to a NAT.
func (s *source) nat() bool {
	v := s.told.Verdicts
	return s.told.Class == event.ClockShared ||
		v[event.VerdictNATPortRewrite.String()]+v[event.VerdictNATMultiClock.String()] > 0
}

// recycled takes SYNs that this kernel's tcp_tw_recycle refused. Known from
// the counter alone, they have no source.
func (e *Engine) recycled(p *event.PAWSReject, n uint64) {
	if s := e.syns.sources.get(pairOf(p.NetNS, p.Local.Addr(), p.Remote.Addr())); s != nil {
		s.did.add(p.Time, n)
	}
}

// takeSources takes a sources event.
func (e *Engine) takeSources(ev *event.Sources) {
	e.syns.skipped, e.syns.evicted = ev.Skipped, ev.Evicted
	for _, s := range e.syns.sources.all() {
		// One that is not named while others are left out may still be there.
		s.listed = s.listed && ev.Omitted > 0 && e.now-s.at < absence
	}
	for i := range ev.List {
		y := &ev.List[i]
		s := e.syns.sources.get(pairOf(y.NetNS, y.Laddr, y.Raddr))
		if s == nil {
			continue
		}
		if was := s.wouldRefuse(); max(y.Recycle2632, y.Recycle310) > was {
			s.would = e.now
		}
		s.told, s.at, s.listed = *y, e.now, true
	}
}

// sourceView is what the rules about a source look at.
type sourceView struct {
	pair pair
	*source
	ns *namespace
}

// judgeSource applies the rules about a source.
func (e *Engine) judgeSource(p pair, s *source) {
	if !s.listed && s.did.count == 0 && !e.book.tells(subjectKey{lane: lane{pair: p}}) {
		return // known from refusals only, or of no interest any more
	}
	v := &sourceView{p, s, e.world.namespace(p.netns)}
	about := lane{pair: p}.subject()
	e.book.settle(e, NATRecycleDrop, about, e.recycleDrop(v))
	if s.at == 0 {
		return
	}
	e.book.settle(e, SharedSource, about, e.sharedSource(v))
	e.book.settle(e, ClockRandomised, about, e.clockRandomised(v))
}

func (v *sourceView) name() string {
	if !v.pair.raddr.IsValid() {
		return "network namespace " + strconv.FormatUint(uint64(v.pair.netns), 10)
	}
	return addr(v.pair.raddr)
}

// judgement begins one about a source.
func (e *Engine) aboutSource(v *sourceView, base float64, held uint64, what string) judgement {
	j := judgement{now: snapshot{at: e.now, synSettings: v.ns.synSettings(), held: held, what: what}}
	var doubts []event.Fact
	j.confidence, doubts = e.doubt(base, v.told.SYNs, event.KindSYN, event.KindSources)
	j.evidence = append(v.evidence(e), doubts...)
	return j
}

// evidence is what is known of a source, in a fixed order.
func (v *sourceView) evidence(e *Engine) []event.Fact {
	var facts []event.Fact
	add := func(f event.Fact, ok bool) {
		if ok {
			facts = append(facts, f)
		}
	}
	t := &v.told
	add(num("syns", t.SYNs), v.at != 0)
	add(num("completed", t.Completed), v.at != 0)
	add(txt("class", t.Class.String()), v.at != 0)
	add(txt("strength", t.Strength.String()), v.at != 0)
	add(num("clocks", t.Clocks), v.at != 0)
	add(num("estimate", t.Estimate), t.Clocks > 0)
	add(num("estimate_low", t.Low), t.Clocks > 0)
	add(num("estimate_high", t.High), t.Clocks > 0 && !t.Open)
	add(num("on_line", t.OnLine), v.at != 0)
	add(num("off_line", t.OffLine), v.at != 0)
	add(num("same_tuple_same_clock", t.Repeated), t.Repeated > 0)
	add(num("same_tuple_other_clock", t.Rewritten), t.Rewritten > 0)
	add(num("refused", t.Refused), t.Refused > 0)
	add(num("recycle_syns", t.RecycleSYNs), t.RecycleSYNs > 0)
	add(num("recycle_2_6_32", t.Recycle2632), t.RecycleSYNs > 0)
	add(num("recycle_3_10", t.Recycle310), t.RecycleSYNs > 0)
	add(num("refused_by_tw_recycle", v.did.count), v.did.count > 0)
	for i, f := range t.Fingerprints {
		add(txt("fingerprint_"+strconv.Itoa(i+1), f), true)
	}
	add(num("syns_not_looked_at", e.syns.skipped), e.syns.skipped > 0)
	add(num("sources_forgotten", e.syns.evicted), e.syns.evicted > 0)
	return facts
}

// recycleDrop judges what tcp_tw_recycle does to a source, or would.
func (e *Engine) recycleDrop(v *sourceView) judgement {
	base, n, what := 0.9, v.wouldRefuse(), "SYNs that tcp_tw_recycle would refuse"
	if v.did.count > 0 {
		base, n, what = 0.97, v.did.count, "SYNs that tcp_tw_recycle refused"
	}
	j := e.aboutSource(v, base, n, what)
	does := v.did.count > 0 && e.now-v.did.last < minute
	would := v.would != 0 && e.now-v.would < recycleGap && v.wouldRefuse() >= recycleLeast &&
		float64(v.wouldRefuse())*recycleShare >= float64(v.told.RecycleSYNs)
	switch {
	case does:
		j.severity = event.SeverityCritical
		j.summary = fmt.Sprintf("%s: tcp_tw_recycle of this kernel has refused %s%s", v.name(), several(v.did.count, "SYN", "SYNs"), v.recycleCause())
	case would:
		j.severity = event.SeverityInfo
		if v.hasRecycle() {
			j.severity = event.SeverityWarning
		}
		j.summary = fmt.Sprintf("%s: a server with tcp_tw_recycle would refuse %s of these SYNs (Linux 2.6.32; 3.10: %s)%s; %s", v.name(),
			percent(v.told.Recycle2632, v.told.RecycleSYNs), percent(v.told.Recycle310, v.told.RecycleSYNs), v.recycleCause(), v.recycleHere())
	default:
		j.state, j.calm = good, minute
		j.summary = fmt.Sprintf("%s: next to no SYN comes any more that tcp_tw_recycle would refuse, the last before %s", v.name(), clock(max(v.would, v.did.last)))
		return j
	}
	j.state = bad
	j.remedies = v.recycleRemedies()
	j.sign = v.told.Class.String()
	share := 100 * float64(v.wouldRefuse()) / float64(max(v.told.RecycleSYNs, 1))
	j.measures = [3]measure{{share, max(1, share/10)}, {float64(v.did.count), 0}}
	return j
}

// recycleCause says why, as far as the clocks tell.
func (v *sourceView) recycleCause() string {
	switch v.told.Class {
	case event.ClockShared:
		return fmt.Sprintf(", because at least %s share the address", several(max(v.told.Clocks, 2), "timestamp clock", "timestamp clocks"))
	case event.ClockRandomised:
		if v.nat() {
			return ", because its timestamp clock differs from connection to connection"
		}
		return ", because its timestamp clock differs from connection to connection; that needs no NAT"
	case event.ClockRestarted:
		return ", because one timestamp clock followed another: a restart, or the address went to another host; that needs no NAT"
	case event.ClockOne:
		return ", though one timestamp clock is seen: they came late, or have no timestamps"
	}
	return ""
}

// hasRecycle tells whether this kernel has tcp_tw_recycle at all.
func (v *sourceView) hasRecycle() bool {
	_, there := v.ns.sysctls[kernel.SysctlTWRecycle]
	return there
}

func (v *sourceView) recycleHere() string {
	on, known := v.ns.number(kernel.SysctlTWRecycle)
	switch {
	case known && on != 0:
		return "it is on here"
	case v.hasRecycle():
		return "it is off here"
	case len(v.ns.sysctls) > 0:
		return "this kernel does not have it"
	}
	return "whether the server has it is not known"
}

// gone judges a source that no sources event names any more.
func (e *Engine) gone(v *sourceView, j *judgement) bool {
	if v.listed {
		return false
	}
	j.state = good
	j.summary = addr(v.pair.raddr) + ": it is not among the sources that matter any more"
	return true
}

// sharedSource judges whether several clocks are behind an address.
func (e *Engine) sharedSource(v *sourceView) judgement {
	t := &v.told
	base := 0.97
	if t.Strength != event.StrengthStrong {
		base = 0.8
	}
	j := e.aboutSource(v, base, uint64(t.Clocks), "clocks at one time")
	switch {
	case e.gone(v, &j):
		return j
	case t.Class == event.ClockNotEnough || t.Class == event.ClockShared && t.Strength == event.StrengthWeak:
		return judgement{}
	case t.Class != event.ClockShared:
		j.state, j.calm = good, minute
		j.summary = fmt.Sprintf("%s: several timestamp clocks at one time are not seen any more, the class is %s now", v.name(), t.Class)
		return j
	}
	j.state, j.severity = bad, event.SeverityInfo
	j.summary = fmt.Sprintf("at least %s share %s (%s)", several(max(t.Clocks, 2), "timestamp clock", "timestamp clocks"), v.name(), v.interval())
	j.remedies = []event.Remedy{perConnection.remedy(fmt.Sprintf("limits that fit %s instead of one", several(max(t.Clocks, 2), "client", "clients")))}
	j.measures = [3]measure{roughly(float64(t.Clocks)), roughly(float64(t.Estimate))}
	j.sign = t.Strength.String()
	return j
}

// interval writes the estimate of how many clocks there are.
func (v *sourceView) interval() string {
	t := &v.told
	if t.Clocks < 2 {
		return "one is certain, and completed connections have others"
	}
	upper := "to " + group(t.High)
	if t.Open {
		upper = "or more"
	}
	return fmt.Sprintf("estimate %s, 95 %%: %s %s", group(t.Estimate), group(t.Low), upper)
}

// clockRandomised explains a source with a clock for each connection.
func (e *Engine) clockRandomised(v *sourceView) judgement {
	t := &v.told
	base := 0.95
	if t.Strength != event.StrengthStrong {
		base = 0.8
	}
	matters := plus(t.Refused, v.wouldRefuse())
	j := e.aboutSource(v, base, matters, "SYNs refused, or that tcp_tw_recycle would refuse")
	switch {
	case e.gone(v, &j):
		return j
	case t.Class == event.ClockNotEnough || matters == 0:
		return judgement{}
	case t.Class != event.ClockRandomised:
		j.state, j.calm = good, minute
		j.summary = fmt.Sprintf("%s: its timestamp clocks are told apart now, the class is %s", v.name(), t.Class)
		return j
	}
	j.state, j.severity = bad, event.SeverityInfo
	j.summary = v.name() + ": the timestamp clock differs from connection to connection, as current Linux, macOS and FreeBSD have it: " +
		"one host or many, which cannot be told, and no sign of a NAT by itself"
	if v.nat() {
		j.summary += "; that a NAT has changed its ports is seen from ports that were used again"
		j.sign = "nat"
	}
	j.remedies = v.randomisedRemedies()
	j.measures = [3]measure{{float64(matters), max(10, float64(matters))}}
	return j
}
