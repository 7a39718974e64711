// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/verdict"
)

// Options of a run.
type Options struct {
	Version string // of twscope
	Kernel  Kernel
	Rung    probe.Rung // the best one to use; empty: whatever works
	Keep    bool       // leave the namespaces
	PcapDir string     // save captures there; empty: none
	Logger  zerolog.Logger
}

// Outcome says how a side ended.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "PASS"
	Fail Outcome = "FAIL"
	Skip Outcome = "SKIP" // this kernel cannot do it, or does not know the situation
)

// Result is what became of a side.
type Result struct {
	Scenario string  `json:"scenario"`
	Control  bool    `json:"control"`
	Setting  string  `json:"setting"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason,omitempty"` // why it did not pass
	Checks   []Check `json:"checks"`
	// Verdict is that of the session; nil: there was none.
	Verdict    *verdict.Verdict `json:"verdict,omitempty"`
	TookS      float64          `json:"took_s"`
	Captures   []string         `json:"captures,omitempty"`   // files
	Namespaces []string         `json:"namespaces,omitempty"` // that were kept
}

// observed is what a session has told.
type observed struct {
	verdict verdict.Verdict
	rejects []*event.PAWSReject
	sources *event.Sources // the last ones; nil: none were told
	report  session.Report
}

// performance is a side that was acted, to be judged.
type performance struct {
	scenario *Scenario
	scene    scene
	cause    bool
	seen     observed
	captures []string
	kept     []string
}

// errActed ends the session.
var errActed = errors.New("the load is over")

// Run acts a side and judges it. The error is that ctx ended; then nothing is
// left.
func (s *Scenario) Run(ctx context.Context, o Options, cause bool) (Result, error) {
	began := time.Now()
	r := Result{Scenario: s.Name, Control: !cause, Setting: s.side(cause).Setting, Checks: []Check{}}
	p, err := s.act(ctx, o, cause)
	r.TookS = time.Since(began).Seconds()
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	r.Captures, r.Namespaces = p.captures, p.kept
	switch _, lacks := errors.AsType[lackError](err); {
	case lacks:
		r.Outcome, r.Reason = Skip, err.Error()
	case err != nil:
		r.Outcome, r.Reason = Fail, err.Error()
	default:
		r.Verdict = &p.seen.verdict
		r.Checks = p.judge(cause)
		r.Outcome, r.Reason = outcome(r.Checks)
	}
	return r, nil
}

// act acts a side before a session. The performance is never nil.
func (s *Scenario) act(ctx context.Context, o Options, cause bool) (p *performance, err error) {
	p = &performance{scenario: s, scene: s.make(cause), cause: cause}
	if s.applies != nil {
		if why := s.applies(o.Kernel); why != "" {
			return p, lackError{errors.New(why)}
		}
	}
	name := s.Name
	if !cause {
		name += "-control"
	}
	st, err := newStage(ctx, name)
	if err != nil {
		return p, err
	}
	keep := false
	defer func() {
		for _, t := range st.tapes {
			p.captures = append(p.captures, t.path)
		}
		err = errors.Join(err, st.close(keep && ctx.Err() == nil))
	}()
	if err := p.scene.setUp(ctx, st); err != nil {
		return p, fmt.Errorf("set up: %w", err)
	}
	if o.PcapDir != "" {
		if err := st.tape(o.PcapDir, name); err != nil {
			return p, err
		}
	}
	if err := p.watch(ctx, st, o); err != nil {
		return p, err
	}
	if err := p.scene.read(); err != nil {
		return p, fmt.Errorf("read the truth: %w", err)
	}
	if keep = o.Keep; keep {
		p.kept = st.namespaces()
	}
	return p, nil
}

// watch runs a session while the load is made.
func (p *performance) watch(ctx context.Context, st *stage, o Options) (err error) {
	dir, err := os.MkdirTemp("", "twscope-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "events.json")
	ready := make(chan session.Report, 1)
	opts := session.Options{
		Version: o.Version, Rung: o.Rung, Log: eventlog.Options{Path: path}, StatsInterval: time.Second,
		// With every SYN a line, every SYN is looked at, whatever else goes on.
		Kinds:  append(session.DefaultKinds(), event.KindSYN),
		Logger: o.Logger, Facts: o.Kernel.Facts, Cgroups: o.Kernel.Cgroups,
		Ready: func(r session.Report) { ready <- r },
	}
	for _, h := range st.hosts {
		opts.Filters.NetNS = append(opts.Filters.NetNS, uint32(h.Inode()))
	}
	watching, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() { ended <- session.Run(watching, opts) }()
	select {
	case p.seen.report = <-ready:
	case err := <-ended:
		return fmt.Errorf("the session ended at once: %w", err)
	}
	err = p.load(ctx, st, path)
	stop(errActed)
	if end := <-ended; end != nil {
		err = errors.Join(err, fmt.Errorf("session: %w", end))
	}
	if err != nil {
		return err
	}
	return p.seen.read(path)
}

// load makes the load, unless the session is blind to what follows, and waits
// until the session has drawn its conclusions.
func (p *performance) load(ctx context.Context, st *stage, log string) error {
	needs := p.scenario.needs
	if rung := p.seen.rung(needs); needs != "" && (rung == probe.Counter || rung == probe.None) {
		return lackError{fmt.Errorf("on this kernel twscope does not see %s one by one", needs)}
	}
	if err := p.scene.act(ctx, st); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	return settle(ctx, log, time.Now())
}

// settleTime is how long a session may take to tell its second account after
// the load; it does so every second, on a fast machine.
const settleTime = 30 * time.Second

// settle waits until the log has two more accounts (stats events), so that
// whatever is drawn from them has been.
func settle(ctx context.Context, path string, since time.Time) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime,
		fmt.Errorf("the session gave no account within %s after the load", settleTime))
	defer cancel()
	r, err := eventlog.OpenReader(path, eventlog.ReadOptions{Follow: true})
	if err != nil {
		return err
	}
	defer r.Close()
	for accounts := 0; accounts < 2; {
		ev, err := r.Next(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if ev.Kind() == event.KindStats && ev.UnixNano() > since.UnixNano() {
			accounts++
		}
	}
	return nil
}

// read draws the verdict from a log.
func (o *observed) read(path string) error {
	r, err := eventlog.OpenReader(path, eventlog.ReadOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	collector := verdict.New()
	for {
		// a log that is not followed does not wait
		ev, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			o.verdict = collector.Verdict()
			return nil
		}
		if err != nil {
			return err
		}
		collector.Feed(ev)
		switch e := ev.(type) {
		case *event.PAWSReject:
			o.rejects = append(o.rejects, e)
		case *event.Sources:
			o.sources = e
		}
	}
}
