// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/twscope/twscope/internal/event"
)

type integer interface {
	~int | ~int64 | ~uint16 | ~uint32 | ~uint64
}

// group writes a number with thousands separators.
func group[N integer](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// several writes a number and what it counts.
func several[N integer](n N, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return group(n) + " " + more
}

// be is the verb to a number.
func be[N integer](n N) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// atLeast writes a rate that is promised: rounded down, below 10 to a tenth,
// below 0.1 to two digits.
func atLeast(v float64) string {
	switch {
	case v >= 10:
		return group(int64(min(v, math.MaxInt64/2)))
	case v >= 0.1:
		return trimZero(math.Floor(v*10)/10, 1)
	}
	return trimZero(math.Floor(v*1000)/1000, 3)
}

// about writes a rate that was measured.
func about(v float64) string {
	if v >= 9.95 {
		return group(int64(math.Round(min(v, math.MaxInt64/2))))
	}
	return trimZero(v, 1)
}

func trimZero(v float64, digits int) string {
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// percent writes a share of something; it says 0 % and 100 % only of none and
// of all.
func percent(part, whole uint64) string {
	if whole == 0 {
		return "0 %"
	}
	p := int64(math.Round(100 * float64(part) / float64(whole)))
	switch {
	case p == 0 && part > 0:
		return "less than 1 %"
	case p >= 100 && part < whole:
		p = 99
	}
	return strconv.FormatInt(p, 10) + " %"
}

// clock writes the time of day, in UTC because a log is read in other places.
func clock(ns int64) string { return time.Unix(0, ns).UTC().Format("15:04:05") + " UTC" }

// span writes a duration in seconds.
func span(seconds float64) string {
	if seconds < 1 {
		return "less than 1 s"
	}
	return about(seconds) + " s"
}

// owner writes who a destination belongs to, such as "python3[4123]".
func owner(pid uint32, comm string) string {
	switch {
	case pid == 0 && comm == "":
		return "program unknown"
	case pid == 0:
		return comm
	case comm == "":
		return "process " + strconv.FormatUint(uint64(pid), 10)
	}
	return comm + "[" + strconv.FormatUint(uint64(pid), 10) + "]"
}

// addr writes an address, which may be missing.
func addr(a netip.Addr) string {
	if !a.IsValid() {
		return "an unknown address"
	}
	return a.String()
}

// endpoint writes where a destination is.
func endpoint(a netip.Addr, port uint16) string {
	if !a.IsValid() {
		return "unknown address, port " + strconv.Itoa(int(port))
	}
	return netip.AddrPortFrom(a, port).String()
}

// enumerate joins with commas and "and".
func enumerate(parts []string) string {
	switch n := len(parts); n {
	case 0:
		return ""
	case 1:
		return parts[0]
	default:
		return strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	}
}

func num[N integer](name string, n N) event.Fact { return event.Fact{Name: name, Number: float64(n)} }

func rate(name string, v float64) event.Fact { return event.Fact{Name: name, Number: v} }

func txt(name, text string) event.Fact { return event.Fact{Name: name, Text: text} }
