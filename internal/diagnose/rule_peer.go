// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strconv"

	"github.com/twscope/twscope/internal/event"
)

// throughShare is how many silent connect() calls, as one in so many of all,
// are more than packets that got lost.
const throughShare = 20

// peer is a destination that refuses SYNs of ours, from whatever address.
type peer struct {
	stale, silent series // SYNs
	// calls are the connect() calls behind silent.
	calls uint64
	worst uint32 // ms that a connect() has waited so far
	// through is when connections to it, from other ports, were seen to have
	// been made.
	through   series
	completed uint64 // connections that ended with a FIN, by the budgets
	counted   bool   // completed is known
	party
	due int64 // as in refusals
}

// peerKey is a destination whatever the local address.
func peerKey(s *event.Socket) key { return keyOf(s.NetNS, noAddr, s.Remote.Addr(), s.Remote.Port()) }

// synRefused takes a SYN of ours that a peer refused.
func (e *Engine) synRefused(r *event.SYNRefused) {
	k := peerKey(&r.Socket)
	if !k.raddr.IsValid() {
		return
	}
	p := e.syns.peers.get(k)
	if p == nil {
		return
	}
	s := &p.silent
	if r.Signature == event.SignatureChallengeACK {
		s = &p.stale
	} else if r.Attempts <= 1 || p.calls == 0 {
		p.calls++
	}
	s.add(r.Time, 1)
	p.worst = max(p.worst, r.DelayMS)
	p.meet(&r.Owner)
	if s.frequent() && e.book.open(PeerRefusesSYN, subjectKey{destination: k}) == nil {
		e.syns.remind(&p.due, r.Time)
	}
}

// gotThrough takes the end of a connection that this host had made.
func (e *Engine) gotThrough(t *event.TimeWait) {
	if len(e.syns.peers.order) == 0 || t.Role != event.RoleClient {
		return
	}
	if p := e.syns.peers.by[peerKey(&t.Socket)]; p != nil {
		p.through.add(t.Time, 1)
	}
}

// takeBudgets sees from the budgets that connections were made.
func (e *Engine) takeBudgets(ev *event.Destinations) {
	if len(e.syns.peers.order) == 0 {
		return
	}
	sums := map[key]uint64{}
	for i := range ev.List {
		b := &ev.List[i]
		k := keyOf(b.NetNS, noAddr, b.Raddr, b.Rport)
		if _, refuses := e.syns.peers.by[k]; refuses {
			sums[k] = plus(sums[k], plus(b.ClosedHere, b.ClosedThere))
		}
	}
	for k, n := range sums {
		p := e.syns.peers.by[k]
		if p.counted && n > p.completed {
			p.through.add(e.now, n-p.completed)
		}
		p.completed, p.counted = n, true
	}
}

// judgePeer settles whether a destination refuses our SYNs.
func (e *Engine) judgePeer(k key, p *peer) {
	about := subject{key: subjectKey{destination: k}}
	about.NetNS, about.Raddr, about.Rport, about.PID, about.Comm = k.netns, k.raddr, k.rport, p.pid, p.comm
	e.book.settle(e, PeerRefusesSYN, about, e.peerRefuses(k, p))
}

func (e *Engine) peerRefuses(k key, p *peer) judgement {
	open := e.book.open(PeerRefusesSYN, subjectKey{destination: k}) != nil
	ns := e.world.namespace(k.netns)
	stale, silent := p.stale.stage(e.now, open), p.silenceStage(e.now, open)
	if stale != bad && silent != bad && !open {
		return judgement{}
	}
	n := plus(p.stale.count, p.silent.count)
	j := judgement{
		evidence: p.evidence(),
		now:      snapshot{at: e.now, synSettings: ns.synSettings(), held: n, what: "SYNs refused"},
	}
	base, where := 0.85, endpoint(k.raddr, k.rport)
	switch {
	case stale == bad:
		j.summary = fmt.Sprintf("%s answered %s with a stale ACK: it still holds the old connection (TIME_WAIT or half-open); that does not prove PAWS",
			where, several(p.stale.count, "SYN", "SYNs"))
		if p.silent.count > 0 {
			j.summary += fmt.Sprintf("; %s got no answer", several(p.silent.count, "SYN", "SYNs"))
		}
	case silent == bad:
		base = 0.5
		j.summary = fmt.Sprintf("%s left %s of %s unanswered, while %s from other ports got through: it may refuse them silently "+
			"(tcp_tw_recycle, or a firewall that drops the ACK), or drop them for want of room",
			where, several(p.silent.count, "SYN", "SYNs"), several(p.calls, "connect()", "connect() calls"), several(p.through.count, "connection", "connections"))
	case (stale == good || p.stale.count == 0) && (silent == good || p.silent.count == 0):
		last := max(p.stale.last, p.silent.last)
		j.state, j.since, j.calm = good, last, minute
		j.summary = fmt.Sprintf("%s has refused no SYN since %s; %s", where, clock(last), several(n, "SYN was", "SYNs were"))
	default:
		return judgement{}
	}
	var doubts []event.Fact
	j.confidence, doubts = e.doubt(base, n, event.KindSYNRefused)
	j.evidence = append(j.evidence, doubts...)
	if j.state == good {
		return j
	}
	j.state, j.severity = bad, event.SeverityWarning
	j.remedies = peerRemedies(ns, stale == bad)
	j.sign = strconv.FormatUint(n, 10)
	return j
}

// silenceStage asks of silence that others get through at the same time: a
// peer that is dead, or behind a broken path, refuses nobody.
func (p *peer) silenceStage(now int64, open bool) state {
	s := p.silent.stage(now, open)
	if s != bad {
		return s
	}
	passes := p.through.frequent() && now-p.through.last < minute
	if !passes || p.calls*throughShare < plus(p.calls, p.through.count) {
		return unclear
	}
	return bad
}

func (p *peer) evidence() []event.Fact {
	facts := []event.Fact{num("stale_acks", p.stale.count), num("unanswered", p.silent.count)}
	if p.silent.count > 0 {
		facts = append(facts, num("unanswered_calls", p.calls), num("got_through", p.through.count))
	}
	facts = append(facts, num("longest_wait_ms", p.worst))
	first := p.stale.first
	if first == 0 || p.silent.first != 0 && p.silent.first < first {
		first = p.silent.first
	}
	return append(facts, txt("first", clock(first)), txt("last", clock(max(p.stale.last, p.silent.last))))
}
