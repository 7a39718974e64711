// SPDX-License-Identifier: Apache-2.0

package clock

import "math"

// estimate sets how many clocks there are likely to be. It is Chao's estimator
// of classes that were not seen (Scandinavian Journal of Statistics 1984), from
// how many clocks were seen once and twice; the interval is the log-normal one
// of Chao (Biometrics 1987).
func (t *Tracker) estimate(s *Source, r record, now uint32) {
	seen, once, twice, open := t.rare(r, now)
	s.Low = max(1, s.Clocks)
	s.Estimate = s.Low
	s.Open = open || s.Saturated || s.Clocks == 0
	if s.Open {
		s.High = maxClocks
		return
	}
	unseen, variance := chao(once, twice)
	s.Estimate = clamp(float64(s.Low)+unseen, s.Low)
	// The upper end is for those too that were seen, but not at one instant
	// with others, or only once.
	s.High = max(s.Estimate, seen)
	if unseen > 0 {
		k := math.Exp(1.96 * math.Sqrt(math.Log1p(variance/(unseen*unseen))))
		s.High = max(s.High, clamp(math.Ceil(float64(seen)+unseen*k), seen))
	}
}

func clamp(x float64, low int) int { return min(maxClocks, max(low, int(math.Round(x)))) }

// chao returns how many classes were not seen, and the variance of that. The
// form for twice == 0 is the bias-corrected one.
func chao(once, twice int) (unseen, variance float64) {
	f1, f2 := float64(once), float64(twice)
	if once == 0 {
		return 0, 0
	}
	if twice == 0 {
		unseen = f1 * (f1 - 1) / 2
		variance = f1*(f1-1)/2 + f1*(2*f1-1)*(2*f1-1)/4
		return unseen, variance
	}
	q := f1 / f2
	return f1 * q / 2, f2 * (q*q/2 + q*q*q + q*q*q*q/4)
}

// rare returns how many clocks were seen, and of those once and twice. It counts only kinds
// of stack whose connections are on lines mostly; it is open if there are
// others, for which nothing can be counted.
func (t *Tracker) rare(r record, now uint32) (seen, once, twice int, open bool) {
	var chains, lone, pairs [maxStacks]int
	open = r.h.flooded() // what was kept of it is no sample
	for i := range r.c {
		c := &r.c[i]
		if !c.live(now) {
			continue
		}
		chains[c.stack]++
		if c.n == 2 {
			pairs[c.stack]++
		}
	}
	for _, o := range r.o[:r.h.lone] {
		if int32(now-o.t) <= ttl && !t.odd(r, o, now) {
			lone[o.stack]++
		}
	}
	for i := range r.h.stacks {
		s := &r.h.stacks[i]
		// Stable clocks are seen once each at most, so that more lone SYNs than
		// clocks are of another kind.
		if lone[i] > max(minOff, chains[i]) || s.offLine() > max(minOff, s.onLine()) {
			open = true
			continue
		}
		seen += chains[i] + lone[i]
		once += lone[i]
		twice += pairs[i]
	}
	return seen, once, twice, open
}

// odd tells whether a lone SYN is one of a clock that is counted already.
func (t *Tracker) odd(r record, o lone, now uint32) bool {
	for i := range r.c {
		c := &r.c[i]
		if c.live(now) && t.ruler.close(o, run{offset: c.v + (now-c.t)*t.ruler.perMS}, now) {
			return true
		}
	}
	return false
}
