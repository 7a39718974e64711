// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/verdict"
)

// The values of --live.
const (
	liveAuto  = "auto"
	liveBlock = "block"
	liveLines = "lines"
	liveOff   = "off"
)

const (
	blockInterval = time.Second
	linesInterval = 5 * time.Second
	// unmatchedAfter is when to say that nothing was seen.
	unmatchedAfter = 5 * time.Second
)

// liveHow decides how to tell the state. A command inherits standard error, and
// what it writes there would go into the middle of a block.
func (o *attachOptions) liveHow(stderr io.Writer, command bool) string {
	f, ok := stderr.(*os.File)
	terminal := ok && isatty.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"
	switch {
	case o.live != liveAuto:
		return o.live
	case terminal && !command:
		return liveBlock
	}
	return liveLines
}

// watcher hands what goes to the log to the collector, of which the view asks
// from another goroutine.
type watcher struct {
	mu        sync.Mutex
	collector *verdict.Collector
	owners    bool // some are selected
	matched   bool // there was a connection
}

// Feed takes an event.
func (w *watcher) Feed(ev event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.collector.Feed(ev)
	if w.matched {
		return
	}
	switch e := ev.(type) {
	case *event.Destinations:
		w.matched = len(e.List) > 0
	case *event.Census:
		w.matched = !w.owners // a socket in TIME_WAIT has none
	case *event.ListenDrop:
	case interface{ Connection() *event.Socket }:
		w.matched = true
	}
}

// Stop takes the stop event and adds the verdict to it.
func (w *watcher) Stop(ev *event.Stop) *event.Stop {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.collector.Stop(ev)
}

func (w *watcher) verdict() verdict.Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.collector.Verdict()
}

func (w *watcher) live() (l verdict.Live, matched bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.collector.Live(time.Now().UnixNano()), w.matched
}

// view tells people the state while a session runs. It is the writer of
// diagnostics too, so that they stand above the block.
type view struct {
	out   io.Writer
	watch *watcher
	how   string
	paint func(verdict.Part, string) string

	stop  chan struct{}
	ended sync.WaitGroup
	once  sync.Once

	mu    sync.Mutex // guards out and what follows
	over  bool
	drawn []string // the block as it is on the terminal
	shown []int    // the columns of its lines
}

func newView(out io.Writer, w *watcher, how string) *view {
	return &view{out: out, watch: w, how: how, stop: make(chan struct{})}
}

// begin tells what is watched and begins to tell the state.
func (v *view) begin(what string, r session.Report) {
	already := ""
	if r.TimeWait > 0 {
		already = fmt.Sprintf("; %d sockets are in TIME_WAIT already", r.TimeWait)
	}
	v.note(fmt.Sprintf("watching %s, attached in %d ms%s", what, r.Took.Milliseconds(), already))
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over {
		v.ended.Go(func() { v.run(what) })
	}
}

// end takes the block away. Nothing is told of the state after it.
func (v *view) end() {
	v.once.Do(func() {
		close(v.stop)
		v.mu.Lock()
		v.over = true
		_, _ = io.WriteString(v.out, v.erase())
		v.drawn, v.shown = nil, nil
		v.mu.Unlock()
		v.ended.Wait()
	})
}

// note tells something on a line of its own.
func (v *view) note(text string) { fmt.Fprintf(v, "twscope: %s\n", text) }

// Write writes whole lines above the block. If nobody reads them, nothing is
// lost.
func (v *view) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, _ = io.WriteString(v.out, v.erase()+string(p)+v.block())
	return len(p), nil
}

func (v *view) run(what string) {
	interval := linesInterval
	resized := make(chan os.Signal, 1)
	if v.how == liveBlock {
		interval = blockInterval
		signal.Notify(resized, unix.SIGWINCH)
		defer signal.Stop(resized)
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	look := time.NewTicker(blockInterval)
	defer look.Stop()
	unmatched := time.NewTimer(unmatchedAfter)
	defer unmatched.Stop()
	var ticker verdict.Ticker
	for {
		state := false
		select {
		case <-v.stop:
			return
		case <-resized:
			state = true
		case <-tick.C:
			state = true
		case <-look.C:
		case <-unmatched.C:
			if _, matched := v.watch.live(); !matched {
				v.note("no connection of " + what + " was seen yet; still waiting")
			}
			continue
		}
		v.tell(&ticker, state)
	}
}

// tell tells news, and the state if it is time to.
func (v *view) tell(t *verdict.Ticker, state bool) {
	l, matched := v.watch.live()
	switch v.how {
	case liveBlock:
		columns, rows := v.size()
		block := l.Lines(verdict.Style{Width: columns - len("^C "), Paint: v.paint}) // what the terminal echoes goes there
		v.draw(block[:min(len(block), max(rows-1, 1))])
	case liveLines:
		for _, news := range t.News(&l) {
			v.note(news)
		}
		if state && matched {
			v.note(l.Line())
		}
	}
}

// size is that of the terminal; what is none, or does not tell, has 80 by 24.
func (v *view) size() (columns, rows int) {
	if f, ok := v.out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
			return int(size.Col), int(size.Row)
		}
	}
	return textWidth, 24
}

// draw replaces the block.
func (v *view) draw(lines []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	erase := v.erase()
	v.drawn, v.shown = lines, nil
	for _, line := range lines {
		v.shown = append(v.shown, visible(line))
	}
	_, _ = io.WriteString(v.out, erase+v.block())
}

// block is what draws the lines; the cursor stays behind the last.
func (v *view) block() string { return strings.Join(v.drawn, "\n") }

// erase is what removes the block. A terminal that has become narrower since
// has broken its lines.
func (v *view) erase() string {
	if len(v.drawn) == 0 {
		return ""
	}
	rows := 0
	columns, _ := v.size()
	for _, n := range v.shown {
		rows += max(1, (n+columns-1)/columns)
	}
	up := ""
	if rows > 1 {
		up = fmt.Sprintf("\x1b[%dA", rows-1)
	}
	return "\r" + up + "\x1b[J"
}

// visible counts the columns of a line, which colours take none of.
func visible(line string) int {
	n, escape := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case !escape:
			n++
		case r == 'm':
			escape = false
		}
	}
	return n
}
