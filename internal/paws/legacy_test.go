// SPDX-License-Identifier: Apache-2.0

package paws_test

import (
	"testing"

	"github.com/twscope/twscope/internal/paws"
)

func Test2632(t *testing.T) {
	const day = 24 * 60 * 60
	fresh := paws.Recent{TSval: 5000, Stamp: now - 1}
	aged := func(seconds uint32) paws.Recent { return paws.Recent{TSval: 5000, Stamp: now - seconds} }
	tests := []struct {
		name   string
		recent paws.Recent
		tsval  uint32
		window int32
		rst    bool
		pass   bool // Check2632
		reject bool // Reject2632, which knows no window
	}{
		{"equal", fresh, 5000, 0, false, true, false},
		{"one tick older", fresh, 4999, 0, false, false, true},
		{"one tick older within the window", fresh, 4999, paws.Window, false, true, true},
		{"ts_recent 0 is no exception", paws.Recent{Stamp: now}, 0xfffffff0, 0, false, false, true},
		{"at 2147 s", aged(2147), 1, 0, false, false, true},
		{"the clock was set back", paws.Recent{TSval: 5000, Stamp: now + 100*day}, 1, 0, false, false, true},
		{"RST within MSL", aged(59), 1, 0, true, false, true},
		{"RST after MSL", aged(60), 1, 0, true, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := paws.Check2632(tt.recent, tt.tsval, tt.window, now); got != tt.pass {
				t.Errorf("Check2632 = %v, want %v", got, tt.pass)
			}
			if got := paws.Reject2632(tt.recent, tt.tsval, tt.rst, now); got != tt.reject {
				t.Errorf("Reject2632 = %v, want %v", got, tt.reject)
			}
		})
	}
	t.Run("24 days", func(t *testing.T) {
		r := paws.Recent{TSval: 5000, Stamp: 10}
		if paws.Check2632(r, 1, 0, 10+paws.Wrap24Days-1) {
			t.Error("Check2632 passes a second before 24 days")
		}
		if !paws.Check2632(r, 1, 0, 10+paws.Wrap24Days) {
			t.Error("Check2632 refuses after 24 days")
		}
	})
	t.Run("TIME_WAIT that remembers 0", func(t *testing.T) {
		tw := paws.TimeWait{Recent: paws.Recent{Stamp: now}, RcvNxt: 1}
		syn := paws.SYN{Seq: 2, Timestamps: true, TSval: 0xfffffff0}
		if got := tw.Receive2632(syn, now); got != paws.PAWS {
			t.Errorf("Receive2632 = %d, want PAWS", got)
		}
		if got := tw.Receive(syn, now, paws.Wrap24Days); got != paws.Accept {
			t.Errorf("Receive = %d, want Accept", got)
		}
	})
}

func Test2632Properties(t *testing.T) {
	check(t, "only 0 and far times part it from 24 days", func(r paws.Recent, tsval, age uint32, rst bool) bool {
		r.Stamp >>= 1
		at := r.Stamp + age>>1
		return r.TSval == 0 ||
			paws.Reject2632(r, tsval, rst, at) == paws.Reject(r, tsval, rst, at, paws.Wrap24Days)
	})
	check(t, "it refuses all that a later kernel refuses", func(tw paws.TimeWait, s paws.SYN, age uint32) bool {
		tw.Stamp >>= 1
		at := tw.Stamp + age>>1
		return tw.Receive(s, at, paws.Wrap24Days) != paws.PAWS || tw.Receive2632(s, at) == paws.PAWS
	})
}
