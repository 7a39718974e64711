// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"math"

	"github.com/twscope/twscope/internal/clock"
	"github.com/twscope/twscope/internal/event"
)

// Why a verdict was given.
const (
	becauseReturn     = "the clock came back to its 4-tuple after another had been there, which no restart does"
	becauseFacts      = "this source's 4-tuples changed clocks at times that no restart explains"
	becauseUnseen     = "this source's 4-tuples changed clocks at times that no restart explains; the system is not known, and one that draws a clock for each connection would do so too"
	becauseTight      = "several 4-tuples of this source changed clocks, and left no time for the restart that would explain it"
	becauseMulti      = "the SYN and the old connection are of two clocks that both go on"
	becauseRestart    = "the old clock was not seen again since the new one began, which other connections share"
	becauseKept       = "one restart explains all changes of clocks, and 4-tuples keep their clock since"
	becauseLate       = "the TSval is of the old connection's clock, a few seconds behind"
	becauseJustLate   = "the TSval is of the old connection's clock, less than a second behind"
	becauseDuplicate  = "a SYN with this TSval was seen on this 4-tuple before"
	becauseBefore     = "the TSval is of the clock that this 4-tuple had before the old connection, and late"
	becauseOldSeq     = "without timestamps; the sequence number is just behind what the old connection had reached"
	becauseDrawn      = "this kind of system draws a clock for each connection, with or without a NAT"
	becauseStranger   = "this kind of system is not known to keep a 4-tuple's clock, so that a change shows no NAT"
	becauseRandom     = "this source's clocks differ from connection to connection, which one host's may do"
	becauseSequence   = "the SYN or the old connection has no timestamps, and the sequence number is not beyond the old one's: so it goes where a NAT, or a client without timestamps, uses a port again within 60 s"
	becauseEqual      = "neither TSval nor sequence number is beyond the old connection's"
	becauseFinWait2   = "the old connection is in FIN_WAIT2, where no SYN is accepted: the peer has not closed it"
	becauseNoListener = "the SYN was acceptable, but nobody listens on the port any more"
	becauseRule       = "the rule that refused it is not known"
	becauseSpoof      = "no handshake of this source was ever completed, and it floods"
	becauseFlood      = "most SYNs of this source complete no handshake, so that they may be forged"
	becauseNoRecent   = "the timestamp of the old connection is not known"
	becauseNear       = "the clocks are too far apart for a late packet, and too near for two hosts"
	becauseAhead      = "the TSval is not behind that of the old connection"
	becauseOne        = "another clock on this 4-tuple; one restart of the client would explain it too"
	becausePassive    = "the address showed a newer clock; whether one host or several is not known"
	becauseRoom       = "there was no room to keep this source"
)

const (
	// together is for how long two clocks must both be seen, in ns, to be two:
	// longer than a SYN may be late.
	together = 3 * second
	// flood is how many SYNs without handshake make one.
	flood = 100
	// duplicateBytes is how far behind rcv_nxt the SYN of a connection is that
	// received a short request.
	duplicateBytes = 1 << 16
)

// refused is one SYN that was refused.
type refused struct {
	key   tupleKey
	at    int64
	v     uint32
	ts    bool
	old   uint32 // ts_recent; 0: not known
	since int64  // ns: when old came, at the latest
	sys   system
}

// PAWS fills in the judgement of a SYN that PAWS refused on a socket in
// TIME_WAIT, or for its address. It leaves other segments and places alone, and
// events without a socket.
func (j *Judge) PAWS(e *event.PAWSReject) {
	if e.Segment != event.SegmentSYN ||
		e.Where != event.WhereTimeWait && e.Where != event.WhereFinWait2 && e.Where != event.WherePassive {
		return
	}
	k, ok := socketKeys(&e.Socket)
	if !ok {
		return
	}
	r := refused{key: k, at: e.Time, v: e.TSval, ts: true, old: e.TSRecent, sys: j.system(e.Fingerprint, e.TTL)}
	s, t := j.refuse(&r)
	if s == nil {
		e.Judgement = event.Judgement{Verdict: event.VerdictUnknown, Because: becauseRoom}
		return
	}
	s.refused++
	e.Judgement = event.Judgement{}
	r.age(t, e.AgeMS, e.HasAge)
	if r.old != 0 && r.since != 0 {
		e.HasOffset = true
		e.OffsetS = float64(offset(r.old, r.v, r.at-r.since)) / 1000
	}
	var v event.Judgement
	if e.Where == event.WherePassive {
		v = j.passive(s, &r)
	} else {
		v = j.paws(s, t, &r, e)
	}
	e.Verdict, e.Odds, e.Because = v.Verdict, v.Odds, v.Because
	s.verdicts[e.Verdict]++
}

// refuse takes a refused SYN as one of its source.
func (j *Judge) refuse(r *refused) (*source, *tuple) {
	s := j.proof(&r.key.sourceKey, r.at)
	t := j.tuples.put(r.key, true, r.at, r.at+reuse)
	if s == nil || t == nil {
		return nil, nil
	}
	s.syns++
	s.saw(r.sys.text)
	return s, t
}

// age finds out when ts_recent was taken. Whole seconds are those of
// tw_ts_recent_stamp, up to one too few.
func (r *refused) age(t *tuple, ms uint32, known bool) {
	switch {
	case t.firm.known && t.firm.ts && t.firm.v == r.old:
		r.since = t.firm.at
	case known:
		r.since = r.at - int64(ms)*1e6
	}
}

// passive judges a SYN that a kernel with tcp_tw_recycle refused for what the
// address, not the 4-tuple, showed before.
func (j *Judge) passive(s *source, r *refused) event.Judgement {
	if r.old != 0 && r.since != 0 && (&line{v: r.old, at: r.since}).relate(r.v, r.at) == late {
		return judged(event.VerdictOldDuplicate, oddsLate, becauseLate)
	}
	if v, ok := j.chains(s, r, false); ok {
		return v
	}
	if about, ok := j.clocks.Find(r.key.clock(), r.at); ok && about.Class == clock.Randomised {
		return judged(event.VerdictClientRandomised, 1, becauseRandom)
	}
	return unknown(becausePassive)
}

func judged(v event.Verdict, odds float64, because string) event.Judgement {
	return event.Judgement{Verdict: v, Odds: min(odds, oddsMax), Because: because}
}

func unknown(because string) event.Judgement { return judged(event.VerdictUnknown, 0, because) }

// paws judges a SYN that PAWS refused on the socket of its 4-tuple.
func (j *Judge) paws(s *source, t *tuple, r *refused, e *event.PAWSReject) event.Judgement {
	if r.old == 0 {
		return unknown(becauseNoRecent)
	}
	j.firm(t, r, e)
	if v, ok := t.duplicate(r); ok {
		return v
	}
	switch t.firm.relate(r.v, r.at) {
	case late:
		return judged(event.VerdictOldDuplicate, oddsLate, becauseLate)
	case unclear:
		return unknown(becauseNear)
	case onLine:
		if int32(r.v-r.old) < 0 {
			return judged(event.VerdictOldDuplicate, oddsLate, becauseJustLate)
		}
		return unknown(becauseAhead)
	case inCone:
		return unknown(becauseAhead)
	case other:
	}
	flooded := j.proofs && s.floods()
	fresh := s.refuse(t, r, flooded, !j.proofs)
	switch {
	case flooded && !s.proven:
		return judged(event.VerdictSpoofSuspect, math.Log10(float64(s.unproven())), becauseSpoof)
	case flooded:
		return unknown(becauseFlood)
	case r.sys.stack == stackDrawn:
		return judged(event.VerdictClientRandomised, oddsDrawn, becauseDrawn)
	case r.sys.stack == stackStranger && s.tally.returns == 0:
		return unknown(becauseStranger)
	}
	return j.changed(s, r, fresh)
}

// firm corrects what is known of the connection in TIME_WAIT by the socket.
func (j *Judge) firm(t *tuple, r *refused, e *event.PAWSReject) {
	since := r.since
	if since == 0 {
		since = r.at - reuse
	}
	if t.firm.known && t.firm.ts && t.firm.relate(r.old, since) != other {
		return
	}
	slack := second
	if e.HasAge && e.AgeMS%1000 != 0 {
		slack = 2 * jitter // tw_entry_stamp (6.10), in ms
	}
	t.firm = line{known: true, ts: true, v: r.old, at: since, first: since}
	t.old, t.alive = line{}, since-slack
}

// duplicate judges a SYN that was sent before the connection in TIME_WAIT, if
// that shows: one that was seen, or of the clock that the 4-tuple had before.
func (t *tuple) duplicate(r *refused) (event.Judgement, bool) {
	for _, l := range [...]*line{&t.firm, &t.old} {
		if l.known && l.ts && l.syn == r.v && r.v != 0 {
			return judged(event.VerdictOldDuplicate, oddsDuplicate, becauseDuplicate), true
		}
	}
	// It may have been sent after the last SYN of that clock that was seen.
	if d := offset(t.old.v, r.v, r.at-t.old.at); t.old.known && t.old.ts && d < -nearBelow && d >= -lateBelow {
		return judged(event.VerdictOldDuplicate, oddsLate, becauseBefore), true
	}
	return event.Judgement{}, false
}

// refuse notes the clock of a refused SYN and counts the change, unless the SYN
// was refused before, of which it tells. In a flood a change counts only once a
// handshake completes, and it is proven at once where none is ever seen to.
func (s *source) refuse(t *tuple, r *refused, flooded, proven bool) (fresh bool) {
	t.wait = false // the peer's RST ends it, if none is lost
	if t.loose.again(true, r.v, r.at) {
		t.loose.at, t.loose.v = r.at, r.v
		return false
	}
	t.loose = line{
		known: true, ts: true, v: r.v, syn: r.v, at: r.at, first: r.at, stack: r.sys.stack, counted: !flooded,
	}
	if !flooded {
		s.change(t, &t.loose, r.at, proven)
	}
	return true
}

// unproven is how many SYNs of a source completed no handshake, since it is
// kept, refused ones aside.
func (s *source) unproven() uint64 {
	return s.syns - min(s.syns, s.refused+s.rejected+s.completed)
}

// floods tells whether most SYNs of a source may be forged.
func (s *source) floods() bool { return s.unproven() >= flood && s.unproven() > 4*s.completed }

// changed judges a SYN with another clock than the connection in TIME_WAIT.
func (j *Judge) changed(s *source, r *refused, fresh bool) event.Judgement {
	s.tally.age(r.at)
	v, ok := j.chains(s, r, fresh)
	switch {
	case ok && v.Verdict == event.VerdictNATMultiClock:
		return v
	case s.tally.refuted():
		return judged(event.VerdictNATPortRewrite, s.tally.odds(r.sys.stack), s.tally.because(r.sys.stack))
	case s.tally.kept == 0 && s.tally.tight(j.outage):
		return judged(event.VerdictNATPortRewrite, oddsTight, becauseTight)
	case s.tally.facts+s.tally.returns > 0:
		return unknown(becauseOne)
	case ok:
		return v
	case s.tally.kept >= 2:
		return judged(event.VerdictRestart, min(float64(s.tally.kept), oddsRestart), becauseKept)
	}
	return unknown(becauseOne)
}

func (t *tally) because(s stack) string {
	switch {
	case t.returns > 0:
		return becauseReturn
	case s != stackKeyed:
		return becauseUnseen
	}
	return becauseFacts
}

// chains judges by the clocks of the source, where both the SYN and ts_recent
// are of one. Where only the SYN is, and was seen before ts_recent, that is a
// fact, if it is the SYN's first refusal.
func (j *Judge) chains(s *source, r *refused, fresh bool) (event.Judgement, bool) {
	if r.old == 0 || r.since == 0 {
		return event.Judgement{}, false
	}
	k := r.key.clock()
	a, fit, ok := j.clocks.Locate(k, r.at, r.v)
	if !ok || fit != clock.FitLine || !a.Certain || !a.Validated {
		return event.Judgement{}, false
	}
	b, fit, ok := j.clocks.Locate(k, r.since, r.old)
	if !ok || fit != clock.FitLine || !b.Certain || b.Index == a.Index {
		if fresh && a.First+together < r.since {
			s.tally.fact(r.at)
		}
		return event.Judgement{}, false
	}
	odds := min(a.Odds, b.Odds)
	overlap := min(a.Last, b.Last) - max(a.First, b.First)
	switch {
	case j.clocks.Concurrent(a, b) && overlap > together:
		return judged(event.VerdictNATMultiClock, odds, becauseMulti), true
	case b.Last <= a.First && s.tally.facts+s.tally.returns == 0:
		return judged(event.VerdictRestart, min(odds, oddsRestart), becauseRestart), true
	}
	return event.Judgement{}, false
}

// Reject fills in the judgement of a SYN that a socket in TIME_WAIT refused
// although PAWS let it pass.
func (j *Judge) Reject(e *event.SYNReject) {
	k, ok := socketKeys(&e.Socket)
	if !ok {
		return
	}
	r := refused{key: k, at: e.Time, v: e.TSval, ts: e.Timestamps, old: e.TSRecent, sys: j.system(e.Fingerprint, e.TTL)}
	s, t := j.refuse(&r)
	if s == nil {
		e.Judgement = event.Judgement{Verdict: event.VerdictUnknown, Because: becauseRoom}
		return
	}
	s.rejected++
	r.age(t, e.AgeMS, e.HasAge)
	e.Judgement = t.rejected(&r, e)
	if r.ts && r.old != 0 && r.since != 0 {
		e.HasOffset = true
		e.OffsetS = float64(offset(r.old, r.v, r.at-r.since)) / 1000
	}
	s.verdicts[e.Verdict]++
}

// rejected judges a SYN by the rule that refused it.
func (t *tuple) rejected(r *refused, e *event.SYNReject) event.Judgement {
	if r.ts {
		if v, ok := t.duplicate(r); ok {
			return v
		}
	}
	if r.ts && r.old != 0 && r.since != 0 && int32(r.v-r.old) < 0 &&
		(&line{v: r.old, at: r.since}).relate(r.v, r.at) == late {
		return judged(event.VerdictOldDuplicate, oddsLate, becauseLate)
	}
	switch e.Rule {
	case event.RuleSequence:
		return sequence(e)
	case event.RuleFinWait2:
		return unknown(becauseFinWait2)
	case event.RuleNoListener:
		return unknown(becauseNoListener)
	case event.RuleUnknown:
	}
	return unknown(becauseRule)
}

func sequence(e *event.SYNReject) event.Judgement {
	switch {
	case e.Timestamps && e.TSRecent != 0:
		return judged(event.VerdictSeqReject, oddsMax, becauseEqual)
	case !e.Timestamps && e.RcvNxt-e.Seq <= duplicateBytes && (!e.HasAge || e.AgeMS <= lateBelow):
		return judged(event.VerdictOldDuplicate, oddsSequence, becauseOldSeq)
	}
	return judged(event.VerdictSeqReject, oddsMax, becauseSequence)
}
