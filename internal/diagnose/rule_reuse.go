// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"slices"

	"github.com/twscope/twscope/internal/event"
)

// trouble tells whether connect() to a destination fails, or will.
func (e *Engine) trouble(v *view) bool {
	k := subjectKey{destination: v.key}
	return e.book.open(PortExhaustion, k) != nil || e.book.open(PortExhaustionSoon, k) != nil
}

// reuseSeverity is a warning where it matters now.
func (e *Engine) reuseSeverity(v *view) event.Severity {
	if e.trouble(v) {
		return event.SeverityWarning
	}
	return event.SeverityInfo
}

// reuseInert judges whether tcp_tw_reuse is on in vain.
func (e *Engine) reuseInert(v *view) judgement {
	b := &v.budget
	reuse, known := v.ns.reuse()
	if !known {
		return judgement{}
	}
	j := judgement{now: v.snapshot()}
	none, wait := b.Refused.NoTimestamps, b.TimeWait
	on := reuse == 1 || reuse == 2 && v.key.loopback()
	open := e.book.open(TWReuseInert, subjectKey{destination: v.key}) != nil
	least := uint32(20)
	if e.trouble(v) {
		least = 1
	}
	var doubts []event.Fact
	j.confidence, doubts = e.confidence(0.97, v, event.KindTimeWait)
	j.evidence = append(v.evidence(), doubts...)
	switch {
	case !on:
		j.state = good
		j.summary = fmt.Sprintf("%s: tcp_tw_reuse is %d now, which does not claim to help here", v.place(), reuse)
		return j
	case none >= least && none >= wait/2 && (e.trouble(v) || none*10 >= b.PortsTotal), open && none >= 10 && none >= wait/4:
		j.state = bad
	case none < 10 && wait < 10 && b.PortsTotal > 20:
		j.state, j.calm = good, 5*second
		j.summary = fmt.Sprintf("%s: %s in TIME_WAIT, so tcp_tw_reuse is not needed", v.place(), several(wait, "socket is", "sockets are"))
		return j
	case none < wait/4:
		j.state, j.calm = good, 5*second
		j.summary = fmt.Sprintf("%s: TCP timestamps are negotiated now: %s of the sockets in TIME_WAIT have none", v.place(), percent(uint64(none), uint64(wait)))
		return j
	default:
		return j
	}
	who := "the peer negotiates no TCP timestamps"
	if v.ns.timestampsOff() {
		who = "this host negotiates no TCP timestamps (net.ipv4.tcp_timestamps=0)"
	}
	which := fmt.Sprintf("so none of the %s in TIME_WAIT can be re-used", several(wait, "socket", "sockets"))
	if none < wait {
		who = "TCP timestamps are not negotiated on all connections"
		which = fmt.Sprintf("so %s of the %s in TIME_WAIT cannot be re-used", group(none), several(wait, "socket", "sockets"))
	}
	j.severity = e.reuseSeverity(v)
	j.summary = fmt.Sprintf("%s: tcp_tw_reuse=%d does nothing here: %s, %s", v.place(), reuse, who, which)
	if none < wait {
		j.summary = fmt.Sprintf("%s: tcp_tw_reuse=%d helps in part only: %s, %s", v.place(), reuse, who, which)
	}
	j.remedies = v.remedies()
	// That comes first here which makes the setting work.
	if i := slices.IndexFunc(j.remedies, func(r event.Remedy) bool { return r.Do == timestampsHere.Do || r.Do == timestampsAtPeer.Do }); i > 0 {
		first := j.remedies[i]
		j.remedies = slices.Insert(slices.Delete(j.remedies, i, i+1), 0, first)
	}
	j.sign = who
	j.measures = [3]measure{roughly(float64(none)), roughly(float64(b.PortsTotal))}
	return j
}

// reuseOff judges whether tcp_tw_reuse=0 costs ports.
func (e *Engine) reuseOff(v *view) judgement {
	reuse, known := v.ns.reuse()
	if !known {
		return judgement{}
	}
	j := e.wouldHelp(v, TWReuseOff, reuse == 0, v.budget.Refused.Disabled)
	if j.state == bad {
		j.summary = v.place() + ": tcp_tw_reuse is 0; " + j.summary
	}
	return j
}

// reuseLoopbackOnly judges whether tcp_tw_reuse=2 costs ports.
func (e *Engine) reuseLoopbackOnly(v *view) judgement {
	reuse, known := v.ns.reuse()
	if !known {
		return judgement{}
	}
	var freed uint32
	if t := v.budget.Timestamps; t == event.TimestampsYes || t == event.TimestampsMixed {
		freed = v.budget.Refused.LoopbackOnly
	}
	j := e.wouldHelp(v, TWReuseLoopbackOnly, reuse == 2 && !v.key.loopback(), freed)
	if j.state == bad {
		j.summary = fmt.Sprintf("%s: tcp_tw_reuse=2 is for loopback connections only, and from %s to %s is none; %s",
			v.place(), addr(v.key.laddr), addr(v.key.raddr), j.summary)
	}
	return j
}

// wouldHelp judges whether tcp_tw_reuse=1 would free sockets that a setting
// which applies keeps.
func (e *Engine) wouldHelp(v *view, code string, applies bool, freed uint32) judgement {
	b := &v.budget
	j := judgement{now: v.snapshot()}
	base := 0.95
	if b.Timestamps == event.TimestampsMixed && b.Refused.LoopbackOnly > 0 {
		base = 0.8
	}
	var doubts []event.Fact
	j.confidence, doubts = e.confidence(base, v, event.KindTimeWait)
	j.evidence = append(v.evidence(), doubts...)
	open := e.book.open(code, subjectKey{destination: v.key}) != nil
	matters := e.trouble(v) || v.pressed(2)
	switch {
	case !applies:
		j.state = good
		reuse, _ := v.ns.reuse()
		j.summary = fmt.Sprintf("%s: tcp_tw_reuse is %d now", v.place(), reuse)
		return j
	case matters && freed > 0 && uint64(freed)*10 >= uint64(b.TimeWait), open && v.pressed(4) && freed > 0:
		j.state = bad
	case !e.trouble(v) && !v.pressed(4):
		j.state, j.calm = good, 5*second
		j.summary = fmt.Sprintf("%s: the local ports suffice without: %s of %s used", v.place(), group(v.used()), ports(b.PortsTotal))
		return j
	default:
		return j
	}
	j.severity = e.reuseSeverity(v)
	j.remedies = v.remedies()
	j.sign = b.Timestamps.String()
	j.measures = [3]measure{roughly(float64(freed)), roughly(float64(b.PortsTotal))}
	share, ok := v.timedShare()
	if !ok {
		j.summary = fmt.Sprintf("with 1, connect() could re-use those of the %s in TIME_WAIT that have TCP timestamps; how many have is unknown",
			several(b.TimeWait, "socket", "sockets"))
		return j
	}
	delay := v.ns.delayMS()
	j.summary = fmt.Sprintf("with 1, connect() could re-use %s of the %s in TIME_WAIT after %s ms, and this budget would sustain %s conn/s instead of %s",
		group(freed), several(b.TimeWait, "socket", "sockets"), group(delay),
		atLeast(sustains(b.PortsTotal, share, delay)), atLeast(b.SustainableRate))
	return j
}
