// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// lossLine is a line that carries n.
func lossLine(n int) string {
	return string(event.NewEncoder().Append(nil, &event.Loss{Hop: "ring", Count: uint64(n)}))
}

// readAll reads to the end and returns what it meets: the counts of losses and
// the errors without the file's name.
func readAll(t *testing.T, r *Reader) string {
	t.Helper()
	var got []string
	for {
		ev, err := r.Next(t.Context())
		line, bad := errors.AsType[*LineError](err)
		switch {
		case bad:
			got = append(got, fmt.Sprintf("%s:%d:%v", filepath.Base(line.File), line.Line, line.Err))
		case errors.Is(err, io.EOF):
			return strings.Join(got, " | ")
		case err != nil:
			t.Fatal(err)
		default:
			got = append(got, strconv.FormatUint(ev.(*event.Loss).Count, 10))
		}
	}
}

func TestReader(t *testing.T) {
	// A line of n bytes in all.
	padded := func(n int) string {
		l := lossLine(7)
		return strings.Replace(l, "{", "{"+strings.Repeat(" ", n-len(l)), 1)
	}
	tests := []struct{ name, log, want string }{
		{"empty", "", ""},
		{"whole", lossLine(1) + lossLine(2), "1 | 2"},
		{"malformed", lossLine(1) + "{}\n\n" + lossLine(2), `1 | x:2:member "event" is missing | x:3:an empty line | 2`},
		{"end missing", lossLine(1) + strings.TrimSpace(lossLine(2)), "1 | 2"},
		{"cut short", lossLine(1) + lossLine(2)[:20], "1 | x:2:the line is not complete"},
		{"longest", padded(event.MaxLine) + lossLine(2), "7 | 2"},
		{"too long", lossLine(1) + padded(event.MaxLine+1) + lossLine(2), "1 | x:2:longer than 65536 bytes | 2"},
		{"far too long", padded(10*event.MaxLine) + lossLine(2), "x:1:longer than 65536 bytes | 2"},
		{"too long without end", lossLine(1) + strings.Repeat("x", 3*event.MaxLine), "1 | x:2:longer than 65536 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := readAll(t, NewReader("x", strings.NewReader(tt.log))); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestReaderDamagedOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for name, text := range map[string]string{"": lossLine(1), ".1.gz": "this is not a gzip file", ".2": lossLine(3), ".02": "x", ".0": "x", ".3.old": "x"} {
		if err := os.WriteFile(path+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenReader(path, ReadOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := readAll(t, r); got != "3 | log.1.gz:1:not a complete gzip file: gzip: invalid header | 1" {
		t.Errorf("got %s", got)
	}
}

func TestOpenReaderErrors(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir + "/none": dir + "/none: no such file", dir: "is a directory"} {
		if _, err := OpenReader(path, ReadOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(lossLine(1)+lossLine(2)[:9]), 5)
	f.Add([]byte("\n\n{"), 1)
	f.Fuzz(func(t *testing.T, log []byte, piece int) {
		r := NewReader("x", &pieces{log, max(1, piece)})
		for range len(log) + 2 {
			_, err := r.Next(t.Context())
			_, bad := errors.AsType[*LineError](err)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil && !bad {
				t.Fatal(err)
			}
		}
		t.Fatal("there are more lines than bytes")
	})
}

// pieces is a reader that gives little at a time.
type pieces struct {
	rest []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.size)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// TestFollow lets a log grow and be rotated under a reader.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	add := func(t *testing.T, name, text string) {
		t.Helper()
		f, err := os.OpenFile(path+name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	shift := func(t *testing.T) {
		t.Helper()
		if err := (&archive{path: path, keep: 10}).shift(); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name string
		do   func(t *testing.T)
		want string
	}{
		{"what is there", func(*testing.T) {}, "1"},
		{"growth", func(t *testing.T) { add(t, "", lossLine(2)+lossLine(3)) }, "2 3"},
		{"half a line", func(t *testing.T) { add(t, "", lossLine(4)[:30]) }, ""},
		{"its other half", func(t *testing.T) { add(t, "", lossLine(4)[30:]+"x\n") }, "4 error"},
		{"a rotation", func(t *testing.T) {
			add(t, "", lossLine(5))
			shift(t)
			add(t, ".1", lossLine(6))
			add(t, "", lossLine(7))
		}, "5 6 7"},
		{"a rotation half done", func(t *testing.T) { shift(t) }, ""},
		{"the rest of it", func(t *testing.T) { add(t, "", lossLine(8)) }, "8"},
		{"three rotations at once", func(t *testing.T) {
			for i := 9; i < 12; i++ {
				add(t, "", lossLine(i))
				shift(t)
			}
			add(t, "", lossLine(12))
		}, "9 10 11 12"},
		{"a truncation", func(t *testing.T) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			add(t, "", "")
		}, ""},
		{"and growth", func(t *testing.T) { add(t, "", lossLine(13)) }, "13"},
		{"removed with half a line", func(t *testing.T) {
			add(t, "", lossLine(14)[:9])
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			add(t, "", lossLine(15))
		}, "error 15"},
	}
	add(t, "", lossLine(1))
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		idle := 0
		r, err := OpenReader(path, ReadOptions{Follow: true, Idle: func() { idle++ }})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 100)
		done := make(chan error, 1)
		go func() {
			for {
				ev, err := r.Next(ctx)
				if _, bad := errors.AsType[*LineError](err); bad {
					got <- "error"
				} else if err != nil {
					done <- err
					return
				} else {
					got <- strconv.FormatUint(ev.(*event.Loss).Count, 10)
				}
			}
		}()
		for _, step := range steps {
			step.do(t)
			time.Sleep(2 * DefaultPoll)
			synctest.Wait()
			var events []string
			for len(got) > 0 {
				events = append(events, <-got)
			}
			if all := strings.Join(events, " "); all != step.want {
				t.Errorf("%s: got %q, want %q", step.name, all, step.want)
			}
		}
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) || idle < len(steps) {
			t.Errorf("ended with %v after %d waits", err, idle)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestFollowWriter holds a reader to every event of a writer that rotates.
func TestFollowWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.MaxSize, o.MaxFiles = 100_000, 50
		w := mustOpen(t, o, openOS)
		ctx, stop := context.WithCancel(t.Context())
		r, err := OpenReader(o.Path, ReadOptions{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var c contents
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				ev, err := r.Next(ctx)
				if err != nil {
					return
				}
				switch ev := ev.(type) {
				case *event.TimeWait:
					c.numbers = append(c.numbers, int(ev.TSRecent))
				case *event.Start:
					c.parts = append(c.parts, ev.Part)
				}
			}
		}()
		const n = 10_000
		for i := range n {
			w.Put(numberedEvent(i))
			if i%500 == 0 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		<-done
		wantNumbers(t, c.numbers, n)
		if len(c.parts) < 5 {
			t.Errorf("%d files", len(c.parts))
		}
		wantParts(t, c.parts, len(c.parts))
	})
}
