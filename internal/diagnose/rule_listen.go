// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strconv"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// manyDrops is from how many on drops of a listener are critical.
const manyDrops = 10

// listener is what is known of a listener whose queues were full. Its numbers
// are of the present trouble.
type listener struct {
	drops                        series // SYNs and final ACKs
	times                        series // of the events
	overflows, synQueue, cookies uint64 // of the namespace
	backlog, limit               uint32
	party
}

// listenDrop takes what a listener dropped. The event is an account of some
// time, so its finding opens with it.
func (e *Engine) listenDrop(d *event.ListenDrop) {
	if d.Dropped == 0 && d.Overflows == 0 && d.SYNQueue == 0 && d.Cookies == 0 {
		return
	}
	k := lane{pairOf(d.NetNS, d.Local.Addr(), noAddr), d.Local.Port()}
	l := e.syns.listeners.get(k)
	if l == nil {
		return
	}
	if d.Time-l.times.last >= minute && e.book.open(ListenOverflow, subjectKey{lane: k}) == nil {
		*l = listener{}
	}
	l.times.add(d.Time, 1)
	if d.Dropped > 0 {
		l.drops.add(d.Time, d.Dropped)
	}
	l.overflows, l.synQueue, l.cookies = plus(l.overflows, d.Overflows), plus(l.synQueue, d.SYNQueue), plus(l.cookies, d.Cookies)
	if d.Limit != 0 {
		l.backlog, l.limit = d.Backlog, d.Limit
	}
	l.meet(&d.Owner)
	if e.book.open(ListenOverflow, subjectKey{lane: k}) == nil {
		e.judgeListener(k, l)
	}
}

func (e *Engine) judgeListener(k lane, l *listener) {
	where := k.subject()
	where.PID, where.Comm = l.pid, l.comm
	e.book.settle(e, ListenOverflow, where, e.listenOverflow(k, l))
}

func (e *Engine) listenOverflow(k lane, l *listener) judgement {
	quiet := e.now-l.times.last >= minute
	if quiet && e.book.open(ListenOverflow, subjectKey{lane: k}) == nil {
		return judgement{}
	}
	ns := e.world.namespace(k.netns)
	j := judgement{
		now:      snapshot{at: e.now, synSettings: ns.synSettings(), held: l.drops.count, what: "dropped"},
		evidence: l.evidence(ns),
	}
	var doubts []event.Fact
	j.confidence, doubts = e.doubt(0.97, l.times.count, event.KindListenDrop)
	j.evidence = append(j.evidence, doubts...)
	place := k.listener()
	if !k.laddr.IsValid() {
		place = fmt.Sprintf("a listener of network namespace %d", k.netns)
	}
	if quiet {
		j.state, j.since, j.calm = good, l.times.last, minute
		j.summary = fmt.Sprintf("%s has dropped nothing since %s; %s", place, clock(l.times.last), l.lost())
		return j
	}
	j.state, j.severity = bad, event.SeverityWarning
	if l.drops.count >= manyDrops {
		j.severity = event.SeverityCritical
	}
	j.summary = fmt.Sprintf("%s (%s): the %s; %s; no NAT has a part in it", place, owner(l.pid, l.comm), l.queue(), l.lost())
	j.remedies = l.remedies(ns)
	j.sign = strconv.FormatUint(l.drops.count, 10)
	j.measures = [3]measure{roughly(float64(l.cookies))}
	return j
}

// queue says which queue is full.
func (l *listener) queue() string {
	switch accept := l.acceptFull(); {
	case accept && l.synQueue > 0:
		return "accept queue and the SYN queue are full" + l.waiting()
	case accept:
		return "accept queue is full" + l.waiting()
	}
	return "SYN queue is full"
}

func (l *listener) acceptFull() bool { return l.limit != 0 && l.backlog >= l.limit || l.overflows > 0 }

func (l *listener) waiting() string {
	if l.limit == 0 || l.backlog < l.limit {
		return ""
	}
	return fmt.Sprintf(", %s for accept(), the limit is %s", several(l.backlog, "connection waits", "connections wait"), group(l.limit))
}

// lost says what became of connections.
func (l *listener) lost() string {
	switch {
	case l.drops.count > 0:
		return several(l.drops.count, "SYN or final ACK of a handshake was dropped", "SYNs and final ACKs of handshakes were dropped")
	case l.cookies > 0:
		return several(l.cookies, "SYN was answered with a SYN cookie", "SYNs were answered with SYN cookies") + ", none is known to be dropped"
	}
	return "how many SYNs it dropped is not known"
}

func (l *listener) evidence(ns *namespace) []event.Fact {
	facts := []event.Fact{
		num("dropped", l.drops.count), num("namespace_listen_overflows", l.overflows),
		num("namespace_syn_queue_drops", l.synQueue), num("namespace_syn_cookies", l.cookies),
	}
	if l.limit != 0 {
		facts = append(facts, num("backlog", l.backlog), num("limit", l.limit))
	}
	for _, s := range []struct{ name, sysctl string }{
		{"somaxconn", kernel.SysctlSomaxconn}, {"tcp_max_syn_backlog", kernel.SysctlMaxSYNBacklog}, {"tcp_syncookies", kernel.SysctlSYNCookies},
	} {
		if v, known := ns.number(s.sysctl); known {
			facts = append(facts, num(s.name, v))
		}
	}
	return append(facts, txt("first", clock(l.times.first)), txt("last", clock(l.times.last)))
}
