// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/verdict"
)

func TestCodes(t *testing.T) {
	side := Side{Expect: []string{"a", "b"}, Allow: []string{"c"}}
	for _, test := range []struct {
		name string
		got  []string
		want Outcome
	}{
		{"all", []string{"a", "b"}, Pass},
		{"in another order", []string{"b", "a"}, Pass},
		{"one more that may be", []string{"a", "b", "c"}, Pass},
		{"one too few", []string{"a"}, Fail},
		{"one too many", []string{"a", "b", "d"}, Fail},
		{"what may be, and nothing else", []string{"c"}, Fail},
		{"none", nil, Fail},
	} {
		var seen observed
		for _, code := range test.got {
			seen.verdict.Codes = append(seen.verdict.Codes, verdict.Code{Code: code})
		}
		var c checks
		c.codes(&side, &seen)
		if got, why := outcome(c); got != test.want {
			t.Errorf("%s: %s (%s), want %s", test.name, got, why, test.want)
		}
	}
}

func TestSame(t *testing.T) {
	for _, test := range []struct {
		name        string
		truth, seen uint64
		some        bool
		want        Outcome
	}{
		{"both", 3, 3, true, Pass},
		{"none", 0, 0, false, Pass},
		{"unlike", 3, 2, true, Fail},
		{"there should be some", 0, 0, true, Fail},
		{"there should be none", 3, 3, false, Fail},
	} {
		var c checks
		c.same("number", test.truth, test.seen, test.some)
		if got, why := outcome(c); got != test.want || (why == "") != (got == Pass) {
			t.Errorf("%s: %s (%s), want %s", test.name, got, why, test.want)
		}
	}
}

// TestRefusals: a 4-tuple goes from socket to socket.
func TestRefusals(t *testing.T) {
	wire, server := netip.MustParseAddrPort("10.9.0.1:20000"), netip.MustParseAddrPort("10.9.0.2:80")
	first, second := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.1:2")
	syn := func(seq uint32) lab.Segment { return lab.Segment{Src: wire, Dst: server, Flags: lab.SYN, Seq: seq} }
	answer := func(flags uint8) lab.Segment {
		return lab.Segment{Outgoing: true, Src: server, Dst: wire, Flags: flags}
	}
	ok, old := answer(lab.SYN|lab.ACK), answer(lab.ACK)
	sent := map[synID]netip.AddrPort{{seq: 1}: first, {seq: 2}: second, {seq: 3}: first, {seq: 4}: second}
	refused, moved := refusals([]lab.Segment{
		syn(1), ok, // the first socket has it
		syn(2), old, // moved to the second, refused
		syn(2), ok, // sent again
		syn(4), old, // the second again: refused, but not moved
		syn(3), old, // back to the first, refused, and no answer any more
	}, sent)
	if diff := cmp.Diff(map[synID]bool{{seq: 2}: true, {seq: 3}: true, {seq: 4}: true}, refused, cmp.AllowUnexported(synID{})); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[synID]bool{{seq: 2}: true, {seq: 3}: true}, moved, cmp.AllowUnexported(synID{})); diff != "" {
		t.Errorf("moved (-want +got):\n%s", diff)
	}
	if refused, _ := refusals([]lab.Segment{syn(1), ok, syn(9)}, sent); len(refused) != 1 {
		t.Errorf("%v, want the one without an answer", refused)
	}
}

// TestTexts: no line is longer than 80 columns unless a word is, and results say
// what matters.
func TestBlames(t *testing.T) {
	const unknown, nat = event.VerdictUnknown, event.VerdictNATPortRewrite
	type refusal struct {
		verdict event.Verdict
		moved   bool
		times   int
	}
	cases := map[string]struct {
		list []refusal
		good bool
		text string
	}{
		"all":                {[]refusal{{nat, true, 100}}, true, "100, 100 rightly"},
		"none":               {nil, true, "0, 0 rightly"},
		"some before proof":  {[]refusal{{unknown, true, 30}, {nat, true, 70}}, true, "70, 70 rightly; 30 before it was sure"},
		"half before proof":  {[]refusal{{unknown, true, 50}, {nat, true, 50}}, false, "50, 50 rightly; 50 before it was sure"},
		"never sure":         {[]refusal{{unknown, true, 100}}, false, "0, 0 rightly; 100 before it was sure"},
		"missed after proof": {[]refusal{{nat, true, 90}, {unknown, true, 10}}, false, "90, 90 rightly"},
		"another verdict":    {[]refusal{{event.VerdictRestart, true, 10}, {nat, true, 90}}, false, "90, 90 rightly"},
		"wrongly blamed":     {[]refusal{{nat, true, 97}, {nat, false, 3}}, false, "100, 97 rightly"},
		"rightly not blamed": {[]refusal{{unknown, false, 50}, {nat, true, 50}}, true, "50, 50 rightly"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var b blames
			moved := uint64(0)
			for _, r := range c.list {
				for range r.times {
					b.take(r.verdict, r.moved)
					if r.moved {
						moved++
					}
				}
			}
			if b.good(moved) != c.good || b.String() != c.text {
				t.Errorf("%v, %q, want %v, %q", b.good(moved), b.String(), c.good, c.text)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	r := Result{
		Scenario: "nat-port-reuse-two-hosts", Setting: strings.Repeat("setting ", 20), Outcome: Fail,
		Reason: strings.Repeat("reason ", 30), TookS: 12.34,
		Checks: []Check{
			{true, "connect() calls that failed with EADDRNOTAVAIL", "200", "200"},
			{false, "findings", "port-exhaustion, tw-reuse-inert", "none"},
			{true, "connections made", "400", ""},
		},
		Verdict:    &verdict.Verdict{Answer: strings.Repeat("answer ", 40), Findings: []verdict.Finding{{Code: "a-code", Severity: "info", Summary: strings.Repeat("word ", 40)}}},
		Namespaces: []string{"twscope-4194304-x-client"}, Captures: []string{"/tmp/x.pcap"},
	}
	texts := map[string]string{
		"result": r.Text(false), "whole result": r.Text(true), "list": List(All()), "summary": Summary([]Result{r, {Outcome: Skip, Control: true}}),
	}
	for _, s := range All() {
		texts[s.Name] = s.Head()
	}
	for name, text := range texts {
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width && !strings.Contains(line, "ip netns") {
				t.Errorf("%s: a line of %d columns: %s", name, n, line)
			}
		}
	}
	for _, want := range []string{
		"ok    connect() calls that failed", "WRONG findings", "FAIL after 12.3 s: reason", "answer answer", "a-code",
		"ip netns del twscope-4194304-x-client", "saved /tmp/x.pcap",
	} {
		if !strings.Contains(texts["result"], want) {
			t.Errorf("no %q in\n%s", want, texts["result"])
		}
	}
	if !strings.Contains(texts["summary"], "0 passed, 1 failed, 1 skipped") {
		t.Error(texts["summary"])
	}
}
