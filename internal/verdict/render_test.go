// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/testutil"
	"github.com/twscope/twscope/internal/verdict"
)

func marked(p verdict.Part, text string) string { return fmt.Sprintf("<%d:%s>", p, text) }

func TestGolden(t *testing.T) {
	bad, good, slow := conclude(t, exhausted()...), conclude(t, healthy()...), conclude(t, lagging()...)
	change := verdict.Compare(bad, good)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bad.Encode(), "", "  "); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{
		"exhausted.txt": bad.Text(verdict.Style{}), "exhausted_40.txt": bad.Text(verdict.Style{Width: 40}),
		"exhausted_marked.txt": bad.Text(verdict.Style{Paint: marked}),
		"exhausted.md":         bad.Markdown(), "exhausted.json": pretty.String() + "\n",
		"healthy.txt": good.Text(verdict.Style{}), "healthy.md": good.Markdown(), "slow.txt": slow.Text(verdict.Style{}),
		"compare.txt": change.Text(verdict.Style{}), "compare_40.txt": change.Text(verdict.Style{Width: 40}),
		"compare.md": change.Markdown(), "compare.json": string(change.JSON()),
	} {
		t.Run(name, func(t *testing.T) { testutil.Golden(t, *update, name, got) })
	}
}

// TestWidth has no line be wider than it may, but for words that are.
func TestWidth(t *testing.T) {
	for _, tt := range answerCases() {
		v := conclude(t, tt.events...)
		for _, width := range []int{30, 40, 60, 80, 200} {
			s := verdict.Style{Width: width}
			c := verdict.Compare(v, v)
			for line := range strings.Lines(v.Text(s) + c.Text(s)) {
				line = strings.TrimRight(line, "\n")
				if n := utf8.RuneCountInString(line); n > width && strings.Contains(strings.TrimLeft(line, " -0123456789."), " ") {
					t.Errorf("%s: %d columns of %d: %q", tt.name, n, width, line)
				}
			}
		}
	}
}

// TestHostileText has names that would be more than text in a terminal or in
// a comment.
func TestHostileText(t *testing.T) {
	const name = "\x1b[31m|`<b>@you #1 [x](http://y)\u202e\n"
	evil := budget(3, func(d *event.Destination) { d.Comm, d.TimeWait, d.Failed = name, 1000, 9 })
	log, c := record(t, start(), fail(2, event.CauseTimeWaitNotReusable), evil, stop(4))
	v := c.Verdict()
	raw := v.Encode()
	if !bytes.Contains(log, raw) {
		t.Error("the verdict is not in the log as it was made")
	}
	// One that did not come from Encode may hold anything.
	var loose verdict.Verdict
	if err := json.Unmarshal(bytes.ReplaceAll(raw, []byte("10.0.0.2:80: "), []byte(`\u001b[2J`)), &loose); err != nil {
		t.Fatal(err)
	}
	compared := verdict.Compare(loose, loose)
	for _, text := range []string{v.Text(verdict.Style{}), loose.Text(verdict.Style{}), compared.Text(verdict.Style{}), v.Markdown(), loose.Markdown(), compared.Markdown()} {
		if strings.ContainsAny(text, "\x1b\u202e") {
			t.Errorf("not clean: %q", text)
		}
	}
	for _, text := range []string{v.Markdown(), compared.Markdown()} {
		for _, bad := range []string{"@you", "<b>", " |`", "x](", "http://"} {
			if strings.Contains(text, bad) {
				t.Errorf("%q is in %s", bad, text)
			}
		}
	}
}

// TestBound has more of everything than fits.
func TestBound(t *testing.T) {
	long := strings.Repeat(`\"`, 400)
	s := start()
	s.Lost = nil
	for i := range 50 {
		s.Lost = append(s.Lost, fmt.Sprint(i, long))
		s.Filters[fmt.Sprint(i, long)] = []string{long, long}
	}
	list := []event.Event{s}
	for i := range 50 {
		f := &event.Finding{Header: at(1), ID: fmt.Sprint("x/", i), Code: fmt.Sprint("code-", i, long), Severity: event.SeverityWarning, Summary: fmt.Sprint(i, long)}
		for j := range 15 {
			f.Evidence = append(f.Evidence, event.Fact{Name: strconv.Itoa(j), Text: long})
			f.Remedies = append(f.Remedies, event.Remedy{Do: fmt.Sprint(i, j, long), Why: long, Buys: long, Caveat: long})
		}
		list = append(list, f, &event.Loss{Header: at(1), Hop: fmt.Sprint("hop", i), Of: long, Count: 1, Why: long})
	}
	c := verdict.New()
	for _, ev := range list {
		c.Feed(ev)
	}
	end := stop(2)
	end.Reason = long
	out := c.Stop(end)
	if n := len(out.Conclusion); n > event.MaxConclusion || n < event.MaxConclusion/4 {
		t.Errorf("%d bytes of at most %d", n, event.MaxConclusion)
	}
	v, err := verdict.Parse(out.Conclusion)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Truncated || len(v.Findings) == 0 || v.FindingsOmitted+uint64(len(v.Findings)) != 50 {
		t.Errorf("truncated %t, %d findings and %d omitted", v.Truncated, len(v.Findings), v.FindingsOmitted)
	}
}

func TestParse(t *testing.T) {
	v := conclude(t, healthy()...)
	good := string(v.Encode())
	for name, tt := range map[string]struct{ raw, want string }{
		"later minor version": {strings.Replace(good, `"schema":"1.0"`, `"schema":"1.7","novel":[1]`, 1), ""},
		"other major version": {strings.Replace(good, `"schema":"1.0"`, `"schema":"2.0"`, 1), `version "2.0"`},
		"no version":          {`{"answer":"x"}`, `version ""`},
		"no answer":           {`{"schema":"1.0"}`, `"answer" is missing`},
		"no JSON":             {"yes", "not a verdict"},
		"another type":        {strings.Replace(good, `"codes":[]`, `"codes":7`, 1), "not a verdict"},
		"bad evidence":        {strings.Replace(good, `"findings":[]`, `"findings":[{"evidence":{"a":[]}}]`, 1), "neither a number nor a text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verdict.Parse([]byte(tt.raw))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// FuzzParse holds that whatever is read as a verdict can be written, and is
// text only.
func FuzzParse(f *testing.F) {
	v := verdict.New().Verdict()
	f.Add(v.Encode())
	f.Add([]byte(`{"schema":"1.0","answer":"x","ports":{"raddr":"fe80::1%\u001b","share":1e300},"run":{"began":"0000-01-01T00:00:00Z","duration_s":-1e300},` +
		`"findings":[{"evidence":{"a":1,"b":"x"},"severity":"?","summary":"\u001b"}],"connections":{"made":1,"mean_per_s":1e300}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := verdict.Parse(raw)
		if err != nil {
			return
		}
		again, err := verdict.Parse(v.Encode())
		if err != nil && len(v.Answer) < 1<<10 {
			t.Errorf("written, it cannot be read: %v", err)
		}
		c := verdict.Compare(v, again)
		for _, text := range []string{v.Text(verdict.Style{}), v.Markdown(), c.Text(verdict.Style{Width: 40}), c.Markdown()} {
			if strings.ContainsAny(text, "\x1b\u202e\r") {
				t.Errorf("not clean: %q", text)
			}
		}
	})
}

func FuzzParseFailOn(f *testing.F) {
	for _, text := range []string{"critical", "port-exhaustion, nat-paws-drop", ",", "\x1b"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		on, err := verdict.ParseFailOn(text)
		if err != nil {
			if strings.Contains(err.Error(), "\x1b") {
				t.Errorf("not clean: %q", err)
			}
			return
		}
		v := verdict.Verdict{Codes: []verdict.Code{{Code: strings.ToLower(strings.TrimSpace(text)), Severity: "critical"}}}
		if len(v.Matches(on)) == 0 && !strings.Contains(text, ",") {
			t.Errorf("%q matches no finding of that code or severity", text)
		}
	})
}
