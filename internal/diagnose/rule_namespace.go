// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// maxRecycleLines bounds the findings about configuration files.
const maxRecycleLines = 16

// judgeRecycle tells of each line that sets tcp_tw_recycle.
func (e *Engine) judgeRecycle(s *event.Start) {
	for i := range s.Sysctls {
		if _, there := s.Sysctls[i].Values[kernel.SysctlTWRecycle]; there {
			return
		}
	}
	for i := range s.Recycle[:min(len(s.Recycle), maxRecycleLines)] {
		l := &s.Recycle[i]
		about := subject{key: subjectKey{file: l.File, line: l.Line}}
		about.File, about.Line = l.File, l.Line
		e.book.settle(e, TWRecycleGone, about, judgement{
			state: bad, severity: event.SeverityInfo, confidence: 1,
			summary: fmt.Sprintf("%s:%d sets tcp_tw_recycle, which Linux has not had since 4.12: it does nothing here (kernel %s)",
				l.File, l.Line, s.Kernel),
			evidence: []event.Fact{txt("text", l.Text), txt("kernel", s.Kernel)},
			remedies: []event.Remedy{removeLine.remedy("nothing but a clean boot log: it never worked on this kernel")},
		})
	}
}

// bindUse sums up the ports of a namespace that bind() holds.
type bindUse struct {
	bound, held uint64
	blocked     uint32
	failing     bool
	chief       *view // the destination with the most
}

// judgeBinds tells of namespaces where bind() takes ports.
func (e *Engine) judgeBinds() {
	w := &e.world
	for _, n := range w.namespaces {
		n.bind = nil
	}
	for _, d := range w.order {
		if !d.listed {
			continue
		}
		n := w.namespace(d.key.netns)
		v := &view{destination: d, ns: n, now: e.now}
		u := n.bind
		if u == nil {
			u = &bindUse{chief: v}
			n.bind = u
		}
		u.bound += uint64(d.budget.Bound)
		u.held += uint64(d.budget.InUse) + uint64(d.budget.TimeWait)
		u.blocked = max(u.blocked, v.blockedByBind())
		u.failing = u.failing || d.fail.cause == event.CauseBoundWithoutNoPort && e.now-d.lastFail < troubleGap
		if d.budget.Bound > u.chief.budget.Bound {
			u.chief = v
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.namespaces)) {
		n := w.namespaces[id]
		about := subject{key: subjectKey{netns: id}}
		about.NetNS = id
		if n.bind == nil {
			n.bind = &bindUse{}
		} else {
			about.PID, about.Comm = n.bind.chief.who()
		}
		e.book.settle(e, BindWithoutNoPort, about, e.binds(n, n.bind))
	}
}

// binds judges one namespace.
func (e *Engine) binds(n *namespace, u *bindUse) judgement {
	in, known := n.ports()
	if !known {
		return judgement{}
	}
	size, taken := uint64(in.size()), max(u.bound, uint64(u.blocked))
	j := judgement{now: snapshot{at: e.now, settings: n.settings(), held: taken, what: "ports held by bind()"}}
	var doubts []event.Fact
	j.confidence, doubts = e.confidence(0.9, nil, event.KindTimeWait)
	j.evidence = append([]event.Fact{
		txt("range", in.String()), num("ports", size), num("bound_connections", u.bound), num("connections", u.held),
		num("ports_blocked_by_bind", u.blocked),
	}, doubts...)
	switch {
	// Ports that are blocked without a bound connection are mostly those of
	// servers that do not listen yet, so they alone prove nothing.
	case u.failing && taken > 0 || u.bound >= 20 && taken*10 >= size:
		j.state = bad
	case taken*20 < size || u.bound == 0:
		j.state, j.calm = good, 15*second
		j.summary = fmt.Sprintf("bind() holds %s of the %s of the range %s now", group(taken), several(size, "port", "ports"), in)
		return j
	default:
		return j
	}
	j.severity = event.SeverityInfo
	if u.failing {
		j.severity = event.SeverityWarning
	}
	j.summary = fmt.Sprintf("%s of the %s of the range %s %s taken by bind() without IP_BIND_ADDRESS_NO_PORT (%s), so that no connect() to any destination gets them",
		group(taken), several(size, "port", "ports"), in, be(taken), u.chief.program())
	j.remedies = u.chief.bindRemedies(uint32(min(taken, size)))
	j.sign = strconv.FormatBool(u.failing)
	j.measures = [3]measure{roughly(float64(taken)), {value: float64(size)}}
	return j
}

// bindRemedies are those of ports taken by bind().
func (v *view) bindRemedies(taken uint32) []event.Remedy {
	out := []event.Remedy{bindNoPort.remedy("for each destination, " + plainly(max(v.budget.PortsTotal, taken)))}
	if v.budget.TimeWait > 0 {
		out = append(out, v.keepAlive())
	}
	if r, ok := v.widenRange(); ok {
		out = append(out, r)
	}
	return append(out, v.another(moreSources))
}

// overflowCounter is where the kernel counts connections without TIME_WAIT.
const overflowCounter = "TCPTimeWaitOverflow"

// judgeOverflow tells of namespaces where tcp_max_tw_buckets is reached.
func (e *Engine) judgeOverflow(s *event.Stats) {
	counted := map[uint32]uint64{}
	for i := range s.Reconcile {
		if r := &s.Reconcile[i]; r.Counter == overflowCounter && r.Kernel > 0 {
			counted[r.NetNS] = uint64(r.Kernel)
			e.world.namespace(r.NetNS)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(e.world.namespaces)) {
		n := e.world.namespaces[id]
		if total, there := counted[id]; there || n.overflow > 0 {
			e.overflow(n, max(total, n.overflow))
		}
	}
}

func (e *Engine) overflow(n *namespace, total uint64) {
	where := subject{key: subjectKey{netns: n.id}}
	where.NetNS = n.id
	grew, since := total-n.overflow, n.overflowAt
	n.overflow, n.overflowAt = total, e.now
	j := judgement{
		confidence: 1,
		now:        snapshot{at: e.now, settings: n.settings(), held: total, what: "connections without TIME_WAIT"},
		evidence:   []event.Fact{num("overflows", total)},
	}
	limit, known := n.number(kernel.SysctlMaxTWBuckets)
	of := "net.ipv4.tcp_max_tw_buckets (value unknown)"
	if known {
		of = "net.ipv4.tcp_max_tw_buckets=" + group(limit)
		j.evidence = append(j.evidence, num("tcp_max_tw_buckets", limit))
	}
	if grew == 0 {
		j.state, j.calm = good, 60*second
		j.summary = fmt.Sprintf("%s is not reached any more: no connection has ended without TIME_WAIT for a while, %s so far", of, group(total))
		e.book.settle(e, TWBucketOverflow, where, j)
		return
	}
	j.state, j.severity = bad, event.SeverityWarning
	pace := 0.0
	lately := ""
	if dt := float64(e.now-since) / 1e9; since != 0 && dt >= 0.5 {
		pace = float64(grew) / dt
		lately = ", " + about(pace) + " per second lately"
		j.evidence = append(j.evidence, rate("overflows_per_second", pace))
	}
	j.summary = fmt.Sprintf("%s is reached: %s without TIME_WAIT%s", of, several(total, "connection has ended", "connections have ended"), lately)
	j.remedies = overflowRemedies(limit, known, pace)
	j.sign = strconv.FormatUint(total, 10)
	e.book.settle(e, TWBucketOverflow, where, j)
}

// overflowRemedies are those of too few buckets.
func overflowRemedies(limit int, known bool, pace float64) []event.Remedy {
	raise := raiseBuckets.remedy("")
	free := "connections that leave no TIME_WAIT need no bucket"
	if known && limit > 0 {
		now := float64(limit) / timeWaitSeconds
		raise.Buys = fmt.Sprintf("now %s buckets / 60 s = %s conn/s", group(limit), atLeast(now))
		if pace > 0 {
			need := int64(float64(limit) + pace*timeWaitSeconds + 1)
			raise.Do = fmt.Sprintf("sysctl -w net.ipv4.tcp_max_tw_buckets=%d or more", need)
			raise.Buys = fmt.Sprintf("%s conn/s: (%s + %s * 60 s) / 60 s", atLeast(now+pace), group(limit), about(pace))
		}
	}
	return []event.Remedy{raise, keepAlive.remedy(free), serverCloses.remedy(free), lingerZero.remedy(free)}
}
