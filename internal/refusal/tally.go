// SPDX-License-Identifier: Apache-2.0

package refusal

import "math"

const (
	second = int64(1e9)
	// apart is the least time between two restarts of a host.
	apart = 50 * second
	// reuse is how long a 4-tuple is remembered for: as long as TIME_WAIT
	// lasts (TCP_TIMEWAIT_LEN), once more after a refused SYN began it anew.
	reuse = 130 * second
	// memory is how long facts about a source hold.
	memory = 3600 * second
	// restarts is how many a host may have in that time.
	restarts = 4
	// minLoose is how many facts are enough of which any one may be by a SYN
	// that is late.
	minLoose = 2
	// minTight is how many changes must share a time too short for a restart.
	minTight = 2
	// jitter is how far the times of two events may be wrong against each
	// other: the final ACK of a handshake may be overtaken, hooks differ.
	jitter = int64(20e6)
)

// span is a piece of time, in ns.
type span struct{ from, to int64 }

// tally is what the 4-tuples of one source tell about restarts.
type tally struct {
	// spans are intervals of recent changes, none of which contains another
	// that began later, so from and to both ascend.
	spans [8]span
	used  uint8
	// common is what the changes of the latest group share. A group begins
	// with a change that has no instant in common with the one before.
	common span
	first  span                // the first change of the latest group, which ended first
	groups [restarts + 1]int64 // ns: ends of the latest groups, the latest first
	// changes are counted since the latest fact was too old, at least.
	changes uint32
	shared  uint32 // those of the latest group
	facts   uint32 // that a restart would have to explain
	loose   uint32 // the same, by SYNs whose handshake was not completed
	returns uint32 // of clocks that had been replaced
	kept    uint32 // 4-tuples that kept their clock, after all changes of the latest group
	latest  int64  // ns: the latest change or fact

	// When handshakes completed: from begin to last, but for the pauses.
	begin, last int64
	pause       [8]span
	pauses      uint8
}

// age drops what is too old.
func (t *tally) age(now int64) {
	if now-t.latest > memory {
		*t = tally{begin: t.begin, last: t.last, pause: t.pause, pauses: t.pauses}
	}
}

// change takes the interval in which a restart would have to lie, if a restart
// is why a 4-tuple has another clock. proven tells whether the new clock's
// handshake completed: if not, its SYN may be one from before the restart.
func (t *tally) change(s span, proven bool) {
	t.age(s.to)
	s.from = min(s.from, s.to)
	t.changes++
	t.latest = max(t.latest, s.to)
	fact := t.refutes(s)
	switch {
	case proven:
		fact = t.group(s) || fact
		t.remember(s)
		if fact {
			t.facts++
		}
	case fact:
		t.loose++
	case t.groups[0] == 0 || !disjoint(t.common, s):
		t.group(s)
	}
}

// confirm says that the handshake of a change that was not proven completed.
func (t *tally) confirm(s span) {
	s.from = min(s.from, s.to)
	if t.groups[0] == 0 || disjoint(t.common, s) {
		t.group(s)
	}
	t.remember(s)
}

// refutes tells whether a change and one before need two restarts.
func (t *tally) refutes(s span) bool {
	for _, o := range t.spans[:t.used] {
		if disjoint(o, s) && s.to-o.from < apart {
			return true
		}
	}
	return false
}

// disjoint tells whether two intervals, the second of which ends later, have no
// instant in common.
func disjoint(a, b span) bool { return a.to+jitter <= b.from }

// group counts the change among those that share an instant, and tells whether
// it needs a restart too many: sooner after that of the group before than is
// possible, or one more than there are within memory.
func (t *tally) group(s span) bool {
	if t.groups[0] != 0 && !disjoint(t.common, s) {
		t.shared++
		t.common = span{max(t.common.from, s.from), min(t.common.to, s.to)}
		return false
	}
	soon := t.groups[0] != 0 && disjoint(t.first, s) && s.to-t.first.from < apart
	copy(t.groups[1:], t.groups[:restarts])
	t.groups[0], t.common, t.first, t.shared, t.kept = s.to, s, s, 1, 0
	return soon || t.groups[restarts] != 0 && s.to-t.groups[restarts] < memory
}

// remember keeps an interval for what comes.
func (t *tally) remember(s span) {
	n := 0
	for _, o := range t.spans[:t.used] {
		if s.to-o.from < reuse && (o.from > s.from || o.to < s.to) {
			t.spans[n] = o
			n++
		}
	}
	t.used = uint8(n)
	if n > 0 && t.spans[n-1].from >= s.from {
		return // whatever s shows, that shows too
	}
	if n == len(t.spans) {
		copy(t.spans[:], t.spans[1:])
		t.used--
	}
	t.spans[t.used] = s
	t.used++
}

// alive says that one host was not restarted within s: a 4-tuple had the same
// clock at both ends.
func (t *tally) alive(s span) {
	t.age(s.to)
	for _, o := range t.spans[:t.used] {
		if o.from >= s.from+jitter && o.to+jitter <= s.to {
			t.fact(s.to)
			return
		}
	}
	if t.changes > 0 && s.from >= t.common.to {
		t.kept++
	}
}

// fact says that a change was no restart.
func (t *tally) fact(now int64) {
	t.age(now)
	t.facts++
	t.latest = max(t.latest, now)
}

// back says that a clock is back on a 4-tuple that another had meanwhile.
func (t *tally) back(now int64) {
	t.age(now)
	t.returns++
	t.latest = max(t.latest, now)
}

// refuted tells whether restarts do not explain the changes.
func (t *tally) refuted() bool {
	return t.changes >= 2 && (t.facts+t.returns > 0 || t.loose >= minLoose)
}

// active says that a host of the source ran at a time: a handshake completed
// whose SYN came then. A time without such that is as long as outage is a
// pause.
func (t *tally) active(at, outage int64) {
	switch {
	case t.last == 0 || at-t.last > reuse:
		t.begin, t.pauses = at, 0
	case at-t.last >= outage:
		if int(t.pauses) == len(t.pause) {
			t.begin = t.pause[0].to
			copy(t.pause[:], t.pause[1:])
			t.pauses--
		}
		t.pause[t.pauses] = span{t.last, at}
		t.pauses++
	}
	t.last = max(t.last, at)
}

// tight tells whether the changes of the latest group leave no time for a
// restart: none in which nobody was active for as long as it takes.
func (t *tally) tight(outage int64) bool {
	if t.shared < minTight || outage < 0 {
		return false
	}
	c := t.common
	if min(c.to, t.begin)-c.from >= outage || c.to-max(c.from, t.last) >= outage {
		return false
	}
	for _, p := range t.pause[:t.pauses] {
		if min(c.to, p.to)-max(c.from, p.from) >= outage {
			return false
		}
	}
	return true
}

// Odds, log10; see the package comment.
const (
	oddsMax       = 12.0
	oddsUnseen    = 2.0
	oddsRestart   = 4.0
	oddsDrawn     = 2.0
	oddsTight     = 1.0
	oddsDuplicate = 9.63
	oddsSequence  = 4.52
)

var (
	oddsFact   = math.Log10(float64(memory) / float64(apart))
	oddsReturn = math.Log10(1 << 32 / float64(nearBelow+nearAbove))
	oddsLate   = math.Log10(1 << 32 / float64(lateBelow))
)

// odds is log10 of the odds for a NAT against restarts.
func (t *tally) odds(s stack) float64 {
	o := float64(t.facts+t.loose)*oddsFact + float64(t.returns)*oddsReturn
	if s != stackKeyed && t.returns == 0 {
		o = min(o, oddsUnseen)
	}
	return min(o, oddsMax)
}
