// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/probe"
)

// analysis stands between the reader and the log: it keeps the port budgets
// and the clocks of the sources, explains failures and refusals by them, and
// has the findings follow the events that they are drawn from. Only the
// goroutine that reads uses it.
type analysis struct {
	session *session
	engine  *diagnose.Engine
	// arrivals: SYNs come when they arrive and again when their handshake is
	// complete, not only then.
	arrivals bool
}

func newAnalysis(s *session) *analysis {
	rung := s.probe.Rung(probe.SYN)
	return &analysis{session: s, engine: diagnose.New(), arrivals: rung == probe.Fentry || rung == probe.Kprobe}
}

// Put takes an event on its way to the log.
func (a *analysis) Put(ev event.Event) {
	if a.session.reader.Foreign {
		a.session.budgets.takeForeign(ev)
		return
	}
	a.session.budgets.take(ev)
	a.session.refusals.take(ev)
	if ev.Kind() == event.KindCensus && a.session.chooses() {
		return // it has no owner that could be selected
	}
	if e, ok := ev.(*event.SYN); ok && e.Validated && a.arrivals {
		return // it has its line
	}
	a.log(ev)
}

// log writes an event and the findings that follow from it. What the log does
// not take is not passed on, so that a replay finds the same.
func (a *analysis) log(ev event.Event) {
	if a.session.writer.Put(ev) {
		a.passOn(ev)
	}
}

// passOn tells of an event that is in the log, and writes the findings that
// follow from it.
func (a *analysis) passOn(ev event.Event) {
	a.observe(ev)
	for _, f := range a.engine.Feed(ev) {
		if a.session.writer.Put(f) {
			a.observe(f)
		}
	}
}

func (a *analysis) observe(ev event.Event) {
	if o := a.session.opts.Observer; o != nil {
		o.Feed(ev)
	}
}
