// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
)

// runOptions are the flags of run.
type runOptions struct {
	selectors

	out                 string
	events              []string
	rate                int
	maxSize             int64
	maxFiles            int
	noCompress          bool
	rung                string
	ringSize            uint32
	statsInterval       time.Duration
	destinations        int
	duration            time.Duration
	logLevel, logFormat string
}

func newRunCmd() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Observe this host until stopped, and write the event log",
		Long: "Observe this host until SIGINT or SIGTERM, or for --duration, and write the event log:\n" +
			"one JSON object a line, described by 'twscope schema', shown to people by 'twscope tail'.\n" +
			"SIGHUP opens the log again. Selectors of one kind add up; of several kinds all must match.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", eventlog.DefaultPath, "event log; \"-\" is standard output (`FILE`)")
	f.DurationVar(&o.statsInterval, "stats-interval", 10*time.Second, "time between stats and between destinations events; 0: none (`DURATION`)")
	f.DurationVar(&o.duration, "duration", 0, "stop after this time; 0: run until stopped (`DURATION`)")
	o.register(f)
	return cmd
}

// register adds the flags that attach has too.
func (o *runOptions) register(f *pflag.FlagSet) {
	f.StringSliceVar(&o.events, "events", nil, "write only these events (`LIST`), or \"all\"; default: all but time_wait_end and syn")
	f.IntVar(&o.rate, "rate", 0, "write at most `N` events of one kind in a second and count the rest; 0: no limit")
	f.Int64Var(&o.maxSize, "max-size", 100, "rotate the event log at this size (`MiB`)")
	f.IntVar(&o.maxFiles, "max-files", 10, "keep this many old files (`N`)")
	f.BoolVar(&o.noCompress, "no-compress", false, "do not gzip old files")
	f.StringVar(&o.rung, "rung", "", "use this kind of hook and none better: fentry, kprobe or tracepoint (`RUNG`)")
	f.Uint32Var(&o.ringSize, "ring-size", probe.DefaultRingBytes>>20, "ring buffer between kernel and twscope, a power of two (`MiB`)")
	f.IntVar(&o.destinations, "destinations", 20, "list the port budgets of the `N` busiest destinations")
	f.StringVar(&o.logLevel, "log-level", "info", "diagnostics on standard error: debug, info, warn or error (`LEVEL`)")
	f.StringVar(&o.logFormat, "log-format", "text", "of the diagnostics: text or json (`FORMAT`)")
	o.selectors.register(f)
}

// Causes of the end, as the stop event names them.
var (
	errDuration  = errors.New("duration")
	errInterrupt = errors.New("SIGINT")
	errTerminate = errors.New("SIGTERM")
)

func (o *runOptions) run(ctx context.Context, stderr io.Writer) error {
	opts, err := o.session(stderr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.duration > 0 {
		timer := time.AfterFunc(o.duration, func() { cancel(errDuration) })
		defer timer.Stop()
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	defer signal.Stop(hangup)
	opts.Hangup = hangup
	defer onSignals(cancel)()
	defer outlivePipes()()
	return session.Run(ctx, opts)
}

// outlivePipes makes a reader that goes away, such as that of standard error, an
// error of write(2) and no end of ours. To ignore SIGPIPE would be inherited by
// commands that we start.
func outlivePipes() (stop func()) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// onSignals ends the run at the first SIGINT or SIGTERM; a second one kills.
func onSignals(cancel context.CancelCauseFunc) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		sig, ok := <-signals
		if !ok {
			return
		}
		signal.Stop(signals)
		if sig == unix.SIGTERM {
			cancel(errTerminate)
		} else {
			cancel(errInterrupt)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// session turns the flags into options, and complains about those that make
// no sense.
func (o *runOptions) session(stderr io.Writer) (session.Options, error) {
	opts := session.Options{
		Version: version, Rung: probe.Rung(o.rung), RingBytes: o.ringSize << 20,
		StatsInterval: o.statsInterval, Destinations: o.destinations, FilterText: o.text(),
		Log: eventlog.Options{
			Path: o.out, MaxSize: o.maxSize << 20, MaxFiles: o.maxFiles, Compress: !o.noCompress, Rate: o.rate,
		},
	}
	if o.maxFiles == 0 {
		opts.Log.MaxFiles = -1
	}
	var err error
	if opts.Logger, err = newLogger(stderr, o.logLevel, o.logFormat); err != nil {
		return opts, err
	}
	if err := o.check(); err != nil {
		return opts, usageError{err}
	}
	if opts.Kinds, err = eventKinds(o.events); err != nil {
		return opts, usageError{err}
	}
	if opts.Facts, err = kernel.Local(); err != nil {
		return opts, err
	}
	if opts.Facts.Cgroup2 != "" {
		opts.Cgroups = kernel.NewCgroups(opts.Facts.Cgroup2)
	}
	if opts.Filters, err = o.resolve(opts.Facts, opts.Cgroups); err != nil {
		return opts, err
	}
	opts.Ready = func(r session.Report) {
		if o.logFormat == "text" {
			session.WriteReport(stderr, version, opts.Facts, r)
		} else {
			session.LogReport(opts.Logger, r)
		}
	}
	return opts, requirePrivileges()
}

func (o *runOptions) check() error {
	switch probe.Rung(o.rung) {
	case "", probe.Fentry, probe.Kprobe, probe.Tracepoint:
	default:
		return fmt.Errorf("--rung %s: want fentry, kprobe or tracepoint", o.rung)
	}
	switch {
	case len(o.events) == 0 && o.flags.Changed("events"):
		return errors.New("--events: want a list of events, or \"all\"")
	case o.rate < 0:
		return fmt.Errorf("--rate %d: want 0 or more", o.rate)
	case o.maxSize < 1 || o.maxSize > 1<<20:
		return fmt.Errorf("--max-size %d: want 1 to %d MiB", o.maxSize, 1<<20)
	case o.maxFiles < 0:
		return fmt.Errorf("--max-files %d: want 0 or more", o.maxFiles)
	case o.ringSize < 1 || o.ringSize > 1<<10 || o.ringSize&(o.ringSize-1) != 0:
		return fmt.Errorf("--ring-size %d: want a power of two, 1 to 1024 MiB", o.ringSize)
	case o.destinations < 1 || o.destinations > 100:
		return fmt.Errorf("--destinations %d: want 1 to 100", o.destinations)
	case o.statsInterval < 0 || o.statsInterval > 0 && o.statsInterval < time.Second:
		return fmt.Errorf("--stats-interval %s: want 1s or more, or 0 for none", o.statsInterval)
	case o.duration < 0:
		return fmt.Errorf("--duration %s: want more than 0", o.duration)
	case o.out == "":
		return errors.New("--out: want a file, or - for standard output")
	}
	return nil
}

// eventKinds reads --events.
func eventKinds(list []string) ([]event.Kind, error) {
	if len(list) == 0 {
		return session.DefaultKinds(), nil
	}
	if slices.Equal(list, []string{"all"}) {
		return event.Kinds(), nil
	}
	var kinds []event.Kind
	for _, name := range list {
		k, err := event.ParseKind(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("--events: %w", err)
		}
		kinds = append(kinds, k)
	}
	return kinds, nil
}

func newLogger(w io.Writer, level, format string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || l < zerolog.DebugLevel || l > zerolog.ErrorLevel {
		return zerolog.Nop(), usageError{fmt.Errorf("--log-level %s: want debug, info, warn or error", level)}
	}
	switch format {
	case "text":
		w = zerolog.ConsoleWriter{Out: w, NoColor: true, TimeFormat: time.TimeOnly}
	case "json":
	default:
		return zerolog.Nop(), usageError{fmt.Errorf("--log-format %s: want text or json", format)}
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}

// requirePrivileges says which capabilities are missing before the kernel does
// so in fewer words.
func requirePrivileges() error {
	have, err := kernel.EffectiveCapabilities(os.DirFS("/"))
	if err != nil {
		return err
	}
	var missing []string
	for _, need := range have.Missing(kernel.Needs()) {
		if need.Required {
			missing = append(missing, need.Name+" ("+need.For+")")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("missing %s: run twscope as root, or give its binary these capabilities", strings.Join(missing, ", "))
}
