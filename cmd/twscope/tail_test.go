// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/testutil"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// runTailCmd runs tail as the command line does.
func runTailCmd(ctx context.Context, stdin string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := newTailCmd()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

func TestTailGolden(t *testing.T) {
	log := filepath.Join("testdata", "tail.json")
	eventtest.ValidateFile(t, log)
	tests := []struct {
		name string
		args []string
	}{
		{"tail.txt", []string{"--utc", "--all"}},
		{"tail_color.txt", []string{"--utc", "--all", "--color", "always"}},
		{"tail_events.txt", []string{"--utc", "-n", "3", "--events", "time_wait,connect_fail", "--events", "paws_reject"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, err := runTailCmd(t.Context(), "", append(tt.args, log)...)
			if err != nil || stderr != "" {
				t.Fatalf("%v, stderr: %s", err, stderr)
			}
			testutil.Golden(t, *update, tt.name, stdout)
		})
	}
}

func TestTailLines(t *testing.T) {
	line := func(i int) string {
		ev := &event.Loss{Header: event.Header{Time: int64(i) * 1e9}, Hop: "ring", Count: uint64(i)}
		return string(event.NewEncoder().Append(nil, ev))
	}
	var log strings.Builder
	for i := range 25 {
		log.WriteString(line(i))
	}
	path := filepath.Join(t.TempDir(), "events.json")
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".1", []byte(line(100)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		stdin string
		args  []string
		lines int
		first string
	}{
		{"default", "", []string{path}, 10, "15 events"},
		{"none", "", []string{"-n", "0", path}, 0, ""},
		{"more than there are", "", []string{"-n", "99", path}, 25, "0 events"},
		{"all, with old files", "", []string{"--all", path}, 26, "100 events"},
		{"standard input as a whole", log.String(), []string{"-"}, 25, "0 events"},
		{"end of standard input", log.String(), []string{"-n", "2", "-"}, 2, "23 events"},
		{"last line without end", strings.TrimSuffix(log.String(), "\n"), []string{"-"}, 25, "0 events"},
		{"last line not complete", log.String() + `{"time":`, []string{"-"}, 25, "0 events"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, err := runTailCmd(t.Context(), tt.stdin, tt.args...)
			if err != nil || stderr != "" {
				t.Fatalf("%v, stderr: %s", err, stderr)
			}
			if n := strings.Count(stdout, "\n"); n != tt.lines {
				t.Errorf("%d lines, want %d:\n%s", n, tt.lines, stdout)
			}
			if first, _, _ := strings.Cut(stdout, "\n"); !strings.Contains(first, tt.first) {
				t.Errorf("starts with %q, want %q", first, tt.first)
			}
		})
	}
}

func TestTailErrors(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"unknown event", []string{"--events", "nonsense", "-"}, `--events: unknown event "nonsense", want one of: start, census`},
		{"unknown color", []string{"--color", "blue", "-"}, `--color "blue": want auto, always or never`},
		{"negative lines", []string{"-n", "-1", "-"}, "--lines -1: want 0 or more; --all shows all"},
		{"all and lines", []string{"--all", "-n", "1", "-"}, "[all lines]"},
		{"no file", []string{filepath.Join(t.TempDir(), "none.json")}, "none.json: no such file"},
		{"a directory", []string{t.TempDir()}, "is a directory: name a file in it"},
		{"two files", []string{"a", "b"}, "accepts at most 1 arg"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := runTailCmd(t.Context(), "", tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestTailForeignBytes holds the output to printable characters whatever the
// log says.
func TestTailForeignBytes(t *testing.T) {
	const evil = `\u001b[2J\u009b\u202e\r\n\u0007`
	head := `{"time":"2026-11-22T12:00:00Z","event":`
	stdin := head + `"time_wait","raddr":"fe80::1%\u001b[2J","comm":"` + evil + `","cgroup":"` + evil + `","role":"client","substate":"time_wait","timestamps":false,"timeout_ms":1}` + "\n" +
		head + `"` + evil + `","x":"` + evil + "\u202e" + `"}` + "\n" +
		head + `"loss","hop":"` + evil + `","of":"` + evil + `","count":1,"why":"` + evil + `"}` + "\n" +
		head + `"sysctl_change","name":"` + evil + `","old":"` + evil + `"}` + "\n" +
		head + `"stop","reason":"` + evil + `","uptime_ms":1,"seen":{},"written":{},"lost":{},"reconcile":[],"clock_step_ms":0}` + "\n" +
		head + `"loss","hop":` + "\x1b[2J\n" +
		"\x1b]0;title\x07\n"
	stdout, stderr, err := runTailCmd(t.Context(), stdin, "-")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(stdout, "\n"); n != 5 {
		t.Errorf("%d lines on stdout, want 5:\n%q", n, stdout)
	}
	if n := strings.Count(stderr, "warning: standard input:"); n != 2 || !strings.Contains(stderr, "standard input:6: ") {
		t.Errorf("stderr does not name the two malformed lines: %q", stderr)
	}
	for _, r := range stdout + stderr {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%U in %q", r, stdout+stderr)
		}
	}
}

func TestTailFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	enc := event.NewEncoder()
	put := func(n uint64) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.Write(enc.Append(nil, &event.Loss{Hop: "ring", Count: n})); err != nil {
			t.Error(err)
		}
	}
	put(1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	seen := make(chan string, 16)
	cmd := newTailCmd()
	cmd.SetArgs([]string{"-f", path})
	cmd.SetOut(chanWriter(seen))
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	await := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		case err := <-done:
			t.Fatalf("tail ended: %v", err)
		}
	}
	await("1 events")
	put(2)
	await("2 events")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put(3)
	await("3 events")
	stop()
	if err := <-done; err != nil {
		t.Errorf("tail ended with %v", err)
	}
}

type chanWriter chan<- string

func (c chanWriter) Write(p []byte) (int, error) {
	c <- string(p)
	return len(p), nil
}

func TestUseColor(t *testing.T) {
	notTerminal, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer notTerminal.Close()
	for when, want := range map[string]bool{"always": true, "never": false, "auto": false} {
		for _, noColor := range []string{"", "1"} {
			if got, err := useColor(when, notTerminal, noColor); got != want || err != nil {
				t.Errorf("--color %s, NO_COLOR=%s: %t, %v", when, noColor, got, err)
			}
		}
	}
}

func TestSchemaCmd(t *testing.T) {
	var out bytes.Buffer
	cmd := newSchemaCmd()
	cmd.SetArgs([]string{})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Schema string                     `json:"$schema"`
		Defs   map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(out.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	if schema.Schema != "https://json-schema.org/draft/2020-12/schema" || len(schema.Defs) != len(event.Kinds()) {
		t.Errorf("%s with %d kinds", schema.Schema, len(schema.Defs))
	}
}
