// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

func TestUsage(t *testing.T) {
	for args, text := range map[string]string{
		"run --no-such":             "unknown flag: --no-such",
		"run extra":                 "extra",
		"walk":                      `unknown command "walk"`,
		"run --events teatime":      "--events",
		"run --events time_wait,x":  "--events",
		"run --dst 10.0.0.1/8":      "want 10.0.0.0/8",
		"run --src nowhere":         "--src nowhere",
		"run --netns nowhere":       "--netns nowhere",
		"run --cgroup /no/such":     "--cgroup /no/such",
		"run --pid x":               "--pid x",
		"run --comm=":               "--comm: want a value",
		"run --dst=":                "--dst: want a value",
		"run --events=":             "--events: want a list",
		"run --rung ladder":         "--rung ladder: want fentry, kprobe or tracepoint",
		"run --rung mib":            "--rung mib: want",
		"run --rate -1":             "--rate -1",
		"run --rate x":              "--rate",
		"run --max-size 0":          "--max-size 0",
		"run --max-size 9999999999": "--max-size",
		"run --max-files -1":        "--max-files -1",
		"run --ring-size 3":         "--ring-size 3: want a power of two",
		"run --ring-size 0":         "--ring-size 0",
		"run --ring-size 2048":      "--ring-size 2048",
		"run --stats-interval 1ms":  "--stats-interval 1ms",
		"run --stats-interval -1s":  "--stats-interval -1s",
		"run --destinations 0":      "--destinations 0: want 1 to 100",
		"run --destinations 101":    "--destinations 101: want",
		"run --duration -1s":        "--duration -1s",
		"run --duration soon":       "--duration",
		"run --out=":                "--out: want a file",
		"run --log-level loud":      "--log-level loud",
		"run --log-level trace":     "--log-level trace",
		"run --log-format xml":      "--log-format xml",
		"tail --lines -1":           "--lines -1: want 0 or more",
		"tail --events nope":        "nope",
		"tail --color x":            `--color "x": want`,
	} {
		t.Run(args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(args), &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), text) || !strings.Contains(stderr.String(), "--help") {
				t.Errorf("%q, want %q and a hint at --help", stderr.String(), text)
			}
			if stdout.Len() > 0 {
				t.Errorf("standard output has %q", stdout.String())
			}
		})
	}
}

func TestEventKinds(t *testing.T) {
	all, err := eventKinds([]string{"all"})
	if err != nil || len(all) != len(event.Kinds()) {
		t.Errorf("all: %v, %v", all, err)
	}
	some, err := eventKinds(nil)
	if err != nil || len(some) != len(session.DefaultKinds()) {
		t.Errorf("default: %v, %v", some, err)
	}
	one, err := eventKinds([]string{" syn ", "time_wait"})
	if err != nil || len(one) != 2 || one[0] != event.KindSYN || one[1] != event.KindTimeWait {
		t.Errorf("two: %v, %v", one, err)
	}
}

func TestRunRefusesBadOutput(t *testing.T) {
	testutil.Root(t)
	dir := t.TempDir()
	for name, tt := range map[string]struct{ path, text string }{
		"missing directory": {filepath.Join(dir, "no", "log"), "mkdir -p " + filepath.Join(dir, "no")},
		"directory":         {dir, "is a directory: name a file in it"},
		"not writable":      {"/proc/twscope.json", "choose another path"},
		"file as directory": {filepath.Join("/proc/self/comm", "log"), "/proc/self/comm/log"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run([]string{"run", "--duration", "1s", "--out", tt.path}, os.Stdout, &stderr)
			if code != exitError || !strings.Contains(stderr.String(), tt.path) || !strings.Contains(stderr.String(), tt.text) {
				t.Errorf("exit code %d, %q; want %d, the path and %q", code, stderr.String(), exitError, tt.text)
			}
		})
	}
}

func TestRunRefusesRung(t *testing.T) {
	testutil.Root(t)
	for _, rung := range []testutil.Feature{testutil.Fentry, testutil.Kprobe} {
		t.Run(string(rung), func(t *testing.T) {
			var stderr bytes.Buffer
			out := filepath.Join(t.TempDir(), "log")
			code := run([]string{"run", "--duration", "100ms", "--rung", string(rung), "--out", out}, os.Stdout, &stderr)
			if code == exitOK {
				return // the kernel has it
			}
			testutil.SkipMissing(t, rung, nil)
			if code != exitError || !strings.Contains(stderr.String(), "--rung "+string(rung)) ||
				!strings.Contains(stderr.String(), "does not work on this kernel") {
				t.Errorf("exit code %d, %q", code, stderr.String())
			}
			if _, err := os.Stat(out); !os.IsNotExist(err) {
				t.Error("there is a log of a run that was none")
			}
		})
	}
}
