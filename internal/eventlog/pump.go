// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// checkInterval is how often the Writer looks whether the path still leads to
// its file, and tells losses.
const checkInterval = time.Second

// maxBackoff is the longest pause between two tries of a failing output.
const maxBackoff = 5 * time.Second

// maxFree is how many empty chunks are kept for re-use.
const maxFree = 4

// request asks the goroutine to do something at once.
type request struct {
	what requestKind
	done chan error
}

type requestKind uint8

const (
	requestFlush requestKind = iota
	requestReopen
)

// output takes the bytes of a log.
type output interface {
	// ready makes the output ready to write; fresh tells that a new file
	// begins, which needs a start line.
	ready() (fresh bool, err error)
	// write returns how many bytes need not be written again.
	write(p []byte) (int, error)
	// room returns how many bytes the file may still take.
	room() int64
	// stale tells whether the path leads elsewhere now.
	stale() bool
	// rotate puts the file aside, so that ready opens a new one.
	rotate() error
	// reopen closes the file, so that ready opens the path again.
	reopen() error
	// close syncs and closes.
	close() error
}

// pump is the goroutine of a Writer: it moves chunks to the output.
type pump struct {
	w      *Writer
	out    output
	enc    *event.Encoder
	part   int    // of the next start line
	head   []byte // what is left of the start line of this file
	empty  bool   // the file holds no line of ours but the start line
	chunk  *chunk // being written
	packer *packer

	failing       bool
	backoff       time.Duration
	retryAt       time.Time
	checkAt       time.Time
	noRotateUntil time.Time
}

func newPump(w *Writer, openFile opener) (*pump, error) {
	out, packer, err := newOutput(w.opts, openFile)
	if err != nil {
		return nil, err
	}
	p := &pump{w: w, out: out, packer: packer, enc: event.NewEncoder(), checkAt: time.Now().Add(checkInterval)}
	if err := p.begin(); err != nil {
		return nil, errors.Join(err, out.close(), packer.close())
	}
	return p, nil
}

func (p *pump) run() {
	defer close(p.w.closed)
	ticker := time.NewTicker(p.w.opts.FlushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-p.w.kick:
			p.work(false)
		case <-ticker.C:
			p.tick()
			p.work(true)
		case r := <-p.w.requests:
			r.done <- p.serve(r.what)
		case <-p.w.closing:
			p.w.closeErr = p.finish()
			return
		}
	}
}

// tick does what is due once in a checkInterval.
func (p *pump) tick() {
	now := time.Now()
	if now.Before(p.checkAt) {
		return
	}
	p.checkAt = now.Add(checkInterval)
	p.tellLosses()
	if p.out.stale() {
		p.reopen()
	}
}

func (p *pump) tellLosses() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.tellLosses()
}

func (p *pump) reopen() {
	// The old file has what was written to it; an error on closing it
	// cannot be mended by anything that follows.
	if err := p.out.reopen(); err != nil {
		p.w.opts.Notify(err)
	}
}

func (p *pump) serve(what requestKind) error {
	p.tellLosses()
	err := p.try(true)
	if what == requestReopen {
		p.reopen()
		err = p.try(true)
	}
	return err
}

// work moves what there is, unless a failing output is given a rest. With
// partly it takes the chunk that is not full, too.
func (p *pump) work(partly bool) {
	if !p.failing || !time.Now().Before(p.retryAt) {
		_ = p.try(partly) // try has noted the error and told it
	}
}

// try moves what there is and notes whether that worked.
func (p *pump) try(partly bool) error {
	if p.isGone() {
		return ErrReaderGone
	}
	err := p.move(partly)
	switch {
	case err == nil:
		if p.failing {
			p.failing = false
			p.w.opts.Notify(nil)
		}
	case errors.Is(err, ErrReaderGone):
		p.giveUp()
		close(p.w.gone)
	case p.failing:
		if !errors.Is(err, errStalled) {
			p.backoff = min(2*p.backoff, maxBackoff)
		}
		p.retryAt = time.Now().Add(p.backoff)
	default:
		p.failing, p.backoff = true, p.w.opts.FlushInterval
		p.retryAt = time.Now().Add(p.backoff)
		p.w.opts.Notify(fmt.Errorf("%w; events are kept in memory up to %d MiB, then counted as lost", err, p.w.opts.MaxPending>>20))
	}
	return err
}

func (p *pump) isGone() bool {
	select {
	case <-p.w.gone:
		return true
	default:
		return false
	}
}

// move writes chunks until there are none.
func (p *pump) move(partly bool) error {
	for {
		if err := p.begin(); err != nil {
			return err
		}
		if p.chunk == nil {
			if p.chunk = p.take(partly); p.chunk == nil {
				return nil
			}
		}
		if err := p.writeChunk(); err != nil {
			return err
		}
		p.recycle()
	}
}

// take returns the oldest chunk, or nil.
func (p *pump) take(partly bool) *chunk {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 && partly {
		w.seal()
	}
	if len(w.queue) == 0 {
		return nil
	}
	c := w.queue[0]
	n := copy(w.queue, w.queue[1:])
	w.queue[n] = nil
	w.queue = w.queue[:n]
	return c
}

func (p *pump) recycle() {
	p.chunk.reset()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if len(p.w.free) < maxFree {
		p.w.free = append(p.w.free, p.chunk)
	}
	p.chunk = nil
}

// begin makes the output ready and writes the start line of a new file.
func (p *pump) begin() error {
	fresh, err := p.out.ready()
	if err != nil {
		return err
	}
	if fresh {
		start := p.w.opts.Start(p.part)
		if t, ok := p.nextTime(); ok && t < start.Time {
			start.Time = t
		}
		p.head = p.enc.Append(nil, start)
		p.empty = true
	}
	if len(p.head) == 0 {
		return nil
	}
	n, err := p.out.write(p.head)
	if p.head = p.head[n:]; len(p.head) > 0 {
		return err
	}
	p.part++
	p.w.mu.Lock()
	p.w.written[event.KindStart]++
	p.w.mu.Unlock()
	return err
}

// nextTime returns the time of the line that the new file goes on with, so that
// its start line is not later.
func (p *pump) nextTime() (int64, bool) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range slices.Concat([]*chunk{p.chunk}, w.queue, []*chunk{w.current}) {
		if c == nil || c.next >= len(c.marks) {
			continue
		}
		ev, err := event.Decode(c.line())
		if err != nil {
			return 0, false
		}
		return ev.UnixNano(), true
	}
	return 0, false
}

// writeChunk writes the rest of p.chunk, over as many files as it takes.
func (p *pump) writeChunk() error {
	for c := p.chunk; c.next < len(c.marks); {
		lines := c.rest(p.room())
		if len(lines) == 0 && p.empty {
			lines = c.line() // no new file would have more room
		}
		if len(lines) == 0 {
			if err := p.rotate(); err != nil {
				return err
			}
			continue
		}
		n, err := p.out.write(lines)
		if n > 0 {
			p.empty = false
		}
		p.w.mu.Lock()
		c.take(n, &p.w.written)
		p.w.pending -= n
		p.w.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *pump) room() int64 {
	if time.Now().Before(p.noRotateUntil) {
		return math.MaxInt64
	}
	return p.out.room()
}

// rotate begins a new file. If the old one cannot be put aside it is written
// on, beyond MaxSize: that loses nothing.
func (p *pump) rotate() error {
	if err := p.out.rotate(); err != nil {
		const pause = time.Minute
		p.noRotateUntil = time.Now().Add(pause)
		p.w.opts.Notify(fmt.Errorf("%w; the file grows on, the next try is in %s", err, pause))
	} else {
		p.packer.wake()
	}
	return p.begin()
}

// finish ends the log.
func (p *pump) finish() error {
	p.tellLosses()
	err := p.try(true)
	if n := p.giveUp(); n > 0 && !errors.Is(err, ErrReaderGone) {
		err = fmt.Errorf("%w; %d lines are lost", err, n)
	}
	return errors.Join(err, p.out.close(), p.packer.close())
}

// giveUp counts all lines in memory, and all that come, as lost.
func (p *pump) giveUp() (lines uint64) {
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	w.seal()
	chunks := w.queue
	if p.chunk != nil {
		chunks = append(chunks, p.chunk)
	}
	for _, c := range chunks {
		for _, m := range c.marks[c.next:] {
			w.lost[hopWrite].total[m.kind]++
			lines++
		}
	}
	w.queue, w.pending, p.chunk = nil, 0, nil
	return lines
}
