// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

// Collector draws the verdict from the events of a log. Its memory is bounded:
// 4096 destinations, 512 findings, and one line of the longest of each kind of
// event. It must not be used by two goroutines at once.
type Collector struct {
	enc   *event.Encoder
	ranks map[string]int // of codes
	session
}

// session is what is known of the present run.
type session struct {
	start   *event.Start // nil: the log has none
	begun   bool         // there has been an event
	began   int64        // ns
	now     int64        // ns: the latest time of an event
	earlier uint64       // runs before

	flow     flow
	entered  [3]uint64 // time_wait events by event.Role
	reused   uint64
	first    int64 // ns: the first sign of a connection made; 0: none
	last     int64
	accounts accounts
	latest   *event.Destinations // the last one
	waitPeak uint64              // by the budgets
	ratePeak float64
	evicted  uint64
	failures [causes]failure
	noPort   uint64 // of these, for want of a local port
	refusals refusals
	findings findings
	losses   losses
	totals   *event.Stats // the last account
	stop     *event.Stop
}

// causes is how many causes of a failed connect() are counted apart.
const causes = int(event.CauseOther) + 1

// eADDRNOTAVAIL is what the search for a port returns that finds none, whether
// somebody has looked for the cause or not.
const eADDRNOTAVAIL = 99

type failure struct {
	kernel uint64
	calls  float64
	// unknown: of some it is not known how many make a call of a program.
	unknown bool
}

// refusals counts by verdict; index 0 are those that nobody has judged.
type refusals struct {
	here     [verdicts]uint64
	segments uint64
	drops    uint64
	out      [2]uint64 // by event.Signature
}

const verdicts = int(event.VerdictUnknown) + 1

// New returns a Collector that knows nothing.
func New() *Collector { return &Collector{enc: event.NewEncoder(), ranks: codeRanks()} }

// Feed takes the next event: every one that the log has, and no other, the
// findings that follow from it after it. It keeps no reference to ev, and
// allocates nothing for most events of sockets.
//
// A start event of part 0 begins a new run, and what was before is forgotten.
func (c *Collector) Feed(ev event.Event) {
	if s, ok := ev.(*event.Start); ok {
		c.takeStart(s)
		return
	}
	at := ev.UnixNano()
	if !c.begun {
		c.begun, c.began, c.now = true, at, at
	}
	c.now = max(c.now, at)
	c.flow.advance(c.now)
	switch ev := ev.(type) {
	case *event.TimeWait:
		c.timeWait(ev)
	case *event.Census:
		c.flow.enter(ev.RemainingMS)
	case *event.TWReuse:
		c.reused++
		c.flow.leave(ev.AgeMS)
	case *event.TimeWaitEnd:
		if ev.Reason != event.EndReused { // tw_reuse tells of it
			c.flow.leave(ev.AgeMS)
		}
	case *event.ConnectFail:
		c.connectFail(ev)
	case *event.SYNRefused:
		c.synRefused(ev)
	case *event.PAWSReject:
		if ev.Segment == event.SegmentSYN {
			c.refusals.refuse(ev.Verdict, max(ev.Count, 1))
		} else {
			c.refusals.segments = plus(c.refusals.segments, max(ev.Count, 1))
		}
	case *event.SYNReject:
		c.refusals.refuse(ev.Verdict, 1)
	case *event.ListenDrop:
		c.refusals.drops = plus(c.refusals.drops, ev.Dropped)
	case *event.Destinations, *event.Finding, *event.Loss, *event.Stats, *event.Stop:
		c.takeLong(ev)
	}
}

// Stop feeds the stop event that is about to be written, and returns it with
// the verdict in it.
func (c *Collector) Stop(ev *event.Stop) *event.Stop {
	c.Feed(ev)
	if c.stop == nil {
		return ev
	}
	out := *c.stop
	v := c.Verdict()
	out.Conclusion = v.Encode()
	return &out
}

// takeLong takes an event as a reader of the log gets it: what the encoder
// cuts or rounds must not be known here.
func (c *Collector) takeLong(ev event.Event) {
	if s, ok := ev.(*event.Stop); ok && s.Conclusion != nil {
		bare := *s
		bare.Conclusion = nil
		ev = &bare
	}
	canonical, err := c.enc.Canonical(ev)
	if err != nil {
		return
	}
	switch ev := canonical.(type) {
	case *event.Destinations:
		c.destinations(ev)
	case *event.Finding:
		c.findings.take(ev, c.ranks)
	case *event.Loss:
		// What the log itself withholds is told to its readers only, so it
		// is taken from the account, where both see it.
		if ev.Hop != "rate" && ev.Hop != "write" {
			c.losses.add(ev)
		}
	case *event.Stats:
		c.account(ev)
	case *event.Stop:
		c.stop = ev
		c.account(&ev.Stats)
	}
}

func (c *Collector) account(s *event.Stats) {
	c.totals = s
	if s.TimeWait != nil {
		c.flow.atMost(*s.TimeWait)
	}
}

func (c *Collector) takeStart(s *event.Start) {
	if s.Part > 0 && c.begun {
		return
	}
	canonical, err := c.enc.Canonical(s)
	if err != nil {
		return
	}
	earlier := c.earlier
	if c.begun {
		earlier++
	}
	s = canonical.(*event.Start)
	c.session = session{start: s, begun: true, began: s.Time, now: s.Time, earlier: earlier}
	c.flow.advance(s.Time)
}

func (c *Collector) timeWait(t *event.TimeWait) {
	c.flow.enter(t.TimeoutMS)
	if int(t.Role) < len(c.entered) {
		c.entered[t.Role]++
	}
	if t.Role != event.RoleClient {
		return
	}
	c.flow.connection()
	c.sign(c.now)
	if a := c.accounts.of(&t.Socket); a != nil {
		a.entered++
	}
}

// sign notes that connections were made, from a time to the present.
func (c *Collector) sign(from int64) {
	if c.first == 0 {
		c.first = from
	}
	c.last = c.now
}

func (c *Collector) connectFail(f *event.ConnectFail) {
	cause := f.Cause
	if int(cause) >= causes {
		cause = event.CauseOther
	}
	n := &c.failures[cause]
	n.kernel++
	if wantsPort(cause) || cause == event.CauseUnknown && f.Errno == eADDRNOTAVAIL && f.Local.Port() == 0 {
		c.noPort++
	}
	if f.PerCall > 0 {
		n.calls += 1 / float64(f.PerCall)
	} else {
		n.unknown = true
	}
	if cause == event.CauseNoRouteOrAddress {
		return // it is about no budget
	}
	a := c.accounts.of(&f.Socket)
	if a == nil {
		return
	}
	a.failures++
	if a.pid == 0 && f.Owner.PID != 0 {
		a.pid, a.comm = f.Owner.PID, clip(f.Owner.Comm, maxName)
	}
	if wantsPort(cause) {
		held := min(uint64(f.PortsInUse)+f.Refused.Total(), math.MaxUint32)
		a.used(uint32(held), f.PortsTotal)
	}
}

// wantsPort tells whether a cause is that no local port was left.
func wantsPort(c event.Cause) bool {
	switch c {
	case event.CauseTimeWaitNotReusable, event.CausePortsInUse, event.CauseRangeTiny, event.CauseReserved, event.CauseBoundWithoutNoPort:
		return true
	}
	return false
}

func (c *Collector) synRefused(r *event.SYNRefused) {
	if int(r.Signature) < len(c.refusals.out) {
		c.refusals.out[r.Signature]++
	}
	a := c.accounts.of(&r.Socket)
	switch {
	case a == nil:
	case r.Signature == event.SignatureChallengeACK:
		a.stale++
	default:
		a.unanswered++
		if r.Attempts <= 1 || a.silent == 0 {
			a.silent++
		}
	}
}

func (r *refusals) refuse(v event.Verdict, n uint64) {
	if int(v) >= len(r.here) {
		v = event.VerdictUnknown
	}
	r.here[v] = plus(r.here[v], n)
}

func (c *Collector) destinations(ev *event.Destinations) {
	var waiting uint64
	var rate float64
	before := c.began
	if c.latest != nil {
		before = c.latest.Time
	}
	for i := range ev.List {
		d := &ev.List[i]
		a := c.accounts.listed(d)
		was := a.made()
		a.budget(c.now, d)
		if a.made() > was {
			c.sign(before)
		}
		waiting, rate = plus(waiting, uint64(d.TimeWait)), rate+d.Rate
	}
	c.waitPeak, c.ratePeak = max(c.waitPeak, waiting), max(c.ratePeak, rate)
	c.latest, c.evicted = ev, ev.Evicted
}

// Replay draws the verdict of a recorded log, with the findings that follow
// from its events, as `twscope replay` draws them; those in the log are passed
// over.
type Replay struct {
	collector *Collector
	engine    *diagnose.Engine
}

// NewReplay returns a Replay that knows nothing.
func NewReplay() *Replay { return &Replay{New(), diagnose.New()} }

// Feed takes the next event of the log, and returns the findings that follow
// from it.
func (r *Replay) Feed(ev event.Event) []*event.Finding {
	if ev.Kind() == event.KindFinding {
		return nil
	}
	r.collector.Feed(ev)
	drawn := r.engine.Feed(ev)
	for _, f := range drawn {
		r.collector.Feed(f)
	}
	return drawn
}

// Verdict returns what was found up to now.
func (r *Replay) Verdict() Verdict { return r.collector.Verdict() }
