// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"github.com/twscope/twscope/internal/clock"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/paws"
)

// tuple is what is known of a 4-tuple.
type tuple struct {
	firm line // the latest connection, whose handshake completed
	// alive is the latest time, in ns, at which the host of firm is known to
	// have run.
	alive int64
	old   line // the connection before, if its clock was another
	loose line // the latest SYN since, whose handshake may yet complete
	wait  bool // firm is in TIME_WAIT
}

// SYN takes a SYN that reached a listener: when it arrives, when its handshake
// completes, or both.
func (j *Judge) SYN(e *event.SYN) {
	k, ok := socketKeys(&e.Socket)
	if !ok {
		return
	}
	sys := j.system(e.Fingerprint, e.TTL)
	if e.Validated {
		j.completed(&k, e, sys)
		return
	}
	j.clocks.SYN(syn(&k, e.Time, tsval(e.Timestamps, e.TSval), sys.group, false))
	t := j.tuples.put(k, false, e.Time, e.Time+reuse)
	met := false
	if t != nil {
		met = t.wait
		t.wait = false
		t.arrive(e, sys)
	}
	if s := j.sources.get(k.sourceKey, e.Time); s != nil {
		j.count(&k, s, e, sys, met)
	}
}

// arrive notes a SYN whose handshake has not completed.
func (t *tuple) arrive(e *event.SYN, s system) {
	l := &t.loose
	if !l.known || !l.again(e.Timestamps, e.TSval, e.Time) {
		*l = line{known: true, ts: e.Timestamps, v: e.TSval, syn: e.TSval, first: e.Time}
	}
	l.at, l.v, l.stack, l.group, l.arrived = e.Time, e.TSval, s.stack, s.group, true
}

// again tells whether a TSval may be of the connection whose SYN l is: a
// retransmission, or the end of the handshake.
func (l *line) again(timestamps bool, v uint32, at int64) bool {
	return l.known && l.ts == timestamps && at-l.first < reuse && (!timestamps || l.same(v, at))
}

// count counts a SYN for the first time.
func (j *Judge) count(k *tupleKey, s *source, e *event.SYN, sys system, met bool) {
	s.syns++
	s.saw(sys.text)
	if !met {
		j.ask(&k.sourceKey, s, paws.SYN{Timestamps: e.Timestamps, TSval: e.TSval}, e.Time)
	}
}

// completed takes a SYN whose handshake has completed.
func (j *Judge) completed(k *tupleKey, e *event.SYN, sys system) {
	j.proofs = true
	fresh := j.sources.get(k.sourceKey, e.Time) == nil
	s := j.proof(&k.sourceKey, e.Time)
	t := j.tuples.put(*k, true, e.Time, e.Time+reuse)
	if t == nil || s == nil {
		return
	}
	l := line{known: true, ts: e.Timestamps, v: e.TSval, syn: e.TSval, at: e.Time, first: e.Time, stack: sys.stack, group: sys.group}
	if t.loose.again(e.Timestamps, e.TSval, e.Time) {
		l.take(&t.loose)
	}
	if !l.arrived || fresh {
		j.count(k, s, e, sys, t.wait)
	}
	j.proven(k, &l)
	j.establish(s, t, l, max(l.at, e.Time-2*jitter))
}

// take adds what is known of the connection's SYN.
func (l *line) take(was *line) {
	l.syn, l.first, l.counted = was.syn, was.first, was.counted
	if was.arrived {
		l.at, l.v, l.group, l.arrived = was.at, was.v, was.group, true
	}
	if l.stack == stackUnseen {
		l.stack = was.stack
	}
}

// proven tells the clocks of a connection, which they know if its SYN arrived.
func (j *Judge) proven(k *tupleKey, l *line) {
	s := syn(k, l.at, tsval(l.ts, l.v), l.group, true)
	if l.arrived {
		j.clocks.Completed(s)
	} else {
		j.clocks.SYN(s)
	}
}

// establish makes l the connection of its 4-tuple. Its host is known to have
// run at the time alive.
func (j *Judge) establish(s *source, t *tuple, l line, alive int64) {
	s.completed++
	s.proven = true
	s.tally.active(alive, j.outage)
	if t.firm.known && t.firm.ts && l.ts {
		switch t.firm.relate(l.v, l.at) {
		case onLine:
			s.tally.alive(span{t.alive, l.at})
			s.repeated++
		case inCone:
			s.repeated++
		case other:
			if !l.counted {
				s.change(t, &l, l.first, true)
			} else if known(t.firm.stack) && known(l.stack) {
				s.tally.confirm(span{t.alive, l.first})
			}
			t.old = t.firm
		}
	}
	t.firm, t.alive, t.loose, t.wait = l, alive, line{}, false
}

// change counts that a 4-tuple has another clock, that of l, since a time at
// most. proven tells whether its handshake completed.
func (s *source) change(t *tuple, l *line, since int64, proven bool) {
	s.rewritten++
	if t.old.known && t.old.ts && t.old.relate(l.v, l.at) == onLine {
		// A SYN that was sent before the other clock ran is behind its line.
		if since-t.alive <= nearBelow*int64(1e6)+2*jitter {
			return
		}
		s.tally.back(since)
	}
	if !known(t.firm.stack) || !known(l.stack) {
		s.drawn++
		return
	}
	s.tally.change(span{t.alive, since}, proven)
}

// known tells whether another clock on a 4-tuple speaks for a NAT or a restart.
func known(s stack) bool { return s == stackKeyed || s == stackUnseen }

// TimeWait takes a socket that entered TIME_WAIT. It proves a connection, whose
// SYN may not have been seen.
func (j *Judge) TimeWait(e *event.TimeWait) {
	if e.Role != event.RoleServer {
		return
	}
	k, ok := socketKeys(&e.Socket)
	if !ok {
		return
	}
	if e.Timestamps {
		j.remember(&k.sourceKey, e.TSRecent, e.Time)
	}
	j.closed(&k, e.Timestamps, e.TSRecent, e.Time, e.Time-2*jitter, e.Substate == event.SubstateTimeWait)
}

// Census takes a socket that was in TIME_WAIT before, whose age follows from
// its timer.
func (j *Judge) Census(e *event.Census) {
	const timeout = 60_000 // ms: TCP_TIMEWAIT_LEN
	if e.Role == event.RoleClient || e.RemainingMS > timeout || e.Substate != event.SubstateTimeWait {
		return
	}
	if k, ok := socketKeys(&e.Socket); ok {
		at := e.Time - int64(timeout-e.RemainingMS)*1e6
		// A refused SYN may have begun the timer anew.
		j.closed(&k, e.Timestamps, e.TSRecent, at, at-timeout*1e6, false)
	}
}

// closed takes the last TSval of a connection, whose host is known to have run
// at the time alive. exact tells whether it came at its time, and not before.
func (j *Judge) closed(k *tupleKey, timestamps bool, recent uint32, at, alive int64, exact bool) {
	j.proofs = true
	s := j.proof(&k.sourceKey, at)
	t := j.tuples.put(*k, true, at, at+reuse)
	if s == nil || t == nil {
		return
	}
	f := &t.firm
	switch {
	case f.known && f.ts == timestamps && (!timestamps || f.relate(recent, at) != other):
		if timestamps && exact && f.same(recent, at) {
			f.v, f.at, t.alive = recent, at, max(t.alive, alive)
		}
	default:
		l := line{known: true, ts: timestamps, v: recent, at: at, first: at}
		if t.loose.again(timestamps, recent, at) {
			l.take(&t.loose)
			alive = max(alive, t.loose.at)
		}
		j.proven(k, &l)
		j.establish(s, t, l, alive)
		if exact {
			t.firm.v, t.firm.at = recent, at
		}
	}
	t.wait = true
}

func tsval(timestamps bool, v uint32) uint32 {
	if !timestamps {
		return 0
	}
	return v
}

func syn(k *tupleKey, at int64, v uint32, g clock.Group, validated bool) *clock.SYN {
	return &clock.SYN{
		Key: k.clock(), Time: at, TSval: v, SPort: k.sport, DPort: k.dport, Group: g, Validated: validated,
	}
}
