// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// only has a session look at some hosts, so that others on this machine do not
// disturb what a test counts.
func only(hosts ...*lab.Host) func(*session.Options) {
	return func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		for _, h := range hosts {
			o.Filters.NetNS = append(o.Filters.NetNS, uint32(h.Inode()))
		}
	}
}

// nothing has a session look at no socket.
func nothing(o *session.Options) { o.Filters.NetNS = []uint32{1} }

func TestLogTakenAway(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"renamed": func(path string) error { return os.Rename(path, path+".taken") },
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			target := sinkhole(t, server)
			w := watch(t, only(client))
			load(t, client, closedBy(target, 20))
			w.eventually(func(l log) bool { return len(timeWaitsOf(l, client)) == 20 }, "the first lines to be written")
			testutil.Must(t, take(w.path))
			testutil.Eventually(t, deadline, func() bool {
				info, err := os.Stat(w.path)
				return err == nil && info.Size() > 0
			}, "the log to be there again")
			load(t, client, closedBy(target, 30))
			l := w.stop()
			if start := of[*event.Start](l, nil); len(start) != 1 || start[0].Part != 1 || l[0] != event.Event(start[0]) {
				t.Errorf("the new file starts with %+v", l[0])
			}
			if n := len(timeWaitsOf(l, client)); n != 30 {
				t.Errorf("%d lines in the new file, want 30", n)
			}
			if s := l.stopEvent(t); s.Written["time_wait"] != 50 || s.Seen["time_wait"] != 50 {
				t.Errorf("the stop event tells %v written, %v seen", s.Written, s.Seen)
			}
			if name == "renamed" {
				eventtest.ValidateFile(t, w.path+".taken")
				old := readLog(t, w.path+".taken")
				if old.inOrder(t); len(timeWaitsOf(old, client)) != 20 {
					t.Errorf("the old file has %d lines", len(old))
				}
			}
		})
	}
}

func TestHangup(t *testing.T) {
	hangup := make(chan os.Signal, 1)
	w := watch(t, func(o *session.Options) {
		nothing(o)
		o.Hangup = hangup
	})
	hangup <- unix.SIGHUP
	w.eventually(func(l log) bool { return len(of[*event.Start](l, nil)) == 2 }, "the log to be opened again")
	starts := of[*event.Start](w.stop(), nil)
	if starts[0].Part != 0 || starts[1].Part != 1 {
		t.Errorf("the start events are of the parts %d and %d", starts[0].Part, starts[1].Part)
	}
}

// smallDisk mounts a file system of 1 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	testutil.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { testutil.Must(t, unix.Unmount(dir, 0)) })
	return dir
}

func TestDiskFull(t *testing.T) {
	testutil.Root(t)
	disk := smallDisk(t)
	client, server := pair(t)
	target := sinkhole(t, server)
	w := watch(t, func(o *session.Options) {
		only(client)(o)
		o.Log.Path = filepath.Join(disk, "events.json")
		o.Log.MaxPending = 64 << 10
	})
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	total := 0
	more := func(n int) {
		load(t, client, closedBy(target, n))
		total += n
	}
	for range 5 { // beyond what may stay in memory, and in more than one go
		more(200)
	}
	written := len(timeWaitsOf(whole(t, w.path), client))
	testutil.Must(t, os.Remove(ballast))
	w.eventually(func(l log) bool { return len(timeWaitsOf(l, client)) > written }, "lines to be written again")
	more(50)
	l := w.stop()
	got := len(timeWaitsOf(l, client))
	var lost uint64
	hops := map[string]uint64{}
	for _, e := range of(l, func(e *event.Loss) bool { return e.Of == "time_wait" }) {
		lost += e.Count
		hops[e.Hop] += e.Count
		if e.Hop == "write" && !strings.Contains(e.Why, "free disk space") {
			t.Errorf("no remedy: %s", e.Why)
		}
	}
	// it may have seen in time what comes, and sampled
	if lost == 0 || got <= written || uint64(got)+lost != uint64(total) {
		t.Errorf("%d sockets, %d lines (%d before the disk was full), lost %v", total, got, written, hops)
	}
	stop := l.stopEvent(t)
	if stop.Seen["time_wait"] != uint64(total) || stop.Lost["write"]+stop.Lost["sample"] < lost {
		t.Errorf("the stop event tells %v seen, %v lost", stop.Seen, stop.Lost)
	}
	if r := l.reconciled(t, client.Inode(), "TW"); r.TWScope != int64(total) {
		t.Errorf("%+v", r)
	}
}

func TestRateCountsWhatItWithholds(t *testing.T) {
	client, server := pair(t)
	target := sinkhole(t, server)
	w := watch(t, func(o *session.Options) {
		only(client)(o)
		o.Log.Rate = 10
	})
	const n = 500
	load(t, client, closedBy(target, n))
	l := w.stop()
	lines := len(timeWaitsOf(l, client))
	var lost int
	for _, e := range of(l, func(e *event.Loss) bool { return e.Hop == "rate" && e.Of == "time_wait" }) {
		lost += int(e.Count)
	}
	if lines < 10 || lines > n/2 || lines+lost != n {
		t.Errorf("%d lines and %d withheld, want %d together", lines, lost, n)
	}
	if stop := l.stopEvent(t); stop.Lost["rate"] != uint64(lost) || stop.Seen["time_wait"] != n {
		t.Errorf("the stop event tells %v seen, %v lost", stop.Seen, stop.Lost)
	}
}

func TestTwoSessions(t *testing.T) {
	client, server := pair(t)
	target := sinkhole(t, server)
	one := watch(t, only(client))
	two := watch(t, only(client))
	load(t, client, closedBy(target, 25))
	for _, w := range []*watcher{one, two} {
		if n := len(timeWaitsOf(w.stop(), client)); n != 25 {
			t.Errorf("%s has %d lines, want 25", w.path, n)
		}
	}
}

func TestSecondSessionOnOneLog(t *testing.T) {
	w := watch(t, nothing)
	opts := w.opts
	opts.Ready = nil
	err := session.Run(context.Background(), opts)
	if err == nil || !strings.Contains(err.Error(), w.path) || !strings.Contains(err.Error(), "is written by") ||
		!strings.Contains(err.Error(), "choose another path") {
		t.Errorf("the second session: %v", err)
	}
	w.stop()
}

// Only in a machine of its own may a test step the clock.
func TestClockStep(t *testing.T) {
	testutil.Root(t)
	testutil.SkipUnless(t, os.Getenv("TWSCOPE_VM") == "1", "its clock is not ours to step")
	w := watch(t, func(o *session.Options) {
		nothing(o)
		o.StatsInterval = time.Second
	})
	step := func(d time.Duration) {
		now := unix.NsecToTimespec(time.Now().Add(d).UnixNano())
		testutil.Must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
	}
	stepped := func(want time.Duration) {
		w.eventually(func(l log) bool {
			stats := of[*event.Stats](l, nil)
			if len(stats) == 0 {
				return false
			}
			off := time.Duration(stats[len(stats)-1].ClockStepMS)*time.Millisecond - want
			return off.Abs() < time.Second
		}, "a stats event with the step "+want.String())
	}
	step(-time.Hour)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		step(time.Hour)
	})
	stepped(-time.Hour)
	step(time.Hour)
	stepped(0)
	w.stop() // which holds that the times of events did not step
}
