// SPDX-License-Identifier: Apache-2.0

package ports

import "math/bits"

// PortSet is a set of ports, one bit each. The zero PortSet is empty.
type PortSet struct {
	words [65536 / 64]uint64
}

// Add puts the ports first to last, both included, into the set. It does
// nothing if first is greater than last.
func (s *PortSet) Add(first, last uint16) {
	for p := uint32(first); p <= uint32(last); p++ {
		s.words[p/64] |= 1 << (p % 64)
	}
}

// Has tells whether a port is in the set. A nil set is empty.
func (s *PortSet) Has(port uint16) bool {
	return s != nil && s.words[port/64]>>(port%64)&1 != 0
}

// Count returns how many of the ports low to high, both included, are in the
// set. A nil set is empty.
func (s *PortSet) Count(low, high uint16) uint32 {
	if s == nil || low > high {
		return 0
	}
	first, last := int(low)/64, int(high)/64
	n := 0
	for w := first; w <= last; w++ {
		word := s.words[w]
		if w == first {
			word &= ^uint64(0) << (low % 64)
		}
		if w == last {
			word &= ^uint64(0) >> (63 - high%64)
		}
		n += bits.OnesCount64(word)
	}
	return uint32(n)
}
