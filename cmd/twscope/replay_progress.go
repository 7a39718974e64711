// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
)

// progressEvery is how often the progress is shown anew.
const progressEvery = 200 * time.Millisecond

// progress shows how far something is on one line of a terminal.
type progress struct {
	terminal io.Writer
	now      func() time.Time
	line     func() string
	last     time.Time
	shown    bool
}

// newProgress returns nil, which shows nothing, if out is no terminal.
func newProgress(out io.Writer, line func() string) *progress {
	f, ok := out.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return nil
	}
	return &progress{terminal: out, now: time.Now, line: line}
}

const (
	toLineStart = "\r"
	eraseToEnd  = "\x1b[K" // EL of ECMA-48
)

// show shows the line, if it is time.
func (p *progress) show() {
	if p == nil {
		return
	}
	now := p.now()
	if now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.shown = now, true
	fmt.Fprint(p.terminal, toLineStart+p.line()+eraseToEnd)
}

// hide removes the line, so that something else can be written.
func (p *progress) hide() {
	if p == nil || !p.shown {
		return
	}
	p.shown = false
	fmt.Fprint(p.terminal, toLineStart+eraseToEnd)
}

// above writes to out, which may be the same terminal, above the line.
type above struct {
	out      io.Writer
	progress *progress
}

func (a *above) Write(b []byte) (int, error) {
	a.progress.hide()
	return a.out.Write(b)
}
