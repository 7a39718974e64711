// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/verdict"
)

// concluded writes a log, and the verdict of its run.
func concluded(t *testing.T, events ...event.Event) (log, conclusion string) {
	t.Helper()
	r := verdict.NewReplay()
	for _, ev := range events {
		r.Feed(ev)
	}
	v := r.Verdict()
	return record(t, events...), string(v.Encode())
}

func TestCompare(t *testing.T) {
	bad, verdictOfBad := concluded(t, story()...)
	good, _ := concluded(t, story()[0], &event.Stop{Stats: event.Stats{Header: event.Header{Time: story()[0].UnixNano() + 5e9}}, Reason: "SIGINT"})
	var pretty, packed bytes.Buffer
	if err := json.Indent(&pretty, []byte(verdictOfBad), "", "  "); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(bad)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name, text string) string {
		p := filepath.Join(dir, name)
		writeFile(t, p, text)
		return p
	}
	badLog, goodLog := path("bad.json", bad), path("good.json", good)
	tests := []struct {
		name, stdin string
		args        []string
		want        string // on stdout
		errs        string
		code        int
	}{
		{"better", "", []string{badLog, goodLog}, "better: connect() failed: 500 -> 0; port-exhaustion", "", exitOK},
		{"worse", "", []string{goodLog, badLog}, "worse: connect() failed: 0 -> 500; new critical port-exhaustion", "", exitOK},
		{"worse and a gate", "", []string{"--fail-on-worse", goodLog, badLog}, "worse: ", "twscope: worse: connect() failed", exitMatch},
		{"better and a gate", "", []string{"--fail-on-worse", badLog, goodLog}, "better: connect() failed: 500 -> 0; port-exhaustion", "", exitOK},
		{"verdict", "", []string{path("verdict.json", verdictOfBad), badLog}, "no better and no worse\n", "", exitOK},
		{"indented verdict", "", []string{badLog, path("pretty.json", pretty.String())}, "no better and no worse\n", "", exitOK},
		{"packed log", "", []string{badLog, path("bad.json.gz", packed.String())}, "no better and no worse\n", "", exitOK},
		{"standard input", bad, []string{"-", badLog}, "no better and no worse\n", "", exitOK},
		{"with the files before", "", []string{"--all", badLog, goodLog}, "better: connect() failed: 500 -> 0; port-exhaustion", "", exitOK},
		{"log that was cut", "", []string{badLog, path("cut.json", bad[:len(bad)-20])}, "after: the run has not ended", "", exitOK},
		{"markdown", "", []string{"--format", "markdown", badLog, goodLog}, "| connect() failed | 500 | 0 | better |", "", exitOK},
		{"json", "", []string{"--format", "json", badLog, goodLog}, `{"schema":"1.0","change":"better","better":["connect() failed: 500 -> 0",`, "", exitOK},
		{"bad format", "", []string{"--format", "xml", badLog, goodLog}, "", `--format "xml": want text, markdown or json`, exitUsage},
		{"bad colour", "", []string{"--color", "red", badLog, goodLog}, "", `--color "red"`, exitUsage},
		{"one side", "", []string{badLog}, "", "accepts 2 arg", exitUsage},
		{"standard input twice", "", []string{"-", "-"}, "", "only one of BEFORE and AFTER", exitUsage},
		{"no such file", "", []string{badLog, filepath.Join(dir, "none")}, "", "no such file", exitError},
		{"directory", "", []string{dir, badLog}, "", "is a directory: name a file in it", exitError},
		{"empty", "", []string{"-", badLog}, "", "standard input: is empty", exitError},
		{"neither", "hello\x1b\n", []string{"-", badLog}, "", "standard input: neither an event log nor a verdict in JSON", exitError},
		{"damaged log", good + "{}\n", []string{"-", badLog}, "", `standard input:3: member "event" is missing`, exitError},
		{"damaged packed log", packed.String()[:packed.Len()/2], []string{"-", badLog}, "", "standard input", exitError},
		{"later verdict", strings.Replace(verdictOfBad, `"schema":"1.0"`, `"schema":"2.0"`, 1), []string{"-", badLog}, "", `version "2.0"`, exitError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, tt.stdin, append([]string{"compare"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stdout, tt.want) || !strings.Contains(stderr, tt.errs) {
				t.Errorf("exit code %d, want %d\n%s%s", code, tt.code, stdout, stderr)
			}
			if tt.errs == "" && stderr != "" || strings.Contains(stderr, "\x1b") {
				t.Errorf("standard error: %q", stderr)
			}
		})
	}
}

func TestCompareColor(t *testing.T) {
	log, _ := concluded(t, story()...)
	path := filepath.Join(t.TempDir(), "log")
	writeFile(t, path, log)
	colored, _, _ := runCLI(t, "", "compare", "--color", "always", path, path)
	plain, _, _ := runCLI(t, "", "compare", path, path)
	if !strings.Contains(colored, sgrBold+"Before"+sgrReset) || strings.Contains(plain, "\x1b") {
		t.Errorf("%q\n%q", colored, plain)
	}
}
