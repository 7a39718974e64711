// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"encoding/json"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

func TestClean(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "kworker/0:1-events", "kworker/0:1-events"},
		{"printable Unicode", "naïve 漢字 😀", "naïve 漢字 😀"},
		{"backslash", `C:\x`, `C:\x`},
		{"C0", "a\nb\tc\x00\x1b[31m", `a\x0ab\x09c\x00\x1b[31m`},
		{"DEL", "\x7f", `\x7f`},
		{"C1 as UTF-8", "\u0085\u009b2J", `\u{85}\u{9b}2J`},
		{"C1 as a byte", "\x9b2J", `\x9b2J`},
		{"invalid UTF-8", "ä\xff\xe4\xb8b", `ä\xff\xe4\xb8b`},
		{"real U+FFFD", "\ufffd", "\ufffd"},
		{"bidi", "a\u202eb\u2066c", `a\u{202e}b\u{2066}c`},
		{"line separators", "\u2028\u2029", `\u{2028}\u{2029}`},
		{"odd spaces", "\u00a0\u3000\ufeff", `\u{a0}\u{3000}\u{feff}`},
		{"private use and beyond", "\ue000\U000e0001", `\u{e000}\u{e0001}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := event.Clean(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if n := testing.AllocsPerRun(10, func() { event.Clean(tests[1].in) }); n != 0 {
		t.Errorf("clean text: %v allocations", n)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("curl")
	f.Add("\x1b]0;title\x07\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		c := event.Clean(s)
		if !utf8.ValidString(c) {
			t.Fatalf("%q is not UTF-8", c)
		}
		for _, r := range c {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q holds %U", c, r)
			}
		}
		if again := event.Clean(c); again != c {
			t.Fatalf("%q is cleaned once more to %q", c, again)
		}
	})
}

// FuzzEncode holds every text that comes from outside to valid JSON, one line,
// and to the schema.
func FuzzEncode(f *testing.F) {
	f.Add("curl", "/user.slice", int32(99), int64(1))
	f.Add("\x00\"\\\n", "\u2028\xff", int32(-1), int64(-1))
	enc := event.NewEncoder()
	f.Fuzz(func(t *testing.T, comm, cgroup string, errno int32, ns int64) {
		s := event.Socket{Owner: event.Owner{PID: 1, Comm: comm, Cgroup: cgroup}}
		h := event.Header{Time: ns}
		for _, ev := range []event.Event{
			&event.ConnectFail{Header: h, Socket: s, Errno: max(0, errno)},
			&event.SYN{Header: h, Socket: s, Fingerprint: comm},
			&event.Start{Header: h, Host: comm, Coverage: map[string]string{comm: cgroup}, Lost: []string{cgroup}},
			&event.SysctlChange{Header: h, Name: comm, Old: cgroup},
		} {
			line := enc.Append(nil, ev)
			if !json.Valid(line) {
				t.Fatalf("not JSON: %q", line)
			}
			for _, c := range line[:len(line)-1] {
				if c < 0x20 || c == 0x7f {
					t.Fatalf("a control character: %q", line)
				}
			}
			eventtest.Validate(t, line)
			back, err := event.Decode(line)
			if err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			if again := enc.Append(nil, back); string(again) != string(line) {
				t.Fatalf("got  %swant %s", again, line)
			}
		}
	})
}
