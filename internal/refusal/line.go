// SPDX-License-Identifier: Apache-2.0

package refusal

import "github.com/twscope/twscope/internal/clock"

// Bounds of what is one clock, in ms or ticks at 1000 per second; those of
// package clock.
const (
	nearBelow = 1000    // a SYN may be late by that and is on the line
	nearAbove = 3000    // or the one before it was
	lateBelow = 15_000  // a SYN as late as that is an old duplicate
	farOff    = 120_000 // beyond that it is another clock: MSL of RFC 9293
	ppm       = 10_000  // 1/ppm of the time may be drift: 100 ppm
)

// relation is what a TSval is to a line that was seen before.
type relation uint8

const (
	onLine  relation = iota
	inCone           // ahead, by less than the line: a clock that stood still, ticks slower, or in us
	late             // behind, as an old duplicate is
	unclear          // too far for one, too near for another clock
	other
)

// line is a clock as one SYN or segment showed it.
type line struct {
	at    int64  // ns: when it came
	first int64  // ns: when the connection's first SYN came
	v     uint32 // TSval
	syn   uint32 // TSval of the SYN, 0 if it was not seen
	stack stack
	group clock.Group // of the SYN
	known bool
	ts    bool // with timestamps
	// Of SYNs whose handshake has not completed:
	arrived bool // at the listener
	counted bool // as a change
}

// offset returns by how much TSval v, ns after a TSval was, is ahead of that
// line, in ticks at 1000 per second modulo 2^32.
func offset(was, v uint32, ns int64) int32 { return int32(v - was - uint32(ns/1e6)) }

// relate tells what a TSval at a time is to the line.
func (l *line) relate(v uint32, at int64) relation {
	ns := at - l.at
	ms := max(0, ns/1e6)
	drift := ms / ppm
	d, ahead := int64(offset(l.v, v, ns)), int64(int32(v-l.v))
	switch {
	case d >= -nearBelow-drift && d <= nearAbove+drift:
		return onLine
	case ahead >= 0 && (ahead <= ms+drift+nearAbove || l.microseconds(v, ns)):
		return inCone
	case ahead < 0 && d < 0 && d >= -lateBelow:
		return late
	case d >= -farOff && d <= farOff:
		return unclear
	}
	return other
}

// microseconds tells whether the clock may tick once per us (tcp_usec_ts of
// Linux 6.7).
func (l *line) microseconds(v uint32, ns int64) bool {
	d := int64(int32(v - l.v - uint32(ns/1e3)))
	more := max(0, ns/1e3) / ppm
	return d >= -nearBelow*1000-more && d <= nearAbove*1000+more
}

// same tells whether a TSval is of the clock, as far as one can know.
func (l *line) same(v uint32, at int64) bool { return l.relate(v, at) <= inCone }
