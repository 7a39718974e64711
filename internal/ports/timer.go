// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"math"
	"time"
)

// timeWaitLen is TCP_TIMEWAIT_LEN of include/net/tcp.h, in ms.
const timeWaitLen = 60_000

// Levels of the timer wheel, kernel/time/timer.c: each is 8 times as
// coarse as the one before and has 64 buckets.
const (
	levelBits  = 3
	levelSize  = 64
	levelDepth = 9 // 8 with HZ up to 100, where the last one starts at 36 hours
)

// maxJiffies is far beyond any uptime. It keeps products with a tick within an
// int64.
const maxJiffies = 1 << 38

// timer tells when the kernel's timer wheel runs a timer. The zero timer does
// not know HZ and takes timers for exact.
type timer struct {
	hz     int64
	tick   int64 // TICK_NSEC
	origin int64 // when jiffies were 0, Unix ns
	known  bool  // origin is
	full   uint  // shift of a timer for timeWaitLen
}

func newTimer(hz int) timer {
	if hz < 10 || hz > 10_000 {
		return timer{}
	}
	t := timer{hz: int64(hz), tick: (int64(time.Second) + int64(hz)/2) / int64(hz)}
	t.full = shift(t.jiffies(timeWaitLen))
	return t
}

// observe takes the value of jiffies at an instant. Jiffies count whole ticks,
// so the earliest origin of several observations is the best; one that is
// later by more than the width of a tick means that the machine was suspended,
// during which jiffies stood still.
func (t *timer) observe(at int64, jiffies uint64) {
	if t.hz == 0 || jiffies == 0 || jiffies > maxJiffies {
		return
	}
	origin := at - int64(jiffies)*t.tick
	if !t.known || origin < t.origin || origin > t.origin+2*t.tick {
		t.origin, t.known = origin, true
	}
}

// shift returns log2 of the granularity, in jiffies, of the level in which
// calc_wheel_index puts a timer of that many jiffies.
func shift(jiffies int64) uint {
	for level := uint(1); level < levelDepth; level++ {
		// LVL_START(level)
		if jiffies < (levelSize-1)<<((level-1)*levelBits) {
			return (level - 1) * levelBits
		}
	}
	return (levelDepth - 1) * levelBits
}

// jiffies converts ms as msecs_to_jiffies does, rounded up.
func (t *timer) jiffies(ms uint32) int64 { return (int64(ms)*t.hz + 999) / 1000 }

// granularity returns in ns what a timer that is armed for so many ms may be
// late.
func (t *timer) granularity(ms uint32) int64 {
	if t.hz == 0 {
		return 0
	}
	return t.tick << shift(t.jiffies(ms))
}

// end returns when the kernel runs a timer that was armed for armedMS and of
// which leftMS are left at an instant: calc_index rounds its expiry up to the
// next multiple of the level's granularity, even when it is one already
// (measured on 6.18 with HZ=250). Without the phase of jiffies it is the middle
// of the possible.
func (t *timer) end(at int64, leftMS, armedMS uint32) int64 {
	if !t.known {
		return at + int64(leftMS)*int64(time.Millisecond) + t.granularity(armedMS)/2
	}
	s := t.full
	if armedMS != timeWaitLen {
		s = shift(t.jiffies(armedMS))
	}
	expires := floorDiv(at-t.origin, t.tick) + t.jiffies(leftMS)
	return t.origin + (expires>>s+1)<<s*t.tick
}

// floorDiv is a/b rounded towards negative infinity, b > 0.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// maxTime bounds the times that are taken, so that sums with them do not
// overflow.
const maxTime = math.MaxInt64 / 2

// clampTime makes any time one that can be calculated with.
func clampTime(at int64) int64 { return min(max(at, 0), maxTime) }
