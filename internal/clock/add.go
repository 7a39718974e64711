// SPDX-License-Identifier: Apache-2.0

package clock

const (
	// floodRaw is how many SYNs without handshake and without match a source
	// may have in a window before such SYNs are no evidence any more. Up to
	// 1000 an hour of forged ones make no false clock; a source whose
	// handshakes are seen is not concerned.
	floodRaw = 1000
	// busyChains is the number of chains that show that a source has many
	// clocks, for which it is worth to wait for more.
	busyChains = 8
)

// add puts a SYN into the record of its source. Nearly all SYNs of a clock are
// on its line, so that this is looked for first.
func (t *Tracker) add(sl *slot, r *record, p *packet) Fit {
	if i := t.ruler.line(r.c[:r.h.chains], p); i >= 0 {
		return t.addToLine(r, &r.c[i], p)
	}
	m := t.ruler.match(r, p)
	switch m.place {
	case placeChain:
		return t.addToChain(r, p, &m)
	case placeHop:
		return t.unhop(sl, r, p, &m)
	case placeLone:
		return t.addToLone(sl, *r, p, &m)
	default:
		return t.addLone(sl, *r, p)
	}
}

// complete takes the handshake of a SYN that is in the record, or was not kept.
func (t *Tracker) complete(sl *slot, r *record, p *packet) Fit {
	for i := range r.o[:r.h.lone] {
		if o := &r.o[i]; o.tag == p.tag && o.v == p.v {
			r.h.prove(o)
			return FitRepeat
		}
	}
	var m match
	for i := range r.c[:r.h.chains] {
		if c := &r.c[i]; c.live(p.t) {
			t.ruler.locate(&m, c, i, p)
		}
	}
	if m.place != placeNone {
		r.c[m.i].flags |= chainValidated
		return FitRepeat
	}
	fewer(&r.h.raw) // it was counted when it was dropped
	return t.add(sl, r, p)
}

// prove notes that the handshake of a lone SYN completed.
func (h *header) prove(o *lone) {
	if o.flags&chainValidated == 0 {
		fewer(&h.raw)
		more(&h.stacks[o.stack].off[0])
		o.flags |= chainValidated
	}
}

// flooded tells whether SYNs without handshake are to be taken for forged.
func (h *header) flooded() bool { return h.unproven() > floodRaw }

// unproven returns how many SYNs of the window had no handshake, and were on no
// line.
func (h *header) unproven() int { return int(h.raw[0]) + int(h.raw[1]) }

func (t *Tracker) addToLine(r *record, c *chain, p *packet) Fit {
	if c.tag == p.tag {
		c.repeat(p)
		return FitRepeat
	}
	if int32(p.t-c.t) >= longGap {
		c.flags |= chainFull
	}
	c.hit(p, t.ruler.near(r.lines()))
	c.anchor(p)
	more(&r.h.stacks[p.stack].on[0])
	return FitLine
}

// repeat takes the same ports again, which are no evidence.
func (c *chain) repeat(p *packet) {
	c.anchor(p)
	c.flags |= p.flags()
}

// addToChain takes a SYN that is off the line of a chain, but in its cone, or
// late.
func (t *Tracker) addToChain(r *record, p *packet, m *match) Fit {
	c := &r.c[m.i]
	switch {
	case m.fit == FitLate: // no evidence, and an old value is no anchor
		more(&c.n)
		c.flags |= p.flags()
	case c.tag == p.tag:
		c.repeat(p)
		return FitRepeat
	case r.h.flooded() && !p.validated:
		return t.drop(*r)
	default:
		c.pv, c.pt, c.pscore, c.pn = c.v, c.t, c.score, c.n
		c.flags |= chainHop
		c.hit(p, t.ruler.cone(max(m.live, r.h.strays(m.dt)), m.dt))
		c.anchor(p)
	}
	more(&r.h.stacks[p.stack].on[0])
	return m.fit
}

// longGap is the time, in ms, over which the rate of a clock shows.
const longGap = 20_000

// hit counts a connection.
func (c *chain) hit(p *packet, score int) {
	more(&c.n)
	c.score = uint16(min(int(c.score)+score, 1<<16-1))
	c.tag = p.tag
	c.stack = p.stack
	c.flags |= p.flags()
	if p.t-c.first > maxAge && int32(p.t-c.t) >= 0 {
		c.first = p.t - maxAge
	}
}

// anchor moves the line to a SYN that is not older than it.
func (c *chain) anchor(p *packet) {
	if int32(p.t-c.t) >= 0 {
		c.v, c.t = p.v, p.t
	}
}

// unhop takes a SYN on the line from before a chain's last hop: the clock did
// not stand still. What followed the hop was a packet that came late, or is
// another clock.
func (t *Tracker) unhop(sl *slot, r *record, p *packet, m *match) Fit {
	c := &r.c[m.i]
	after := *c
	c.v, c.t, c.n, c.score = c.pv, c.pt, c.pn, c.pscore
	c.flags &^= chainHop
	c.hit(p, t.ruler.near(m.live))
	c.anchor(p)
	more(&r.h.stacks[p.stack].on[0])

	n := after.n - after.pn
	d, _ := t.ruler.offset(after.v, after.t, after.pv, after.pt)
	switch {
	case n == 0:
	case t.ruler.late(d):
		c.n = uint16(min(int(c.n)+int(n), 1<<16-1))
	case n == 1:
		fewer(&r.h.stacks[after.stack].on)
		t.keepLone(sl, *r, lone{v: after.v, t: after.t, tag: after.tag, stack: after.stack, flags: after.flags & chainValidated})
	default:
		after.first, after.flags, after.n = after.t, after.flags&chainValidated, n
		after.score = uint16(min(int(n-1)*t.ruler.near(m.live), 1<<16-1))
		t.keepChain(sl, *r, after)
	}
	return FitLine
}

// addToLone makes a chain of a lone SYN and another.
func (t *Tracker) addToLone(sl *slot, r record, p *packet, m *match) Fit {
	o := &r.o[m.i]
	if o.tag == p.tag {
		if p.validated {
			r.h.prove(o)
		}
		if int32(p.t-o.t) >= 0 {
			o.v, o.t = p.v, p.t
		}
		return FitRepeat
	}
	if r.h.flooded() && !p.validated {
		return t.drop(r)
	}
	c := chain{v: o.v, t: o.t, first: o.t, n: 1, stack: o.stack, flags: o.flags}
	if int32(p.t-o.t) < 0 {
		c.first = p.t
	}
	if m.fit == FitHop {
		c.pv, c.pt, c.pn = o.v, o.t, 1
		c.flags |= chainHop
		c.hit(p, t.ruler.cone(max(m.live, r.h.strays(m.dt)), m.dt))
	} else {
		c.hit(p, t.ruler.near(m.live))
		if m.dt >= longGap {
			c.flags |= chainFull
		}
	}
	c.anchor(p)
	was := *o
	r.h.lone--
	*o = r.o[r.h.lone]
	if !t.keepChain(sl, r, c) {
		r = t.record(sl)
		r.o[r.h.lone] = was
		r.h.lone++
		return t.drop(r)
	}
	r = t.record(sl)
	r.h.uncount(was)
	s := &r.h.stacks[was.stack]
	more(&s.on[0])
	more(&r.h.stacks[p.stack].on[0])
	return m.fit
}

// addLone keeps a SYN that fits nothing.
func (t *Tracker) addLone(sl *slot, r record, p *packet) Fit {
	if r.h.flooded() && !p.validated {
		return t.drop(r)
	}
	t.keepLone(sl, r, lone{v: p.v, t: p.t, tag: p.tag, stack: p.stack, flags: p.flags()})
	return FitNew
}

// drop leaves out a SYN, but counts it.
func (t *Tracker) drop(r record) Fit {
	more(&r.h.raw[0])
	return FitDropped
}

func (h *header) count(o lone) {
	if o.flags&chainValidated != 0 {
		more(&h.stacks[o.stack].off[0])
	} else {
		more(&h.raw[0])
	}
}

func (h *header) uncount(o lone) {
	if o.flags&chainValidated != 0 {
		fewer(&h.stacks[o.stack].off)
	} else {
		fewer(&h.raw)
	}
}

// keepLone finds a place for a lone SYN. Chains and lone SYNs have places of
// their own: clocks that are drawn per connection bring a new one every time
// and would else drive out the clocks that can be counted.
func (t *Tracker) keepLone(sl *slot, r record, o lone) {
	r.h.count(o)
	if int(r.h.lone) == len(r.o) {
		r.prune(o.t)
	}
	if int(r.h.lone) == len(r.o) && r.worthMore(o) {
		r, _ = t.grow(sl, r)
	}
	if int(r.h.lone) == len(r.o) {
		if i := r.victim(o); i >= 0 {
			r.o[i] = o
		}
		return
	}
	r.o[r.h.lone] = o
	r.h.lone++
}

// prune forgets the lone SYNs that are too old.
func (r record) prune(now uint32) {
	for i := int(r.h.lone) - 1; i >= 0; i-- {
		if int32(now-r.o[i].t) > ttl {
			r.h.lone--
			r.o[i] = r.o[r.h.lone]
		}
	}
}

// forget gives up what is too old to be looked at, before its time, which is
// modulo 2^32 ms, comes round.
func (r record) forget(now uint32) {
	r.prune(now)
	last := 0
	for i := range r.c[:r.h.chains] {
		if !r.c[i].live(now) {
			r.c[i] = chain{}
		} else {
			last = i + 1
		}
	}
	r.h.chains = uint8(last)
}

// worthMore tells whether a source should have more room for lone SYNs.
func (r record) worthMore(o lone) bool {
	chains := 0
	for i := range r.c {
		if r.c[i].live(o.t) {
			chains++
		}
	}
	if len(r.o) == sizes[0].lone {
		return chains > 0 || o.flags&chainValidated != 0
	}
	return chains >= busyChains
}

// victim returns the lone SYN to be given up for another: any, because to give
// up the oldest would keep none of some more clocks that come in turns. One
// without handshake never costs one with a handshake its place; -1 if it would.
func (r record) victim(o lone) int {
	n := len(r.o)
	// Mixed well, because times and ports often go up in steps, and the TSval
	// has no say, because where it starts has no meaning.
	x := (uint64(o.t)<<16 | uint64(o.tag)) * 0x9e3779b97f4a7c15
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	at := int(x >> 40)
	if o.flags&chainValidated != 0 {
		return at % n
	}
	for i := range n {
		if k := (at + i) % n; r.o[k].flags&chainValidated == 0 {
			return k
		}
	}
	return -1
}

func (c *chain) live(now uint32) bool { return c.n != 0 && int32(now-c.t) <= ttl }

// keepChain finds a place for a chain, if need be that of the weakest that is
// not certain.
func (t *Tracker) keepChain(sl *slot, r record, c chain) bool {
	i := r.place(c.t)
	if i < 0 {
		if bigger, ok := t.grow(sl, r); ok {
			i, r = len(r.c), bigger
		}
	}
	if i < 0 {
		if i = r.weakest(&c); i < 0 {
			r.h.flags |= headSaturated
			return false
		}
	}
	r.c[i] = c
	r.h.chains = max(r.h.chains, uint8(i+1))
	return true
}

// place returns a place that is free, or -1.
func (r record) place(now uint32) int {
	for i := range r.c {
		if !r.c[i].live(now) {
			return i
		}
	}
	return -1
}

// weakest returns the chain of the least score, if it is uncertain and no
// better than c.
func (r record) weakest(c *chain) int {
	best := -1
	for i := range r.c {
		if s := r.c[i].score; s < certain && s <= c.score && (best < 0 || s < r.c[best].score) {
			best = i
		}
	}
	return best
}
