// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"time"

	"github.com/twscope/twscope/internal/event"
)

const second = int64(time.Second)

// What the rules call a while.
const (
	// failingFor is how long after a failure connect() counts as failing.
	failingFor = 5 * second
	// troubleGap is how long after a failure the next is another trouble.
	troubleGap = 60 * second
	// patience is how long a failure waits for a destinations event, which
	// tells the rates; a run emits one at once.
	patience = second
	// absence is after how long out of the destinations events, which name
	// the busiest only, a destination counts as idle.
	absence = 120 * second
)

// Engine draws conclusions from events. It must not be used by two goroutines
// at once.
type Engine struct {
	enc   *event.Encoder
	world world
	syns  syns
	book  book
	begun bool  // there has been an event
	due   int64 // ns: the earliest of the destinations' due; 0: none
	now   int64 // ns: the latest time of an event
	out   []*event.Finding
}

// New returns an Engine that knows nothing.
func New() *Engine { return &Engine{enc: event.NewEncoder(), world: newWorld(), book: newBook()} }

// Feed takes the next event of a log and returns the findings that follow it
// there, with its time. The findings belong to the caller. Feed keeps no
// reference to ev. It allocates nothing for events that it has no use for,
// and takes those that it needs as a reader of the log would get them.
func (e *Engine) Feed(ev event.Event) []*event.Finding {
	e.out = nil
	kind := ev.Kind()
	if kind == event.KindFinding {
		return nil
	}
	e.now = max(e.now, ev.UnixNano())
	if s, ok := ev.(*event.Start); ok {
		e.start(s)
		return e.out
	}
	e.begun = true
	if e.due != 0 && e.now >= e.due && kind != event.KindStop {
		e.tellOverdue()
	}
	if e.syns.due != 0 && e.now >= e.syns.due && kind != event.KindStop {
		e.judgeOverdue()
	}
	switch ev := ev.(type) {
	case *event.ConnectFail:
		e.connectFail(ev)
	case *event.PAWSReject:
		e.pawsReject(ev)
	case *event.SYNReject:
		e.synReject(ev)
	case *event.SYNRefused:
		e.synRefused(ev)
	case *event.TimeWait:
		e.gotThrough(ev)
	case *event.SysctlChange, *event.Loss, *event.Stats, *event.Destinations, *event.Sources, *event.ListenDrop:
		// What the encoder cuts or rounds must not be known here: a replay
		// does not know it.
		if c, err := e.enc.Canonical(ev); err == nil {
			e.take(c)
		}
	}
	return e.out
}

func (e *Engine) start(s *event.Start) {
	if s.Part > 0 && e.begun {
		return
	}
	c, err := e.enc.Canonical(s)
	if err != nil {
		return
	}
	s = c.(*event.Start)
	e.world, e.syns, e.book, e.due, e.begun, e.now = newWorld(), syns{}, newBook(), 0, true, s.Time
	e.world.start(s)
	e.judgeRecycle(s)
}

func (e *Engine) take(ev event.Event) {
	switch ev := ev.(type) {
	case *event.SysctlChange:
		e.world.change(ev)
	case *event.Loss:
		if !behind(ev.Hop) {
			e.world.lost[ev.Of] += ev.Count
		}
	case *event.Stats:
		e.judgeOverflow(ev)
		e.judgeSYNs()
	case *event.Destinations:
		e.destinations(ev)
		e.takeBudgets(ev)
	case *event.Sources:
		e.takeSources(ev)
		e.judgeSYNs()
	case *event.ListenDrop:
		e.listenDrop(ev)
	}
}

// behind tells whether a hop loses lines behind the engine of the run that
// writes the log: what is told of it there comes too late for that engine, so
// it must not count in a replay either.
func behind(hop string) bool { return hop == "rate" || hop == "write" }

// wantsPort tells whether a cause is that no local port was left.
func wantsPort(c event.Cause) bool {
	switch c {
	case event.CauseTimeWaitNotReusable, event.CausePortsInUse, event.CauseRangeTiny, event.CauseReserved, event.CauseBoundWithoutNoPort:
		return true
	}
	return false
}

func (e *Engine) connectFail(c *event.ConnectFail) {
	if !wantsPort(c.Cause) {
		return
	}
	d := e.world.destination(keyOf(c.NetNS, c.Local.Addr(), c.Remote.Addr(), c.Remote.Port()))
	if d == nil {
		e.world.crowded++
		return
	}
	d.takeFailure(c)
	if d.due == 0 && e.book.open(PortExhaustion, subjectKey{destination: d.key}) == nil {
		d.due = c.Time + patience
		if e.due == 0 || d.due < e.due {
			e.due = d.due
		}
	}
}

// tellOverdue judges the destinations whose failure no destinations event has
// followed.
func (e *Engine) tellOverdue() {
	e.due = 0
	for _, d := range e.world.order {
		switch {
		case d.due == 0:
		case d.due <= e.now:
			d.withoutBudget()
			v := &view{destination: d, ns: e.world.namespace(d.key.netns), now: e.now}
			e.book.settle(e, PortExhaustion, v.subject(), e.exhaustion(v))
			d.due = 0
		case e.due == 0 || d.due < e.due:
			e.due = d.due
		}
	}
}

func (e *Engine) destinations(ev *event.Destinations) {
	w := &e.world
	for i := range ev.Namespaces {
		w.takePorts(&ev.Namespaces[i])
	}
	for _, d := range w.order {
		d.listed = false
	}
	w.seen = 0
	for i := range ev.List {
		b := &ev.List[i]
		w.seen += b.ClosedHere + b.ClosedThere + b.ClosedReset + b.Failed
		if d := w.destination(keyOf(b.NetNS, b.Laddr, b.Raddr, b.Rport)); d != nil {
			d.takeBudget(b, e.now)
		}
	}
	for _, d := range w.order {
		if !d.listed && !d.away && (d.at == 0 || ev.Omitted > 0 && e.now-d.at < absence) {
			continue // nothing is known of now
		}
		if !d.listed {
			d.takeAbsence()
		}
		e.judge(&view{destination: d, ns: w.namespace(d.key.netns), now: e.now})
		d.due = 0
	}
	e.judgeBinds()
	w.sweep(func(d *destination) bool {
		return d.listed || d.due != 0 || e.now-d.lastFail < troubleGap || e.book.concerns(d.key)
	})
}

// judge applies the rules about one destination. Those that ask whether
// connect() fails come after the one that tells.
func (e *Engine) judge(v *view) {
	for _, r := range destinationRules() {
		e.book.settle(e, r.code, v.subject(), r.judge(e, v))
	}
}

// rule is one rule about a destination.
type rule struct {
	code  string
	judge func(*Engine, *view) judgement
}

func destinationRules() []rule {
	return []rule{
		{PortExhaustion, (*Engine).exhaustion},
		{PortExhaustionSoon, (*Engine).exhaustionSoon},
		{TWReuseInert, (*Engine).reuseInert},
		{TWReuseOff, (*Engine).reuseOff},
		{TWReuseLoopbackOnly, (*Engine).reuseLoopbackOnly},
	}
}
