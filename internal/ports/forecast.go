// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"math"
	"time"
)

// forecast is when a destination will have used up its ports.
type forecast struct {
	at      int64  // ns, 0: no forecast
	beat    uint32 // when it was made
	streak  uint8  // how many in a row have said much the same
	told    bool   // as urgent
	alerted int64  // ns: when it was told so last, 0: never
}

const (
	// minStreak forecasts must agree before one is told.
	minStreak = 2
	// minWindow and maxWindow bound, in beats, what a pace is measured over.
	minWindow, maxWindow = 6, len(ring{}) - 1
	// forecastBeats is how far a forecast looks, 120 s.
	forecastBeats = 117
	// alertPause is the least time between two urgent reports of a forecast.
	alertPause = 10 * int64(time.Second)
	// failing is how long after a failure ports count as used up, in ns.
	failing = 3 * int64(time.Second)
)

// Urgent tells, once, whether since it was asked last a destination's forecast
// has fallen below Options.UrgentWithin, or its first connect() in a minute has
// failed: its budget should be told at once.
func (b *Book) Urgent(at int64) bool {
	b.advance(at)
	u := b.urgent
	b.urgent = false
	return u
}

// exhausted returns the seconds until a destination has used up its ports, 0
// if it has, -1 without a forecast.
func (b *Book) exhausted(d *destination) float64 {
	if d.lastDry != 0 && b.now-d.lastDry < failing {
		return 0
	}
	f := &d.forecast
	if f.streak < minStreak || (b.beat-f.beat)&beatMask > 1 || b.paused(d) {
		return -1
	}
	return float64(max(f.at-b.now, 0)) / 1e9
}

// paused tells whether the load of a destination seems to have stopped since
// the last beat that its pace was measured in.
func (b *Book) paused(d *destination) bool {
	if d.begun.steady {
		return false
	}
	usual := d.rate(&d.births, b.now, usualWindow)
	// 8 connections that did not come are no chance
	return usual == 0 || float64(b.now-d.lastBirth)/1e9 > max(8/usual, 0.5)
}

// forecasts makes those of all destinations that are in use.
func (b *Book) forecasts() {
	for id := b.recent.newest; id != 0; {
		d := b.dests[id]
		id = d.older
		if b.now-d.active > 3*beatMS*msPerNS && !d.begun.steady {
			if b.now-d.active > int64(time.Minute) {
				return // and so are all that follow
			}
			continue
		}
		b.foresee(d)
	}
}

// foresee makes the forecast of a destination.
func (b *Book) foresee(d *destination) {
	f := &d.forecast
	at, ok := b.predict(d)
	if !ok {
		f.streak, f.at, f.told = 0, 0, false
		return
	}
	const slack = 2 * int64(time.Second)
	if off := at - f.at; f.streak > 0 && max(off, -off) < (at-b.now)/4+slack {
		f.streak = min(f.streak+1, minStreak)
	} else {
		f.streak = 1
	}
	f.at, f.beat = at, b.beat
	if b.passes(d) {
		return
	}
	if f.streak == minStreak && at-b.now < b.urgentWithin && !f.told && (f.alerted == 0 || b.now-f.alerted > alertPause) {
		f.told, f.alerted, b.urgent = true, b.now, true
	}
}

// predict returns when the ports of a destination will be used up. It answers
// only if the load is steady, and if the ports run out even at a pace that is
// lower by what chance may have added to the one that was measured.
func (b *Book) predict(d *destination) (at int64, ok bool) {
	if !d.ns.known() {
		return 0, false
	}
	slope := b.slope(d)
	s := d.supply()
	free := float64(s.total()) - float64(d.openIn+d.timeWaitIn)
	if free > (d.peak(b.beat)+slope)*forecastBeats {
		return 0, false // not even if nothing came back: spares most the rest
	}
	pace, doubt, ok := d.pace(b.beat)
	if !ok || pace+slope <= 0 {
		return 0, false
	}
	sim := b.simulation(d)
	if sim.run(max(pace-doubt, 0), slope) < 0 {
		return 0, false
	}
	in := sim.run(pace, slope)
	return b.now + int64(in*1e9), in >= 0
}

// peak returns no less than what pace does.
func (d *destination) peak(beat uint32) float64 {
	d.roll(beat)
	var most uint32
	for _, n := range &d.births {
		most = max(most, n)
	}
	return float64(most)
}

// slope returns by how many connections per beat those that are open grow.
// What falls is believed at once, what rises must do so steadily.
func (b *Book) slope(d *destination) float64 {
	m := &d.begun
	if m.at == 0 || b.now-m.at > int64(30*time.Second) || m.slope > 0 && !m.steady {
		return 0
	}
	return m.slope * beatMS / 1000
}

// pace returns how many connections per beat enter TIME_WAIT, and by how much
// chance may have raised that. It is not ok if the load is not steady: falling,
// rising, in bursts, or too new.
func (d *destination) pace(beat uint32) (mean, doubt float64, ok bool) {
	d.roll(beat)
	if d.lastBirth == 0 {
		return 0, 0, d.begun.steady
	}
	// The present beat has only begun, and so had the first of all.
	age := int((beat - beatOf(ms(d.since))) & beatMask)
	n := min(age-1, maxWindow)
	if n < minWindow {
		return 0, 0, false
	}
	var x [maxWindow]float64
	for i := range n {
		x[i] = float64(d.births[(beat-1-uint32(i))%uint32(len(d.births))])
	}
	w := steady(x[:n])
	if w == 0 {
		return 0, 0, false
	}
	m, v := moments(x[:w])
	if m == 0 {
		return 0, 0, d.begun.steady
	}
	if dev := math.Sqrt(v); dev > 0.6*m || x[0] < m-max(0.35*m, 4*dev) || x[0] > m+max(0.35*m, 4*dev) {
		return 0, 0, false
	}
	return m, max(4*math.Sqrt(v/float64(w)), 0.02*m), true
}

// steady returns how many of the values, the newest first, are of one steady
// pace; 0 if the newest are not.
func steady(x []float64) int {
	w := min(len(x), 8)
	if !alike(x[:w/2], x[w/2:w]) {
		return 0
	}
	for w+4 <= len(x) && alike(x[:w], x[w:w+4]) {
		w += 4
	}
	return w
}

// alike tells whether the means of a and b differ by no more than chance, or
// 15 %, would have them.
func alike(a, b []float64) bool {
	ma, va := moments(a)
	mb, vb := moments(b)
	return math.Abs(ma-mb) <= max(0.15*max(ma, mb), 3*math.Sqrt(va/float64(len(a))+vb/float64(len(b))))
}

// moments returns the mean and the variance of counts, the latter at least
// that of a count which is rounded.
func moments(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (v - mean) * (v - mean)
	}
	return mean, max(variance/float64(len(x)-1), 0.25)
}

// simulation plays the next two minutes of a destination, beat by beat.
type simulation struct {
	free  float64                // ports that are free now
	first float64                // what is left of the present beat, 0 to 1
	back  [forecastBeats]float64 // ports that come back, of those held now
	later [forecastBeats]uint8   // after how many beats a socket that enters TIME_WAIT in a beat leaves it
	ripe  int                    // after how many beats one that can be taken over is old enough
	share float64                // of these
	room  float64                // sockets that tcp_max_tw_buckets still allows
}

// simulation prepares the simulation of a destination as it is now. When the
// ports that are in TIME_WAIT come back follows from the book; when those that
// will enter it come back, from the kernel's timer wheel.
func (b *Book) simulation(d *destination) *simulation {
	s := d.supply()
	nowMS := ms(b.now)
	m := &simulation{
		first: float64(beatMS-nowMS%beatMS) / beatMS,
		share: d.timedShare(),
		ripe:  int(d.ns.delay/beatMS) + 1,
		room:  math.Inf(1),
	}
	held := float64(d.openIn + d.timeWaitIn)
	if d.reuses() {
		// what can be taken over is as good as free
		held -= float64(s.aged)
		for i := range min(m.ripe, forecastBeats) {
			m.back[i] = float64(s.young) / float64(m.ripe)
		}
	}
	for kind, ends := range &d.ends {
		if kind == 0 && d.reuses() {
			continue
		}
		for i := range uint32(forecastBeats) {
			m.back[i] += float64(ends[(b.beat+i)%uint32(len(ends))])
		}
		for i := range uint32(4) { // over, but not told yet
			m.back[0] += float64(ends[(b.beat-1-i)%uint32(len(ends))])
		}
	}
	for i := range m.later {
		born := b.now + (int64(i)*beatMS+beatMS/2)*msPerNS
		due := b.timer.end(born, timeWaitLen, timeWaitLen)
		m.later[i] = uint8(min((beatOf(ms(due))-beatOf(ms(born)))&beatMask, math.MaxUint8))
	}
	m.free = float64(s.total()) - held - float64(d.ns.odd())
	if limit := d.ns.facts.MaxTWBuckets; limit > 0 {
		m.room = float64(limit) - float64(d.ns.timeWait)
	}
	return m
}

// odd returns 1 if a search passes over one port of the range, see the
// comment of the package.
func (ns *namespace) odd() uint32 {
	if n := uint32(ns.facts.RangeHigh) - uint32(ns.facts.RangeLow) + 1; n > 1 {
		return n & 1
	}
	return 0
}

// run returns the seconds until no port is free at a pace of sockets entering
// TIME_WAIT and a growth of open connections, both per beat; -1 if there is
// always one, as far as a forecast looks.
func (m *simulation) run(pace, growth float64) float64 {
	if growth == 0 && m.room < m.free {
		return -1 // beyond the limit there is no TIME_WAIT, and the port is free
	}
	back := m.back
	free, passed, part := m.free, 0.0, m.first
	for i := range back {
		free += back[i]
		taken := (pace + growth) * part
		if taken > 0 && taken >= free {
			return (passed + part*max(free, 0)/taken) * beatMS / 1000
		}
		free -= taken
		if at := i + int(m.later[i]); at < len(back) {
			back[at] += pace * part * (1 - m.share)
		}
		if at := i + m.ripe; at < len(back) {
			back[at] += pace * part * m.share
		}
		passed += part
		part = 1
	}
	return -1
}
