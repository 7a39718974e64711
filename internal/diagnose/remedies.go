// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"math"

	"github.com/twscope/twscope/internal/event"
)

// timeWaitSeconds is TCP_TIMEWAIT_LEN (include/net/tcp.h), the same in every
// kernel.
const timeWaitSeconds = 60

// sustains returns how many connections per second, closed by this host
// first, a number of ports suffices for, if a share of them can be taken over
// after a delay:
//
//	ports / (share * delay + (1 - share) * 60 s)
func sustains(ports uint32, share float64, delayMS uint32) float64 {
	held := share*float64(max(delayMS, 1))/1000 + (1-share)*timeWaitSeconds
	return float64(ports) / held
}

// view is what a rule looks at: one destination at one instant.
type view struct {
	*destination
	ns  *namespace
	now int64
}

// remedies returns those that apply, the best first: what needs no change at
// the peer or of the network comes first.
func (v *view) remedies() []event.Remedy {
	var out []event.Remedy
	add := func(r event.Remedy, ok bool) {
		if ok {
			out = append(out, r)
		}
	}
	waits := v.budget.TimeWait > 0
	add(v.turnReuseOn())
	add(v.keepAlive(), waits)
	add(v.serverCloses(), waits)
	add(v.bindNoPort())
	add(v.widenRange())
	add(v.freeReserved())
	add(v.another(moreDestinations), v.budget.PortsTotal > 0)
	add(v.another(moreSources), v.budget.PortsTotal > 0)
	add(v.timestamps())
	add(v.lingerZero(), waits)
	return out
}

func (a *Advice) remedy(buys string) event.Remedy {
	return event.Remedy{Do: a.Do, Why: a.Why, Buys: buys, Caveat: a.Caveat}
}

func ports(n uint32) string { return several(n, "port", "ports") }

// plainly writes what ports sustain at 60 s each.
func plainly(n uint32) string {
	return fmt.Sprintf("%s conn/s: %s / 60 s", atLeast(sustains(n, 0, 0)), ports(n))
}

func (v *view) keepAlive() event.Remedy {
	now := v.budget.SustainableRate
	if load := v.burden(); load > now && now > 0 {
		n := math.Ceil(load / now)
		return keepAlive.remedy(fmt.Sprintf("with %s or more on each connection %s needs no more than the %s conn/s that this budget sustains: %s / %s",
			several(int64(n), "request", "requests"), v.burdenText(), atLeast(now), about(load), atLeast(now)))
	}
	return keepAlive.remedy(fmt.Sprintf("with n requests on each connection, n times the %s requests/s that this budget sustains now", atLeast(now)))
}

// burdenText names what the ports must suffice for.
func (v *view) burdenText() string {
	text := "the load of " + about(v.burden())
	if v.mixed() {
		text += " that this host closes first"
	}
	return text
}

// unbound tells what is sustained without TIME_WAIT.
func (v *view) unbound() string {
	n, b := v.budget.PortsTotal, &v.budget
	if b.InUse == 0 || b.Rate < 1 {
		return fmt.Sprintf("TIME_WAIT bounds the rate no more: %s / mean time that a connection is open", ports(n))
	}
	open := float64(b.InUse) / b.Rate // Little's law
	return fmt.Sprintf("%s conn/s: %s / %s s, the mean time that a connection is open (%s in use / %s conn/s)",
		atLeast(float64(n)/open), ports(n), trimZero(max(open, 0.001), 3), group(b.InUse), about(b.Rate))
}

func (v *view) serverCloses() event.Remedy { return serverCloses.remedy(v.unbound()) }

func (v *view) lingerZero() event.Remedy { return lingerZero.remedy(v.unbound()) }

// timedShare is the share of sockets in TIME_WAIT that tcp_tw_reuse=1 would
// free, false if that is not known.
func (v *view) timedShare() (float64, bool) {
	b := &v.budget
	switch {
	case b.TimeWait == 0:
		return 1, b.Timestamps == event.TimestampsYes
	case b.Timestamps == event.TimestampsYes:
		return 1 - float64(min(b.Refused.FinWait2, b.TimeWait))/float64(b.TimeWait), true
	case b.Refused.LoopbackOnly > 0:
		return 0, false // those without timestamps are among them
	}
	return float64(min(uint64(b.TimeWait), uint64(b.Refused.Disabled)+uint64(b.Refused.TooYoung)+uint64(b.Reusable))) / float64(b.TimeWait), true
}

// turnReuseOn applies where timestamps are negotiated, and the setting does
// not cover this destination yet.
func (v *view) turnReuseOn() (event.Remedy, bool) {
	reuse, known := v.ns.reuse()
	timed := v.budget.Timestamps == event.TimestampsYes || v.budget.Timestamps == event.TimestampsMixed
	if !known || reuse == 1 || reuse == 2 && v.key.loopback() || !timed {
		return event.Remedy{}, false
	}
	share, ok := v.timedShare()
	if !ok {
		return turnReuseOn.remedy("more than now: only the sockets with timestamps can be taken over, and how many these are is not known"), true
	}
	if share < 0.01 {
		return event.Remedy{}, false
	}
	n, delay := v.budget.PortsTotal, v.ns.delayMS()
	buys := fmt.Sprintf("%s conn/s, since %s %% of the sockets in TIME_WAIT could be taken over: %s / (%s * %s s + %s * 60 s)",
		atLeast(sustains(n, share, delay)), trimZero(math.Floor(share*100), 0), ports(n),
		trimZero(share, 2), trimZero(float64(delay)/1000, 3), trimZero(1-share, 2))
	return turnReuseOn.remedy(buys), true
}

// timestamps applies where none, or not always, are negotiated.
func (v *view) timestamps() (event.Remedy, bool) {
	n, delay := v.budget.PortsTotal, v.ns.delayMS()
	buys := fmt.Sprintf("%s conn/s with tcp_tw_reuse=1: %s / %s s",
		atLeast(sustains(n, 1, delay)), ports(n), trimZero(float64(max(delay, 1))/1000, 3))
	none := v.budget.Timestamps == event.TimestampsNo || v.budget.Timestamps == event.TimestampsMixed
	switch {
	case !none || v.budget.TimeWait == 0:
		return event.Remedy{}, false
	case v.ns.timestampsOff():
		return timestampsHere.remedy(buys + ", if the peer has timestamps on too"), true
	}
	return timestampsAtPeer.remedy(buys), true
}

// another counts how many budgets like this one the load needs.
func (v *view) another(a Advice) event.Remedy {
	n, each := v.budget.PortsTotal, v.budget.SustainableRate
	load := v.burden()
	if v.budget.TimeWait == 0 || each <= 0 {
		return a.remedy(ports(n) + " more at a time for each")
	}
	if load <= each {
		return a.remedy(fmt.Sprintf("%s conn/s more for each: %s / 60 s", atLeast(each), ports(n)))
	}
	need := int64(math.Ceil(load / each))
	return a.remedy(fmt.Sprintf("%s conn/s more for each, so %s needs %s in all: %s / %s",
		atLeast(each), v.burdenText(), group(need), about(load), atLeast(each)))
}

// reachable are the ports that every program may be given.
var reachable = portSpan{1024, 65535}

// searched is the range that limits this destination: that of the namespace,
// or one that the program gave its sockets.
func (v *view) searched() (in portSpan, own bool) {
	ns, known := v.ns.ports()
	f := v.fail.searched
	if f.high != 0 && v.lastFail != 0 && known && f != ns {
		return f, true
	}
	return ns, false
}

// widenRange is checked against what listens and what is reserved there.
func (v *view) widenRange() (event.Remedy, bool) {
	in, own := v.searched()
	if own {
		r := widenOwnRange.remedy(fmt.Sprintf("1 conn/s for each 60 ports: now %s of %s", plainly(v.budget.PortsTotal), in))
		return r, true
	}
	if in.high == 0 || in.size() >= reachable.size()*9/10 {
		return event.Remedy{}, false
	}
	to := portSpan{min(in.low, reachable.low), reachable.high}
	r := widenRange.remedy("")
	r.Do = fmt.Sprintf("sysctl -w net.ipv4.ip_local_port_range=\"%d %d\" (now %d %d)", to.low, to.high, in.low, in.high)
	reserved, known := v.ns.reserved()
	reserved = reserved.within(to).besides(in)
	taken := reserved
	if v.ns.knowsListening {
		listening := v.ns.listening.within(to).besides(in)
		taken = taken.union(listening)
		if open := listening.without(reserved); len(open) > 0 {
			r.Caveat = fmt.Sprintf("port %s %s listened on and would lie in the range: a service may not start again while a connection holds its port, "+
				"so reserve them first, in net.ipv4.ip_local_reserved_ports", open, be(open.count()))
		} else {
			r.Caveat = "no port in the new part is listened on now; reserve those of services that are stopped, in net.ipv4.ip_local_reserved_ports"
		}
		if !v.ns.allListening {
			r.Caveat += "; there are more listeners than the log names"
		}
	} else {
		r.Caveat = "which ports are listened on here is not known (`ss -Htln` tells): " + r.Caveat
	}
	if !known {
		r.Caveat += "; the reserved ports are not known"
	} else if len(reserved) > 0 {
		r.Caveat += fmt.Sprintf("; reserved there and left out: %s", reserved)
	}
	more := to.size() - in.size()
	more -= min(more, taken.count())
	r.Buys = plainly(v.budget.PortsTotal + more)
	return r, more > 0
}

func (v *view) freeReserved() (event.Remedy, bool) {
	b := &v.budget
	all := b.PortsTotal + b.PortsReserved + b.PortsBlocked
	if b.PortsReserved == 0 || b.PortsReserved < all/10 {
		return event.Remedy{}, false
	}
	return freeReserved.remedy("up to " + plainly(b.PortsTotal+b.PortsReserved)), true
}

// blockedByBind is how many ports of the range are taken by bind() and not by
// listeners.
func (v *view) blockedByBind() uint32 {
	b := &v.budget
	in, known := v.ns.ports()
	if !known || !v.ns.knowsListening {
		return b.PortsBlocked
	}
	return b.PortsBlocked - min(b.PortsBlocked, v.ns.listening.within(in).count())
}

func (v *view) bindNoPort() (event.Remedy, bool) {
	b := &v.budget
	n := v.blockedByBind()
	// A few are those of servers that hold a port without listening.
	if b.Bound == 0 && n*20 < b.PortsTotal {
		return event.Remedy{}, false
	}
	return bindNoPort.remedy("for each destination, " + plainly(b.PortsTotal+n)), true
}
