// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// Conditions that are not observers.
const (
	none  = "none"
	empty = "empty programs"
)

// warmUp is how many connections come before those that are timed: caches and
// buffers are then as they stay.
const warmUp = 2000

// sample is one load under one condition.
type sample struct {
	Condition   string        `json:"condition"`
	Network     string        `json:"network"`
	Connections int           `json:"connections"`
	Elapsed     time.Duration `json:"elapsed_ns"`
	CPU         time.Duration `json:"load_cpu_ns"` // of client and server
	Foreign     float64       `json:"foreign_cpu"` // used meanwhile by others, of all CPUs; 1: all
	P50         time.Duration `json:"connect_p50_ns"`
	P99         time.Duration `json:"connect_p99_ns"`
	// TimeWaits is the kernel's count, warm-up included, as is the account.
	TimeWaits uint64        `json:"time_waits"`
	Account   account       `json:"account"`
	Used      usage         `json:"used"`                 // by the observer, for the connections
	Attached  time.Duration `json:"start_to_attached_ns"` // of the observer
	Programs  []programCost `json:"programs,omitempty"`   // with statistics only
}

func (s *sample) rate() float64 { return float64(s.Connections) / s.Elapsed.Seconds() }

// perCPU is the connections per second of CPU time, that of the observer
// included: the rate per CPU if these had no other work. What else the machine
// does tells on it far less than on the rate.
func (s *sample) perCPU() float64 {
	return float64(s.Connections) / (s.CPU + s.Used.User + s.Used.System).Seconds()
}

// bench makes samples.
type bench struct {
	o         *options
	hooks     []hook // of twscope on this machine
	observers map[string]*observer
	calm      calm
}

// field is where a load runs.
type field interface {
	// load makes n connections, and fails unless all are made.
	load(ctx context.Context, n int) (loaded, error)
	// timeWaits is the kernel's own count of sockets that entered TIME_WAIT.
	timeWaits() (uint64, error)
	// holds tells whether a namespace is one whose TIME_WAIT sockets count.
	holds(netns uint64) bool
	// isTarget returns what tells whether address and port, as a peer prints
	// them, are a destination of the load.
	isTarget() func(addr, port string) bool
}

// loaded is what became of a load.
type loaded struct {
	*lab.Result
	CPU time.Duration // used by clients and servers
}

// watch is a condition in force.
type watch struct {
	process  *process                // nil: none or empty
	programs map[ebpf.ProgramID]bool // of empty; those of a process are looked up
	dir      string
	empty    closers
}

func (b *bench) watch(ctx context.Context, condition string) (w *watch, err error) {
	w = &watch{}
	switch condition {
	case none:
		return w, nil
	case empty:
		w.empty, w.programs, err = attachEmpty(b.hooks)
		return w, err
	}
	if w.dir, err = os.MkdirTemp(b.o.dir, "run-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.process, err = b.observers[condition].start(ctx, w.dir); err != nil {
		return w, err
	}
	return w, nil
}

// close ends what is left.
func (w *watch) close() error {
	errs := []error{w.empty.Close()}
	if w.process != nil {
		w.process.kill()
	}
	if w.dir != "" {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// standard is the sample of the default load in a scene of its own, so that it
// finds empty tables.
func (b *bench) standard(ctx context.Context, condition, network string, stats bool) (s sample, err error) {
	if err := b.calm.wait(ctx); err != nil {
		return s, err
	}
	sc, err := newScene(ctx, network, defaultDestinations)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, sc.close()) }()
	return b.sample(ctx, sc, condition, network, stats, b.o.connections)
}

// sample watches a load of n connections.
func (b *bench) sample(ctx context.Context, sc field, condition, network string, stats bool, n int) (s sample, err error) {
	s = sample{Condition: condition, Network: network}
	before, err := sc.timeWaits()
	if err != nil {
		return s, err
	}
	w, err := b.watch(ctx, condition)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if _, err := sc.load(ctx, warmUp); err != nil {
		return s, err
	}
	if err := w.measure(ctx, sc, &s, stats, n); err != nil {
		return s, err
	}
	after, err := sc.timeWaits()
	if err != nil || w.process == nil {
		s.TimeWaits = after - before
		return s, err
	}
	s.TimeWaits = after - before
	if err := w.process.stop(ctx); err != nil {
		return s, err
	}
	if s.Account, err = w.process.read(w.process.log, sc); err != nil {
		err = errors.Join(err, w.process.err, errors.New(w.process.lastWords()))
	}
	return s, err
}

// measure runs the load, and waits until the observer has digested it.
func (w *watch) measure(ctx context.Context, sc field, s *sample, stats bool, n int) error {
	var before usage
	var err error
	if w.process != nil {
		if before, err = w.process.used(); err != nil {
			return err
		}
	}
	load := func() error { return w.load(ctx, sc, s, n) }
	if stats {
		s.Programs, err = w.withStatistics(load)
	} else {
		err = load()
	}
	if err != nil || w.process == nil {
		return err
	}
	s.Attached = w.process.took
	if err := w.process.rest(ctx); err != nil {
		return err
	}
	after, err := w.process.used()
	s.Used = usage{User: after.User - before.User, System: after.System - before.System, RSS: after.RSS}
	return err
}

// load runs the load, and notes what others used of the CPUs meanwhile.
func (w *watch) load(ctx context.Context, sc field, s *sample, n int) error {
	var observer [2]time.Duration
	var all [2]cpuTimes
	read := func(i int) (err error) {
		if w.process != nil {
			if observer[i], err = w.process.cpu(); err != nil {
				return err
			}
		}
		all[i], err = readCPUTimes()
		return err
	}
	if err := read(0); err != nil {
		return err
	}
	r, err := sc.load(ctx, n)
	if err != nil {
		return err
	}
	if err := read(1); err != nil {
		return err
	}
	s.Connections, s.Elapsed, s.CPU, s.P50, s.P99 = r.Connected, r.Elapsed, r.CPU, r.P50, r.P99
	s.Foreign = all[1].since(all[0]).foreign(r.CPU + observer[1] - observer[0])
	return nil
}

// withStatistics has the kernel account for the programs while fn runs.
func (w *watch) withStatistics(fn func() error) (costs []programCost, err error) {
	var on io.Closer
	if on, err = ebpf.EnableStats(unix.BPF_STATS_RUN_TIME); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, on.Close()) }()
	if w.process != nil {
		fds, err := w.process.fds()
		if err != nil {
			return nil, err
		}
		w.programs = fds.programs
	}
	before, err := readCosts(w.programs)
	if err != nil {
		return nil, err
	}
	if err := fn(); err != nil {
		return nil, err
	}
	after, err := readCosts(w.programs)
	return costsSince(before, after), err
}
