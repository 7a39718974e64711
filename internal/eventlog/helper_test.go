// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/twscope/twscope/internal/event"
)

// testOptions are options for a log in a directory of the test. Without a
// MaxSize the log does not rotate.
func testOptions(t *testing.T) Options {
	return Options{
		Path:  filepath.Join(t.TempDir(), "events.json"),
		Start: func(part int) *event.Start { return &event.Start{Part: part} },
		Now:   func() int64 { return 1e18 },
	}
}

func mustOpen(t *testing.T, o Options, openFile opener) *Writer {
	t.Helper()
	w, err := open(o, openFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// numberedEvent is a time_wait that carries i as its time and ts_recent.
func numberedEvent(i int) *event.TimeWait {
	return &event.TimeWait{Header: event.Header{Time: int64(i)}, Timestamps: true, TSRecent: uint32(i)}
}

// contents is what a log holds.
type contents struct {
	numbers []int // of the time_wait events, in order
	parts   []int // of the start events, in order
	losses  []*event.Loss
}

// readLog reads a whole log back; every line has to be there as a whole.
func readLog(t *testing.T, path string) (c contents) {
	t.Helper()
	r, err := OpenReader(path, ReadOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		ev, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return c
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		switch ev := ev.(type) {
		case *event.TimeWait:
			c.numbers = append(c.numbers, int(ev.TSRecent))
		case *event.Start:
			c.parts = append(c.parts, ev.Part)
		case *event.Loss:
			c.losses = append(c.losses, ev)
		}
	}
}

func wantNumbers(t *testing.T, got []int, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d events, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("event %d is number %d", i, v)
		}
	}
}

func wantParts(t *testing.T, got []int, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d start lines, want %d", len(got), n)
	}
	for i, v := range got {
		if v != i {
			t.Errorf("start line %d is of part %d", i, v)
		}
	}
}

// disk is an opener whose files fail as a disk does that is full or broken.
type disk struct {
	mu         sync.Mutex
	room       int   // bytes that may still be written; negative: any number
	err        error // of a write without room
	noTruncate bool
	writes     int
}

func (d *disk) open(path string, flag int, mode fs.FileMode) (handle, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, disk: d}, nil
}

func (d *disk) set(room int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room, d.err = room, err
}

// keepTorn sets whether files can be truncated.
func (d *disk) keepTorn(keep bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noTruncate = keep
}

// tries returns how often a write was tried.
func (d *disk) tries() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

type diskFile struct {
	*os.File
	disk *disk
}

func (f *diskFile) Write(p []byte) (int, error) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if d.room < 0 || len(p) <= d.room {
		n, err := f.File.Write(p)
		if d.room >= 0 {
			d.room -= n
		}
		return n, err
	}
	n, err := f.File.Write(p[:d.room])
	d.room = 0
	return n, errors.Join(err, &fs.PathError{Op: "write", Path: f.Name(), Err: d.err})
}

func (f *diskFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.noTruncate {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

// notices collects what a Writer tells.
type notices struct {
	mu   sync.Mutex
	list []error
}

func (n *notices) add(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, err)
}

func (n *notices) all() []error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]error(nil), n.list...)
}
