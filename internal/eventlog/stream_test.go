// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event/eventtest"
)

// newPipe makes a named pipe and opens it for reading.
func newPipe(t *testing.T) (path string, r *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return path, r
}

func TestPipe(t *testing.T) {
	path, r := newPipe(t)
	o := testOptions(t)
	o.Path, o.MaxSize = path, 1 // must not matter
	w := mustOpen(t, o, openOS)
	const n = 5000
	for i := range n {
		w.Put(numberedEvent(i))
	}
	closed := make(chan error, 1)
	go func() { closed <- w.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) != n+2 || len(lines[n+1]) != 0 {
		t.Fatalf("%d lines, want a start line and %d events", len(lines)-1, n)
	}
	for _, line := range lines[:n+1] {
		eventtest.Validate(t, line)
	}
}

func TestPipeReaderGone(t *testing.T) {
	path, r := newPipe(t)
	o := testOptions(t)
	o.Path, o.FlushInterval = path, time.Millisecond
	w := mustOpen(t, o, openOS)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	w.Put(numberedEvent(0))
	select {
	case <-w.ReaderGone():
	case <-t.Context().Done():
		t.Fatal("ReaderGone is not closed")
	}
	w.Put(numberedEvent(1))
	if got := w.Counts(); got.Lost[HopWrite]["time_wait"] != 2 || got.Written["start"] != 1 {
		t.Errorf("counts are %v", got)
	}
	if err := w.Flush(); !errors.Is(err, ErrReaderGone) {
		t.Errorf("Flush reports %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrReaderGone) {
		t.Errorf("Close reports %v", err)
	}
}

func TestPipeReaderStalls(t *testing.T) {
	path, r := newPipe(t)
	o := testOptions(t)
	o.Path, o.MaxPending, o.FlushInterval = path, 1<<20, time.Millisecond
	var told notices
	o.Notify = told.add
	w := mustOpen(t, o, openOS)
	const n = 20_000
	for i := range n {
		w.Put(numberedEvent(i))
	}
	if err := w.Flush(); !errors.Is(err, errStalled) {
		t.Errorf("Flush reports %v", err)
	}
	dropped := w.Counts().Lost[HopWrite]["time_wait"]
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(w.Flush(), w.Close()) }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	reader := NewReader("pipe", bytes.NewReader(data))
	events := 0
	for {
		_, err := reader.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		events++
	}
	// The start line and one loss event come on top.
	if want := n - int(dropped) + 2; dropped == 0 || events != want {
		t.Errorf("%d lines, want %d; %d were dropped", events, want, dropped)
	}
	if all := told.all(); len(all) != 2 || !errors.Is(all[0], errStalled) || all[1] != nil {
		t.Errorf("told %v", all)
	}
}

// TestStdout runs this test binary again with its standard output on a pipe
// and lets it write there.
func TestStdout(t *testing.T) {
	if os.Getenv("EVENTLOG_CHILD") == "stdout" {
		o := testOptions(t)
		o.Path = Stdio
		w := mustOpen(t, o, openOS)
		w.Put(numberedEvent(0))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	cmd := child(t, "TestStdout", "stdout")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(out), "\n")
	if len(lines) < 3 {
		t.Fatalf("standard output is %q", out)
	}
	eventtest.Validate(t, []byte(lines[0]))
	eventtest.Validate(t, []byte(lines[1]))
	if !strings.HasPrefix(lines[2], "PASS") {
		t.Errorf("standard output ends in %q", lines[2:])
	}
}

// child returns a run of one test of this binary that knows its part.
func child(t *testing.T, test, part string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+test+"$")
	cmd.Env = append(os.Environ(), "EVENTLOG_CHILD="+part)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestKill kills a writer in the middle of its work.
func TestKill(t *testing.T) {
	path := os.Getenv("EVENTLOG_PATH")
	if path != "" {
		o := testOptions(t)
		o.Path = path
		w := mustOpen(t, o, openOS)
		for i := 0; t.Context().Err() == nil; i++ {
			w.Put(numberedEvent(i))
			if i == 5000 {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stdout.WriteString("ready\n"); err != nil {
					t.Fatal(err)
				}
			}
		}
		return
	}
	path = filepath.Join(t.TempDir(), "events.json")
	cmd := child(t, "TestKill", "")
	cmd.Env = append(cmd.Env, "EVENTLOG_PATH="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make([]byte, 6)
	if _, err := io.ReadFull(out, ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("the writer says %q, %v", ready, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it reports the kill
	o := testOptions(t)
	o.Path = path
	if err := mustOpen(t, o, openOS).Close(); err != nil {
		t.Fatal(err)
	}
	c := readLog(t, path)
	if len(c.numbers) <= 5000 {
		t.Errorf("%d events survive, more than 5000 were flushed", len(c.numbers))
	}
	for i, v := range c.numbers {
		if i != v {
			t.Fatalf("event %d is number %d", i, v)
		}
	}
}
