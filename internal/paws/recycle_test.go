// SPDX-License-Identifier: Apache-2.0

package paws_test

import (
	"testing"

	"github.com/twscope/twscope/internal/paws"
)

func TestRefuses(t *testing.T) {
	known := paws.Host{TSval: 5000, Stamp: now - 10}
	aged := func(seconds uint32) paws.Host { return paws.Host{TSval: 5000, Stamp: now - seconds} }
	with := func(tsval uint32) paws.SYN { return paws.SYN{Timestamps: true, TSval: tsval} }
	type refusals struct{ r2632, r310, el7 bool }
	all, none := refusals{true, true, true}, refusals{}
	tests := []struct {
		name string
		host paws.Host
		syn  paws.SYN
		want refusals
	}{
		{"nothing known", paws.Host{}, with(1), none},
		{"nothing known, no timestamps", paws.Host{}, paws.SYN{}, none},
		{"newer", known, with(5001), none},
		{"equal", known, with(5000), none},
		{"one tick older, within the window", known, with(4999), none},
		{"two ticks older", known, with(4998), all},
		{"older across the wrap", paws.Host{TSval: 3, Stamp: now}, with(0xffffffff), all},
		{"half the circle older", known, with(5000 + 1<<31), none},
		{"TSval 0 is a timestamp", known, with(0), all},
		{"no timestamps", known, paws.SYN{}, refusals{el7: true}},
		{"no timestamps, after MSL", aged(60), paws.SYN{}, none},
		{"two ticks older, a second before MSL", aged(59), with(4998), all},
		{"two ticks older, after MSL", aged(60), with(4998), none},
		{"the clock was set back", paws.Host{TSval: 5000, Stamp: now + 1}, with(4998), refusals{r2632: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := refusals{
				tt.host.Refuses(paws.Recycle2632, tt.syn, now),
				tt.host.Refuses(paws.Recycle310, tt.syn, now),
				tt.host.Refuses(paws.RecycleEL7, tt.syn, now),
			}
			if got != tt.want {
				t.Errorf("Refuses = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRemember(t *testing.T) {
	known := paws.Host{TSval: 5000, Stamp: now - 10}
	tests := []struct {
		name string
		host paws.Host
		seen paws.Recent
		want paws.Host
	}{
		{"the first", paws.Host{}, paws.Recent{TSval: 1 << 31, Stamp: now}, paws.Host{TSval: 1 << 31, Stamp: now}},
		{"newer", known, paws.Recent{TSval: 5001, Stamp: now}, paws.Host{TSval: 5001, Stamp: now}},
		{"equal, seen later", known, paws.Recent{TSval: 5000, Stamp: now}, paws.Host{TSval: 5000, Stamp: now}},
		{"older", known, paws.Recent{TSval: 4999, Stamp: now}, known},
		{
			"older, at MSL",
			paws.Host{TSval: 5000, Stamp: now - 60},
			paws.Recent{TSval: 1, Stamp: now},
			paws.Host{TSval: 5000, Stamp: now - 60},
		},
		{
			"older, after MSL",
			paws.Host{TSval: 5000, Stamp: now - 61},
			paws.Recent{TSval: 1, Stamp: now},
			paws.Host{TSval: 1, Stamp: now},
		},
		{
			"older, after MSL, but received before",
			paws.Host{TSval: 5000, Stamp: now - 61},
			paws.Recent{TSval: 1, Stamp: now - 62},
			paws.Host{TSval: 5000, Stamp: now - 61},
		},
		{"no timestamps", known, paws.Recent{TSval: 9999}, known},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, k := range []paws.Recycle{paws.Recycle2632, paws.Recycle310, paws.RecycleEL7} {
				if got := tt.host.Remember(k, tt.seen, now); got != tt.want {
					t.Errorf("Remember(%d) = %+v, want %+v", k, got, tt.want)
				}
			}
		})
	}
}

// The SYN and the connection of a single clock, at a time after now. Ticks are
// milliseconds.
func (c hostClock) at(second uint32) (paws.SYN, paws.Recent) {
	tsval := uint32(c) + 1000*second
	return paws.SYN{Timestamps: true, TSval: tsval}, paws.Recent{TSval: tsval, Stamp: now + second}
}

type hostClock uint32 // its TSval at the time now

func TestRecycleProperties(t *testing.T) {
	check(t, "one clock alone is never refused", func(a hostClock, steps []uint16, which uint8) bool {
		k := paws.Recycle(which % 3)
		var host paws.Host
		second := uint32(0)
		for _, step := range steps {
			second += uint32(step)
			syn, seen := a.at(second)
			if host.Refuses(k, syn, now+second) {
				return false
			}
			host = host.Remember(k, seen, now+second)
		}
		return true
	})
	check(t, "of two clocks that take turns, the one behind is refused", func(a hostClock, behind uint32, turns, which uint8) bool {
		k := paws.Recycle(which % 3)
		behind = 3 + behind%(1<<31-1_000_000) // ms, so that it is behind in all turns
		var host paws.Host
		for turn := range uint32(turns) {
			ahead, seen := a.at(2 * turn)
			if host.Refuses(k, ahead, now+2*turn) {
				return false
			}
			host = host.Remember(k, seen, now+2*turn)
			late, _ := (a - hostClock(behind)).at(2 * turn)
			if !host.Refuses(k, late, now+2*turn) {
				return false
			}
		}
		return true
	})
	check(t, "RHEL 7 refuses all that 3.10 refuses", func(host paws.Host, syn paws.SYN, at uint32) bool {
		return !host.Refuses(paws.Recycle310, syn, at) || host.Refuses(paws.RecycleEL7, syn, at)
	})
	check(t, "2.6.32 and 3.10 agree while the clock runs forward", func(host paws.Host, syn paws.SYN, age uint16) bool {
		host.Stamp >>= 1
		at := host.Stamp + uint32(age)
		return host.Refuses(paws.Recycle2632, syn, at) == host.Refuses(paws.Recycle310, syn, at)
	})
	check(t, "what was just remembered is not refused", func(host paws.Host, seen paws.Recent, at uint32) bool {
		host = host.Remember(paws.Recycle310, seen, at)
		return !host.Refuses(paws.Recycle310, paws.SYN{Timestamps: true, TSval: host.TSval}, at)
	})
}
