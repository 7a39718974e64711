// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/testdata/vm/debkernel"
	"github.com/twscope/twscope/testdata/vm/wire"
)

func TestMarked(t *testing.T) {
	output := "=== RUN   TestX\nMATRIX time_wait fentry ok\r\n    x_test.go:7: MATRIX paws_reject kprobe FAIL 3 of 4 seen\n" +
		"MATRIX incomplete\nNOMATRIX a b c\n--- PASS: TestX (0.00s)\n"
	want := [][]string{{"time_wait", "fentry", "ok"}, {"paws_reject", "kprobe", "FAIL 3 of 4 seen"}}
	if d := cmp.Diff(want, marked([]byte(output), "MATRIX", 3)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestParseArgs(t *testing.T) {
	for name, c := range map[string]struct {
		args    []string
		wantErr string
	}{
		"defaults":       {nil, ""},
		"several":        {[]string{"-k", "6.1", "-k", "7", "-e", "A=b", "./internal/probe:-test.run X"}, ""},
		"no equals sign": {[]string{"-e", "A"}, "-e \"A\": want NAME=VALUE"},
		"no machine":     {[]string{"-j", "0"}, "-j 0: want 1 or more"},
		"unknown flag":   {[]string{"-z"}, "flag provided but not defined"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseArgs(c.args, io.Discard)
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Fatalf("got error %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(o.series) == 0 || len(o.rungs) != 3 {
				t.Errorf("series %q, rungs %q", o.series, o.rungs)
			}
		})
	}
}

// TestArchive has cpio itself read what we write.
func TestArchive(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to compare with: install the package cpio")
	}
	var buf bytes.Buffer
	a := newArchive(&buf)
	files := map[string]string{"/init": "#!", "/a/b/c": "four", "/a/empty": "", "/a/odd": "12345"}
	for _, name := range []string{"/init", "/a/b/c", "/a/empty", "/a/odd"} {
		if err := a.file(name, 0o751, []byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-i", "--quiet", "--no-absolute-filenames")
	cmd.Dir, cmd.Stdin = dir, &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode() != 0o751 {
			t.Errorf("%s has mode %o, want 751", name, st.Mode())
		}
	}
}

func TestStaticELF(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := staticELF(script); err == nil || !strings.Contains(err.Error(), "no ELF program") {
		t.Errorf("for a script: %v", err)
	}
	if sh, err := filepath.EvalSymlinks("/bin/sh"); err == nil {
		if err := staticELF(sh); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
			t.Errorf("for %s: %v", sh, err)
		}
	}
}

// TestFollow plays a guest and looks at what the runner makes of it.
func TestFollow(t *testing.T) {
	hello := wire.Record{Kind: wire.KindHello, Text: "6.1.0"}
	out := func(s string) wire.Record { return wire.Record{Kind: wire.KindOut, Run: 1, Data: []byte(s)} }
	exit := func(run, code int) wire.Record { return wire.Record{Kind: wire.KindExit, Run: run, Code: code} }
	end := wire.Record{Kind: wire.KindEnd}
	for name, c := range map[string]struct {
		records []wire.Record
		noise   string
		passed  bool
		wantErr string
	}{
		"all pass":          {records: []wire.Record{hello, exit(0, 0), out("MATRIX a b c\n"), exit(1, 0), end}, passed: true},
		"one fails":         {records: []wire.Record{hello, exit(0, 0), exit(1, 1), end}},
		"one did not run":   {records: []wire.Record{hello, exit(0, 0), end}},
		"no end":            {records: []wire.Record{hello, exit(0, 0), exit(1, 0)}},
		"nothing at all":    {},
		"run out of range":  {records: []wire.Record{hello, exit(2, 0)}, wantErr: "run 2 of 2"},
		"unknown kind":      {records: []wire.Record{{Kind: "?"}}, wantErr: "unknown record"},
		"noise on the port": {records: []wire.Record{hello}, noise: "[    1.0] Oops\n", wantErr: "malformed record"},
	} {
		t.Run(name, func(t *testing.T) {
			var port bytes.Buffer
			w := wire.NewWriter(&port)
			for _, r := range c.records {
				if err := w.Write(r); err != nil {
					t.Fatal(err)
				}
			}
			port.WriteString(c.noise)
			load := &guestLoad{runs: []wire.Run{{Name: "check"}, {Name: "x"}}, rungs: []string{"", "kprobe"}}
			b := newBootResult(&debkernel.Kernel{Release: "6.1.0"}, load, t.TempDir())
			err := b.follow(&port, time.Now(), io.Discard)
			if err := b.closeLogs(); err != nil {
				t.Fatal(err)
			}
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("got error %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.passed() != c.passed {
				t.Errorf("passed = %t, want %t", b.passed(), c.passed)
			}
		})
	}
}

func TestLockLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	unlock, err := lockLogs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockLogs(dir); err == nil || !strings.Contains(err.Error(), "-logs") {
		t.Errorf("second lock: %v, want a refusal that names -logs", err)
	}
	unlock()
	unlock, err = lockLogs(dir)
	if err != nil {
		t.Fatalf("after unlock: %v", err)
	}
	unlock()
}
