// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// closeTimeout bounds the wait for the peer's FIN, so that a server told to
// close last cannot hang a client told the same.
const closeTimeout = 10 * time.Second

// Load is a number of connections, each opened and closed at once. Exactly one
// side must be told to close first, this one or the Server.
type Load struct {
	Dial
	Targets     []netip.AddrPort // used in turn
	Connections int
	Concurrency int     // OS threads that connect; 0 is 1
	Rate        float64 // connections per second over all threads; 0 is no limit
	ClosesFirst bool    // else the client reads EOF before it closes
	// NoWait makes a client that closes first close(2) at once. Otherwise it
	// sends FIN, waits for that of the server and then closes, so that its
	// socket is in TIME_WAIT when the connection is counted.
	NoWait bool
	// Spread lets the threads run on all CPUs, which is faster. Without it here
	// and at the Server, all of both run on one CPU and no close ends in RST;
	// with it a few in 10,000 do, and their TIME_WAIT sockets are lost.
	Spread bool
}

// Result is what became of a Load. Attempts = Connected + all of Failed.
type Result struct {
	Attempts  int            `json:"attempts"`
	Connected int            `json:"connected"`
	Failed    map[string]int `json:"failed,omitempty"`       // connect, by errno name
	CloseErrs map[string]int `json:"close_errors,omitempty"` // waiting for the peer's FIN, by errno name
	Elapsed   time.Duration  `json:"elapsed"`
	P50       time.Duration  `json:"p50"` // of successful connects, as are the next ones
	P90       time.Duration  `json:"p90"`
	P99       time.Duration  `json:"p99"`
	Max       time.Duration  `json:"max"`

	times []time.Duration
}

// Rate is the number of connections made per second.
func (r *Result) Rate() float64 { return float64(r.Connected) / r.Elapsed.Seconds() }

// Slower counts the successful connects that took longer than d. It is known
// only in the process that made them.
func (r *Result) Slower(d time.Duration) int {
	i, _ := slices.BinarySearch(r.times, d+1)
	return len(r.times) - i
}

// Run makes the connections of a load from the host. An error means that the
// load could not be run as told; failed connects are no error but a result.
// When ctx ends it returns what was done so far and the cause.
func (h *Host) Run(ctx context.Context, l Load) (*Result, error) {
	if len(l.Targets) == 0 || l.Connections <= 0 {
		return nil, fmt.Errorf("host %s: load: want at least one target and one connection", h.name)
	}
	l.Concurrency = min(max(l.Concurrency, 1), l.Connections)
	run := &loadRun{Load: l, start: time.Now()}
	workers := make([]*worker, l.Concurrency)
	for i := range workers {
		workers[i] = &worker{
			run: run, fd: -1,
			times: make([]time.Duration, 0, l.Connections/l.Concurrency+1),
			fails: map[unix.Errno]int{}, closeErrs: map[unix.Errno]int{},
		}
	}
	stop := context.AfterFunc(ctx, func() {
		for _, w := range workers {
			w.interrupt()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	errs := make([]error, len(workers))
	for i, w := range workers {
		wg.Go(func() { errs[i] = h.Do(func() error { return w.loop(ctx) }) })
	}
	wg.Wait()
	res := collect(workers)
	res.Elapsed = time.Since(run.start)
	if err := ctx.Err(); err != nil {
		return res, fmt.Errorf("host %s: load stopped: %w", h.name, context.Cause(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return res, fmt.Errorf("host %s: load: %w", h.name, err)
	}
	return res, nil
}

type loadRun struct {
	Load
	start time.Time
	next  atomic.Int64
}

type worker struct {
	run       *loadRun
	attempts  int
	times     []time.Duration
	fails     map[unix.Errno]int
	closeErrs map[unix.Errno]int

	stopped atomic.Bool
	mu      sync.Mutex // guards fd against interrupt
	fd      int
}

func (w *worker) loop(ctx context.Context) error {
	l := &w.run.Load
	if !l.Spread {
		if err := pin(); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		i := w.run.next.Add(1) - 1
		if i >= int64(l.Connections) {
			return nil
		}
		if err := w.run.pace(ctx, i); err != nil {
			return nil //nolint:nilerr // Run reports the end of ctx
		}
		if err := w.one(l, l.Targets[i%int64(len(l.Targets))]); err != nil {
			return err
		}
	}
	return nil
}

// pace waits for the turn of connection i.
func (r *loadRun) pace(ctx context.Context, i int64) error {
	if r.Rate <= 0 {
		return nil
	}
	wait := time.Until(r.start.Add(time.Duration(float64(i) / r.Rate * float64(time.Second))))
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (w *worker) one(l *Load, target netip.AddrPort) error {
	fd, err := l.socket(target.Addr())
	if err != nil && !bindFailed(err) {
		return err
	}
	w.attempts++
	if err != nil {
		return w.count(w.fails, err)
	}
	w.hold(fd)
	defer w.release()
	start := time.Now()
	err = l.connect(fd, target, &w.stopped)
	took := time.Since(start)
	if err != nil {
		return w.count(w.fails, err)
	}
	w.times = append(w.times, took)
	if l.ClosesFirst && (l.NoWait || l.Linger != nil) {
		return nil // release closes
	}
	if l.ClosesFirst {
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			return w.count(w.closeErrs, err)
		}
	}
	if err := setRecvTimeout(fd, closeTimeout); err != nil {
		return err
	}
	if err := readEOF(fd); err != nil {
		return w.count(w.closeErrs, err)
	}
	return nil
}

// bindFailed tells a port that could not be had, which is a result like a
// failed connect, from a socket that could not be made.
func bindFailed(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func (w *worker) count(by map[unix.Errno]int, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	by[errno]++
	return nil
}

func (w *worker) hold(fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fd = fd
}

func (w *worker) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = unix.Close(w.fd)
	w.fd = -1
}

// interrupt ends a wait in connect or read.
func (w *worker) interrupt() {
	w.stopped.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		_ = unix.Shutdown(w.fd, unix.SHUT_RDWR)
	}
}

func collect(workers []*worker) *Result {
	r := &Result{Failed: map[string]int{}, CloseErrs: map[string]int{}}
	for _, w := range workers {
		r.Attempts += w.attempts
		r.times = append(r.times, w.times...)
		for errno, n := range w.fails {
			r.Failed[unix.ErrnoName(errno)] += n
		}
		for errno, n := range w.closeErrs {
			r.CloseErrs[unix.ErrnoName(errno)] += n
		}
	}
	slices.Sort(r.times)
	r.Connected = len(r.times)
	if n := len(r.times); n > 0 {
		r.P50, r.P90, r.P99, r.Max = r.times[n/2], r.times[n*9/10], r.times[n*99/100], r.times[n-1]
	}
	return r
}
