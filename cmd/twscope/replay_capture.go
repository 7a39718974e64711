// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/refusal"
)

const (
	// sourcesEvery is how often, in the time of the capture, what is known of
	// the sources is summed up.
	sourcesEvery = 10 * int64(time.Second)
	// quiet is after how long without an event nothing follows any more:
	// clocks are kept for an hour, and what is open closes within minutes.
	quiet = 2 * int64(time.Hour)
	// sourcesListed is how many sources are named at a time.
	sourcesListed = 20
)

// captureReplay draws conclusions from a capture.
type captureReplay struct {
	packets *capture.Reader
	source  *capture.Source
	judge   *refusal.Judge
	engine  *diagnose.Engine
	tell    func(event.Event) error
	json    bool // tells all summaries of the sources, else the last one only

	due, last int64 // ns: of the next summary, of the latest event; 0: none yet
	silent    bool  // the latest summary named no source
	findings  uint64
}

// replayCapture reads a capture to the end, or to where it cannot be read on.
func replayCapture(ctx context.Context, in *replayInput, stdout, stderr io.Writer, o replayOptions, text tailText) error {
	packets, err := capture.NewReader(in.capture)
	if err != nil {
		return err
	}
	source, err := capture.NewSource(packets, capture.SourceOptions{})
	if err != nil {
		return err
	}
	c := &captureReplay{packets: packets, source: source, engine: diagnose.New(), json: o.format == "json"}
	// A fixed seed, so that the same capture gives the same.
	if c.judge, err = refusal.New(refusal.Options{}); err != nil {
		return err
	}
	p := newProgress(stderr, func() string { return c.progress(in) })
	in.raw.tell = p.show
	out := bufio.NewWriter(&above{stdout, p})
	c.tell = writeEvents(out, c.json, text)
	err = c.run(ctx)
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	p.hide()
	_, serr := fmt.Fprintln(stderr, c.account())
	return errors.Join(err, serr)
}

// writeEvents returns a function that writes events as lines.
func writeEvents(out *bufio.Writer, json bool, text tailText) func(event.Event) error {
	enc := event.NewEncoder()
	return func(ev event.Event) (err error) {
		if json {
			_, err = out.Write(enc.Append(nil, ev))
		} else {
			_, err = out.WriteString(text.line(ev))
		}
		return err
	}
}

// run tells what follows from the capture. Also where it is damaged, all that
// follows from what came before.
func (c *captureReplay) run(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		ev, err := c.source.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return errors.Join(c.end(), err)
		}
		if err := c.take(ev); err != nil {
			return err
		}
	}
}

// take judges an event, tells it if it is a refusal, and what follows. Nothing
// follows from the others but what the sources' summaries say, so that the
// lines written as JSON are a log from which the same findings follow.
func (c *captureReplay) take(ev event.Event) error {
	if err := c.sumUp(ev.UnixNano()); err != nil {
		return err
	}
	c.last = ev.UnixNano()
	c.judge.Feed(ev)
	switch ev.(type) {
	case *event.PAWSReject, *event.SYNReject:
		return c.feed(ev, true)
	}
	return nil
}

// sumUp tells what is known of the sources at the times that have come by now.
func (c *captureReplay) sumUp(now int64) error {
	if c.due == 0 {
		c.due = now + sourcesEvery
	}
	for ; c.due <= now; c.due += sourcesEvery {
		if c.due-c.last > quiet {
			c.due += (now - c.due) / sourcesEvery * sourcesEvery
		}
		if err := c.summary(c.due, c.json); err != nil {
			return err
		}
	}
	return nil
}

// summary tells what is known of the sources, but not again and again that
// nothing is.
func (c *captureReplay) summary(now int64, shown bool) error {
	list := c.judge.Sources(now, sourcesListed)
	was := c.silent
	if c.silent = len(list.List) == 0; c.silent && was {
		return nil
	}
	return c.feed(list, shown)
}

// end sums up at the end of the capture.
func (c *captureReplay) end() error {
	now := c.source.Now()
	if c.due == 0 {
		return nil // no event
	}
	if err := c.sumUp(now - 1); err != nil {
		return err
	}
	return c.summary(now, true)
}

// feed tells an event, if it is to be shown, and the findings that follow.
func (c *captureReplay) feed(ev event.Event, shown bool) error {
	if shown {
		if err := c.tell(ev); err != nil {
			return err
		}
	}
	for _, f := range c.engine.Feed(ev) {
		c.findings++
		if err := c.tell(f); err != nil {
			return err
		}
	}
	return nil
}

// progress says how far it is.
func (c *captureReplay) progress(in *replayInput) string {
	s := c.source.Stats()
	far := fmt.Sprintf("%d MB", in.raw.n/1e6)
	if in.size > 0 {
		far = fmt.Sprintf("%d %%", min(100*in.raw.n/in.size, 100))
	}
	return fmt.Sprintf("%s, %d packets, %d SYNs, %d refused, %d findings",
		far, c.packets.Stats().Packets, s.SYNs, s.RefusedPAWS+s.RefusedOther, c.findings)
}

// account sums up what was read.
func (c *captureReplay) account() string {
	p, s := c.packets.Stats(), c.source.Stats()
	var b strings.Builder
	fmt.Fprintf(&b, "%d packets, %d TCP segments, %d SYNs and %d repetitions: %d handshakes completed, %d refused by PAWS, %d refused otherwise, %d without an answer; %d findings",
		p.Packets, p.Segments, s.SYNs, s.Repeated, s.Completed+s.Inferred, s.RefusedPAWS, s.RefusedOther, s.Unanswered, c.findings)
	for _, skipped := range []struct {
		n   int64
		why string
	}{
		{p.Fragments, "fragments"},
		{p.Cut, "cut before the end of their TCP header: capture with a snap length of 128 bytes or more"},
		{p.Malformed, "malformed"},
		{p.OtherLink, "of a link type that is not supported"},
		{p.Untimed, "without a time"},
	} {
		if skipped.n > 0 {
			fmt.Fprintf(&b, "; passed over: %d %s", skipped.n, skipped.why)
		}
	}
	for _, note := range s.Notes() {
		b.WriteString("; note: " + note)
	}
	return b.String()
}
