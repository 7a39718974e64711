// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"time"

	"github.com/twscope/twscope/internal/event"
)

const (
	second = int64(time.Second)
	// timeWaitLen is TCP_TIMEWAIT_LEN (include/net/tcp.h), in s.
	timeWaitLen = 60
	// rateWindow is how many seconds a live rate is the mean of.
	rateWindow = 5
)

// flow counts sockets in TIME_WAIT and connections per second. Both follow
// from the events alone, to within a second and the 2 s by which the kernel's
// timers may be late.
type flow struct {
	at      int64       // s, the last second that was seen
	ends    [128]uint64 // sockets in TIME_WAIT whose timer ends in a second
	waiting uint64      // sum of ends
	peak    uint64      // of waiting, until the kernel was heard last
	high    uint64      // of waiting since
	made    [8]uint64   // connections of this host that entered TIME_WAIT in a second
	busiest uint64      // of all seconds
}

// advance lets time pass.
func (f *flow) advance(ns int64) {
	to := ns / second
	if to <= f.at {
		return
	}
	if to-f.at >= int64(len(f.ends)) {
		*f = flow{at: to, peak: f.most(), busiest: f.busiest}
		return
	}
	for f.at < to {
		f.at++
		end := &f.ends[f.at%int64(len(f.ends))]
		f.waiting -= *end
		*end = 0
		f.made[f.at%int64(len(f.made))] = 0
	}
}

// enter counts a socket whose timer has leftMS to go.
func (f *flow) enter(leftMS uint32) {
	s := min(max(int64(leftMS/1000), 1), int64(len(f.ends))-1)
	f.ends[(f.at+s)%int64(len(f.ends))]++
	f.waiting++
	f.high = max(f.high, f.waiting)
}

// most is the highest number of sockets in TIME_WAIT so far.
func (f *flow) most() uint64 { return max(f.peak, f.high) }

// atMost takes in how many sockets the kernel has in TIME_WAIT. What we count
// beyond has ended early, and nobody was told: a SYN from the same port took
// the place of a server's, or it was killed.
func (f *flow) atMost(n uint64) {
	excess := f.waiting - min(f.waiting, n)
	f.peak = max(f.peak, f.high-min(f.high, excess))
	for s := int64(1); excess > 0 && s < int64(len(f.ends)); s++ {
		end := &f.ends[(f.at+s)%int64(len(f.ends))]
		ended := min(*end, excess)
		*end, excess, f.waiting = *end-ended, excess-ended, f.waiting-ended
	}
	f.high = f.waiting
}

// leave takes a socket out that entered TIME_WAIT ageMS ago, if its timer has
// not ended by our count.
func (f *flow) leave(ageMS uint32) {
	left := timeWaitLen - int64(ageMS/1000)
	if left <= 0 {
		return
	}
	// Both times are rounded, so it may stand in a second next to this.
	for _, s := range []int64{left, left + 1, left - 1} {
		if end := &f.ends[(f.at+s)%int64(len(f.ends))]; s > 0 && *end > 0 {
			*end--
			f.waiting--
			return
		}
	}
}

func (f *flow) connection() {
	n := &f.made[f.at%int64(len(f.made))]
	*n++
	f.busiest = max(f.busiest, *n)
}

// rate is the mean of the whole seconds before at.
func (f *flow) rate(ns int64) float64 {
	var n uint64
	for s := ns/second - rateWindow; s < ns/second; s++ {
		if s >= 0 && s <= f.at && f.at-s < int64(len(f.made)) {
			n += f.made[s%int64(len(f.made))]
		}
	}
	return float64(n) / rateWindow
}

// left is how many are in TIME_WAIT at a time not before the last event.
func (f *flow) left(ns int64) uint64 {
	g := *f
	g.advance(ns)
	return g.waiting
}

// losses adds up what is missing, by where and what.
type losses struct {
	order []lostAt
	by    map[lostAt]*Loss
}

type lostAt struct{ hop, of string }

// maxLosses bounds the kinds of losses that are told apart.
const maxLosses = 32

func (l *losses) add(ev *event.Loss) {
	at := lostAt{clip(ev.Hop, maxName), clip(ev.Of, maxName)}
	if l.by[at] == nil {
		if len(l.order) >= maxLosses {
			at = lostAt{hop: "other"}
		}
		if l.by == nil {
			l.by = map[lostAt]*Loss{}
		}
		if l.by[at] == nil {
			l.order = append(l.order, at)
			l.by[at] = &Loss{Hop: at.hop, Of: at.of}
		}
	}
	one := l.by[at]
	one.Count = plus(one.Count, ev.Count)
	if at.hop != "other" {
		one.Why = clip(ev.Why, maxText)
	}
}
