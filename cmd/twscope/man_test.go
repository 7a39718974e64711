// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestMan(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man8")
	root := newRootCmd()
	root.SetArgs([]string{"man", dir})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for page, want := range map[string]string{
		"twscope.8": `.TH "TWSCOPE" "8"`, "twscope-attach.8": `\fB--fail-on\fP`, "twscope-lab-run.8": "SYNOPSIS",
	} {
		text, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s: %v, want %s in it:\n%.400s", page, err, want, text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "twscope-man.8")); err == nil {
		t.Error("a hidden command has a page")
	}
}
