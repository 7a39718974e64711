// SPDX-License-Identifier: Apache-2.0

package paws_test

import (
	"testing"
	"testing/quick"

	"github.com/twscope/twscope/internal/paws"
)

const now = 1_000_000 // seconds; any value will do

// distance is how far b lies ahead of a on the circle of 32-bit numbers, the
// definition from which the comparisons are checked.
func distance(a, b uint32) uint64 {
	return (uint64(b) + 1<<32 - uint64(a)) % (1 << 32)
}

func TestBefore(t *testing.T) {
	tests := []struct {
		name string
		a, b uint32
		want bool
	}{
		{"equal", 7, 7, false},
		{"older", 6, 7, true},
		{"newer", 8, 7, false},
		{"older across the wrap", 0xffffffff, 0, true},
		{"newer across the wrap", 0, 0xffffffff, false},
		{"just under half the circle ahead", 0, 0x7fffffff, true},
		{"just over half the circle ahead", 0, 0x80000001, false},
		{"half the circle, one way", 0, 0x80000000, true},
		{"half the circle, the other way", 0x80000000, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := paws.Before(tt.a, tt.b); got != tt.want {
				t.Errorf("Before(%#x, %#x) = %v, want %v", tt.a, tt.b, got, tt.want)
			}
			if got := paws.After(tt.b, tt.a); got != tt.want {
				t.Errorf("After(%#x, %#x) = %v, want %v", tt.b, tt.a, got, tt.want)
			}
		})
	}
}

func TestBeforeProperties(t *testing.T) {
	check(t, "is the distance on the circle", func(a, b uint32) bool {
		d := distance(a, b)
		return paws.Before(a, b) == (d != 0 && d <= 1<<31)
	})
	check(t, "does not depend on where the clock started", func(a, b, shift uint32) bool {
		return paws.Before(a, b) == paws.Before(a+shift, b+shift)
	})
	check(t, "orders any two numbers one way", func(a, b uint32) bool {
		if d := distance(a, b); d == 0 || d == 1<<31 {
			return true
		}
		return paws.Before(a, b) != paws.Before(b, a)
	})
}

func TestCheckAndReject(t *testing.T) {
	fresh := paws.Recent{TSval: 5000, Stamp: now - 1}
	aged := func(seconds uint32) paws.Recent { return paws.Recent{TSval: 5000, Stamp: now - seconds} }
	tests := []struct {
		name   string
		recent paws.Recent
		tsval  uint32
		window int32
		rst    bool
		wrap   uint32
		pass   bool // Check
		reject bool // Reject, which knows no window
	}{
		{"newer", fresh, 5001, 0, false, paws.WrapMicroseconds, true, false},
		{"equal", fresh, 5000, 0, false, paws.WrapMicroseconds, true, false},
		{"one tick older", fresh, 4999, 0, false, paws.WrapMicroseconds, false, true},
		{"one tick older within the window", fresh, 4999, paws.Window, false, paws.WrapMicroseconds, true, true},
		{"two ticks older beyond the window", fresh, 4998, paws.Window, false, paws.WrapMicroseconds, false, true},
		{"half the circle older", fresh, 5000 + 1<<31, 0, false, paws.WrapMicroseconds, true, false},
		{"ts_recent 0 tells nothing", paws.Recent{Stamp: now}, 0xfffffff0, 0, false, paws.WrapMicroseconds, true, false},
		{"a second before 2147 s", aged(2146), 1, 0, false, paws.WrapMicroseconds, false, true},
		{"at 2147 s", aged(2147), 1, 0, false, paws.WrapMicroseconds, true, false},
		{"at 2147 s on an old kernel", aged(2147), 1, 0, false, paws.Wrap24Days, false, true},
		{"RST within MSL", aged(59), 1, 0, true, paws.WrapMicroseconds, false, true},
		{"RST after MSL", aged(60), 1, 0, true, paws.WrapMicroseconds, false, false},
		{"SYN after MSL", aged(60), 1, 0, false, paws.WrapMicroseconds, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := paws.Check(tt.recent, tt.tsval, tt.window, now, tt.wrap); got != tt.pass {
				t.Errorf("Check = %v, want %v", got, tt.pass)
			}
			if got := paws.Reject(tt.recent, tt.tsval, tt.rst, now, tt.wrap); got != tt.reject {
				t.Errorf("Reject = %v, want %v", got, tt.reject)
			}
		})
	}
}

func TestCheckAt24Days(t *testing.T) {
	const then = 10
	r := paws.Recent{TSval: 5000, Stamp: then}
	if paws.Check(r, 1, 0, then+paws.Wrap24Days-1, paws.Wrap24Days) {
		t.Error("Check passes a second before 24 days")
	}
	if !paws.Check(r, 1, 0, then+paws.Wrap24Days, paws.Wrap24Days) {
		t.Error("Check refuses after 24 days")
	}
}

func TestCheckProperties(t *testing.T) {
	wrap := func(old bool) uint32 {
		if old {
			return paws.Wrap24Days
		}
		return paws.WrapMicroseconds
	}
	check(t, "what is not older passes", func(recent, ahead, stamp, now uint32, old bool) bool {
		r := paws.Recent{TSval: recent, Stamp: stamp}
		return paws.Check(r, recent+ahead>>1, 0, now, wrap(old))
	})
	check(t, "a wider window refuses nothing more", func(recent, tsval, stamp, now uint32, old bool) bool {
		r := paws.Recent{TSval: recent, Stamp: stamp}
		return !paws.Check(r, tsval, 0, now, wrap(old)) || paws.Check(r, tsval, paws.Window, now, wrap(old))
	})
	check(t, "an RST is refused no more than a SYN", func(recent, tsval, stamp, now uint32, old bool) bool {
		r := paws.Recent{TSval: recent, Stamp: stamp}
		return !paws.Reject(r, tsval, true, now, wrap(old)) || paws.Reject(r, tsval, false, now, wrap(old))
	})
	check(t, "the peer's clock may start anywhere but at 0", func(recent, tsval, shift uint32, age uint16) bool {
		if recent == 0 || recent+shift == 0 {
			return true
		}
		stamp := uint32(now) - uint32(age)
		a := paws.Reject(paws.Recent{TSval: recent, Stamp: stamp}, tsval, false, now, paws.WrapMicroseconds)
		b := paws.Reject(paws.Recent{TSval: recent + shift, Stamp: stamp}, tsval+shift, false, now, paws.WrapMicroseconds)
		return a == b
	})
}

func check(t *testing.T, name string, property any) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		if err := quick.Check(property, &quick.Config{MaxCount: 20_000}); err != nil {
			t.Error(err)
		}
	})
}
