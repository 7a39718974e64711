// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/testutil"
	"github.com/twscope/twscope/internal/verdict"
)

func busy() verdict.Live {
	l := verdict.Live{UptimeS: 12.7, PerS: 1234.4, TimeWait: 20999, Made: 21500, Accepted: 3, Lost: 7}
	l.Failures.Kernel = 12
	l.Refusals.Unanswered, l.Refusals.StaleACKs, l.Refusals.RefusedHere, l.Refusals.ListenDrops = 1, 2, 3, 4
	for i := range uint16(5) {
		d := verdict.LiveDestination{PortsLeft: 7233, PortsTotal: 28232, SecondsLeft: 5.86, PerS: 1234.4}
		d.Raddr, d.Rport = remote, 8080+i
		if i > 0 {
			d.SecondsLeft = -1
		}
		l.Destinations = append(l.Destinations, d)
	}
	for i, severity := range []string{"critical", "warning", "info", "info"} {
		l.Findings = append(l.Findings, verdict.Finding{
			ID: fmt.Sprintf("port-exhaustion/%d", i+1), Severity: severity,
			Summary: "10.0.0.2:8080: all 28,232 local ports of 10.0.0.1 are in TIME_WAIT (wrk[4123]); and so on",
		})
	}
	return l
}

func TestLiveLines(t *testing.T) {
	l := busy()
	testutil.Golden(t, *update, "live.txt", strings.Join(l.Lines(verdict.Style{}), "\n")+"\n")
	testutil.Golden(t, *update, "live_40.txt", strings.Join(l.Lines(verdict.Style{Width: 40}), "\n")+"\n")
	if diff := cmp.Diff("12 s: 1,234 connections/s, 20,999 in TIME_WAIT, 21,500 made, 3 accepted, 12 failed, 10 refused, 7 events lost; "+
		"10.0.0.2:8080: 7,233 of 28,232 ports left, 1,234/s, gone in 5.9 s", l.Line()); diff != "" {
		t.Error(diff)
	}
	var idle verdict.Live
	if diff := cmp.Diff([]string{"twscope 0 s  0 connections/s, 0 in TIME_WAIT, 0 made", "  0 failed, 0 refused"}, idle.Lines(verdict.Style{})); diff != "" {
		t.Error(diff)
	}
}

// TestLiveFits: no line is wider than the terminal, however narrow, and nothing
// in it moves the cursor.
func TestLiveFits(t *testing.T) {
	l := busy()
	l.Findings[0].Summary = "of \x1b[2J a log\r\nof unknown origin"
	for width := 1; width < 200; width++ {
		for _, line := range l.Lines(verdict.Style{Width: width}) {
			if n := utf8.RuneCountInString(line); n > max(width, 30) || strings.ContainsAny(line, "\x1b\r\n") {
				t.Errorf("width %d: %q has %d columns", width, line, n)
			}
		}
	}
}

func TestTicker(t *testing.T) {
	var ticker verdict.Ticker
	l := verdict.Live{}
	steps := []struct {
		name     string
		findings []verdict.Finding
		want     []string
	}{
		{"nothing", nil, nil},
		{"opens", []verdict.Finding{{ID: "a/1", Severity: "warning", Summary: "text"}}, []string{"warning a/1: text"}},
		{"goes on", []verdict.Finding{{ID: "a/1", Severity: "warning", Summary: "more"}}, nil},
		{"gets worse", []verdict.Finding{{ID: "a/1", Severity: "critical", Summary: "worse"}, {ID: "b/1", Severity: "info", Summary: "x"}}, []string{"critical a/1: worse", "info b/1: x"}},
		{"gets better", []verdict.Finding{{ID: "a/1", Severity: "info", Summary: "better"}, {ID: "b/1", Severity: "info", Summary: "x"}}, nil},
		{"closes", []verdict.Finding{{ID: "b/1", Severity: "info", Summary: "x"}}, []string{"closed a/1"}},
		{"opens again", []verdict.Finding{{ID: "a/2", Severity: "info", Summary: "again"}}, []string{"info a/2: again", "closed b/1"}},
	}
	for _, s := range steps {
		l.Findings = s.findings
		if diff := cmp.Diff(s.want, ticker.News(&l)); diff != "" {
			t.Errorf("%s: %s", s.name, diff)
		}
	}
}
