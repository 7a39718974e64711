// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"math"
	"net/netip"
	"strings"
	"testing"
)

func TestNumbers(t *testing.T) {
	tests := []struct{ name, got, want string }{
		{"zero", group(0), "0"},
		{"three digits", group(999), "999"},
		{"four", group(1000), "1,000"},
		{"million", group(uint64(1234567)), "1,234,567"},
		{"negative", group(-1000), "-1,000"},
		{"singular", several(1, "port", "ports"), "1 port"},
		{"plural", several(0, "port", "ports"), "0 ports"},
		{"promise", atLeast(16.99), "16"},
		{"small promise", atLeast(1.69), "1.6"},
		{"tiny promise", atLeast(0.0169), "0.016"},
		{"endless promise", atLeast(math.Inf(1)), "4,611,686,018,427,387,904"},
		{"measured", about(899.6), "900"},
		{"measured, small", about(1.67), "1.7"},
		{"measured, none", about(0), "0"},
		{"all", percent(1000, 1000), "100 %"},
		{"almost all", percent(999, 1000), "99 %"},
		{"hardly any", percent(1, 1000), "less than 1 %"},
		{"none", percent(0, 1000), "0 %"},
		{"of nothing", percent(0, 0), "0 %"},
		{"moment", span(0.4), "less than 1 s"},
		{"owner", owner(1, "a"), "a[1]"},
		{"owner without name", owner(1, ""), "process 1"},
		{"owner without pid", owner(0, "a"), "a"},
		{"no owner", owner(0, ""), "program unknown"},
		{"IPv6", endpoint(netip.MustParseAddr("2001:db8::1"), 80), "[2001:db8::1]:80"},
		{"no address", endpoint(netip.Addr{}, 80), "unknown address, port 80"},
		{"enumeration", enumerate([]string{"a", "b", "c"}), "a, b and c"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func TestSustains(t *testing.T) {
	for _, tt := range []struct {
		ports uint32
		share float64
		delay uint32
		want  float64
	}{
		{28232, 0, 1000, 28232.0 / 60},
		{28232, 1, 1000, 28232},
		{1000, 0.5, 1000, 1000 / 30.5},
		{1000, 1, 0, 1e6},
		{0, 0.5, 1000, 0},
	} {
		if got := sustains(tt.ports, tt.share, tt.delay); math.Abs(got-tt.want) > 1e-9*tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

func TestPortList(t *testing.T) {
	l, whole := parsePorts("22, 80,8000-8010,9000-9000")
	if !whole || l.String() != "22, 80, 8000-8010 and 9000" || l.count() != 14 {
		t.Errorf("%v, %t", l, whole)
	}
	if got := l.within(portSpan{80, 8005}).besides(portSpan{8001, 8002}); got.String() != "80, 8000 and 8003-8005" {
		t.Errorf("within: %v", got)
	}
	if got := l.union(portList{{8005, 8020}, {65535, 65535}, {23, 23}}); got.String() != "22-23, 80, 8000-8020, 9000 and 65535" {
		t.Errorf("union: %v", got)
	}
	if got := l.without(portList{{8000, 8009}, {22, 22}}); got.String() != "80, 8010 and 9000" {
		t.Errorf("without: %v", got)
	}
	for _, cut := range []string{"22,80...", "22-", "-5", "9-8", "65536", "x"} {
		if _, whole := parsePorts(cut); whole {
			t.Errorf("%q is taken for whole", cut)
		}
	}
	many, _ := parsePorts("1,3,5,7,9,11,13,15,17,19,21,23-25")
	if got := many.String(); !strings.HasSuffix(got, "19 and 4 ports more") {
		t.Error(got)
	}
}

// FuzzPortList holds the arithmetic to a set of ports, one by one.
func FuzzPortList(f *testing.F) {
	f.Add("22,80,8000-8010", "1-9,80", uint16(5), uint16(9000), uint16(70), uint16(90))
	f.Add("0-65535", "65535", uint16(0), uint16(65535), uint16(0), uint16(65535))
	f.Fuzz(func(t *testing.T, a, b string, low, high, from, to uint16) {
		l, _ := parsePorts(a)
		m, _ := parsePorts(b)
		in, besides := portSpan{low, high}, portSpan{from, to}
		if len(l)+len(m) > 20 || low > high || from > to {
			return
		}
		within, union, rest := l.within(in).besides(besides), l.union(m), l.without(m)
		has := func(l portList, p uint16) bool {
			for _, s := range l {
				if s.has(p) {
					return true
				}
			}
			return false
		}
		var n uint32
		for p := range uint32(65536) {
			p := uint16(p)
			if got, want := has(within, p), has(l, p) && in.has(p) && !besides.has(p); got != want {
				t.Fatalf("within: %d: %t", p, got)
			}
			if got, want := has(union, p), has(l, p) || has(m, p); got != want {
				t.Fatalf("union: %d: %t", p, got)
			} else if got {
				n++
			}
			if got, want := has(rest, p), has(l, p) && !has(m, p); got != want {
				t.Fatalf("without: %d: %t", p, got)
			}
		}
		if union.count() != n {
			t.Fatalf("count: %d, want %d", union.count(), n)
		}
	})
}

// TestCodes holds the documentation to be complete.
func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Codes() {
		if seen[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		seen[c.ID] = true
		for what, text := range map[string]string{
			"title": c.Title, "meaning": c.Meaning, "detection": c.Detected, "confidence": c.Confidence, "what would prove it wrong": c.WrongIf,
		} {
			if text == "" {
				t.Errorf("%s has no %s", c.ID, what)
			}
		}
		if len(c.Remedies) == 0 || len(c.Useless) == 0 {
			t.Errorf("%s does not say what helps, or what does not", c.ID)
		}
		for _, a := range c.Remedies {
			if a.Do == "" || a.Why == "" || a.When == "" {
				t.Errorf("%s: %+v is not complete", c.ID, a)
			}
		}
		if got, ok := Lookup(c.ID); !ok || got.Title != c.Title {
			t.Errorf("Lookup(%s) = %v, %t", c.ID, got, ok)
		}
	}
	for _, r := range destinationRules() {
		if !seen[r.code] {
			t.Errorf("%s is not documented", r.code)
		}
	}
	for _, id := range []string{TWRecycleGone, BindWithoutNoPort, TWBucketOverflow} {
		if !seen[id] {
			t.Errorf("%s is not documented", id)
		}
	}
	if _, ok := Lookup("nonsense"); ok {
		t.Error("nonsense is documented")
	}
}

func (p portSpan) has(port uint16) bool { return port >= p.low && port <= p.high }
