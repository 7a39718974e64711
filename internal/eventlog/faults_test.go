// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

func TestDiskFullAndBack(t *testing.T) {
	for _, tt := range []struct {
		name       string
		err        error
		noTruncate bool
		say        string
	}{
		{"full", syscall.ENOSPC, false, "free space"},
		{"broken", syscall.EIO, false, "input/output error"},
		{"torn line cannot be cut at once", syscall.ENOSPC, true, "cut the torn line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				var told notices
				o.Notify = told.add
				d := &disk{room: -1}
				w := mustOpen(t, o, d.open)
				defer w.Close()
				d.keepTorn(tt.noTruncate)
				d.set(1000, tt.err) // in the middle of a line
				const n = 5000
				for i := range n {
					w.Put(numberedEvent(i))
				}
				if err := w.Flush(); err == nil || !strings.Contains(err.Error(), tt.say) {
					t.Errorf("Flush reports %v, want %s", err, tt.say)
				}
				tries := d.tries()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if more := d.tries() - tries; !tt.noTruncate && (more < 60 || more > 200) {
					t.Errorf("%d tries in 10 minutes, want one in 5 s", more)
				}
				if !tt.noTruncate {
					eventtest.ValidateFile(t, o.Path) // no torn line, even now
				}
				d.keepTorn(false)
				d.set(-1, nil)
				time.Sleep(maxBackoff + time.Second)
				synctest.Wait()
				if c := readLog(t, o.Path); len(c.losses) != 0 {
					t.Errorf("losses %+v", c.losses)
				} else {
					wantNumbers(t, c.numbers, n)
				}
				if all := told.all(); len(all) != 2 || all[0] == nil || all[1] != nil {
					t.Errorf("told %v, want one error and its end", all)
				}
			})
		})
	}
}

func TestStallCountsWhatIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.MaxPending = 1 << 20
		d := &disk{room: -1}
		w := mustOpen(t, o, d.open)
		defer w.Close()
		d.set(0, syscall.ENOSPC)
		const n = 20_000
		for i := range n {
			w.Put(numberedEvent(i))
		}
		dropped := w.Counts().Lost[HopWrite]["time_wait"]
		if dropped == 0 {
			t.Fatal("nothing was dropped beyond MaxPending")
		}
		// what tells of losses is not lost for that reason
		w.Put(&event.Loss{Hop: "ring", Of: "syn", Count: 1})
		d.set(-1, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		c := readLog(t, o.Path)
		wantNumbers(t, c.numbers, n-int(dropped))
		if len(c.losses) != 2 || c.losses[0].Hop != "ring" {
			t.Fatalf("losses are %+v, want that of the ring first", c.losses)
		}
		if l := c.losses[1]; l.Hop != HopWrite || l.Of != "time_wait" || l.Count != dropped {
			t.Errorf("loss is %+v, want %d time_wait of hop write", l, dropped)
		}
		if got := w.Counts().Written["time_wait"]; got != n-dropped {
			t.Errorf("%d written, %d dropped, of %d", got, dropped, n)
		}
	})
}

func TestCloseOnFullDisk(t *testing.T) {
	o := testOptions(t)
	d := &disk{room: -1}
	w := mustOpen(t, o, d.open)
	d.set(1000, syscall.ENOSPC)
	const n = 4000
	for i := range n {
		w.Put(numberedEvent(i))
	}
	err := w.Close()
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "lines are lost") {
		t.Errorf("Close reports %v", err)
	}
	c, counts := readLog(t, o.Path), w.Counts()
	if len(c.numbers) == 0 || counts.Written["time_wait"] != uint64(len(c.numbers)) ||
		counts.Lost[HopWrite]["time_wait"] != uint64(n-len(c.numbers)) {
		t.Errorf("%d in the file, counts are %v", len(c.numbers), counts)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	start := testOptions(t).Start
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"no path", Options{Start: start}, "no path"},
		{"no start", Options{Path: dir + "/x"}, "no maker of start events"},
		{"negative", Options{Path: dir + "/x", Start: start, Rate: -1}, "a limit is negative"},
		{"directory missing", Options{Path: dir + "/no/such/events.json", Start: start}, "mkdir -p " + dir + "/no/such"},
		{"a directory", Options{Path: dir, Start: start}, "is a directory: name a file in it"},
		{"below a file", Options{Path: "/proc/version/x", Start: start}, "/proc/version/x: not a directory"},
		{"not writable", Options{Path: "/proc/version", Start: start}, "/proc/version: "},
		{"pipe without reader", Options{Path: pipe, Start: start}, "start its reader first"},
		{"full device", Options{Path: "/dev/full", Start: start}, "no space left"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w, err := Open(tt.o)
			if err == nil {
				_ = w.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	for errno, want := range map[syscall.Errno]string{
		syscall.EACCES: "run as root or choose another path", syscall.EROFS: "read-only file system",
	} {
		if err := openError("/x/y", &os.PathError{Op: "open", Path: "/x/y", Err: errno}); !strings.Contains(err.Error(), want) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
}

func TestSecondWriter(t *testing.T) {
	o := testOptions(t)
	w := mustOpen(t, o, openOS)
	_, err := Open(o)
	if err == nil || !strings.Contains(err.Error(), o.Path+": is written by ") ||
		!strings.Contains(err.Error(), "stop that, or choose another path") {
		t.Fatalf("second writer: %v", err)
	}
	w.Put(numberedEvent(0))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	eventtest.ValidateFile(t, o.Path)
	again := mustOpen(t, o, openOS)
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestFlockPID(t *testing.T) {
	const locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n" +
		"2: FLOCK  ADVISORY  WRITE 12 08:01:177 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 13 08:01:77 0 EOF\n" +
		"3: FLOCK  ADVISORY  WRITE 14 00:2a:77 0 EOF\nnonsense\n"
	for inode, want := range map[uint64]int{77: 14, 177: 12, 7: 0} {
		if got := flockPID(strings.NewReader(locks), inode); got != want {
			t.Errorf("inode %d: pid %d, want %d", inode, got, want)
		}
	}
}

func TestTornLineOfKilledWriter(t *testing.T) {
	const whole = `{"time":"2026-11-22T12:00:00.000000000Z","event":"loss","hop":"ring","count":1}` + "\n"
	tests := []struct{ name, before, after string }{
		{"whole", whole, whole},
		{"empty", "", ""},
		{"torn", whole + whole[:40], whole},
		{"torn at once", whole + "{", whole},
		{"torn in the first line", whole[:40], ""},
		{"foreign line without end", "remember the milk", "remember the milk\n"},
		{"long foreign line", whole + strings.Repeat("x", 1<<17), whole + strings.Repeat("x", 1<<17) + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := testOptions(t)
			if err := os.WriteFile(o.Path, []byte(tt.before), 0o600); err != nil {
				t.Fatal(err)
			}
			w := mustOpen(t, o, openOS)
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(o.Path)
			if err != nil {
				t.Fatal(err)
			}
			rest, ok := strings.CutPrefix(string(data), tt.after)
			if !ok || strings.Count(rest, "\n") != 1 || !strings.Contains(rest, `"event":"start"`) {
				t.Errorf("the file is now %.300q", data)
			}
		})
	}
}

func FuzzFlockPID(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n", uint64(77))
	f.Fuzz(func(t *testing.T, locks string, inode uint64) {
		pid := flockPID(strings.NewReader(locks), inode)
		if pid != 0 && !strings.Contains(locks, ":"+strconv.FormatUint(inode, 10)) {
			t.Errorf("pid %d for an inode that is not there", pid)
		}
	})
}
