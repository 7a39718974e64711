// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"strconv"
	"strings"
)

// portList is a set of ports as ip_local_reserved_ports writes it.
type portList []portSpan

// portSpan is the ports from low to high, both in it.
type portSpan struct{ low, high uint16 }

// parsePorts reads "22,80,8000-8010". A text that was cut to fit into a line
// ends in "...": the list is then not whole. What is no port is passed over,
// and the list is not whole either.
func parsePorts(s string) (list portList, whole bool) {
	whole = true
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		p, ok := parseSpan(part, "-")
		if !ok {
			whole = false
			continue
		}
		list = append(list, p)
	}
	return list, whole
}

// parseSpan reads "low<sep>high" or one port.
func parseSpan(s, sep string) (portSpan, bool) {
	first, last, two := strings.Cut(s, sep)
	if !two {
		last = first
	}
	low, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	high, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err1 != nil || err2 != nil || low > high {
		return portSpan{}, false
	}
	return portSpan{uint16(low), uint16(high)}, true
}

// size is the number of ports.
func (p portSpan) size() uint32 { return uint32(p.high) - uint32(p.low) + 1 }

func (p portSpan) String() string {
	if p.low == p.high {
		return strconv.Itoa(int(p.low))
	}
	return strconv.Itoa(int(p.low)) + "-" + strconv.Itoa(int(p.high))
}

// within returns the ports that are in a span too.
func (l portList) within(in portSpan) portList {
	var out portList
	for _, p := range l {
		if low, high := max(p.low, in.low), min(p.high, in.high); low <= high {
			out = append(out, portSpan{low, high})
		}
	}
	return out
}

// besides returns the ports that are not in a span.
func (l portList) besides(not portSpan) portList {
	var out portList
	for _, p := range l {
		if p.high < not.low || p.low > not.high {
			out = append(out, p)
			continue
		}
		if p.low < not.low {
			out = append(out, portSpan{p.low, not.low - 1})
		}
		if p.high > not.high {
			out = append(out, portSpan{not.high + 1, p.high})
		}
	}
	return out
}

// without returns the ports that are not in m, in order.
func (l portList) without(m portList) portList {
	out := l.union(nil)
	for _, p := range m {
		out = out.besides(p)
	}
	return out
}

// count is the number of ports; the spans must not overlap.
func (l portList) count() uint32 {
	var n uint32
	for _, p := range l {
		n += p.size()
	}
	return n
}

// union returns the ports of both, without overlaps, in order.
func (l portList) union(m portList) portList {
	var set [1 << 10]uint64
	for _, list := range []portList{l, m} {
		for _, p := range list {
			for n := uint32(p.low); n <= uint32(p.high); n++ {
				set[n/64] |= 1 << (n % 64)
			}
		}
	}
	var out portList
	for n := range uint32(1 << 16) {
		if set[n/64]&(1<<(n%64)) == 0 {
			continue
		}
		if k := len(out) - 1; k >= 0 && uint32(out[k].high)+1 == n {
			out[k].high = uint16(n)
		} else {
			out = append(out, portSpan{uint16(n), uint16(n)})
		}
	}
	return out
}

// String names the first few, and how many ports more there are.
func (l portList) String() string {
	const most = 10
	var parts []string
	for i, p := range l {
		if i == most {
			parts = append(parts, several(l[i:].count(), "port more", "ports more"))
			break
		}
		parts = append(parts, p.String())
	}
	return enumerate(parts)
}
