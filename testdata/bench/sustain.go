// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// sustained is a long run of twscope at full rate.
type sustained struct {
	Machine machine `json:"machine"`
	sample
	LogBytes int64 `json:"log_bytes"` // on disk, old files packed
	LogFiles int   `json:"log_files"`
}

// runSustained is -mode sustained.
func runSustained(ctx context.Context, o *options, m machine) error {
	b := &bench{o: o, observers: map[string]*observer{twscopeName: newTwscope(o.twscope)}}
	s, err := b.sustain(ctx, time.Duration(o.seconds)*time.Second)
	if err != nil {
		return err
	}
	s.Machine = m
	return o.keep(s, s.write)
}

// sustain loads the loopback network for at least d, with more destinations,
// so that a minute of TIME_WAIT sockets leaves ports.
func (b *bench) sustain(ctx context.Context, d time.Duration) (s *sustained, err error) {
	const destinations, part = 1000, 100_000

	sc, err := newScene(ctx, loopback, destinations)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sc.close()) }()
	w, err := b.watch(ctx, twscopeName)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	progress("twscope at full rate for %s", d)
	s = &sustained{sample: sample{Attached: w.process.took, Condition: twscopeName, Network: loopback}}
	for s.Elapsed < d {
		r, err := sc.load(ctx, part)
		if err != nil {
			return nil, err
		}
		s.Connections += r.Connected
		s.Elapsed += r.Elapsed
		s.CPU += r.CPU
	}
	if err := w.process.rest(ctx); err != nil {
		return nil, err
	}
	if s.Used, err = w.process.used(); err != nil {
		return nil, err
	}
	if err := w.process.stop(ctx); err != nil {
		return nil, err
	}
	if s.TimeWaits, err = sc.timeWaits(); err != nil {
		return nil, err
	}
	if s.LogBytes, s.LogFiles, err = sizeOf(w.process.log); err != nil {
		return nil, err
	}
	s.Account, err = w.process.read(w.process.log, sc)
	return s, err
}

// sizeOf is the size of a log and its old files.
func sizeOf(log string) (bytes int64, files int, err error) {
	names, err := filepath.Glob(log + "*")
	if err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return 0, 0, err
		}
		bytes += info.Size()
	}
	return bytes, len(names), nil
}
