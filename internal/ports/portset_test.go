// SPDX-License-Identifier: Apache-2.0

package ports

import "testing"

func FuzzPortSet(f *testing.F) {
	f.Add(uint16(0), uint16(65535), uint16(63), uint16(64))
	f.Add(uint16(100), uint16(99), uint16(0), uint16(65535))
	f.Add(uint16(65535), uint16(65535), uint16(65535), uint16(65535))
	f.Fuzz(func(t *testing.T, first, last, low, high uint16) {
		var s PortSet
		s.Add(first, last)
		var want uint32
		for p := int(low); p <= int(high); p++ {
			in := p >= int(first) && p <= int(last)
			if s.Has(uint16(p)) != in {
				t.Fatalf("%d to %d: Has(%d) is %t", first, last, p, !in)
			}
			if in {
				want++
			}
		}
		if got := s.Count(low, high); got != want {
			t.Fatalf("%d to %d has %d in %d to %d, want %d", first, last, got, low, high, want)
		}
	})
}

func TestPortSetNil(t *testing.T) {
	var s *PortSet
	if s.Has(80) || s.Count(0, 65535) != 0 {
		t.Error("a nil set has ports")
	}
}
