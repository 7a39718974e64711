// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
)

// tailOptions are the flags of tail.
type tailOptions struct {
	follow, all, utc bool
	lines            int
	events           []string
	color            string
}

func newTailCmd() *cobra.Command {
	var o tailOptions
	cmd := &cobra.Command{
		Use:   "tail [FILE]",
		Short: "Show the event log for people",
		Long: "Show the last events of an event log, one line each: time, event, network namespace,\n" +
			"connection (local -> remote), owner, and what matters about it.\n\n" +
			"FILE is " + eventlog.DefaultPath + " by default; \"-\" is standard input, which is\n" +
			"shown as a whole unless -n is given. A name that ends in .gz is unpacked.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := eventlog.DefaultPath
			if len(args) > 0 {
				path = args[0]
			}
			if path == eventlog.Stdio && !cmd.Flags().Changed("lines") {
				o.all = true
			}
			return runTail(cmd, path, o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "wait for more events, across rotations")
	f.IntVarP(&o.lines, "lines", "n", 10, "show the last `N` events")
	f.BoolVar(&o.all, "all", false, "show all events, those of rotated files first")
	f.StringSliceVar(&o.events, "events", nil, "show only these events (`LIST` separated by commas)")
	f.BoolVar(&o.utc, "utc", false, "show times in UTC, not in local time")
	f.StringVar(&o.color, "color", "auto", "colour: auto, always or never; auto respects NO_COLOR (`WHEN`)")
	cmd.MarkFlagsMutuallyExclusive("all", "lines")
	return cmd
}

func runTail(cmd *cobra.Command, path string, o tailOptions) error {
	if o.lines < 0 {
		return usageError{fmt.Errorf("--lines %d: want 0 or more; --all shows all", o.lines)}
	}
	kinds, err := parseEvents(o.events)
	if err != nil {
		return usageError{err}
	}
	color, err := useColor(o.color, cmd.OutOrStdout(), os.Getenv("NO_COLOR"))
	if err != nil {
		return usageError{err}
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	t := &tail{out: out, kinds: kinds, text: tailText{color: color, zone: time.Local}}
	if o.utc {
		t.text.zone = time.UTC
	}
	if !o.all {
		t.held = &ring{max: o.lines}
	}
	r, err := openTail(cmd.InOrStdin(), path, o, t)
	if err != nil {
		return err
	}
	err = t.run(cmd.Context(), r, cmd.ErrOrStderr(), path == eventlog.Stdio)
	return errors.Join(err, t.release(), r.Close())
}

func openTail(stdin io.Reader, path string, o tailOptions, t *tail) (*eventlog.Reader, error) {
	if path == eventlog.Stdio {
		return eventlog.NewReader("standard input", stdin), nil
	}
	return eventlog.OpenReader(path, eventlog.ReadOptions{
		All: o.all, Follow: o.follow,
		// An error of the output is kept by its buffer and met again.
		Idle: func() { _ = t.release() },
	})
}

// parseEvents returns the set of the named kinds, nil for all.
func parseEvents(names []string) (map[event.Kind]bool, error) {
	var kinds map[event.Kind]bool
	for _, name := range names {
		k, err := event.ParseKind(strings.TrimSpace(name))
		if err != nil {
			return nil, fmt.Errorf("--events: %w", err)
		}
		if kinds == nil {
			kinds = map[event.Kind]bool{}
		}
		kinds[k] = true
	}
	return kinds, nil
}

// useColor decides about colour. NO_COLOR is that of no-color.org: any value
// but none turns it off.
func useColor(when string, out io.Writer, noColor string) (bool, error) {
	switch when {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		f, ok := out.(*os.File)
		return ok && noColor == "" && isatty.IsTerminal(f.Fd()), nil
	}
	return false, fmt.Errorf("--color %q: want auto, always or never", event.Clean(when))
}

// tail shows events.
type tail struct {
	out   *bufio.Writer
	kinds map[event.Kind]bool // nil: all
	text  tailText
	held  *ring // the last events, until the end of the log is seen; nil: none are held
}

// run reads to the end, or while it follows the log until ctx is done.
// Lines that cannot be read are told on stderr.
func (t *tail) run(ctx context.Context, r *eventlog.Reader, stderr io.Writer, live bool) error {
	for {
		ev, err := r.Next(ctx)
		line, bad := errors.AsType[*eventlog.LineError](err)
		switch {
		case errors.Is(err, io.EOF) && !bad, errors.Is(err, context.Canceled):
			return nil
		case errors.Is(err, eventlog.ErrPartialLine):
			continue // it is being written just now
		case bad:
			if _, err := fmt.Fprintf(stderr, "warning: %s\n", event.Clean(line.Error())); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if t.kinds != nil && !t.kinds[ev.Kind()] {
			continue
		}
		if t.held != nil {
			t.held.push(ev)
			continue
		}
		if err := t.show(ev); err != nil {
			return err
		}
		if live {
			if err := t.out.Flush(); err != nil {
				return err
			}
		}
	}
}

func (t *tail) show(ev event.Event) error {
	_, err := t.out.WriteString(t.text.line(ev))
	return err
}

// release shows the events that are held, and from now on holds none.
func (t *tail) release() error {
	if t.held != nil {
		for _, ev := range t.held.events() {
			if err := t.show(ev); err != nil {
				return err
			}
		}
		t.held = nil
	}
	return t.out.Flush()
}

// ring keeps the last max events.
type ring struct {
	max   int
	list  []event.Event
	first int // the oldest, once list is full
}

func (r *ring) push(ev event.Event) {
	switch {
	case len(r.list) < r.max:
		r.list = append(r.list, ev)
	case r.max > 0:
		r.list[r.first] = ev
		r.first = (r.first + 1) % r.max
	}
}

// events returns them, oldest first.
func (r *ring) events() []event.Event {
	return append(r.list[r.first:len(r.list):len(r.list)], r.list[:r.first]...)
}
