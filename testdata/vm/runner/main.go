// SPDX-License-Identifier: Apache-2.0

// Command runner boots Debian kernels in software-emulated machines and runs test binaries as root inside. See run.sh.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twscope/twscope/testdata/vm/debkernel"
)

const usage = `usage: testdata/vm/run.sh [FLAGS] [TARGET[:ARGS]]...

Boots each kernel under QEMU, checks that the machine is fit (selfcheck), and runs every TARGET in it: once for each
rung if it reads TWSCOPE_RUNG, else once.
A TARGET is a Go package directory (./internal/probe), whose tests are built here and run in that directory with its
testdata, or a statically linked program. ARGS are split at white space. Without a TARGET only the self check runs.
A test prints "MATRIX OBSERVATION RUNG RESULT" or "FACT NAME VALUE" on a line of its own to appear in the tables.

`

// options is the command line.
type options struct {
	series  []string
	rungs   []string
	env     []string
	files   []string
	targets []string
	boot    time.Duration // limit for one boot with all its runs
	perRun  time.Duration // limit for one run
	memory  int           // MiB
	jobs    int           // machines at a time
	again   bool          // boot a second time for what failed
	logs    string
	cache   debkernel.Cache
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o, err := parseArgs(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "run.sh:", err)
		os.Exit(2)
	}
	ok, err := runMatrix(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run.sh:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

func parseArgs(args []string, out io.Writer) (*options, error) {
	o := &options{cache: debkernel.Cache{Log: out}}
	fs := flag.NewFlagSet("run.sh", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprint(out, usage)
		fs.PrintDefaults()
	}
	list := func(to *[]string) func(string) error {
		return func(s string) error {
			*to = append(*to, s)
			return nil
		}
	}
	fs.Func("k", "kernel `series`, such as 6.1, or 7 for the newest 7.x; repeat for several (default 5.10, 6.1, 6.12 and 7)", list(&o.series))
	fs.Func("e", "set `NAME=VALUE` in the environment of each run; repeat for several", list(&o.env))
	fs.Func("f", "also ship this file or directory `PATH` of the repository, at the same place; repeat for several", list(&o.files))
	rungs := fs.String("rungs", "free,kprobe,tracepoint", "run the targets that read TWSCOPE_RUNG once for each of these: a rung to force, or free")
	fs.DurationVar(&o.boot, "t", 10*time.Minute, "limit for one kernel with all its runs")
	fs.DurationVar(&o.perRun, "T", 3*time.Minute, "limit for one run of one target")
	fs.IntVar(&o.memory, "m", 1024, "memory of the machine in `MiB`")
	fs.IntVar(&o.jobs, "j", 1, "run this `number` of machines at a time")
	fs.BoolVar(&o.again, "again", false, "boot a kernel a second time for what did not pass in it, and pass what passes then")
	fs.StringVar(&o.logs, "logs", ".cache/vm-logs", "write complete logs to this `directory`")
	fs.StringVar(&o.cache.Dir, "cache", ".cache/kernels", "keep kernels in this `directory`")
	fs.StringVar(&o.cache.Mirror, "mirror", "", "`address` of a Debian archive (default: that of the host's apt)")
	fs.BoolVar(&o.cache.Refresh, "u", false, "look for newer kernels although the cache has one of each series")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	for _, e := range o.env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return nil, fmt.Errorf("-e %q: want NAME=VALUE", e)
		}
	}
	if o.jobs < 1 {
		return nil, fmt.Errorf("-j %d: want 1 or more", o.jobs)
	}
	if len(o.series) == 0 {
		o.series = []string{"5.10", "6.1", "6.12", "7"}
	}
	o.rungs, o.targets = strings.Split(*rungs, ","), fs.Args()
	return o, nil
}

// runMatrix does it all; ok means that every run on every kernel passed.
func runMatrix(ctx context.Context, o *options, out io.Writer) (ok bool, err error) {
	if err := needQEMU(); err != nil {
		return false, err
	}
	unlock, err := lockLogs(o.logs)
	if err != nil {
		return false, err
	}
	defer unlock()
	kernels, err := o.cache.Get(ctx, "amd64", o.series)
	if err != nil {
		return false, err
	}
	tmp, err := os.MkdirTemp("", "twscope-vm-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	load, err := prepare(ctx, o, tmp)
	if err != nil {
		return false, err
	}
	boots, err := bootAll(ctx, o, kernels, load, tmp, out)
	if err != nil {
		return false, err
	}
	ok = !slices.ContainsFunc(boots, func(b *bootResult) bool { return !b.passed() })
	return ok, writeTables(out, boots)
}

// bootAll boots o.jobs kernels at a time. What several print comes out in turn,
// when each is done.
func bootAll(ctx context.Context, o *options, kernels []debkernel.Kernel, load *guestLoad, tmp string, out io.Writer) ([]*bootResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	boots, errs := make([]*bootResult, len(kernels)), make([]error, len(kernels))
	var wg sync.WaitGroup
	var printing sync.Mutex
	turn := make(chan struct{}, o.jobs)
	for i := range kernels {
		turn <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-turn }()
			var printed bytes.Buffer
			to := out
			if o.jobs > 1 {
				to = &printed
			}
			boots[i], errs[i] = bootOne(ctx, o, &kernels[i], load, tmp, to)
			if errs[i] != nil {
				cancel()
			}
			printing.Lock()
			defer printing.Unlock()
			if _, err := printed.WriteTo(out); err != nil {
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return boots, ctx.Err()
}

func bootOne(ctx context.Context, o *options, k *debkernel.Kernel, load *guestLoad, tmp string, out io.Writer) (*bootResult, error) {
	at := bootFiles{tmp: filepath.Join(tmp, k.Release), logs: filepath.Join(o.logs, k.Release)}
	again := bootFiles{tmp: at.tmp, logs: filepath.Join(at.logs, "again")}
	err := os.RemoveAll(at.logs)
	if err = errors.Join(err, os.MkdirAll(at.logs, 0o755), os.Mkdir(at.tmp, 0o700)); err != nil {
		return nil, err
	}
	defer os.RemoveAll(at.tmp)
	b, err := bootKernel(ctx, o, k, load, at, out)
	if err == nil && o.again && !b.passed() {
		fmt.Fprintln(out, "  a second time, for what did not pass")
		if err = os.Mkdir(again.logs, 0o755); err == nil {
			b.second, err = bootKernel(ctx, o, k, load.again(b), again, out)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", k.Release, err)
	}
	return b, nil
}

// lockLogs keeps two runs from writing over each other's logs.
func lockLogs(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run writes its logs to %s: wait for it, or give another directory with -logs", dir), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
