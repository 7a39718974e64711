// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"math"
	"strconv"

	"github.com/twscope/twscope/internal/event"
)

// blame is whose fault it is that a socket in TIME_WAIT refuses SYNs.
type blame uint8

const (
	byNAT blame = iota
	byRestart
	byDelay
	bySequence
	numBlames
)

// blameOf returns whose fault a verdict tells of, false if that makes no
// finding here.
func blameOf(v event.Verdict) (blame, bool) {
	switch v {
	case event.VerdictNATPortRewrite, event.VerdictNATMultiClock:
		return byNAT, true
	case event.VerdictRestart:
		return byRestart, true
	case event.VerdictOldDuplicate:
		return byDelay, true
	case event.VerdictSeqReject:
		return bySequence, true
	}
	return 0, false
}

// tally is the refusals of one source at one listener that have one blame.
type tally struct {
	series
	clocks          uint64 // of count, those of nat-multi-clock
	timed           uint64 // of count, SYNs with timestamps
	leastOdds       int64  // thousandths
	mostOdds        int64
	odds, offsets   samples
	ages            samples // ms
	replies         [event.ReplyRST + 1]uint64
	reason, counter string // of the latest
	because         string
}

// guessOdds, in thousandths of log10, is what a NAT has for want of time for a
// restart. That is enough for a verdict, but a finding needs a fact.
const guessOdds = 1000

// refusals is what is known of one lane.
type refusals struct {
	by [numBlames]tally
	party
	due int64 // ns: when it is judged at the latest; 0: nothing is to tell
}

func (r *refusals) last() (at int64) {
	for i := range r.by {
		at = max(at, r.by[i].last)
	}
	return at
}

// refusal is what the two kinds of refused SYNs have in common.
type refusal struct {
	at     int64
	socket *event.Socket
	*event.Judgement
	n               uint64
	timed           bool
	ageMS           uint32
	hasAge          bool
	reply           event.Reply
	reason, counter string
}

func (e *Engine) pawsReject(p *event.PAWSReject) {
	n := max(p.Count, 1)
	if p.Where == event.WherePassive {
		e.recycled(p, n)
		return
	}
	if p.Segment != event.SegmentSYN {
		return
	}
	e.refused(&refusal{p.Time, &p.Socket, &p.Judgement, n, true, p.AgeMS, p.HasAge, p.Reply, p.Reason, p.Counter})
}

func (e *Engine) synReject(s *event.SYNReject) {
	e.refused(&refusal{s.Time, &s.Socket, &s.Judgement, 1, s.Timestamps, s.AgeMS, s.HasAge, s.Reply, s.Rule.String(), ""})
}

// refused takes a SYN that was refused and judged.
func (e *Engine) refused(f *refusal) {
	why, known := blameOf(f.Verdict)
	if !known || !f.socket.Remote.Addr().IsValid() {
		return
	}
	l := laneOf(f.socket)
	r := e.syns.lanes.get(l)
	if r == nil {
		return
	}
	if r.last() == 0 {
		if s := e.syns.sources.get(l.pair); s != nil {
			s.lanes++
		}
	}
	r.meet(&f.socket.Owner)
	t := &r.by[why]
	t.take(f)
	if t.frequent() && e.book.open(refusalRules()[why].code, subjectKey{lane: l}) == nil {
		e.syns.remind(&r.due, f.at)
	}
}

func (t *tally) take(f *refusal) {
	t.add(f.at, f.n)
	if f.Verdict == event.VerdictNATMultiClock {
		t.clocks = plus(t.clocks, f.n)
	}
	if f.timed {
		t.timed = plus(t.timed, f.n)
	}
	odds := thousandths(f.Odds)
	if len(t.odds.list) == 0 || odds < t.leastOdds {
		t.leastOdds = odds
	}
	t.mostOdds = max(t.mostOdds, odds)
	t.odds.add(odds)
	if f.HasOffset {
		t.offsets.add(thousandths(f.OffsetS))
	}
	if f.hasAge {
		t.ages.add(int64(f.ageMS))
	}
	if int(f.reply) < len(t.replies) {
		t.replies[f.reply] = plus(t.replies[f.reply], f.n)
	}
	t.reason, t.counter, t.because = brief(f.reason), brief(f.counter), brief(f.Because)
}

// refusalRule is how refusals with one blame are told.
type refusalRule struct {
	code     string
	severity event.Severity
	say      func(v *refusalView) string
	remedies func(v *refusalView) []event.Remedy
}

func refusalRules() [numBlames]refusalRule {
	return [numBlames]refusalRule{
		byNAT:      {NATPawsDrop, event.SeverityCritical, (*refusalView).sayNAT, (*refusalView).natRemedies},
		byRestart:  {PawsDropRestart, event.SeverityWarning, (*refusalView).sayRestart, (*refusalView).restartRemedies},
		byDelay:    {PawsDropOldDuplicate, event.SeverityInfo, (*refusalView).sayDelay, (*refusalView).delayRemedies},
		bySequence: {SYNSeqReject, event.SeverityWarning, (*refusalView).saySequence, (*refusalView).sequenceRemedies},
	}
}

// refusalView is what such a rule looks at.
type refusalView struct {
	lane lane
	*refusals
	*tally
	why    blame
	source *source // nil: not known
	ns     *namespace
	nat    *finding // about a NAT at the same lane, nil if none is open
}

// judgeRefusals applies the rules to one lane.
func (e *Engine) judgeRefusals(l lane, r *refusals) {
	for i, rule := range refusalRules() {
		v := &refusalView{
			lane: l, refusals: r, tally: &r.by[i], why: blame(i), source: e.syns.sources.by[l.pair], ns: e.world.namespace(l.netns),
			nat: e.book.open(NATPawsDrop, subjectKey{lane: l}),
		}
		about := l.subject()
		about.PID, about.Comm = r.pid, r.comm
		e.book.settle(e, rule.code, about, e.refusal(v, &rule))
	}
}

// refusal judges one lane and blame.
func (e *Engine) refusal(v *refusalView, rule *refusalRule) judgement {
	open := e.book.open(rule.code, subjectKey{lane: v.lane}) != nil
	j := judgement{state: v.stage(e.now, open)}
	if !open && (j.state != bad || v.why == byNAT && v.mostOdds <= guessOdds) {
		return judgement{}
	}
	n := v.number()
	j.now = snapshot{at: e.now, synSettings: v.ns.synSettings(), held: n, what: "SYNs refused"}
	j.confidence = v.confidence()
	var doubts []event.Fact
	j.confidence, doubts = e.doubt(j.confidence, n, event.KindPAWSReject, event.KindSYNReject, event.KindSYN)
	j.evidence = append(v.evidence(e), doubts...)
	if v.why == bySequence && v.nat != nil {
		j.state = good
		j.summary = fmt.Sprintf("%s: SYNs to %s are refused for their timestamps too: see %s", addr(v.lane.raddr), v.lane.listener(), v.nat.id)
		return j
	}
	if j.state == good {
		j.since, j.calm = v.series.last, minute
		j.summary = fmt.Sprintf("%s: no SYN to %s has been refused for this reason since %s; %s", addr(v.lane.raddr), v.lane.listener(),
			clock(v.series.last), several(n, "SYN was", "SYNs were"))
		return j
	}
	j.severity = rule.severity
	j.summary = rule.say(v)
	j.remedies = rule.remedies(v)
	j.sign = strconv.FormatUint(n, 10)
	return j
}

// number is how many SYNs were refused. The log may lack lines (--rate), the
// account of the source does not.
func (v *refusalView) number() uint64 {
	if v.source == nil || v.source.lanes != 1 {
		return v.count
	}
	var told uint64
	for name, n := range v.source.told.Verdicts {
		var verdict event.Verdict
		if verdict.UnmarshalText([]byte(name)) != nil {
			continue
		}
		if why, known := blameOf(verdict); known && why == v.why {
			told = plus(told, n)
		}
	}
	return max(v.count, told)
}

// confidence is the odds of the verdicts as a probability. That a sequence
// number was refused is no guess.
func (v *refusalView) confidence() float64 {
	if v.why == bySequence {
		return 0.95
	}
	return probability(v.odds.median())
}

// probability of log10 odds in thousandths, with the modesty that many odds
// from one model ask for.
func probability(odds int64) float64 {
	return max(0.5, min(1/(1+math.Pow(10, -float64(odds)/1000)), 0.99))
}

// some writes how many SYNs were refused, and of how many, with the verb.
func (v *refusalView) some() string {
	n, to := v.number(), " to "+v.lane.listener()
	was := " were"
	if n == 1 {
		was = " was"
	}
	switch all := v.syns(); {
	case all <= n:
		return addr(v.lane.raddr) + ": " + several(n, "SYN", "SYNs") + to + was
	case v.source.lanes == 1:
		return fmt.Sprintf("%s: %s of %s%s%s", addr(v.lane.raddr), group(n), several(all, "SYN", "SYNs"), to, was)
	default:
		return fmt.Sprintf("%s: %s%s, of %s to all ports of %s,%s", addr(v.lane.raddr), several(n, "SYN", "SYNs"), to, group(all), addr(v.lane.laddr), was)
	}
}

// syns is how many SYNs the source has sent, 0 if that is not known.
func (v *refusalView) syns() uint64 {
	if v.source == nil {
		return 0
	}
	return v.source.told.SYNs
}

func (v *refusalView) sayNAT() string {
	why := "a NAT gave their ports to connections with another timestamp clock"
	if v.clocks*2 > v.count {
		why = "hosts with different timestamp clocks share the address, and a NAT passes ports from one to the other"
	}
	return v.some() + " refused on sockets in TIME_WAIT, because " + why
}

func (v *refusalView) sayRestart() string {
	return v.some() + " refused on sockets in TIME_WAIT, because the source has a new timestamp clock: it was restarted, or its address " +
		"went to another host; nothing points to a NAT"
}

func (v *refusalView) sayDelay() string {
	return v.some() + " refused on sockets in TIME_WAIT as what they are: old duplicates, from the same timestamp clock, that came late; " +
		"nothing points to a NAT"
}

func (v *refusalView) saySequence() string {
	why := "they carry no timestamps, and their ports are used again within 60 s"
	if v.timed > 0 {
		why = "they carry no greater timestamp either, and their ports are used again within 60 s"
	}
	return v.some() + " refused on sockets in TIME_WAIT for the sequence number, which no counter shows: " + why
}

// evidence is the numbers behind it, in a fixed order.
func (v *refusalView) evidence(e *Engine) []event.Fact {
	var facts []event.Fact
	add := func(f event.Fact, ok bool) {
		if ok {
			facts = append(facts, f)
		}
	}
	n := v.number()
	add(num("refused", n), true)
	add(num("syns_of_source", v.syns()), v.syns() > 0)
	add(rate("share_of_source", float64(n)/float64(max(v.syns(), 1))), v.syns() >= n)
	add(num("nat_port_rewrite", v.count-v.clocks), v.why == byNAT)
	add(num("nat_multi_clock", v.clocks), v.clocks > 0)
	seq := &v.by[bySequence]
	add(num("refused_for_sequence", seq.count), v.why == byNAT && seq.count > 0)
	add(txt("sequence_numbers", "no counter of the kernel shows SYNs that are refused for the sequence number"), v.why == byNAT && seq.count > 0)
	if v.source != nil {
		add(num("verdict_unknown", v.source.told.Verdicts[event.VerdictUnknown.String()]), v.source.told.Verdicts[event.VerdictUnknown.String()] > 0)
		add(num("same_tuple_same_clock", v.source.told.Repeated), v.source.at != 0)
		add(num("same_tuple_other_clock", v.source.told.Rewritten), v.source.at != 0)
		add(txt("class_of_source", v.source.told.Class.String()), v.source.at != 0)
	}
	if v.why != bySequence {
		add(rate("log10_odds_least", float64(v.leastOdds)/1000), true)
		add(rate("log10_odds_median", float64(v.odds.median())/1000), true)
	}
	add(num("with_timestamps", v.timed), v.why == bySequence)
	facts = append(facts, v.measured()...)
	if over := e.book.open(ListenOverflow, subjectKey{lane: lane{pair{v.lane.netns, v.lane.laddr, noAddr}, v.lane.lport}}); over != nil {
		add(txt("not_counted_here", "SYNs that the listener dropped because its queues were full: "+over.id), true)
	}
	return facts
}

// measured is what the refused SYNs themselves show.
func (t *tally) measured() []event.Fact {
	var facts []event.Fact
	if list := t.offsets.list; len(list) > 0 {
		least, most := list[0], list[0]
		for _, o := range list {
			least, most = min(least, o), max(most, o)
		}
		facts = append(facts, rate("offset_s_least", float64(least)/1000), rate("offset_s_most", float64(most)/1000))
	}
	if len(t.ages.list) > 0 {
		facts = append(facts, num("age_ms_median", t.ages.median()))
	}
	for r := event.ReplyACK; int(r) < len(t.replies); r++ {
		if t.replies[r] > 0 {
			facts = append(facts, num("reply_"+r.String(), t.replies[r]))
		}
	}
	for _, f := range []event.Fact{txt("rule", t.reason), txt("counter", t.counter), txt("because", t.because)} {
		if f.Text != "" {
			facts = append(facts, f)
		}
	}
	return append(facts, txt("first", clock(t.first)), txt("last", clock(t.last)))
}
