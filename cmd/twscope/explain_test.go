// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/diagnose"
)

func TestExplain(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want []string
		code int
	}{
		{"list", nil, []string{"port-exhaustion-soon     the local ports", "tw-bucket-overflow", "paws-drop-old-duplicate  late", "'twscope explain CODE'"}, exitOK},
		{"one", []string{"port-exhaustion"}, []string{"EADDRNOTAVAIL", "net.ipv4.tcp_fin_timeout: it bounds FIN_WAIT2", "What would prove it wrong", "data that is not sent yet is lost"}, exitOK},
		{"any case", []string{"TW-Reuse-Inert"}, []string{"tcp_tw_reuse is on and cannot help"}, exitOK},
		{"reference", []string{"--format", "markdown"}, []string{"## `port-exhaustion`", "## `tw-recycle-gone`"}, exitOK},
		{"one in markdown", []string{"--format", "markdown", "tw-reuse-off"}, []string{"## `tw-reuse-off`"}, exitOK},
		{"misspelt", []string{"port-exhausion"}, []string{`unknown code "port-exhausion", did you mean: port-exhaustion`}, exitUsage},
		{"part of a code", []string{"bucket"}, []string{"did you mean: tw-bucket-overflow"}, exitUsage},
		{"unknown", []string{"\x1b[2Jxyzzy-plugh-and-more"}, []string{`unknown code "\\x1b[2Jxyzzy-plugh-and-more": 'twscope explain' lists the codes`}, exitUsage},
		{"empty", []string{""}, []string{"unknown code"}, exitUsage},
		{"two", []string{"a", "b"}, []string{"accepts at most 1 arg"}, exitUsage},
		{"format", []string{"--format", "xml"}, []string{"want text or markdown"}, exitUsage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, "", append([]string{"explain"}, tt.args...)...)
			got := stdout
			if tt.code != exitOK {
				got = stderr
			}
			if code != tt.code {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			for _, w := range tt.want {
				if !strings.Contains(got, w) {
					t.Errorf("%q is not in %s", w, got)
				}
			}
		})
	}
}

// TestExplainAll has every code explained, within the width of a terminal.
func TestExplainAll(t *testing.T) {
	for _, c := range diagnose.Codes() {
		stdout, stderr, code := runCLI(t, "", "explain", c.ID)
		if code != exitOK || !strings.HasPrefix(stdout, c.ID+": "+c.Title+"\n") {
			t.Errorf("%s: exit code %d: %s%s", c.ID, code, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			if n := utf8.RuneCountInString(line); n > textWidth+20 || strings.HasSuffix(line, " \n") {
				t.Errorf("%s: a line of %d characters: %q", c.ID, n, line)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
