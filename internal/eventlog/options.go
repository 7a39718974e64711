// SPDX-License-Identifier: Apache-2.0

// Package eventlog writes events as JSON lines to a rotated file, follows such
// files and reads them back.
package eventlog

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// DefaultPath is where the daemon writes and where tail reads by default.
const DefaultPath = "/var/log/twscope/events.json"

// Stdio is the path that means standard output or input.
const Stdio = "-"

// The hops of the losses that a Writer counts, see event.Loss.
const (
	HopWrite = "write" // the output failed or stalled until MaxPending was reached
	HopRate  = "rate"  // withheld by Options.Rate
)

// ErrReaderGone tells that the log goes to a pipe or socket that nobody reads
// any more (EPIPE). Nothing can be written to it again.
var ErrReaderGone = errors.New("the reader of the event log has gone")

// Options of a Writer. The zero value of each but Path and Start is its
// default.
type Options struct {
	Path     string      // Stdio is standard output
	MaxSize  int64       // rotate before a file grows beyond it, in bytes; default 100 MiB
	MaxFiles int         // old files kept; default 10, negative: none
	Compress bool        // gzip old files in the background
	Mode     fs.FileMode // of new files; default 0640
	// Rate is how many lines of one kind are written in one second of event
	// time; 0: all. Start, stop, loss, stats, destinations and findings are
	// never withheld.
	Rate int
	// Kinds are the kinds to write; nil: all. Start, stop, loss and stats are
	// always written.
	Kinds         []event.Kind
	FlushInterval time.Duration // longest stay in memory while the output works; default 200 ms
	MaxPending    int           // bytes in memory while the output stalls; default 64 MiB
	// Start makes the first line of a file; part counts the files of the run
	// from 0. It is called by Open and later by the Writer's goroutine.
	Start func(part int) *event.Start
	// Now is the clock of loss events, in nanoseconds since the Unix epoch;
	// default: the wall clock.
	Now func() int64
	// Notify is told when the output fails, with the remedy, and, with nil,
	// when it works again. It is called by the Writer's goroutine; default:
	// nothing.
	Notify func(error)
}

func (o Options) withDefaults() (Options, error) {
	if o.Path == "" {
		return o, errors.New("no path of the event log given")
	}
	if o.Start == nil {
		return o, errors.New("no maker of start events given")
	}
	if o.Rate < 0 || o.MaxSize < 0 || o.MaxPending < 0 || o.FlushInterval < 0 {
		return o, fmt.Errorf("%s: a limit is negative", o.Path)
	}
	setDefault(&o.MaxSize, 100<<20)
	setDefault(&o.MaxFiles, 10)
	setDefault(&o.Mode, 0o640)
	setDefault(&o.FlushInterval, 200*time.Millisecond)
	setDefault(&o.MaxPending, 64<<20)
	if o.Now == nil {
		o.Now = func() int64 { return time.Now().UnixNano() }
	}
	if o.Notify == nil {
		o.Notify = func(error) {}
	}
	return o, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Counts are totals since Open. The lines put are those written, those lost
// and those still in memory.
type Counts struct {
	Written map[string]uint64            // event kind: lines that the output took
	Lost    map[string]map[string]uint64 // hop: event kind: lines
}

// LostByHop sums up the lost lines of all kinds.
func (c Counts) LostByHop() map[string]uint64 {
	sums := make(map[string]uint64, len(c.Lost))
	for hop, kinds := range c.Lost {
		for _, n := range kinds {
			sums[hop] += n
		}
	}
	return sums
}
