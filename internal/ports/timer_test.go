// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// wheelEnd places a timer as the comments of kernel/time/timer.c tell it: the
// first level whose 63 buckets ahead reach, then up to the next edge of its
// granularity that is later than the expiry.
func wheelEnd(now, expires int64) int64 {
	gran := int64(1)
	for level := 0; level < 8 && expires-now >= 63*gran; level++ {
		gran *= 8
	}
	edge := int64(0)
	for edge <= expires {
		edge += gran
	}
	return edge
}

func TestTimerEnd(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, hz := range []int{100, 250, 300, 1000} {
		for range 200 {
			w := newTimer(hz)
			origin := r.Int64N(1e18)
			now := r.Int64N(1e6) + 1 // jiffies
			w.observe(origin+now*w.tick, uint64(now))
			left := []uint32{60_000, 10_000, 1_000, 200, 40}[r.IntN(5)]
			at := origin + now*w.tick + r.Int64N(w.tick)
			want := origin + wheelEnd(now, now+w.jiffies(left))*w.tick
			if got := w.end(at, left, left); got != want {
				t.Fatalf("HZ %d, jiffies %d, %d ms: %d, want %d", hz, now, left, got-origin, want-origin)
			}
		}
	}
}

// TestTimeWaitLength holds the length of TIME_WAIT to what kernel/time/timer.c
// has as the granularity of the level for 60 s.
func TestTimeWaitLength(t *testing.T) {
	for hz, late := range map[int]time.Duration{
		100: 5120 * time.Millisecond, 250: 2048 * time.Millisecond,
		300: 512 * 3333333, 1000: 4096 * time.Millisecond,
	} {
		w := newTimer(hz)
		if got := time.Duration(w.granularity(timeWaitLen)); got != late {
			t.Errorf("HZ %d: up to %v late, want %v", hz, got, late)
		}
		w.observe(0, 1)
		shortest, longest := int64(math.MaxInt64), int64(0)
		for at := range int64(3 * 4096) {
			length := w.end(at*w.tick, timeWaitLen, timeWaitLen) - at*w.tick
			shortest, longest = min(shortest, length), max(longest, length)
		}
		if time.Duration(shortest) != time.Minute+time.Duration(w.tick) || time.Duration(longest) != time.Minute+late {
			if hz != 300 { // 60 s are no whole number of its ticks
				t.Errorf("HZ %d: TIME_WAIT lasts %v to %v", hz, time.Duration(shortest), time.Duration(longest))
			}
		}
	}
}

func TestTimerUnknown(t *testing.T) {
	var none timer
	if got := none.end(5, 1000, timeWaitLen); got != 5+1e9 {
		t.Errorf("without HZ: %d", got)
	}
	w := newTimer(250)
	if got := w.end(0, timeWaitLen, timeWaitLen); got != 61_024*msPerNS {
		t.Errorf("without the phase: %d, want the middle", got)
	}
	for _, hz := range []int{-1, 0, 9, 10_001, math.MaxInt} {
		if w := newTimer(hz); w.hz != 0 {
			t.Errorf("HZ %d is believed", hz)
		}
	}
	for _, j := range []uint64{0, maxJiffies + 1, math.MaxUint64} {
		if w.observe(0, j); w.known {
			t.Errorf("jiffies %d are believed", j)
		}
	}
}

func TestTimerObserve(t *testing.T) {
	w := newTimer(250)
	edge := int64(1e18)
	for _, late := range []int64{3_900_000, 10_000, 2_000_000} {
		w.observe(edge+1000*w.tick+late, 1000)
	}
	if w.origin != edge+10_000 {
		t.Errorf("origin is %d ns after the edge, want the least seen", w.origin-edge)
	}
	asleep := int64(time.Hour)
	w.observe(edge+asleep+2000*w.tick, 2000)
	if w.origin != edge+asleep {
		t.Errorf("after a suspend: off by %d ns", w.origin-edge-asleep)
	}
}
