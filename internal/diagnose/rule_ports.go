// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

func keyOf(netns uint32, laddr, raddr netip.Addr, rport uint16) key {
	return key{netns, laddr.Unmap().WithZone(""), raddr.Unmap().WithZone(""), rport}
}

// subject is the destination, with who uses it.
func (v *view) subject() subject {
	s := subject{key: subjectKey{destination: v.key}}
	s.NetNS, s.Laddr, s.Raddr, s.Rport = v.key.netns, v.key.laddr, v.key.raddr, v.key.rport
	s.PID, s.Comm = v.who()
	return s
}

// who is the program that opened most of the connections, or whose connect()
// failed. The process is 0 if the program is run anew for each.
func (v *view) who() (uint32, string) {
	if v.budget.PID != 0 || v.budget.Comm != "" {
		return v.budget.PID, v.budget.Comm
	}
	return v.fail.pid, v.fail.comm
}

func (v *view) program() string {
	pid, comm := v.who()
	return owner(pid, comm)
}

func (v *view) place() string { return endpoint(v.key.raddr, v.key.rport) }

// confidence is that of a rule, less what is missing.
func (e *Engine) confidence(base float64, v *view, kinds ...event.Kind) (float64, []event.Fact) {
	share, lost := e.world.trust(kinds...)
	base *= share
	if v != nil && len(v.budget.Unknown) > 0 {
		base *= 0.9
	}
	var facts []event.Fact
	if v != nil && len(v.budget.Unknown) > 0 {
		facts = append(facts, txt("not_known", strings.Join(v.budget.Unknown, "; ")))
	}
	if lost > 0 {
		facts = append(facts, num("events_lost", lost))
	}
	return base, facts
}

// exhaustion judges whether connect() fails for want of a port.
func (e *Engine) exhaustion(v *view) judgement {
	j := judgement{now: v.snapshot()}
	b := &v.budget
	switch quiet := v.now - v.lastFail; {
	case v.lastFail == 0:
		return j
	case quiet < failingFor || v.due != 0:
		j.state = bad
	case quiet >= troubleGap || uint64(v.used())*10 <= uint64(b.PortsTotal)*9:
		j.state, j.since, j.calm = good, v.lastFail, 15*second
		j.summary = fmt.Sprintf("%s: connect() finds local ports again: %s of %s %s free, and it has not failed since %s",
			v.place(), group(b.PortsTotal-v.used()), ports(b.PortsTotal), be(b.PortsTotal-v.used()), clock(v.lastFail))
		j.evidence = v.evidence()
		j.confidence, _ = e.confidence(0.97, v, event.KindConnectFail)
		return j
	default:
		return j
	}
	base := 0.97
	if v.fail.inferred {
		base = 0.9
	}
	var doubts []event.Fact
	j.confidence, doubts = e.confidence(base, v, event.KindTimeWait, event.KindConnectFail)
	j.severity = event.SeverityCritical
	j.summary = v.place() + ": " + v.taken() + "; " + v.rates() + v.failures()
	j.evidence = append(v.evidence(), doubts...)
	j.remedies = v.remedies()
	j.sign = strings.Join([]string{v.fail.cause.String(), v.reason(), strconv.FormatUint(b.Failed, 10)}, " ")
	j.measures = [3]measure{roughly(float64(b.PortsTotal)), roughly(v.load())}
	return j
}

// taken says what holds the ports.
func (v *view) taken() string {
	b := &v.budget
	from := "local ports of " + addr(v.key.laddr)
	if b.PortsTotal == 1 {
		from = "local port of " + addr(v.key.laddr)
	}
	who := " (" + v.program() + ")"
	in, own := v.searched()
	where := "ip_local_port_range " + in.String()
	if own {
		where = "the program's own range " + in.String()
	} else if in.high == 0 {
		where = "the port range"
	}
	switch v.fail.cause {
	case event.CausePortsInUse:
		return fmt.Sprintf("%s in use by open connections%s", v.share(b.InUse, from), who)
	case event.CauseRangeTiny:
		return fmt.Sprintf("%s has no more than %s, and %s taken%s", where, ports(b.PortsTotal+b.PortsReserved+b.PortsBlocked), allOf(b.PortsTotal), who)
	case event.CauseReserved:
		return fmt.Sprintf("of %s, %s reserved (ip_local_reserved_ports), and %s%s", where,
			several(b.PortsReserved, "port is", "ports are"), theRest(b.PortsTotal), who)
	case event.CauseBoundWithoutNoPort:
		return fmt.Sprintf("of %s, %s taken by bind() without IP_BIND_ADDRESS_NO_PORT or by listen(), and %s%s", where,
			several(b.PortsBlocked+b.Bound, "port is", "ports are"), theRest(b.PortsTotal-min(b.PortsTotal, b.Bound)), who)
	}
	return fmt.Sprintf("%s in TIME_WAIT%s; %s", v.share(b.TimeWait, from), who, v.reason())
}

func allOf(n uint32) string {
	switch n {
	case 0:
		return "all are"
	case 1:
		return "the only usable one is"
	}
	return fmt.Sprintf("all %s usable ones are", group(n))
}

func theRest(n uint32) string {
	switch n {
	case 0:
		return "none is left"
	case 1:
		return "the one that is left is taken too"
	}
	return fmt.Sprintf("the %s that are left are taken too", group(n))
}

// share writes how many of the ports something holds.
func (v *view) share(n uint32, from string) string {
	total := v.budget.PortsTotal
	switch {
	case total == 0:
		return fmt.Sprintf("%s %s are", group(n), from)
	case total == 1:
		return "the only " + from + " is"
	case n >= total:
		return fmt.Sprintf("all %s %s are", group(total), from)
	}
	return fmt.Sprintf("%s of %s %s %s", group(n), group(total), from, be(n))
}

// reason says why connect() does not take the sockets in TIME_WAIT over: that
// of most of them.
func (v *view) reason() string {
	r := &v.budget.Refused
	reuse, known := v.ns.reuse()
	none := "the peer negotiates no TCP timestamps"
	if v.ns.timestampsOff() {
		none = "this host negotiates no TCP timestamps (net.ipv4.tcp_timestamps=0)"
	}
	switch most := max(r.NoTimestamps, r.LoopbackOnly, r.Disabled, r.TooYoung, r.FinWait2); {
	case most == 0:
		return "why they cannot be re-used is unknown"
	case most == r.NoTimestamps && known && (reuse == 1 || reuse == 2 && v.key.loopback()):
		return fmt.Sprintf("%s, so tcp_tw_reuse=%d cannot re-use them", none, reuse)
	case most == r.NoTimestamps:
		return none + ", so tcp_tw_reuse=1 could not re-use them either"
	case most == r.LoopbackOnly && v.budget.Timestamps == event.TimestampsNo:
		return none + ", so tcp_tw_reuse could not re-use them whatever it is set to"
	case most == r.LoopbackOnly:
		return "tcp_tw_reuse=2 re-uses those of loopback connections only"
	case most == r.Disabled && known:
		return "tcp_tw_reuse=0 does not allow connect() to re-use them"
	case most == r.Disabled:
		return "whether tcp_tw_reuse allows connect() to re-use them is unknown"
	case most == r.TooYoung:
		return fmt.Sprintf("tcp_tw_reuse takes over only those that are older than %s ms", group(v.ns.delayMS()))
	}
	return "the peer has not closed them yet (FIN_WAIT2)"
}

// rates compares what the budget sustains with what is asked for. Connections
// that the peer closes first, or that are reset, are no burden to it.
func (v *view) rates() string {
	if !v.rated {
		return fmt.Sprintf("this budget sustains %s conn/s, the load is unknown", atLeast(v.budget.SustainableRate))
	}
	was := ""
	if v.mixed() {
		if v.subsided() {
			was = fmt.Sprintf(" (%s of %s until connect() failed)", about(v.before.here), about(v.before.load))
		}
		return fmt.Sprintf("of the load of %s conn/s this host closes %s first%s; this budget sustains %s of these",
			about(v.load()), about(v.pressing()), was, atLeast(v.budget.SustainableRate))
	}
	if v.subsided() {
		was = ", and was " + about(v.before.load) + " until connect() failed"
	}
	return fmt.Sprintf("this budget sustains %s conn/s, the load is %s%s", atLeast(v.budget.SustainableRate), about(v.load()), was)
}

// failures tells both numbers where both are known.
func (v *view) failures() string {
	if v.budget.Failed <= 1 {
		return ""
	}
	if calls, known := v.calls(); known && calls != v.budget.Failed {
		return fmt.Sprintf("; %s failed so far, %s in the kernel", several(calls, "connect() call has", "connect() calls have"), group(v.budget.Failed))
	}
	return fmt.Sprintf("; %s failed so far in the kernel", several(v.budget.Failed, "connect() has", "connect() have"))
}

// evidence is the numbers of a budget, in a fixed order.
func (v *view) evidence() []event.Fact {
	b := &v.budget
	var facts []event.Fact
	add := func(f event.Fact, ok bool) {
		if ok {
			facts = append(facts, f)
		}
	}
	in, _ := v.searched()
	reuse, known := v.ns.reuse()
	calls, knowCalls := v.calls()
	add(txt("cause", v.fail.cause.String()), v.lastFail != 0)
	add(txt("range", in.String()), in.high != 0)
	add(num("ports_total", b.PortsTotal), true)
	add(num("ports_reserved", b.PortsReserved), b.PortsReserved > 0)
	add(num("ports_blocked", b.PortsBlocked), b.PortsBlocked > 0)
	add(num("in_use", b.InUse), true)
	add(num("bound", b.Bound), b.Bound > 0)
	add(num("time_wait", b.TimeWait), true)
	add(num("reusable", b.Reusable), true)
	add(num("refused_disabled", b.Refused.Disabled), b.Refused.Disabled > 0)
	add(num("refused_loopback_only", b.Refused.LoopbackOnly), b.Refused.LoopbackOnly > 0)
	add(num("refused_no_timestamps", b.Refused.NoTimestamps), b.Refused.NoTimestamps > 0)
	add(num("refused_too_young", b.Refused.TooYoung), b.Refused.TooYoung > 0)
	add(num("refused_fin_wait2", b.Refused.FinWait2), b.Refused.FinWait2 > 0)
	add(num("tcp_tw_reuse", reuse), known)
	add(txt("timestamps", b.Timestamps.String()), true)
	add(rate("load", v.load()), v.rated)
	add(rate("load_closed_here", v.pressing()), v.rated && v.mixed())
	add(rate("sustainable_rate", b.SustainableRate), true)
	add(num("reused", b.Reused), b.Reused > 0)
	add(num("failed_in_kernel", b.Failed), b.Failed > 0)
	add(num("failed_calls", calls), knowCalls)
	add(num("kernel_failures_per_call", int(v.perCall)), v.perCall > 0)
	add(txt("first_failure", clock(v.firstFail)), v.lastFail != 0)
	add(num("closed_here", b.ClosedHere), b.ClosedHere > 0)
	add(num("closed_there", b.ClosedThere), b.ClosedThere > 0)
	add(num("closed_reset", b.ClosedReset), b.ClosedReset > 0)
	return facts
}
