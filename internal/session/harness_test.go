// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

func TestMain(m *testing.M) {
	lab.Main()
	actMain()
	os.Exit(m.Run())
}

// rungEnv names the rung that the kernel matrix forces on a run.
const rungEnv = "TWSCOPE_RUNG"

var errTestOver = errors.New("test over")

// watcher is a session under test.
type watcher struct {
	t      testing.TB
	path   string
	opts   session.Options
	report session.Report
	cancel context.CancelCauseFunc
	done   chan error
	ended  bool
}

// watch starts a session with all events switched on and waits until it is
// attached. change may be nil.
func watch(t testing.TB, change func(*session.Options)) *watcher {
	t.Helper()
	testutil.Root(t)
	facts, err := kernel.Local()
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, path: filepath.Join(t.TempDir(), "events.json"), done: make(chan error, 1)}
	ready := make(chan session.Report, 1)
	opts := session.Options{
		Version: "test", Kinds: event.Kinds(), Rung: probe.Rung(os.Getenv(rungEnv)),
		Log:    eventlog.Options{Path: w.path},
		Logger: zerolog.New(testWriter{t}), Facts: facts,
		Ready: func(r session.Report) { ready <- r },
	}
	if facts.Cgroup2 != "" {
		opts.Cgroups = kernel.NewCgroups(facts.Cgroup2)
	}
	if change != nil {
		change(&opts)
	}
	w.opts, w.path = opts, opts.Log.Path
	ctx, cancel := context.WithCancelCause(context.Background())
	w.cancel = cancel
	go func() { w.done <- session.Run(ctx, opts) }()
	t.Cleanup(w.end)
	select {
	case w.report = <-ready:
	case err := <-w.done:
		w.ended = true
		t.Fatalf("the session ended at once: %+v", err)
	}
	return w
}

// end stops the session, if it still runs.
func (w *watcher) end() {
	if w.ended {
		return
	}
	w.ended = true
	w.cancel(errTestOver)
	if err := <-w.done; err != nil {
		w.t.Errorf("the session ended with %+v", err)
	}
}

// stop stops the session and returns its events; every line was held against
// the schema.
func (w *watcher) stop() log {
	w.t.Helper()
	w.end()
	eventtest.ValidateFile(w.t, w.path)
	l := readLog(w.t, w.path)
	l.inOrder(w.t)
	return l
}

// log is the events of a run.
type log []event.Event

func readLog(t testing.TB, path string) log {
	t.Helper()
	r, err := eventlog.OpenReader(path, eventlog.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var l log
	for {
		ev, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return l
		}
		if err != nil {
			t.Fatal(err)
		}
		l = append(l, ev)
	}
}

// inOrder fails the test if the time of an event is before that of the line
// above it.
func (l log) inOrder(t testing.TB) {
	t.Helper()
	for i := 1; i < len(l); i++ {
		if back := l[i-1].UnixNano() - l[i].UnixNano(); back > 0 {
			t.Errorf("line %d (%s) is %s older than the line before (%s)",
				i+1, l[i].Kind(), time.Duration(back), l[i-1].Kind())
			return
		}
	}
}

// of returns the events of one type that pass.
func of[E event.Event](l log, pass func(E) bool) []E {
	var list []E
	for _, ev := range l {
		if e, ok := ev.(E); ok && (pass == nil || pass(e)) {
			list = append(list, e)
		}
	}
	return list
}

// ours tells whether an owner is this process, or one of those that the log
// says it does not know: kernels that preempt programs on tracepoints leave
// some out.
func (l log) ours(o event.Owner) bool {
	if o.PID != 0 {
		return o.PID == uint32(os.Getpid())
	}
	return len(of(l, func(e *event.Loss) bool { return e.Hop == "owner" })) > 0
}

// nameless is of how many of some connections the log may not know whose they
// were: a kernel that preempts programs on tracepoints may leave them out of
// all of connect(). One in 50, and only on an emulated CPU.
func nameless(of int) int { return few(0, 1+of/50) }

// named leaves out the nameless TIME_WAIT sockets.
func named(t testing.TB, events []*event.TimeWait) []*event.TimeWait {
	t.Helper()
	list := slices.DeleteFunc(slices.Clone(events), func(e *event.TimeWait) bool {
		return e.Role == event.RoleUnknown && e.Owner == event.Owner{}
	})
	if n := len(events) - len(list); n > nameless(len(events)) {
		t.Errorf("%d of %d time_wait do not tell who opened the connection", n, len(events))
	}
	return list
}

// lost is how many events of a kind the log says that it lacks: on a busy CPU
// the kernel leaves programs out.
func (l log) lost(kind event.Kind) (n uint64) {
	for _, e := range of(l, func(e *event.Loss) bool { return e.Of == kind.String() }) {
		n += e.Count
	}
	return n
}

// near tells whether n of TIME_WAIT sockets are all of them, but for those that
// the log says it lacks: until a count finds those they are in no budget.
func (l log) near(n uint32, all int) bool {
	return int(n) <= all && uint64(n)+l.lost(event.KindTimeWait) >= uint64(all)
}

// stopEvent returns the last line.
func (l log) stopEvent(t testing.TB) *event.Stop {
	t.Helper()
	if len(l) > 0 {
		if stop, ok := l[len(l)-1].(*event.Stop); ok {
			return stop
		}
	}
	t.Fatal("the last line of the log is not a stop event")
	return nil
}

// reconciled returns the comparison for one counter of one namespace.
func (l log) reconciled(t testing.TB, netns uint64, counter string) event.Reconciliation {
	t.Helper()
	for _, r := range l.stopEvent(t).Reconcile {
		if uint64(r.NetNS) == netns && r.Counter == counter {
			return r
		}
	}
	t.Fatalf("the stop event compares no %s of namespace %d: %+v", counter, netns, l.stopEvent(t).Reconcile)
	return event.Reconciliation{}
}

// rung returns how an observation is made in this run.
func (w *watcher) rung(o probe.Observation) probe.Rung {
	for _, c := range w.report.Choices {
		if c.Observation == o {
			return c.Rung
		}
	}
	return probe.None
}

// matrix prints a row of the kernel matrix when the test is over.
func (w *watcher) matrix(o probe.Observation) {
	rung := w.rung(o)
	w.t.Cleanup(func() {
		result := "ok"
		if w.t.Failed() {
			result = "FAIL " + w.t.Name()
		}
		fmt.Printf("MATRIX %s %s %s\n", o, rung, result)
	})
}

// testWriter sends diagnostics to the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

// deadline for conditions that depend on the kernel; generous, because
// emulated kernels are slow.
const deadline = 30 * time.Second
