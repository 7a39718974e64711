// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/verdict"
)

// replayOptions are the flags of replay.
type replayOptions struct {
	format, color   string
	check, all, utc bool
}

func newReplayCmd() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Draw the conclusions from an event log or a packet capture",
		Long: "Read an event log and tell the findings and the verdict that follow from its events, as\n" +
			"the run that wrote it did. It needs no root. Those that the log holds are passed over.\n" +
			"With --check nothing is told but the first difference to those in the log, and any\n" +
			"difference is an error. In JSON the verdict stands in the stop event, as in the log.\n\n" +
			"Or read a packet capture, pcap or pcapng, and tell which SYNs its servers refused on\n" +
			"sockets in TIME_WAIT, why, and the findings. The capture should hold both directions and\n" +
			"128 bytes of each packet, or more: tcpdump -s 128 -w FILE tcp\n\n" +
			"FILE may be in gzip format; \"-\" is standard input. What it is shows by its first bytes.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runReplay(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "text", "write as text, or as json, lines like those in the log (`FORMAT`)")
	f.BoolVar(&o.check, "check", false, "compare with the findings and the verdict in the log, and fail if they differ")
	f.BoolVar(&o.all, "all", false, "read the rotated files of the log first")
	f.BoolVar(&o.utc, "utc", false, "show times in UTC, not in local time")
	f.StringVar(&o.color, "color", "auto", "colour: auto, always or never; auto respects NO_COLOR (`WHEN`)")
	return cmd
}

func runReplay(cmd *cobra.Command, path string, o replayOptions) error {
	if o.format != "text" && o.format != "json" {
		return usageError{fmt.Errorf("--format %q: want text or json", event.Clean(o.format))}
	}
	color, err := useColor(o.color, cmd.OutOrStdout(), os.Getenv("NO_COLOR"))
	if err != nil {
		return usageError{err}
	}
	text := tailText{color: color, zone: time.Local}
	if o.utc {
		text.zone = time.UTC
	}
	in, err := openReplay(cmd.InOrStdin(), path, o.all)
	if err != nil {
		return err
	}
	if in.log != nil {
		err = replayLog(cmd, in.log, o, text)
	} else if flag := o.forLogs(); flag != "" {
		err = usageError{fmt.Errorf("%s is for event logs, and %s is a packet capture", flag, event.Clean(path))}
	} else {
		err = replayCapture(cmd.Context(), in, cmd.OutOrStdout(), cmd.ErrOrStderr(), o, text)
	}
	return errors.Join(err, in.Close())
}

// forLogs returns a flag that makes no sense for a capture, if there is one.
func (o *replayOptions) forLogs() string {
	switch {
	case o.check:
		return "--check"
	case o.all:
		return "--all"
	}
	return ""
}

func replayLog(cmd *cobra.Command, r *eventlog.Reader, o replayOptions, text tailText) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	p := &replay{out: out, enc: event.NewEncoder(), analysis: verdict.NewReplay(), opts: o, text: text, style: verdictStyle(cmd.OutOrStdout(), text.color)}
	err := p.run(cmd.Context(), r)
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if _, serr := fmt.Fprintln(cmd.ErrOrStderr(), p.account()); err == nil {
		err = serr
	}
	return err
}

// replay reads a log and draws conclusions.
type replay struct {
	out      *bufio.Writer
	enc      *event.Encoder
	analysis *verdict.Replay
	text     tailText
	style    verdict.Style
	opts     replayOptions

	events, findings uint64
	unknown, members uint64 // events and members that this version does not know
	missing          uint64 // by the loss events
	firstPart        int    // of the first start event
	began, stopped   bool
	stop             event.Stop // the last one, with the verdict that is drawn
	// For --check: findings that the log has not shown yet, as lines, and
	// those of the log that have not been drawn yet.
	drawn, recorded [][]byte
	compared        uint64
}

// run reads to the end, or to the first line that cannot be read.
func (p *replay) run(ctx context.Context, r *eventlog.Reader) error {
	for {
		ev, err := r.Next(ctx)
		line, bad := errors.AsType[*eventlog.LineError](err)
		switch {
		case bad:
			return p.unreadable(line)
		case errors.Is(err, io.EOF):
			return p.end()
		case err != nil:
			return err
		}
		p.count(ev)
		if err := p.take(ev); err != nil {
			return err
		}
	}
}

// unreadable says what may be wrong with a line.
func (p *replay) unreadable(line *eventlog.LineError) error {
	text := event.Clean(line.Error())
	switch {
	case errors.Is(line.Err, eventlog.ErrPartialLine):
		return fmt.Errorf("%s: the log was cut there, or is being written; %d events were read before", text, p.events)
	case p.events == 0:
		return fmt.Errorf("%s: is this an event log of twscope?", text)
	}
	return errors.New(text)
}

func (p *replay) count(ev event.Event) {
	p.events++
	p.stopped = false
	switch ev := ev.(type) {
	case *event.Unknown:
		p.unknown++
	case *event.Loss:
		p.missing += ev.Count
	case *event.Start:
		if !p.began {
			p.began, p.firstPart = true, ev.Part
		}
	case *event.Stop:
		p.stopped = true
	}
	if h, ok := ev.(interface{ Unread() int }); ok {
		p.members += uint64(h.Unread())
	}
}

// take feeds one event and writes, or compares, what follows from it.
func (p *replay) take(ev event.Event) error {
	if p.opts.check && ev.Kind() == event.KindFinding {
		p.recorded = append(p.recorded, p.enc.Append(nil, ev))
	}
	for _, f := range p.analysis.Feed(ev) {
		p.findings++
		if err := p.tell(f); err != nil {
			return err
		}
	}
	if err := p.compare(); err != nil {
		return err
	}
	if stop, ok := ev.(*event.Stop); ok {
		return p.conclude(stop)
	}
	return nil
}

func (p *replay) tell(f *event.Finding) error {
	line := p.enc.Append(nil, f)
	var err error
	switch {
	case p.opts.check:
		p.drawn = append(p.drawn, line)
	case p.opts.format == "json":
		_, err = p.out.Write(line)
	default:
		_, err = p.out.WriteString(p.text.line(f))
	}
	return err
}

// compare holds what was drawn to what was recorded.
func (p *replay) compare() error {
	for len(p.drawn) > 0 && len(p.recorded) > 0 {
		p.compared++
		if !bytes.Equal(p.drawn[0], p.recorded[0]) {
			return p.differs("recorded: "+string(p.recorded[0]), "replayed: "+string(p.drawn[0]))
		}
		p.drawn, p.recorded = p.drawn[1:], p.recorded[1:]
	}
	return nil
}

func (p *replay) differs(recorded, replayed string) error {
	const lead = "the replay differs from the log at finding %d, of event %d:\n%s\n%s"
	return fmt.Errorf(lead, p.compared, p.events, strings.TrimSpace(event.Clean(strings.TrimSpace(recorded))), event.Clean(strings.TrimSpace(replayed)))
}

// end compares what is left. A log that was cut may lack the findings of its
// last event.
func (p *replay) end() error {
	if p.events == 0 {
		return errors.New("the log is empty")
	}
	p.compared++
	if len(p.recorded) > 0 {
		return p.differs("recorded: "+string(p.recorded[0]), "replayed: nothing")
	}
	if len(p.drawn) > 0 && p.stopped {
		return p.differs("recorded: nothing", "replayed: "+string(p.drawn[0]))
	}
	p.compared--
	return p.tellVerdict()
}

// account sums up what was read.
func (p *replay) account() string {
	text := fmt.Sprintf("%d events, %d findings; passed over: %d unknown events, %d unknown members; missing in the log: %d",
		p.events, p.findings, p.unknown, p.members, p.missing)
	if p.opts.check {
		text += fmt.Sprintf("; %d findings compared", p.compared)
	}
	switch {
	case p.events == 0:
	case !p.began:
		text += "; note: the log has no start event, so settings of the host are not known"
	case p.firstPart > 0:
		text += fmt.Sprintf("; note: the log begins with part %d of its run, --all reads the files before", p.firstPart)
	}
	if p.events > 0 && !p.stopped {
		text += "; note: the log ends without a stop event"
	}
	return text
}
