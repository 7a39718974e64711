// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"
)

// recorder is a testing.TB that records what is done to it.
type recorder struct {
	testing.TB // nil: a method not overridden below must not be called

	verdict  string // "", "skip" or "fail"
	messages []string
	cleanups []func()
}

func (r *recorder) end(verdict, msg string) {
	r.verdict = verdict
	r.messages = append(r.messages, msg)
}

func (*recorder) Helper()                        {}
func (r *recorder) Cleanup(f func())             { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any)            { r.end("fail", fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, args ...any) { r.end("fail", fmt.Sprintf(f, args...)) }
func (r *recorder) Skip(args ...any)             { r.end("skip", fmt.Sprint(args...)); runtime.Goexit() }

func (r *recorder) Skipf(f string, args ...any) {
	r.end("skip", fmt.Sprintf(f, args...))
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) { r.end("fail", fmt.Sprint(args...)); runtime.Goexit() }

func (r *recorder) Fatalf(f string, args ...any) {
	r.end("fail", fmt.Sprintf(f, args...))
	runtime.Goexit()
}

// record runs f as a test would be run, cleanups included.
func record(f func(tb testing.TB)) *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	for i := range r.cleanups {
		r.cleanups[len(r.cleanups)-1-i]()
	}
	return r
}

func (r *recorder) want(t *testing.T, verdict, text string) {
	t.Helper()
	all := strings.Join(r.messages, "\n")
	if r.verdict != verdict || !strings.Contains(all, text) {
		t.Errorf("got %q %q, want %q with %q", r.verdict, all, verdict, text)
	}
}

func TestRoot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		euid    int
		ci      bool
		verdict string
		text    string
	}{
		{"root", 0, false, "", ""},
		{"root in CI", 0, true, "", ""},
		{"user", 1000, false, "skip", "needs root"},
		{"user in CI", 1000, true, "fail", "not as uid 1000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			record(func(tb testing.TB) { root(tb, tt.euid, tt.ci) }).want(t, tt.verdict, tt.text)
		})
	}
}

func TestSkipUnless(t *testing.T) {
	record(func(tb testing.TB) { SkipUnless(tb, true, "no IPv6") }).want(t, "", "")
	record(func(tb testing.TB) { SkipUnless(tb, false, "no IPv6") }).want(t, "skip", "machine limit: no IPv6")
}

func TestSkipWithout(t *testing.T) {
	for _, tt := range []struct {
		name    string
		probed  error
		verdict string
		text    string
	}{
		{"feature present", nil, "", ""},
		{"type refused", fmt.Errorf("load program: %w", syscall.EPERM), "skip", "machine limit: no fentry"},
		{"not supported", fmt.Errorf("attach: %w", ebpf.ErrNotSupported), "skip", "machine limit: no fentry"},
		{"no such PMU", fmt.Errorf("open: %w", syscall.ENOENT), "skip", "machine limit: no fentry"},
		{"rejected by the verifier", fmt.Errorf("load program: %w", syscall.EACCES), "fail", "cannot tell"},
		{"out of memory", fmt.Errorf("load program: %w", syscall.ENOMEM), "fail", "cannot tell"},
		{"invalid program", fmt.Errorf("load program: %w", syscall.EINVAL), "fail", "cannot tell"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			record(func(tb testing.TB) { skipWithout(tb, Fentry, tt.probed) }).want(t, tt.verdict, tt.text)
		})
	}
}

// TestSkipMissing holds on machines with and without the feature: what it may
// not do with an error is carry on.
func TestSkipMissing(t *testing.T) {
	Root(t)
	for _, f := range []Feature{Fentry, Kprobe} {
		t.Run(string(f), func(t *testing.T) {
			NoLeakedFDs(t)
			record(func(tb testing.TB) { SkipMissing(tb, f, nil) }).want(t, "", "")

			verdict, text := "fail", "so this is a bug: broken"
			if r := record(func(tb testing.TB) { Require(tb, f) }); r.verdict == "skip" {
				verdict, text = "skip", "machine limit: no "+string(f)
			}
			record(func(tb testing.TB) { SkipMissing(tb, f, errors.New("broken")) }).want(t, verdict, text)
		})
	}
}

func TestUnknownFeature(t *testing.T) {
	record(func(tb testing.TB) { Require(tb, "uprobe") }).want(t, "fail", `unknown feature "uprobe"`)
}

func TestNoLeakedFDs(t *testing.T) {
	record(func(tb testing.TB) {
		NoLeakedFDs(tb)
		f, err := os.Open(os.DevNull)
		if err != nil {
			tb.Fatal(err)
		}
		if err := f.Close(); err != nil {
			tb.Fatal(err)
		}
	}).want(t, "", "")

	var leak *os.File
	record(func(tb testing.TB) {
		NoLeakedFDs(tb)
		var err error
		if leak, err = os.Open(os.DevNull); err != nil {
			tb.Fatal(err)
		}
	}).want(t, "fail", "leaked file descriptor "+fmt.Sprint(leak.Fd())+": /dev/null")
	if err := leak.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoLeakedFDsNamesMaps(t *testing.T) {
	Root(t)
	var m *ebpf.Map
	record(func(tb testing.TB) {
		NoLeakedFDs(tb)
		var err error
		m, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			tb.Fatal(err)
		}
	}).want(t, "fail", fmt.Sprintf("map_type=%d", ebpf.Array))
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestEventually(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		holdsAt time.Duration
		verdict string
		took    time.Duration
	}{
		{"at once", time.Second, 0, "", 0},
		{"at once without any time", 0, 0, "", 0},
		{"later", time.Second, 7 * time.Millisecond, "", 7 * time.Millisecond},
		{"at the deadline", 10 * time.Millisecond, 10 * time.Millisecond, "", 10 * time.Millisecond},
		{"too late", time.Second, 2 * time.Second, "fail", time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := record(func(tb testing.TB) {
					Eventually(tb, tt.timeout, func() bool { return time.Since(start) >= tt.holdsAt }, "%d lines", 3)
				})
				r.want(t, tt.verdict, map[string]string{"fail": "not within 1s: 3 lines"}[tt.verdict])
				if took := time.Since(start); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
			})
		})
	}
}

func TestGolden(t *testing.T) {
	t.Chdir(t.TempDir())
	Must(t, os.Mkdir("testdata", 0o755))
	Golden(t, true, "new.txt", "as it is\n")
	Golden(t, false, "new.txt", "as it is\n")
	for name, want := range map[string]string{"new.txt": "new.txt differs, -update rewrites it", "none.txt": "no such file"} {
		r := record(func(tb testing.TB) { Golden(tb, false, name, "another\n") })
		if got := strings.Join(r.messages, "\n"); r.verdict != "fail" || !strings.Contains(got, want) {
			t.Errorf("%s: %s %q, want %q", name, r.verdict, got, want)
		}
	}
}
