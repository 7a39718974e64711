// SPDX-License-Identifier: Apache-2.0

// Command bench measures what twscope and other observers of TCP cost the connections that they watch. It makes short
// connections in network namespaces of its own, with each observer and without, and prints a table.
//
// It must run as root, at the top of the repository, after make build: make bench, bench-short or bench-growth.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twscope/twscope/internal/lab"
)

func main() {
	lab.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	mode        string
	twscope     string
	dir         string
	out         string
	only        string
	nets        string
	rounds      int
	statsRounds int
	connections int
	seconds     int
	patience    time.Duration
	seed        uint64
}

func parseFlags() options {
	var o options
	flag.StringVar(&o.mode, "mode", "peers", "peers, growth or sustained (`MODE`)")
	flag.StringVar(&o.twscope, "twscope", "bin/twscope", "the binary to measure (`FILE`)")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where the observers write, on a disk (`DIRECTORY`)")
	flag.StringVar(&o.out, "out", "", "keep the result as `NAME`.txt and NAME.json; default: only print it")
	flag.StringVar(&o.only, "only", "", "only these conditions or growth tables, comma separated (`LIST`)")
	flag.StringVar(&o.nets, "nets", "loopback,veth", "networks to load (`LIST`)")
	flag.IntVar(&o.rounds, "rounds", 10, "times that each condition is paired with none (`N`)")
	flag.IntVar(&o.statsRounds, "stats-rounds", 1, "runs of each condition with the kernel's BPF statistics on (`N`)")
	flag.IntVar(&o.connections, "connections", 15000, "connections of a timed run (`N`)")
	flag.IntVar(&o.seconds, "seconds", 60, "at full rate, for -mode sustained (`N`)")
	flag.DurationVar(&o.patience, "patience", time.Minute, "in all, to wait for other work on the machine to end before runs (`DURATION`)")
	flag.Uint64Var(&o.seed, "seed", 1, "of the random order (`N`)")
	flag.Parse()
	return o
}

func run(ctx context.Context) error {
	o := parseFlags()
	if os.Geteuid() != 0 {
		return errors.New("not root: namespaces and BPF need it, run make bench as root")
	}
	if o.rounds < 1 || o.connections < 1000 || flag.NArg() != 0 {
		return errors.New("want -rounds of at least 1, -connections of at least 1000, and no arguments")
	}
	var err error
	if o.dir, err = os.MkdirTemp(o.dir, "twscope-bench-"); err != nil {
		return fmt.Errorf("-dir: %w", err)
	}
	defer os.RemoveAll(o.dir)
	if err := o.copyBinary(); err != nil {
		return fmt.Errorf("-twscope: %w: run make build first", err)
	}
	m, err := describeMachine(ctx, &o)
	if err != nil {
		return err
	}
	switch o.mode {
	case "peers":
		return comparePeers(ctx, &o, m)
	case "growth":
		return measureGrowth(ctx, &o, m)
	case "sustained":
		return runSustained(ctx, &o, m)
	}
	return fmt.Errorf("-mode %s: want peers, growth or sustained", o.mode)
}

// copyBinary has all runs use one binary, even if another is built meanwhile.
func (o *options) copyBinary() error {
	data, err := os.ReadFile(o.twscope)
	if err != nil {
		return err
	}
	if o.twscope, err = filepath.Abs(filepath.Join(o.dir, twscopeName)); err != nil {
		return err
	}
	return os.WriteFile(o.twscope, data, 0o755)
}

// keep prints a result and, if told to, stores it.
func (o *options) keep(result any, write func(io.Writer)) error {
	var text strings.Builder
	write(&text)
	fmt.Print(text.String())
	if o.out == "" {
		return nil
	}
	data, err := json.MarshalIndent(result, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(o.out+".json", append(data, '\n'), 0o644),
		os.WriteFile(o.out+".txt", []byte(text.String()), 0o644))
}

// wants tells whether -only lets name through.
func (o *options) wants(name string) bool {
	return o.only == "" || slices.Contains(strings.Split(o.only, ","), name)
}

// progress tells on standard error what is being done.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
