// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// portSet is a set of ports, one bit each.
type portSet [65536 / 64]uint64

// count returns how many ports of low to high, both included, are in the set.
func (s *portSet) count(low, high uint16) int {
	n := 0
	for w := int(low) / 64; w <= int(high)/64; w++ {
		word := s[w]
		if first := w * 64; first < int(low) {
			word &= ^uint64(0) << (int(low) - first)
		}
		if last := w*64 + 63; last > int(high) {
			word &= ^uint64(0) >> (last - int(high))
		}
		n += bits.OnesCount64(word)
	}
	return n
}

// PortSpan is the ports from Low to High, both included.
type PortSpan struct{ Low, High uint16 }

// ParsePorts reads the format of ip_local_reserved_ports, "8080,9000-9100"; an
// empty value is the empty list.
func ParsePorts(value string) ([]PortSpan, error) {
	var spans []PortSpan
	if value == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(value, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || low > high {
			return nil, fmt.Errorf("is not a list of ports such as 8080,9000-9100: %q", value)
		}
		spans = append(spans, PortSpan{uint16(low), uint16(high)})
	}
	return spans, nil
}

// parsePorts reads the same into a set.
func parsePorts(value string) (*portSet, error) {
	spans, err := ParsePorts(value)
	if err != nil {
		return nil, err
	}
	var set portSet
	for _, span := range spans {
		for p := int(span.Low); p <= int(span.High); p++ {
			set[p/64] |= 1 << (p % 64)
		}
	}
	return &set, nil
}

// FormatPorts writes sorted ports in the same format.
func FormatPorts(ports []uint16) string {
	var b []byte
	for i := 0; i < len(ports); {
		last := i
		for last+1 < len(ports) && ports[last+1] == ports[last]+1 {
			last++
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(ports[i]), 10)
		if last > i {
			b = append(b, '-')
			b = strconv.AppendUint(b, uint64(ports[last]), 10)
		}
		i = last + 1
	}
	return string(b)
}

// ParsePortRange reads the format of ip_local_port_range, two ports.
func ParsePortRange(value string) (low, high uint16, err error) {
	fields := strings.Fields(value)
	if len(fields) == 2 {
		l, err1 := strconv.ParseUint(fields[0], 10, 16)
		h, err2 := strconv.ParseUint(fields[1], 10, 16)
		if err1 == nil && err2 == nil && l <= h {
			return uint16(l), uint16(h), nil
		}
	}
	return 0, 0, fmt.Errorf("is not a range of two ports: %q", value)
}
