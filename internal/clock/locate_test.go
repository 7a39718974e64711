// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

// TestLocate feeds the SYNs of some hosts, and asks now and then for those of
// the two minutes before: each must be found, in the chain that the others of
// its host are in.
func TestLocate(t *testing.T) {
	tests := []struct {
		model
		found float64 // of those asked for, at least
		wrong float64 // of those found, at most
	}{
		{linux, 0.99, 0},
		{hz250, 0.99, 0.002},
		{hz100, 0.99, 0.002},
		{android, 0.98, 0.002},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked, found, wrong := 0, 0, 0
			for seed := range uint64(20) {
				a, f, w := locateAll(t, newSim(seed).add(60, many(tt.model, 4)...).run(hour))
				asked, found, wrong = asked+a, found+f, wrong+w
			}
			t.Logf("%d asked for, %d found, %d in another chain", asked, found, wrong)
			if ratio, _ := ratio(found, asked); asked < 7000 || ratio < tt.found {
				t.Errorf("found %d of %d", found, asked)
			}
			if ratio, _ := ratio(wrong, found); ratio > tt.wrong {
				t.Errorf("%d of %d in the chain of another host", wrong, found)
			}
		})
	}
}

// locateAll counts the SYNs that were asked for, those found, and those that
// were found in another chain than most of their host.
func locateAll(t *testing.T, s *sim) (asked, found, wrong int) {
	t.Helper()
	tr := newTracker(t, clock.Config{Sources: 64})
	for i := range s.syns {
		tr.SYN(&s.syns[i].SYN)
		now := s.syns[i].Time
		if i%25 != 24 || now < epoch+hour/4 {
			continue
		}
		in := map[int]map[int]int{} // host, chain
		for j := i; j >= 0 && s.syns[j].Time > now-clock.Lookback; j-- {
			a := &s.syns[j]
			asked++
			c, fit, ok := tr.Locate(key, a.Time, a.TSval)
			if !ok {
				continue
			}
			if fit != clock.FitLine && fit != clock.FitLate && fit != clock.FitHop {
				t.Fatalf("fit %d", fit)
			}
			found++
			if in[a.host] == nil {
				in[a.host] = map[int]int{}
			}
			in[a.host][c.Index]++
		}
		for _, chains := range in {
			all, most := 0, 0
			for _, n := range chains {
				all, most = all+n, max(most, n)
			}
			wrong += all - most
		}
	}
	return asked, found, wrong
}

// TestLocateChance is that a random TSval is of no clock.
func TestLocateChance(t *testing.T) {
	s := newSim(3).add(60, many(linux, 4)...).run(hour)
	tr := newTracker(t, clock.Config{Sources: 64})
	s.feedTo(tr, nil)
	last := s.syns[len(s.syns)-1].Time
	for _, back := range []int64{0, 10 * second, 120 * second} {
		var fits [clock.FitRepeat + 1]int
		const tries = 500_000
		for range tries {
			if _, fit, ok := tr.Locate(key, last-back, s.rng.Uint32()|1); ok {
				fits[fit]++
			}
		}
		// 4 clocks, lines of 4 s and a little each.
		if got, want := fits[clock.FitLine], tries*4*4100/float64(math.MaxUint32); float64(got) > want+4*math.Sqrt(want)+1 {
			t.Errorf("%d s back: %d on a line, want about %.1f", back/second, got, want)
		}
		// Those that have not been seen for a while have wide cones.
		if got := fits[clock.FitHop]; got > tries/2000 {
			t.Errorf("%d s back: %d in a cone", back/second, got)
		}
	}
}

// TestLocateAfterHop follows one clock by hand: 60 s on a line, suspended for
// 30 s, then 20 s on the next line.
func TestLocateAfterHop(t *testing.T) {
	tr := newTracker(t, clock.Config{Sources: 64})
	const base = uint32(math.MaxUint32 - 70_000) // comes round after 70 s
	tsval := func(ms int64) uint32 {
		asleep := min(30_000, max(0, ms-60_000))
		return base + uint32(ms-asleep)
	}
	syn := func(ms int64, port uint16) {
		tr.SYN(&clock.SYN{Key: key, Time: epoch + ms*1e6, TSval: tsval(ms), SPort: port, Validated: true})
	}
	for i := range int64(7) {
		syn(i*10_000, uint16(1000+i))
	}
	for i := range int64(3) {
		syn(90_000+i*10_000, uint16(2000+i))
	}
	tests := []struct {
		ms   int64
		off  int64 // ms, of the TSval
		want clock.Fit
	}{
		{110_000, 0, clock.FitLine},
		{200_000, 0, clock.FitLine},
		{100_000, 0, clock.FitLine},
		{91_000, 500, clock.FitLine},
		{55_000, 0, clock.FitLine},
		{5_000, 0, clock.FitLine},
		{55_000, -500, clock.FitLine},
		{75_000, 0, clock.FitHop},       // it may have slept then, or not
		{75_000, -2000, clock.FitNew},   // behind the SYN before the hop
		{55_000, 20_000, clock.FitNew},  // ahead of the line
		{55_000, -30_000, clock.FitNew}, // the next SYN is too far ahead
		{5_000, 20_000, clock.FitHop},   // it may have slept before the next SYN
		{55_000, -70_000, clock.FitNew}, // before the first SYN's TSval
		{110_000, -8000, clock.FitLate},
		{110_000, 30_000, clock.FitLine}, // as if it had not slept: the line before
		{110_000, 60_000, clock.FitNew},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d%+d", tt.ms, tt.off), func(t *testing.T) {
			_, fit, ok := tr.Locate(key, epoch+tt.ms*1e6, tsval(tt.ms)+uint32(tt.off))
			if fit != tt.want || ok != (fit != clock.FitNew) {
				t.Errorf("fit %d, %v, want %d", fit, ok, tt.want)
			}
		})
	}
}

// TestChainTimes is that a chain has the same times whenever it is asked for.
func TestChainTimes(t *testing.T) {
	tr := newTracker(t, clock.Config{Sources: 64})
	at := []int64{epoch + 123_456, epoch + 30*second + 999_999, epoch + 60*second + 1}
	for i, now := range at {
		tr.SYN(&clock.SYN{Key: key, Time: now, TSval: 5000 + uint32((now-epoch)/1e6), SPort: uint16(i), Validated: true})
	}
	var want clock.Chain
	for i, now := range []int64{at[2], at[2] + 777_777, at[2] + 40*second + 3, at[2] - 20*second + 5} {
		got := tr.Chains(nil, key, now)
		if len(got) != 1 || got[0].N != 3 {
			t.Fatalf("%+v", got)
		}
		if i == 0 {
			want = got[0]
		}
		located, fit, ok := tr.Locate(key, at[1], 35_000)
		if !ok || fit != clock.FitLine || got[0] != want || located != want {
			t.Errorf("after %d ns: %+v, %+v, want %+v", now-at[2], got[0], located, want)
		}
	}
	if d := at[0] - want.First; d < 0 || d >= 1e6 {
		t.Errorf("first is off by %d ns", d)
	}
	if d := at[2] - want.Last; d < 0 || d >= 1e6 {
		t.Errorf("last is off by %d ns", d)
	}
}

// TestBeforeFirst is that a SYN may come from before the first that was told of.
func TestBeforeFirst(t *testing.T) {
	tr := newTracker(t, clock.Config{Sources: 64})
	other := clock.Key{NetNS: 1, Source: key.Local, Local: key.Source}
	tr.SYN(&clock.SYN{Key: other, Time: epoch, TSval: 9})
	start := epoch - 300*1e6
	for i := range int64(2) {
		tr.SYN(&clock.SYN{Key: key, Time: start + i*5*second, TSval: 7 + uint32(i)*5000, SPort: uint16(i), Validated: true})
	}
	got := tr.Chains(nil, key, epoch+10*second)
	if len(got) != 1 || got[0].First != start || got[0].N != 2 {
		t.Errorf("%+v, want a chain since %d", got, start)
	}
}

// TestConcurrent tells clocks that live at one time from those that follow
// each other, and from one clock in two chains.
func TestConcurrent(t *testing.T) {
	chain := func(first, last, offset int64) clock.Chain {
		return clock.Chain{First: first * second, Last: last * second, TSval: uint32(offset + last*1000)}
	}
	tests := []struct {
		name string
		a, b clock.Chain
		want bool
	}{
		{"in turns", chain(0, 100, 0), chain(50, 150, 1e6), true},
		{"one within the other", chain(0, 100, 0), chain(50, 60, 1e6), true},
		{"after a restart", chain(0, 100, 0), chain(101, 150, 1e6), false},
		{"in the same ms", chain(0, 100, 0), chain(100, 150, 1e6), false},
		{"the same clock", chain(0, 100, 0), chain(50, 150, 59_000), false},
		{"the same clock, TSval comes round", chain(0, 100, -10_000), chain(50, 150, 10_000), false},
		{"behind by an hour", chain(0, 100, 0), chain(50, 150, -3.6e6), true},
	}
	tr := newTracker(t, clock.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tr.Concurrent(tt.a, tt.b); got != tt.want {
				t.Errorf("got %v", got)
			}
			if got := tr.Concurrent(tt.b, tt.a); got != tt.want {
				t.Errorf("the other way round: %v", got)
			}
		})
	}
}
