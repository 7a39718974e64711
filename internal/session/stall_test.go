// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// stalled is a named pipe whose reader may stop to read.
type stalled struct {
	path string
	read *os.File
	copy *os.File // what was read
}

func newStalled(t *testing.T) *stalled {
	t.Helper()
	dir := t.TempDir()
	s := &stalled{path: filepath.Join(dir, "pipe")}
	testutil.Must(t, unix.Mkfifo(s.path, 0o600))
	fd := testutil.Must1[int](t)(unix.Open(s.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0))
	// for a descriptor that does not block, os.File waits in the poller
	s.read = os.NewFile(uintptr(fd), s.path)
	s.copy = testutil.Must1[*os.File](t)(os.Create(filepath.Join(dir, "copy.json")))
	t.Cleanup(func() { s.copy.Close(); s.read.Close() })
	return s
}

// resume reads on until the writer is gone.
func (s *stalled) resume(t *testing.T) (done chan struct{}) {
	t.Helper()
	done = make(chan struct{})
	go func() {
		defer close(done)
		if _, err := io.Copy(s.copy, s.read); err != nil {
			t.Errorf("read the pipe: %v", err)
		}
	}()
	return done
}

// TestStalledReader: whoever reads the log from a pipe stops for a while. No
// connection notices, memory stays bounded, every socket is a line or counted
// as a loss, and when the reader goes on, so does the log, in full.
func TestStalledReader(t *testing.T) {
	f := newFast(t)
	pipe := newStalled(t)
	const pending = 1 << 20
	w := watch(t, func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		o.Filters.NetNS = []uint32{uint32(f.host.Inode())}
		o.Log.Path = pipe.path
		o.Log.MaxPending = pending
	})
	burst := few(20_000, 2_000)
	before := heapInUse()
	f.run(t, burst, 0) // fails unless every connect() succeeds
	if grown := heapInUse() - before; grown > 4*pending {
		t.Errorf("the heap has grown by %d bytes, %d may wait", grown, pending)
	}
	done := pipe.resume(t)
	shed := func(l log) (n uint64) {
		for _, e := range of(l, func(e *event.Loss) bool { return e.Of == "time_wait" }) {
			n += e.Count
		}
		return n
	}
	// sampling ends by itself: then a line comes for every connection again
	recovered := 0
	testutil.Eventually(t, deadline, func() bool {
		lines, lost := len(of[*event.TimeWait](whole(t, pipe.copy.Name()), nil)), shed(whole(t, pipe.copy.Name()))
		f.run(t, 50, 0)
		recovered += 50
		testutil.Eventually(t, deadline, func() bool {
			l := whole(t, pipe.copy.Name())
			return uint64(len(of[*event.TimeWait](l, nil)))+shed(l) == uint64(burst+recovered)
		}, "every socket to be a line or a loss")
		l := whole(t, pipe.copy.Name())
		return len(of[*event.TimeWait](l, nil)) == lines+50 && shed(l) == lost
	}, "the log to be whole again")
	w.end()
	<-done
	l := readLog(t, pipe.copy.Name())
	lines := len(of[*event.TimeWait](l, nil))
	if got := uint64(lines) + shed(l); got != uint64(burst+recovered) || shed(l) == 0 {
		t.Errorf("%d lines and %d lost, want some of either and %d together", lines, shed(l), burst+recovered)
	}
	// on a busy CPU the kernel leaves programs out, which the log tells
	stop := l.stopEvent(t)
	unseen := stop.Lost["unseen"]
	if stop.Seen["time_wait"]+unseen != uint64(burst+recovered) {
		t.Errorf("the stop event tells %v seen, %d unseen", stop.Seen, unseen)
	}
	if r := l.reconciled(t, f.host.Inode(), "TW"); r.Difference != int64(unseen) && !countsDeaths(t) {
		t.Errorf("%+v", r)
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
