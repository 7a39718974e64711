// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/attach"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/verdict"
)

// attachOptions are the flags of attach.
type attachOptions struct {
	runOptions

	format, color, live, failOn, report string

	fail verdict.FailOn // failOn, read
}

func newAttachCmd() *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach [SELECTORS] [-- COMMAND...]",
		Short: "Watch one stress test, and tell what held it up",
		Long: "Start COMMAND and watch the connections of it and of its descendants, or join a test that\n" +
			"runs already: --pid, --comm, --cgroup, --netns, --dst, --src. Selectors of one kind add\n" +
			"up; of several kinds all must match. Ports are counted whoever uses them.\n\n" +
			"The state is told on standard error while it runs: every second in a block that is redrawn\n" +
			"in place, if that is a terminal to which COMMAND does not write, else every 5 s on a line.\n" +
			"At the end, when COMMAND or the processes of --pid have ended, after --duration, or at\n" +
			"SIGINT, the verdict goes to standard output. A second SIGINT leaves at once.\n\n" +
			"The exit code is that of COMMAND, 128 and the signal if it was killed, 127 if it does not\n" +
			"exist and 126 if it cannot be run; 3 if a finding matches --fail-on.",
		Example: "  twscope attach --fail-on port-exhaustion -- wrk -t2 -c50 -d30s http://10.0.0.2/\n" +
			"  twscope attach --comm k6 --duration 1m --format markdown",
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at > 0 || at < 0 && len(args) > 0 {
				return usageError{fmt.Errorf("unexpected argument %q: a command stands behind --", args[0])}
			} else if at == 0 && len(args) == 0 {
				return usageError{errors.New("there is no command behind --")}
			}
			return o.run(cmd, args)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // the flags behind a forgotten "--" are not ours
	f.StringVar(&o.out, "out", "", "write the event log to this file too (`FILE`)")
	f.DurationVar(&o.statsInterval, "stats-interval", time.Second, "time between looks at the port budgets (`DURATION`)")
	f.DurationVar(&o.duration, "duration", 0, "end after this time, COMMAND by SIGTERM; 0: do not (`DURATION`)")
	f.StringVar(&o.format, "format", "text", "write the verdict as text, markdown or json (`FORMAT`)")
	f.StringVar(&o.report, "verdict", eventlog.Stdio, "write the verdict to this file; \"-\" is standard output (`FILE`)")
	f.StringVar(&o.failOn, "fail-on", "", "exit with code 3 at findings of these codes, or of this severity or above (`CODE[,CODE]|SEVERITY`)")
	f.StringVar(&o.live, "live", "auto", "tell the state as a block, as lines, or off; auto decides (`HOW`)")
	f.StringVar(&o.color, "color", "auto", "colour: auto, always or never; auto respects NO_COLOR (`WHEN`)")
	o.register(f)
	// the verdict tells what was lost
	o.logLevel, f.Lookup("log-level").DefValue = "error", "error"
	return cmd
}

// newHoldCmd is what attach starts before COMMAND, see attach.Start.
func newHoldCmd() *cobra.Command {
	return &cobra.Command{
		Use: holdName, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 || args[0] != "--" {
				return usageError{errors.New("this is for twscope itself to call")}
			}
			return statusError{attach.Hold(args[1:])}
		},
	}
}

const holdName = "attach-hold"

// checkAttach complains about flags that make no sense.
func (o *attachOptions) checkAttach(command bool) error {
	var err error
	if o.failOn != "" || o.flags.Changed("fail-on") {
		if o.fail, err = verdict.ParseFailOn(o.failOn); err != nil {
			return fmt.Errorf("--fail-on: %w", err)
		}
	}
	owners := len(o.pid)+len(o.comm)+len(o.cgroup) > 0
	switch {
	case !command && !owners && len(o.netns)+len(o.dst)+len(o.src) == 0:
		return errors.New("what is there to watch? Name a command behind --, or a test that runs by --pid, --comm, --cgroup, --netns, --dst or --src")
	case command && len(o.pid) > 0:
		return errors.New("--pid is for a test that runs already: leave it out, or the command")
	case !slices.Contains([]string{"text", "markdown", "json"}, o.format):
		return fmt.Errorf("--format %q: want text, markdown or json", event.Clean(o.format))
	case !slices.Contains([]string{liveAuto, liveBlock, liveLines, liveOff}, o.live):
		return fmt.Errorf("--live %q: want %s, %s, %s or %s", event.Clean(o.live), liveAuto, liveBlock, liveLines, liveOff)
	case o.out == eventlog.Stdio:
		return errors.New("--out -: standard output is for the verdict: name a file")
	case o.report == "":
		return errors.New("--verdict: want a file, or - for standard output")
	case o.statsInterval == 0:
		return errors.New("--stats-interval 0: want 1s or more: the verdict rests on these looks")
	case (command || owners) && slices.Contains(o.events, event.KindTimeWaitEnd.String()):
		return errors.New("--events time_wait_end: the end of TIME_WAIT has no owner: select by --netns, --dst or --src only")
	}
	return nil
}

func (o *attachOptions) run(cmd *cobra.Command, argv []string) error {
	a, err := o.prepare(cmd, len(argv) > 0)
	if err != nil {
		return err
	}
	defer outlivePipes()()
	if len(argv) > 0 {
		if err := a.start(argv); err != nil {
			return err
		}
	}
	return a.observe(cmd.Context())
}

// prepare turns the flags into an attachment.
func (o *attachOptions) prepare(cmd *cobra.Command, command bool) (*attachment, error) {
	if err := o.checkAttach(command); err != nil {
		return nil, usageError{err}
	}
	stdout, stderr := cmd.OutOrStdout(), cmd.ErrOrStderr()
	color, err := useColor(o.color, stdout, os.Getenv("NO_COLOR"))
	if err != nil {
		return nil, usageError{err}
	}
	a := &attachment{opts: o, stdout: stdout, color: color, watch: &watcher{collector: verdict.New()}}
	a.view = newView(stderr, a.watch, o.liveHow(stderr, command))
	if color, _ := useColor(o.color, stderr, os.Getenv("NO_COLOR")); color {
		a.view.paint = paintVerdict
	}
	unread := o.out == "" && !o.flags.Changed("out")
	if unread {
		o.out = os.DevNull
	}
	if a.session, err = o.session(a.view); err != nil {
		return nil, err
	}
	s := &a.session
	if unread {
		s.Kinds = []event.Kind{} // none is written, the observer has them all
	}
	s.Observer, s.Ready, s.Family = a.watch, a.ready, a.family
	f := &s.Filters
	if s.AllOwners = command || len(f.PIDs)+len(f.Comms)+len(f.Cgroups) > 0; s.AllOwners {
		s.Kinds = slices.DeleteFunc(s.Kinds, func(k event.Kind) bool { return k == event.KindTimeWaitEnd })
	}
	a.watch.owners = s.AllOwners
	if command && !s.Facts.InitialPIDNS {
		return nil, errors.New("twscope runs in a pid namespace of its own, where the kernel's number of the command is not known; run it in the host's")
	}
	return a, nil
}

// attachment is one run of attach.
type attachment struct {
	opts    *attachOptions
	session session.Options
	stdout  io.Writer
	color   bool // of the verdict
	watch   *watcher
	view    *view
	command *attach.Command // nil: none

	cancel   context.CancelCauseFunc
	isReady  bool
	startErr error // of the command
	left     int   // processes that run
}

// graceTime is for the connections that a command has left to its end: they
// enter TIME_WAIT when the peer has answered.
const graceTime = 300 * time.Millisecond

// start starts the command, held back.
func (a *attachment) start(argv []string) error {
	var err error
	if a.command, err = attach.Start(argv, holdName); err != nil {
		return err
	}
	s := &a.session
	s.Filters.PIDs = []uint32{uint32(a.command.PID())}
	s.FilterText["command"] = []string{argv[0]} // its arguments may be secrets
	return nil
}

// observe runs the session and ends with the verdict.
func (a *attachment) observe(ctx context.Context) error {
	ctx, a.cancel = context.WithCancelCause(ctx)
	defer a.cancel(nil)
	defer a.signals()()
	err := session.Run(ctx, a.session)
	a.view.end()
	if a.command != nil {
		if !a.isReady {
			a.command.Abandon()
			return err
		}
		<-a.command.Done()
	}
	if a.startErr != nil {
		return errors.Join(a.startErr, err)
	}
	if !a.isReady {
		return err
	}
	v := a.watch.verdict()
	return a.outcome(&v, errors.Join(err, a.write(&v)))
}

// outcome is the error that makes the exit code.
func (a *attachment) outcome(v *verdict.Verdict, err error) error {
	if err != nil {
		return err
	}
	if matches := v.Matches(a.opts.fail); len(matches) > 0 {
		var codes []string
		for _, m := range matches {
			codes = append(codes, m.Code+" ("+m.Severity+")")
		}
		return matchError{"--fail-on matches " + strings.Join(codes, ", ")}
	}
	if a.command != nil {
		if status := a.command.Exit().Status(); status != 0 {
			return statusError{status}
		}
	}
	return nil
}

// ready is called when everything is attached.
func (a *attachment) ready(r session.Report) {
	a.isReady = true
	var seconds time.Duration
	if seconds = a.opts.duration; seconds > 0 {
		time.AfterFunc(seconds, a.expire)
	}
	a.view.begin(a.what(), r)
	if a.command == nil {
		return
	}
	if a.startErr = a.command.Run(); a.startErr != nil {
		a.cancel(a.startErr)
		return
	}
	go func() {
		<-a.command.Done()
		time.AfterFunc(graceTime, func() {
			a.cancel(errors.New("the command has ended: " + a.command.Exit().String()))
		})
	}()
}

// what is watched, in words.
func (a *attachment) what() string {
	if a.command != nil {
		return fmt.Sprintf("the command (pid %d) and its descendants", a.command.PID())
	}
	return a.opts.words()
}

// words are the selectors as they were given.
func (s *selectors) words() string {
	var parts []string
	text := s.text()
	for _, flag := range []string{"pid", "comm", "cgroup", "netns", "dst", "src"} {
		if len(text[flag]) > 0 {
			parts = append(parts, "--"+flag+" "+event.Clean(strings.Join(text[flag], ",")))
		}
	}
	return strings.Join(parts, " ")
}

// expire ends a run after --duration.
func (a *attachment) expire() {
	if a.command == nil {
		a.cancel(errDuration)
		return
	}
	a.view.note("--duration is over: SIGTERM to the command")
	a.command.Signal(unix.SIGTERM)
}

// family is told how many processes of --pid, or of the command, run.
func (a *attachment) family(n int) {
	a.left = n
	if a.command == nil && len(a.session.Filters.PIDs) > 0 && n == 0 {
		a.cancel(errors.New("the processes of --pid have ended"))
	}
}

// write writes the verdict.
func (a *attachment) write(v *verdict.Verdict) (err error) {
	out, name := a.stdout, "standard output"
	if a.opts.report != eventlog.Stdio {
		f, err := os.Create(a.opts.report)
		if err != nil {
			return fmt.Errorf("--verdict: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out, name, a.color = f, a.opts.report, false
	}
	switch {
	case a.command == nil || a.left == 0:
	case a.left == 1:
		a.view.note("1 process that the command has started goes on, and is watched no more")
	default:
		a.view.note(fmt.Sprintf("%d processes that the command has started go on, and are watched no more", a.left))
	}
	text := string(v.Encode()) + "\n"
	switch a.opts.format {
	case "markdown":
		text = v.Markdown()
	case "text":
		text = v.Text(verdictStyle(out, a.color))
		if a.command != nil && out == a.stdout {
			text = "\n" + text // the command may have written there
		}
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("write the verdict to %s: %w", name, err)
	}
	return nil
}
