// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

// FuzzEvents feeds any sequence of SYNs, completed handshakes, questions and
// jumps of time, to a tracker that is nearly always full. Each event is 10 bytes.
func FuzzEvents(f *testing.F) {
	seed := func(rows ...[10]byte) {
		var b []byte
		for _, r := range rows {
			b = append(b, r[:]...)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	seed([10]byte{0, 1, 1, 0, 100, 0, 0, 0, 0, 9}, [10]byte{0, 1, 2, 0, 100, 0, 0, 0, 100, 9}, [10]byte{2, 1, 2, 0, 0, 0, 0, 0, 100, 9})
	seed([10]byte{1, 1, 1, 255, 255, 0xff, 0xff, 0xff, 0xff, 9}, [10]byte{1, 1, 2, 255, 255, 0, 0, 0, 9, 9}, [10]byte{7, 1, 2, 9, 0, 0, 0, 0, 100, 9})
	seed([10]byte{3, 9, 9, 255, 0, 0, 0, 0, 1, 1}, [10]byte{3, 8, 8, 0, 1, 0x80, 0, 0, 0, 2}, [10]byte{4, 9, 9, 255, 255, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte, usec bool) {
		c := clock.Config{Sources: 8}
		if usec {
			c.TickRate = 1_000_000
		}
		tr := newTracker(t, c)
		at := epoch
		for ; len(data) >= 10; data = data[10:] {
			at += step(data[3], data[4])
			s := clock.SYN{
				Key: crowdKey(int(data[1] % 16)), Time: at, TSval: binary.BigEndian.Uint32(data[5:]),
				SPort: uint16(data[2]), DPort: 443, Group: clock.Group(data[9]), Validated: data[0]&1 != 0,
			}
			if data[0]&8 != 0 { // on a line
				s.TSval = uint32(data[9]&3)<<29 + uint32((at-epoch)/1e6)
			}
			if data[0]&2 != 0 {
				tr.Completed(&s)
			} else {
				tr.SYN(&s)
			}
			if data[0]&4 != 0 {
				check(t, tr, s.Key, at, s.TSval)
			}
		}
		for s := range tr.All(at) {
			check(t, tr, s.Key, at, 1)
		}
	})
}

// step is how far time goes: up to some s, some hours, months; or back by up
// to 1 s.
func step(kind, n byte) int64 {
	switch kind & 3 {
	case 0:
		return int64(n) * second / 50
	case 1:
		return int64(n) * 60 * second
	case 2:
		return -int64(n) * second / 256
	}
	if kind < 200 {
		return 0
	}
	return int64(n) * 24 * hour
}

// check is what must hold of any source at any time.
func check(t *testing.T, tr *clock.Tracker, k clock.Key, at int64, tsval uint32) {
	t.Helper()
	got, ok := tr.Find(k, at)
	if !ok {
		return
	}
	if again, _ := tr.Find(k, at); again != got {
		t.Fatalf("a question changed the answer: %+v, then %+v", got, again)
	}
	if got.Key != k || got.Clocks < 0 || got.Validated > got.Clocks || got.Low > got.Estimate || got.Estimate > got.High || got.Low < 1 {
		t.Fatalf("%+v", got)
	}
	if got.Class == clock.Shared && got.Strength == clock.Strong && got.Clocks < 2 || got.Clocks >= 2 && got.Class != clock.Shared {
		t.Fatalf("%+v", got)
	}
	certain, listed := 0, map[int]bool{}
	for _, c := range tr.Chains(nil, k, at) {
		if c.N < 1 || c.Last < c.First || c.Odds < 0 || math.IsNaN(c.Odds) || listed[c.Index] {
			t.Fatalf("%+v", c)
		}
		listed[c.Index] = true
		if c.Certain {
			certain++
		}
	}
	if certain < got.Clocks {
		t.Fatalf("%d clocks of %d certain chains", got.Clocks, certain)
	}
	if c, fit, ok := tr.Locate(k, at, tsval); ok && (!listed[c.Index] || fit < clock.FitHop || fit > clock.FitLine) {
		t.Fatalf("located in %+v, fit %d", c, fit)
	}
}
