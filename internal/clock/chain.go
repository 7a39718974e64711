// SPDX-License-Identifier: Apache-2.0

package clock

import "math"

// lone is a SYN that fits no other.
type lone struct {
	v, t  uint32 // TSval; ms
	tag   uint16 // of its ports
	stack uint8  // index into header.stacks
	flags uint8
}

// chain is one clock: the line it is on, and the line that it was on before it
// last stood still. Times are ms modulo 2^32 and compared by their difference;
// what is idle for longer than ttl is not looked at.
type chain struct {
	v, t          uint32 // the latest SYN
	pv, pt        uint32 // the latest before the hop, with chainHop
	first         uint32 // ms; moves up when it is older than maxAge
	score, pscore uint16 // log10 odds against chance, in 1/scoreUnit; pscore is that before the hop
	n, pn         uint16 // connections; 0: no chain. pn are those before the hop
	tag           uint16 // of the latest connection's ports
	stack         uint8
	flags         uint8
}

// Flags of a chain and of a lone SYN.
const (
	chainValidated = 1 << iota // a handshake completed
	chainHop                   // pv, pt, pscore and pn are set
	chainFull                  // it ran at the full rate for 20 s or more
)

const (
	ttl        = 3600_000 // ms: what is idle for longer is forgotten
	nearBelow  = 1000     // ms: a SYN may be late by that and is on the line
	nearAbove  = 3000     // ms: or the one before it was late by that
	lateBelow  = 15_000   // ms: a SYN as late as that is an old one
	sameOffset = 60_000   // ms: chains that are closer are one clock
	ppm        = 10_000   // 1/ppm of the time may be drift: 100 ppm
	maxAge     = 1 << 31  // ms

	scoreUnit = 256
	// certain is the score from which a chain is no chance, with few of them.
	certain = 4 * scoreUnit
)

// packet is one SYN, as the matching looks at it.
type packet struct {
	v, t      uint32
	tag       uint16
	stack     uint8
	validated bool
}

func (p *packet) flags() uint8 {
	if p.validated {
		return chainValidated
	}
	return 0
}

// Where a match is.
type place uint8

const (
	placeNone  place = iota
	placeChain       // a chain's line
	placeHop         // the line of a chain before its hop
	placeLone
)

// match is what explains a SYN best.
type match struct {
	place place
	fit   Fit
	i     int
	dt    uint32 // ms since the line's latest SYN; 0 if that is later
	live  int    // lines that were looked at, at most
	cost  uint64 // the smaller the better, within one fit
}

func (m *match) take(p place, f Fit, i int, dt int32, cost uint64) {
	if f > m.fit || f == m.fit && cost < m.cost {
		m.place, m.fit, m.i, m.dt, m.cost = p, f, i, uint32(max(dt, 0)), cost
	}
}

// ruler is the arithmetic of lines at one tick rate.
type ruler struct {
	perMS    uint32 // ticks
	nearBase int    // score of a near match with one line
	logs     [maxChains*2 + maxLone + 1]uint16
}

func newRuler(perMS uint32) ruler {
	r := ruler{perMS: perMS}
	r.nearBase = score(math.Log10(1 << 32 / (float64(nearAbove+nearBelow) * float64(perMS))))
	for n := range r.logs {
		r.logs[n] = uint16(score(math.Log10(float64(max(1, n)))))
	}
	return r
}

func score(log10 float64) int { return int(math.Round(log10 * scoreUnit)) }

// near is the score of a SYN on one of so many lines.
func (r *ruler) near(lines int) int { return max(0, r.nearBase-int(r.logs[lines])) }

// cone is the score of a SYN in the cone of one of so many lines, or of one that
// so many strays might have met.
func (r *ruler) cone(tries int, dt uint32) int {
	width := float64(r.perMS) * (float64(dt) + 4000)
	return max(0, score(math.Log10(1<<32/(width*float64(max(1, tries))))))
}

// needed is the score that makes a chain certain where so many SYNs were looked
// at that might have met a line by chance.
func needed(strangers int) int {
	return certain + max(0, score(math.Log10(max(1, float64(strangers)/4))))
}

// offset returns by how much a SYN is ahead of the line of another, in ticks,
// and the ms between them.
func (r *ruler) offset(v, t, lv, lt uint32) (d, dt int32) {
	dt = int32(t - lt)
	return int32(v - lv - uint32(dt)*r.perMS), dt
}

// drift is what a clock may be off after dt ms, in ms.
func drift(dt int32) uint32 { return uint32(max(dt, 0)) / ppm }

// onLine tells whether an offset is that of a near match.
func (r *ruler) onLine(d, dt int32) bool {
	more := drift(dt)
	return uint32(d)+(nearBelow+more)*r.perMS <= (nearBelow+nearAbove+2*more)*r.perMS
}

// inCone tells whether a clock that shows lv now can show v in dt ms, at
// whatever rate up to the ruler's.
func (r *ruler) inCone(v, lv uint32, dt int32) bool {
	most := uint64(r.perMS) * uint64(uint32(dt)+drift(dt)+nearAbove)
	return dt >= 0 && uint64(v-lv) <= most && most < 1<<31
}

// late tells whether an offset is that of an old SYN.
func (r *ruler) late(d int32) bool { return d < 0 && int64(d) >= -lateBelow*int64(r.perMS) }

// past tells whether a line of dt ms ago is too old. One from the future is,
// unless SYNs came out of order.
func past(dt int32) bool { return uint32(dt)+lateBelow > ttl+lateBelow }

// line returns the chain whose line a SYN is on, or -1. The first will do: of
// two that are so close, none is better.
func (r *ruler) line(chains []chain, p *packet) int {
	for i := range chains {
		c := &chains[i]
		if d, dt := r.offset(p.v, p.t, c.v, c.t); r.onLine(d, dt) && !past(dt) && c.n != 0 {
			return i
		}
	}
	return -1
}

// match finds what explains best a SYN that is on no chain's line: the line
// before a hop, a line it is late on, the cone of a line. It changes nothing.
func (r *ruler) match(rec *record, p *packet) match {
	chains, lone := rec.c[:rec.h.chains], rec.o[:rec.h.lone]
	m := match{live: rec.lines()}
	for i := range chains {
		c := &chains[i]
		if c.flags&chainHop == 0 || c.n == 0 {
			continue
		}
		if d, dt := r.offset(p.v, p.t, c.pv, c.pt); r.onLine(d, dt) && !past(dt) {
			m.take(placeHop, FitLine, i, dt, 0)
			return m
		}
	}
	for i := range chains {
		r.offLine(&m, &chains[i], i, p)
	}
	for i := range lone {
		o := &lone[i]
		d, dt := r.offset(p.v, p.t, o.v, o.t)
		switch {
		case r.onLine(d, dt):
			if !past(dt) {
				m.take(placeLone, FitLine, i, dt, 0)
				return m
			}
		case r.inCone(p.v, o.v, dt):
			if !past(dt) {
				m.take(placeLone, FitHop, i, dt, far(dt, 1))
			}
		}
	}
	return m
}

// offLine looks whether a SYN that is on no chain's line is explained by a
// chain all the same.
func (r *ruler) offLine(m *match, c *chain, i int, p *packet) {
	if c.n == 0 {
		return
	}
	d, dt := r.offset(p.v, p.t, c.v, c.t)
	switch {
	case r.inCone(p.v, c.v, dt):
		if !past(dt) {
			m.take(placeChain, FitHop, i, dt, far(dt, c.n))
		}
	case r.late(d) && int32(p.v-c.v) < 0 && !past(dt):
		m.take(placeChain, FitLate, i, dt, magnitude(d))
	}
}

// far orders cones by dt/sqrt(n), as an integer.
func far(dt int32, n uint16) uint64 { return uint64(dt) * uint64(dt) * (math.MaxUint16 / uint64(n)) }

func magnitude(d int32) uint64 {
	if d < 0 {
		return uint64(-int64(d))
	}
	return uint64(d)
}
