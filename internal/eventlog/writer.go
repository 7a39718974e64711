// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"fmt"
	"sync"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// Writer writes the event log. Put only encodes into memory; a goroutine of
// the Writer does the input and output, so that a slow disk does not hold up
// the reader of the ring buffer. All methods may be called by any goroutine.
//
// A process that is killed leaves whole lines, except if the signal interrupts
// write(2) itself; the next Open of that file cuts such a torn line off.
type Writer struct {
	opts  Options
	wants [event.NumKinds]bool

	mu      sync.Mutex // guards what follows
	enc     *event.Encoder
	current *chunk
	queue   []*chunk // full ones, oldest first
	free    []*chunk
	pending int // bytes in current and queue and with the goroutine
	dead    bool
	window  [event.NumKinds]window
	written [event.NumKinds]uint64
	lost    [numHops]tally

	kick     chan struct{} // a chunk is full
	requests chan request
	closing  chan struct{}
	closed   chan struct{} // the goroutine has ended
	gone     chan struct{} // ErrReaderGone
	closer   sync.Once
	closeErr error

	pump *pump
}

// window counts the lines of one kind in one second of event time.
type window struct {
	second int64
	lines  int
}

// hop is an index into the tallies; hopNames has its names.
type hop uint8

const (
	hopWrite hop = iota
	hopRate
	numHops
)

var (
	hopNames = [numHops]string{HopWrite, HopRate}
	hopWhy   = [numHops]string{
		"the output of the event log failed or was too slow: free disk space, use a faster disk, or write fewer kinds with --events",
		"more lines in one second than --rate allows: raise it, or write fewer kinds with --events",
	}
)

// tally counts lost lines by kind, and how many of them loss events have told.
type tally struct{ total, told [event.NumKinds]uint64 }

// Open opens or creates the log, writes the first start line and starts the
// Writer's goroutine. Errors name the path and the remedy.
func Open(opts Options) (*Writer, error) { return open(opts, openOS) }

func open(opts Options, openFile opener) (*Writer, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &Writer{
		opts: opts, enc: event.NewEncoder(), current: newChunk(),
		kick: make(chan struct{}, 1), requests: make(chan request),
		closing: make(chan struct{}), closed: make(chan struct{}), gone: make(chan struct{}),
	}
	for _, k := range opts.Kinds {
		w.wants[index(k)] = true
	}
	for i := range w.wants {
		w.wants[i] = w.wants[i] || opts.Kinds == nil || always(event.Kind(i))
	}
	if w.pump, err = newPump(w, openFile); err != nil {
		return nil, err
	}
	go w.pump.run()
	return w, nil
}

// always tells whether lines of kind k are neither filtered nor withheld.
func always(k event.Kind) bool {
	return k == event.KindStart || k == event.KindStop || k == event.KindLoss || k == event.KindStats
}

// unlimited tells whether lines of kind k are not withheld by Options.Rate:
// those above, and what sums up many others.
func unlimited(k event.Kind) bool {
	return always(k) || k == event.KindFinding || k == event.KindDestinations || k == event.KindSources || k == event.KindListenDrop
}

// index returns k as an index into arrays of NumKinds.
func index(k event.Kind) event.Kind {
	if int(k) >= event.NumKinds {
		return event.KindUnknown
	}
	return k
}

// Put adds ev to the log. It does not wait for the output: when that stalls
// and MaxPending bytes are in memory, ev is dropped and counted. Before a stop
// event it adds the loss events that are still to be told, so that stop is the
// last line. It reports whether ev is in the log, or of a kind that was not to
// be in it; false means that a reader of the log misses it.
func (w *Writer) Put(ev event.Event) bool {
	k := index(ev.Kind())
	if !w.wants[k] {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opts.Rate > 0 && !unlimited(k) && !w.window[k].admit(ev.UnixNano(), w.opts.Rate) {
		w.lost[hopRate].total[k]++
		return false
	}
	if w.dead || w.pending >= w.limit(k) {
		w.lost[hopWrite].total[k]++
		return false
	}
	if k == event.KindStop {
		w.tellLosses()
	}
	w.append(ev, k)
	return true
}

// limit returns how much may be in memory for a line of kind k to be taken:
// what tells of the run and its losses still is when the rest is not.
func (w *Writer) limit(k event.Kind) int {
	if always(k) {
		return 2 * w.opts.MaxPending
	}
	return w.opts.MaxPending
}

// admit tells whether a line at time t is within the rate. Time that goes
// back, as it does a little between CPUs, opens no new window.
func (n *window) admit(t int64, rate int) bool {
	if second := t / int64(time.Second); second > n.second {
		n.second, n.lines = second, 0
	}
	n.lines++
	return n.lines <= rate
}

// append encodes ev into the current chunk. The caller holds mu.
func (w *Writer) append(ev event.Event, k event.Kind) {
	c := w.current
	before := len(c.buf)
	c.buf = w.enc.Append(c.buf, ev)
	c.marks = append(c.marks, mark{end: uint32(len(c.buf)), kind: k})
	w.pending += len(c.buf) - before
	if len(c.buf) >= chunkSize {
		w.seal()
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// seal queues the current chunk. The caller holds mu.
func (w *Writer) seal() {
	if len(w.current.marks) == 0 {
		return
	}
	w.queue = append(w.queue, w.current)
	if n := len(w.free); n > 0 {
		w.current, w.free = w.free[n-1], w.free[:n-1]
	} else {
		w.current = newChunk()
	}
}

// tellLosses adds a loss event for each hop and kind with lines lost since the
// last time, if there is room. The caller holds mu.
func (w *Writer) tellLosses() {
	if w.dead || w.pending >= w.opts.MaxPending {
		return
	}
	for h := range w.lost {
		t := &w.lost[h]
		for k := range t.total {
			n := t.total[k] - t.told[k]
			if n == 0 {
				continue
			}
			t.told[k] = t.total[k]
			w.append(&event.Loss{
				Header: event.Header{Time: w.opts.Now()},
				Hop:    hopNames[h], Of: event.Kind(k).String(), Count: n, Why: hopWhy[h],
			}, event.KindLoss)
		}
	}
}

// Backlog returns how full the memory for lines is that the output has not
// taken yet, from 0 to 1; at 1 lines are dropped.
func (w *Writer) Backlog() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(w.pending) / float64(w.opts.MaxPending)
}

// Counts returns the totals since Open.
func (w *Writer) Counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := Counts{Written: byName(&w.written), Lost: map[string]map[string]uint64{}}
	for h := range w.lost {
		if kinds := byName(&w.lost[h].total); len(kinds) > 0 {
			c.Lost[hopNames[h]] = kinds
		}
	}
	return c
}

func byName(counts *[event.NumKinds]uint64) map[string]uint64 {
	m := map[string]uint64{}
	for k, n := range counts {
		if n > 0 {
			m[event.Kind(k).String()] = n
		}
	}
	return m
}

// Flush adds the loss events that are still to be told and waits until all
// that was put is written. It fails when the output does.
func (w *Writer) Flush() error { return w.request(requestFlush) }

// Reopen flushes, closes the file and opens the path again, with a new start
// line: what SIGHUP asks for after logrotate. Standard output stays as it is.
func (w *Writer) Reopen() error { return w.request(requestReopen) }

func (w *Writer) request(what requestKind) error {
	r := request{what: what, done: make(chan error, 1)}
	select {
	case w.requests <- r:
		return <-r.done
	case <-w.closed:
		return fmt.Errorf("%s: the event log is closed", w.opts.Path)
	}
}

// ReaderGone is closed when the log goes to a pipe that nobody reads any more.
// The Writer then drops and counts what is put; Close returns ErrReaderGone.
func (w *Writer) ReaderGone() <-chan struct{} { return w.gone }

// Close tells the last losses, writes what is in memory, syncs and closes the
// file, and ends the compression of old files within a few seconds. Lines that
// the output does not take now are lost; the error tells how many. Further
// calls return the same.
func (w *Writer) Close() error {
	w.closer.Do(func() {
		close(w.closing)
		<-w.closed
	})
	return w.closeErr
}
