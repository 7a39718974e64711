// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/verdict"
)

func of(code, subject, severity string) verdict.Finding {
	return verdict.Finding{Code: code, Subject: subject, Severity: severity, Summary: code + " of " + subject}
}

func TestCompareFindings(t *testing.T) {
	tests := []struct {
		name          string
		before, after []verdict.Finding
		want          string
		change        string
	}{
		{"none", nil, nil, "", "same"},
		{"gone", []verdict.Finding{of("a", "x", "critical")}, nil, "a x gone", "better"},
		{"new", nil, []verdict.Finding{of("a", "x", "warning")}, "a x new", "worse"},
		{"new and no harm", nil, []verdict.Finding{of("a", "x", "info")}, "a x new", "same"},
		{"same", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("a", "x", "warning")}, "a x same", "same"},
		{"twice in a run", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("a", "x", "warning"), of("a", "x", "warning")}, "a x same", "same"},
		{"worse", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("a", "x", "critical")}, "a x worse", "worse"},
		{"better", []verdict.Finding{of("a", "x", "critical")}, []verdict.Finding{of("a", "x", "warning")}, "a x better", "better"},
		{"another name", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("a", "y", "warning")}, "a y same", "same"},
		{"others", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("a", "y", "warning"), of("a", "z", "warning")}, "a x gone, a y new, a z new", "mixed"},
		{"new, but less", []verdict.Finding{of("a", "x", "critical")}, []verdict.Finding{of("b", "x", "warning"), of("b", "y", "warning")}, "a x gone, b x new, b y new", "better"},
		{"new, and more", []verdict.Finding{of("a", "x", "warning")}, []verdict.Finding{of("b", "x", "critical")}, "b x new, a x gone", "worse"},
		{"another code", []verdict.Finding{of("a", "x", "critical")}, []verdict.Finding{of("b", "x", "warning")}, "a x gone, b x new", "better"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := verdict.Compare(verdict.Verdict{Findings: tt.before}, verdict.Verdict{Findings: tt.after})
			var got []string
			for _, f := range c.Findings {
				got = append(got, f.Code+" "+f.Subject+" "+f.Change)
			}
			if text := strings.Join(got, ", "); text != tt.want || c.Change != tt.change {
				t.Errorf("got %s, %s: want %s, %s", text, c.Change, tt.want, tt.change)
			}
			if c.Change == verdict.ChangeWorse && len(c.Worse) == 0 || c.Change == verdict.ChangeBetter && len(c.Better) == 0 {
				t.Errorf("%s because of %q and %q", c.Change, c.Better, c.Worse)
			}
		})
	}
}

// TestCompareRows holds failures against the connections that were tried.
func TestCompareRows(t *testing.T) {
	run := func(made, failed, unanswered uint64) verdict.Verdict {
		return verdict.Verdict{
			Connections: verdict.Connections{Made: made}, Failures: verdict.Failures{Kernel: failed}, Refusals: verdict.Refusals{Unanswered: unanswered},
		}
	}
	tests := []struct {
		name          string
		before, after verdict.Verdict
		row, want     string
		change        string
	}{
		{"fewer connections", run(1000, 0, 0), run(500, 0, 0), "connections made", "other", "same"},
		{"first failure", run(1000, 0, 0), run(1000, 1, 0), "connect() failed", "worse", "worse"},
		{"last failure", run(1000, 1, 0), run(1000, 0, 0), "connect() failed", "better", "better"},
		{"longer run", run(1000, 100, 0), run(10000, 1000, 0), "connect() failed", "other", "same"},
		{"greater share", run(1000, 100, 0), run(10000, 2000, 0), "connect() failed", "worse", "worse"},
		{"smaller share", run(1000, 100, 0), run(10000, 200, 0), "connect() failed", "better", "better"},
		{"silence", run(1000, 0, 0), run(1000, 0, 9), "SYNs unanswered", "worse", "worse"},
		{"ports not known", run(1, 0, 0), run(1, 0, 0), "port use at most", "other", "same"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := verdict.Compare(tt.before, tt.after)
			i := slices.IndexFunc(c.Rows, func(r verdict.Row) bool { return r.Name == tt.row })
			if i < 0 || c.Rows[i].Change != tt.want || c.Change != tt.change {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestFailOn(t *testing.T) {
	bad, good := conclude(t, exhausted()...), conclude(t, healthy()...)
	info := verdict.Verdict{Codes: []verdict.Code{{Code: "shared-source", Severity: "info", Findings: 1}}}
	tests := []struct {
		text            string
		bad, good, info string
	}{
		{"critical", "port-exhaustion", "", ""},
		{"warning", "port-exhaustion tw-reuse-inert", "", ""},
		{"info", "port-exhaustion tw-reuse-inert", "", "shared-source"},
		{"tw-reuse-inert", "tw-reuse-inert", "", ""},
		{" Port-Exhaustion , nat-paws-drop", "port-exhaustion", "", ""},
		{"critical,shared-source", "port-exhaustion", "", "shared-source"},
		{"critical,warning", "port-exhaustion tw-reuse-inert", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			f, err := verdict.ParseFailOn(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			for _, side := range []struct {
				v    verdict.Verdict
				want string
			}{{bad, tt.bad}, {good, tt.good}, {info, tt.info}} {
				var codes []string
				for _, m := range side.v.Matches(f) {
					codes = append(codes, m.Code)
				}
				if got := strings.Join(codes, " "); got != side.want {
					t.Errorf("got %q, want %q", got, side.want)
				}
			}
		})
	}
	for _, text := range []string{"", " ", "none", "port-exhaustion,", "fatal", "a\x1bb"} {
		_, err := verdict.ParseFailOn(text)
		if err == nil || !strings.Contains(err.Error(), "critical, warning, info, port-exhaustion, ") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if bad.Matches(verdict.FailOn{}) != nil {
		t.Error("the zero FailOn matches")
	}
}

// TestSubjects has findings about the same in two runs, whatever pid and
// namespace.
func TestSubjects(t *testing.T) {
	about := func(s event.Subject) string {
		c := verdict.New()
		c.Feed(&event.Finding{Header: at(1), ID: "x/1", Code: "x", Subject: s, Summary: "x"})
		return c.Verdict().Findings[0].Subject
	}
	for want, s := range map[string]event.Subject{
		"10.0.0.2:80":             {NetNS: 7, Laddr: local, Raddr: remote, Rport: 80, PID: 9, Comm: "wrk"},
		"10.0.0.2 to 10.0.0.1:80": {Laddr: local, Lport: 80, Raddr: remote},
		"10.0.0.1:80":             {Laddr: local, Lport: 80},
		"port 80":                 {Lport: 80},
		"/etc/sysctl.conf:7":      {File: "/etc/sysctl.conf", Line: 7},
		"wrk":                     {NetNS: 7, PID: 9, Comm: "wrk"},
		"network namespace 7":     {NetNS: 7},
		"this host":               {},
	} {
		if got := about(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
