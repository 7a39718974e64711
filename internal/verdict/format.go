// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
)

// How long texts may be, in bytes, so that the JSON form has a bound.
const (
	maxAnswer = 1500
	maxText   = 600
	maxName   = 200
)

// clip makes a text printable and cuts it at a rune.
func clip(s string, most int) string {
	s = event.Clean(s)
	if len(s) <= most {
		return s
	}
	const mark = "..."
	n := most - len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

// plus adds without running over.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// rounded keeps three decimals; what is not finite is 0.
func rounded(v float64) float64 {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0
	case math.Abs(v) >= 1e12:
		return v
	}
	return math.Round(v*1000) / 1000
}

// group writes a number with thousands separators.
func group[N uint32 | uint64](n N) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// several writes a number and what it counts.
func several[N uint32 | uint64](n N, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(n) + " " + more
}

// number writes a measured value, below 10 with one decimal.
func number(v float64) string {
	if v >= 9.95 {
		return group(uint64(math.Round(min(v, math.MaxInt64/2))))
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

// percent writes a share; it says 0 % and 100 % only of none and of all.
func percent(share float64) string {
	p := math.Round(100 * share)
	switch {
	case p == 0 && share > 0:
		return "less than 1 %"
	case p >= 100 && share < 1:
		p = 99
	}
	return strconv.FormatFloat(p, 'f', 0, 64) + " %"
}

func instant(ns int64) time.Time { return time.Unix(0, ns).UTC() }

// clock writes the time of day, in UTC because verdicts are read elsewhere.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// duration writes seconds for people.
func duration(s float64) string {
	switch {
	case s < 10:
		return strconv.FormatFloat(s, 'f', -1, 64) + " s"
	case s < 120:
		return strconv.FormatFloat(math.Round(s), 'f', 0, 64) + " s"
	}
	return time.Duration(min(math.Round(s), 9e9) * float64(time.Second)).String()
}

// place writes where a target is.
func (t *Target) place() string {
	switch {
	case t.Raddr.IsValid() && t.Rport != 0:
		return netip.AddrPortFrom(t.Raddr, t.Rport).String()
	case t.Raddr.IsValid():
		return t.Raddr.String()
	case t.Rport != 0:
		return "port " + strconv.Itoa(int(t.Rport))
	}
	return "an unknown destination"
}

// subject writes what a finding is about, in a form that is the same in
// another run: without pid and network namespace where there is more to say.
func subject(s *event.Subject) string {
	end := func(a netip.Addr, port uint16) string {
		switch {
		case a.IsValid() && port != 0:
			return netip.AddrPortFrom(a, port).String()
		case a.IsValid():
			return a.String()
		case port != 0:
			return "port " + strconv.Itoa(int(port))
		}
		return ""
	}
	local, remote := end(s.Laddr, s.Lport), end(s.Raddr, s.Rport)
	switch {
	case s.File != "":
		return clip(s.File, maxName) + ":" + strconv.FormatUint(uint64(s.Line), 10)
	case remote != "" && s.Rport == 0 && local != "":
		return remote + " to " + local
	case remote != "":
		return remote
	case local != "":
		return local
	case s.Comm != "":
		return clip(s.Comm, maxName)
	case s.NetNS != 0:
		return "network namespace " + strconv.FormatUint(uint64(s.NetNS), 10)
	}
	return "this host"
}
