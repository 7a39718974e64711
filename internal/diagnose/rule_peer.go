// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/twscope/twscope/internal/event"
)

// throughShare is how many silent connect() calls, as one in so many of all,
// are more than packets that got lost.
const throughShare = 20

// peer is a destination that refuses SYNs of a network namespace, from
// whatever address.
type peer struct {
	stale, silent series // SYNs
	// calls are the connect() calls behind silent.
	calls uint64
	worst uint32 // ms that a connect() has waited so far
	party
	due int64 // as in refusals
}

// reach is when connections of a network namespace to such a destination were
// seen to have been made.
type reach struct {
	series
	completed uint64 // connections that ended with a FIN, by the budgets
	counted   bool   // completed is known
}

// peerKey is a destination whatever the local address.
func peerKey(s *event.Socket) key { return keyOf(s.NetNS, noAddr, s.Remote.Addr(), s.Remote.Port()) }

func (k key) target() netip.AddrPort { return netip.AddrPortFrom(k.raddr, k.rport) }

// synRefused takes a SYN of ours that a peer refused.
func (e *Engine) synRefused(r *event.SYNRefused) {
	k := peerKey(&r.Socket)
	if !k.raddr.IsValid() {
		return
	}
	p := e.syns.peers.get(k)
	if p == nil || e.syns.targets.get(k.target()) == nil {
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
	if len(e.syns.targets.order) > 0 && t.Role == event.RoleClient {
		e.syns.reach(peerKey(&t.Socket), t.Time, 1)
	}
}

// reach notes connections to a destination that refuses others.
func (s *syns) reach(k key, at int64, n uint64) {
	all := s.targets.by[k.target()]
	if all == nil {
		return
	}
	all.add(at, n)
	if r := s.reached.get(k); r != nil {
		r.add(at, n)
	}
}

// takeBudgets sees from the budgets that connections were made.
func (e *Engine) takeBudgets(ev *event.Destinations) {
	s := &e.syns
	if len(s.targets.order) == 0 {
		return
	}
	sums := table[key, uint64]{}
	for i := range ev.List {
		b := &ev.List[i]
		k := keyOf(b.NetNS, noAddr, b.Raddr, b.Rport)
		if s.targets.by[k.target()] == nil {
			continue
		}
		if sum := sums.get(k); sum != nil {
			*sum = plus(*sum, plus(b.ClosedHere, b.ClosedThere))
		}
	}
	for k, n := range sums.all() {
		r := s.reached.get(k)
		if r == nil {
			continue
		}
		if r.counted && *n > r.completed {
			s.reach(k, e.now, *n-r.completed)
		}
		r.completed, r.counted = *n, true
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
	others := e.others(k)
	stale, silent := p.stale.stage(e.now, open), p.silenceStage(e.now, open, &others)
	if stale != bad && silent != bad && !open {
		return judgement{}
	}
	n := plus(p.stale.count, p.silent.count)
	j := judgement{
		evidence: p.evidence(&others),
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
		base = others.confidence()
		j.summary = fmt.Sprintf("%s left %s of %s unanswered, while %s got through: it may refuse them silently "+
			"(tcp_tw_recycle, or a firewall that drops the ACK), or drop them for want of room",
			where, several(p.silent.count, "SYN", "SYNs"), several(p.calls, "connect()", "connect() calls"), others.name())
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
	if stale != bad && !others.here {
		j.severity = event.SeverityInfo
	}
	j.remedies = peerRemedies(ns, stale == bad)
	j.sign = strconv.FormatUint(n, 10)
	return j
}

// others is who gets through to a destination at present.
type others struct {
	here      bool // from the same network namespace
	elsewhere bool // from others of this host only
	own, all  uint64
}

func (e *Engine) others(k key) others {
	lately := func(s *series) bool { return s.frequent() && e.now-s.last < minute }
	var o others
	if r := e.syns.reached.by[k]; r != nil {
		o.own, o.here = r.count, lately(&r.series)
	}
	if all := e.syns.targets.by[k.target()]; all != nil {
		o.all, o.elsewhere = all.count, !o.here && lately(all)
	}
	return o
}

func (o *others) name() string {
	if o.here {
		return several(o.own, "connection from another port", "connections from other ports")
	}
	return several(o.all-min(o.own, o.all), "connection", "connections") + " from other network namespaces of this host"
}

// confidence is less where a path may be broken that others do not take.
func (o *others) confidence() float64 {
	if o.here {
		return 0.5
	}
	return 0.4
}

// silenceStage asks of silence that others get through at the same time: a
// peer that is dead, or behind a broken path, refuses nobody.
func (p *peer) silenceStage(now int64, open bool, o *others) state {
	s := p.silent.stage(now, open)
	if s != bad {
		return s
	}
	if o.elsewhere || o.here && p.calls*throughShare >= plus(p.calls, o.own) {
		return bad
	}
	return unclear
}

func (p *peer) evidence(o *others) []event.Fact {
	facts := []event.Fact{num("stale_acks", p.stale.count), num("unanswered", p.silent.count)}
	if p.silent.count > 0 {
		facts = append(facts, num("unanswered_calls", p.calls), num("got_through", o.own), num("got_through_elsewhere", o.all-min(o.own, o.all)))
	}
	facts = append(facts, num("longest_wait_ms", p.worst))
	first := p.stale.first
	if first == 0 || p.silent.first != 0 && p.silent.first < first {
		first = p.silent.first
	}
	return append(facts, txt("first", clock(first)), txt("last", clock(max(p.stale.last, p.silent.last))))
}
