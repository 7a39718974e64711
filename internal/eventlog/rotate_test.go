// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

// names returns the names of the files beside the log.
func names(t *testing.T, o Options) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(o.Path))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestRotation(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress %t", compress), func(t *testing.T) {
			o := testOptions(t)
			o.MaxSize, o.MaxFiles, o.Compress = 20_000, 1000, compress
			o.Notify = func(err error) { t.Errorf("told %v", err) }
			w := mustOpen(t, o, openOS)
			const n = 5000
			for i := range n {
				w.Put(numberedEvent(i))
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			c := readLog(t, o.Path)
			wantNumbers(t, c.numbers, n)
			list := names(t, o)
			wantParts(t, c.parts, len(list))
			if len(list) < 20 {
				t.Errorf("%d files", len(list))
			}
			for _, name := range list {
				if packed := strings.HasSuffix(name, ".gz"); packed != (compress && name != "events.json") {
					t.Errorf("%s is there", name)
				}
				info, err := os.Stat(filepath.Join(filepath.Dir(o.Path), name))
				if err != nil || info.Size() > o.MaxSize || info.Mode().Perm()&^0o640 != 0 {
					t.Errorf("%s: %d bytes, mode %s, %v", name, info.Size(), info.Mode(), err)
				}
			}
		})
	}
}

func TestRotationKeepsMaxFiles(t *testing.T) {
	for keep, want := range map[int]string{
		3:  "events.json events.json.1 events.json.2 events.json.3",
		1:  "events.json events.json.1",
		-1: "events.json",
	} {
		o := testOptions(t)
		o.MaxSize, o.MaxFiles = 5000, keep
		w := mustOpen(t, o, openOS)
		const n = 1000
		for i := range n {
			w.Put(numberedEvent(i))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(t, o), " "); got != want {
			t.Errorf("MaxFiles %d: %s", keep, got)
		}
		c := readLog(t, o.Path)
		for i, v := range c.numbers {
			if v != n-len(c.numbers)+i {
				t.Fatalf("MaxFiles %d: event %d of the last %d is number %d", keep, i, len(c.numbers), v)
			}
		}
		if len(c.numbers) == 0 || c.parts[0] == 0 {
			t.Errorf("MaxFiles %d: %d events from part %d on", keep, len(c.numbers), c.parts[0])
		}
	}
}

func TestLineLongerThanMaxSize(t *testing.T) {
	o := testOptions(t)
	o.MaxSize = 1
	w := mustOpen(t, o, openOS)
	for i := range 5 {
		w.Put(numberedEvent(i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := readLog(t, o.Path)
	wantNumbers(t, c.numbers, 5)
	wantParts(t, c.parts, 5)
}

func TestRotationThatFailsLosesNothing(t *testing.T) {
	o := testOptions(t)
	o.MaxSize, o.MaxFiles = 5000, 2
	var told notices
	o.Notify = told.add
	w := mustOpen(t, o, openOS)
	// A directory that is not empty cannot be replaced by the rename.
	if err := os.MkdirAll(filepath.Join(o.Path+".1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	const n = 1000
	for i := range n {
		w.Put(numberedEvent(i))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, readLog(t, o.Path).numbers, n)
	if all := told.all(); len(all) != 1 || !strings.Contains(all[0].Error(), "rotate "+o.Path) {
		t.Errorf("told %v", all)
	}
}

func TestPackingAfterCrash(t *testing.T) {
	o := testOptions(t)
	o.Compress = true
	write := func(name, text string, pack bool) {
		t.Helper()
		f, err := os.Create(o.Path + name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if !pack {
			_, err = f.WriteString(text)
		} else {
			z := gzip.NewWriter(f)
			_, err = z.Write([]byte(text))
			err = errors.Join(err, z.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	line := func(hop string) string {
		return `{"time":"2026-11-22T12:00:00.000000000Z","event":"loss","hop":"` + hop + `","count":1}` + "\n"
	}
	write(".packing", "half of a gzip file", false)
	write(".1", line("one"), false)
	write(".2", line("two"), false) // renamed, and not yet removed
	write(".2.gz", line("two"), true)
	write(".3", line("three"), false)
	write(".notes", "not ours", false)
	w := mustOpen(t, o, openOS)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, o), " "); got != "events.json events.json.1.gz events.json.2.gz events.json.3.gz events.json.notes" {
		t.Errorf("files: %s", got)
	}
	var hops []string
	for _, l := range readLog(t, o.Path).losses {
		hops = append(hops, l.Hop)
	}
	if got := strings.Join(hops, " "); got != "three two one" {
		t.Errorf("order of the old files: %s", got)
	}
}

// TestReplaceAfterShift packs a file while rotations move it on.
func TestReplaceAfterShift(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a := &archive{path: path, keep: 2}
	put := func(p, text string) fs.FileInfo {
		t.Helper()
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	shift := func(text string) {
		t.Helper()
		put(path, text)
		if err := a.shift(); err != nil {
			t.Fatal(err)
		}
	}
	inode := put(path, "first")
	// As the packer does: an open file keeps its inode number from re-use.
	first, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := a.shift(); err != nil {
		t.Fatal(err)
	}
	shift("second")
	put(path+suffixPacking, "packed")
	if err := a.replace(inode, path+suffixPacking); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path + ".2.gz"); string(data) != "packed" {
		t.Errorf("the packed file holds %q, %v", data, err)
	}
	shift("third") // removes .2.gz
	put(path+suffixPacking, "packed")
	if err := a.replace(inode, path+suffixPacking); err != nil {
		t.Fatal(err)
	}
	if list, err := oldFiles(path); len(list) != 2 || list[0].packed || list[1].packed || err != nil {
		t.Errorf("old files: %+v, %v", list, err)
	}
	if _, err := os.Stat(path + suffixPacking); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the packed file is left: %v", err)
	}
}

func TestFileTakenAway(t *testing.T) {
	aside := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		away func(t *testing.T, path string)
		kept int // events before, still to be found
	}{
		{"renamed", func(t *testing.T, path string) { aside(t, os.Rename(path, path+".1")) }, 10},
		{"removed", func(t *testing.T, path string) { aside(t, os.Remove(path)) }, 0},
		{"truncated", func(t *testing.T, path string) { aside(t, os.Truncate(path, 0)) }, 0},
		{"replaced", func(t *testing.T, path string) {
			aside(t, os.Rename(path, path+".1"))
			aside(t, os.WriteFile(path, nil, 0o600))
		}, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				w := mustOpen(t, o, openOS)
				defer w.Close()
				for i := range 10 {
					w.Put(numberedEvent(i))
				}
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				tt.away(t, o.Path)
				time.Sleep(1500 * time.Millisecond)
				synctest.Wait()
				eventtest.ValidateFile(t, o.Path) // the start line comes by itself
				for i := range 10 {
					w.Put(numberedEvent(10 + i))
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				c := readLog(t, o.Path)
				if len(c.numbers) != tt.kept+10 || c.numbers[len(c.numbers)-1] != 19 || c.parts[len(c.parts)-1] != 1 {
					t.Errorf("the log holds events %v, parts %v", c.numbers, c.parts)
				}
			})
		})
	}
}

func TestReopen(t *testing.T) {
	o := testOptions(t)
	w := mustOpen(t, o, openOS)
	w.Put(numberedEvent(0))
	if err := os.Rename(o.Path, o.Path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	if n := eventtest.ValidateFile(t, o.Path+".1"); n != 2 {
		t.Errorf("%d lines in the old file, want all that was put before", n)
	}
	w.Put(numberedEvent(1))
	if err := os.RemoveAll(filepath.Dir(o.Path)); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err == nil || !strings.Contains(err.Error(), "mkdir -p") {
		t.Errorf("Reopen without the directory reports %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	w.Put(numberedEvent(2))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if c := readLog(t, o.Path); len(c.numbers) != 1 || c.numbers[0] != 2 || len(c.parts) != 1 || c.parts[0] != 2 {
		t.Errorf("the log holds events %v, parts %v", c.numbers, c.parts)
	}
}

func TestStartNotLaterThanWaitingLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.FlushInterval = time.Minute
		o.Start = func(part int) *event.Start {
			return &event.Start{Header: event.Header{Time: int64(part) * 100}, Part: part}
		}
		w := mustOpen(t, o, openOS)
		if err := os.Remove(o.Path); err != nil {
			t.Fatal(err)
		}
		w.Put(numberedEvent(7))
		time.Sleep(2 * o.FlushInterval) // the writer finds its file gone
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := OpenReader(o.Path, ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var times []int64
		for ev, err := r.Next(t.Context()); err == nil; ev, err = r.Next(t.Context()) {
			times = append(times, ev.UnixNano())
		}
		if !slices.Equal(times, []int64{7, 7}) {
			t.Errorf("the start and the event have the times %v, want 7 and 7", times)
		}
	})
}
