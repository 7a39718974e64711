// SPDX-License-Identifier: Apache-2.0

package clock

// Chain is one clock of a source.
type Chain struct {
	First, Last int64   // ns, as in SYN, to the ms
	TSval       uint32  // at Last
	N           int     // connections
	Odds        float64 // log10 of the odds against chance
	Certain     bool    // enough of them to count
	Validated   bool    // a handshake completed
	// Hz is the tick rate, 0 if it does not show: a clock that ticks slower
	// looks like one that stands still at times. It is for people only.
	Hz    int
	Index int // of those of the source: names the chain, as long as it lives
}

// Lookback is how long before the latest SYN of a clock, in ns, Locate finds
// it: longer than TIME_WAIT lasts (TCP_TIMEWAIT_LEN) with one more SYN that
// began it anew.
const Lookback = lookback * 1_000_000

const lookback = 130_000 // ms

// Chains appends the clocks of a source to dst: those that are Certain, and
// candidates.
func (t *Tracker) Chains(dst []Chain, k Key, now int64) []Chain {
	sl, m := t.lookup(k, now)
	if sl == nil || sl.tier == 0 {
		return dst
	}
	r := t.record(sl)
	h := *r.h // a query changes nothing
	h.turn(m.sec)
	r.h = &h
	needed := needed(r.unexplained(m))
	for i := range r.c {
		if r.c[i].live(m.ms) {
			dst = append(dst, t.chain(r, i, needed, m))
		}
	}
	return dst
}

// Locate returns the clock that showed a TSval at a time, and how it fits:
// FitLine; FitLate, an old value of it, by up to 15 s; or FitHop, in its cone.
// It is false for a TSval of no clock that was seen twice. It changes nothing,
// and answers the same whether or not the SYN with that TSval was given to SYN.
//
// The time may be after all SYNs of the source, or before, by up to Lookback:
// that of ts_recent of a socket in TIME_WAIT (tw_ts_recent_stamp, whose full
// seconds are good enough). A clock is followed back along its line, to its
// last hop along the line before that, and beyond those only as far as a clock
// may have come since.
//
// Each clock is met by chance by 1 of 1,000,000 random TSvals with FitLine, of
// 360,000 with FitLate, and with FitHop of 4,300,000/dt, dt being the seconds
// to the SYN of the clock that is next in time.
func (t *Tracker) Locate(k Key, at int64, tsval uint32) (Chain, Fit, bool) {
	sl, when := t.lookup(k, at)
	if sl == nil || sl.tier == 0 || tsval == 0 {
		return Chain{}, FitNew, false
	}
	// What is certain is told as of the latest SYN.
	latest := when
	if behind := int32(sl.sec - when.sec); behind > 0 {
		latest = t.moment(at + int64(behind)*1e9)
	}
	r := t.record(sl)
	h := *r.h
	h.turn(latest.sec)
	r.h = &h
	p := packet{v: tsval, t: when.ms}
	var m match
	for i := range r.c {
		if c := &r.c[i]; c.live(latest.ms) {
			t.ruler.locate(&m, c, i, &p)
		}
	}
	if m.place == placeNone {
		return Chain{}, FitNew, false
	}
	return t.chain(r, m.i, needed(r.unexplained(latest)), latest), m.fit, true
}

// Concurrent tells whether two chains of a source are two clocks that lived at
// the same time: each showed itself before the other was seen for the last
// time, so that neither is the other after a restart. Chains within a minute
// of each other are one clock.
func (t *Tracker) Concurrent(a, b Chain) bool {
	apart := int32(a.TSval - b.TSval - uint32((a.Last-b.Last)/1e6)*t.ruler.perMS)
	return a.First < b.Last && b.First < a.Last && magnitude(apart) >= sameOffset*uint64(t.ruler.perMS)
}

// locate looks whether a chain showed a TSval at a time that may be before its
// latest SYN.
func (r *ruler) locate(m *match, c *chain, i int, p *packet) {
	d, dt := r.offset(p.v, p.t, c.v, c.t)
	if dt > ttl || dt < -lookback {
		return
	}
	hop := c.flags&chainHop != 0
	pd, pdt := r.offset(p.v, p.t, c.pv, c.pt)
	switch {
	// The line of the latest SYN begins with the hop.
	case (dt >= 0 || !hop || pdt >= 0) && r.onLine(d, dt):
		m.take(placeChain, FitLine, i, dt, magnitude(d))
	case hop && r.onLine(pd, pdt):
		m.take(placeHop, FitLine, i, pdt, magnitude(pd))
	case dt >= 0 && r.inCone(p.v, c.v, dt), dt < 0 && r.between(c, p, hop, dt, pdt):
		m.take(placeChain, FitHop, i, dt, magnitude(dt))
	case (dt >= 0 || !hop || pdt >= 0) && r.late(d) && int32(p.v-c.v) < 0:
		m.take(placeChain, FitLate, i, dt, magnitude(d))
	}
}

// between tells whether a clock that showed p can show the chain's latest SYN
// after that, and came to p from the SYN before the hop, where p is after it.
func (r *ruler) between(c *chain, p *packet, hop bool, dt, pdt int32) bool {
	switch {
	case !hop:
		return int32(p.t-c.first) >= 0 && r.inCone(c.v, p.v, -dt)
	case pdt >= 0:
		return r.inCone(c.v, p.v, -dt) && r.inCone(p.v, c.pv, pdt)
	}
	return int32(p.t-c.first) >= 0 && r.inCone(c.pv, p.v, -pdt)
}

func (t *Tracker) chain(r record, i, needed int, m moment) Chain {
	c := &r.c[i]
	return Chain{
		First: m.nanos(c.first), Last: m.nanos(c.t), TSval: c.v,
		N: int(c.n), Odds: float64(c.score) / scoreUnit,
		Certain: c.certain(r.h, needed), Validated: c.flags&chainValidated != 0,
		Hz: c.rate(t.ruler.perMS), Index: i,
	}
}

// rate returns the rate that a chain shows, one of those that systems use.
func (c *chain) rate(perMS uint32) int {
	if c.flags&chainFull != 0 {
		return int(perMS) * 1000
	}
	dt := c.t - c.pt
	if c.flags&chainHop == 0 || int32(dt) < longGap {
		return 0
	}
	hz := uint64(c.v-c.pv) * 1000 / uint64(dt)
	for _, known := range [...]uint64{10, 100, 250, 300} {
		if hz*100 >= known*98 && hz*100 <= known*102 {
			return int(known)
		}
	}
	return 0
}
