// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
)

// Class is what the clocks of a source tell about who is behind it.
type Class uint8

// The classes. None says that there is no NAT: one clock seen is one clock
// seen.
const (
	NotEnough  Class = iota // "not_enough": too few SYNs to tell
	OneClock                // "one_clock": one clock explains nearly all SYNs
	Shared                  // "shared": several clocks at the same time
	Randomised              // "randomised": the offset differs from connection to connection; one host or many
	Restarted               // "restarted": one clock after another: a restart, or the address changed hands
)

// String returns the name.
func (c Class) String() string {
	return [...]string{"not_enough", "one_clock", "shared", "randomised", "restarted"}[c]
}

// Strength is how sure a class is.
type Strength uint8

// The strengths.
const (
	Weak   Strength = iota // "weak"
	Medium                 // "medium": Shared by one clock, and SYNs off its line whose handshakes completed
	Strong                 // "strong": Shared by two clocks that were seen in turns
)

// String returns the name.
func (s Strength) String() string { return [...]string{"weak", "medium", "strong"}[s] }

const (
	minOne        = 10             // connections for OneClock
	minRandom     = 20             // that coincide with none, for Randomised
	minPerTuple   = 4              // the same, of a system known for it
	minOff        = 3              // connections off the line, for Shared by one clock
	strongChain   = 12 * scoreUnit // score of that one clock
	maxClocks     = 64512          // ports above 1023: each clock behind a NAT needs one
	doubt         = 2 * scoreUnit  // more, for a chain without handshakes among many SYNs without
	chainsSettled = 5              // connections from which a chain is no re-use of a port, where ports have clocks
)

// Source is what is known of one source, of the last hour.
type Source struct {
	Key
	Class    Class
	Strength Strength
	// Clocks is how many clocks were seen at one instant: a lower bound of how
	// many there are.
	Clocks int
	// Validated is how many of Clocks have a completed handshake.
	Validated int
	// Estimate is Clocks and those that were likely not seen twice, with the
	// interval of 95 % from Low to High. With Open there is no upper bound:
	// some or all SYNs are off all lines, from any number of clocks, or there
	// are more clocks than are tracked.
	Estimate, Low, High int
	Open                bool
	Saturated           bool // clocks that there was no room for
	OnLine              int  // connections that a clock explains
	OffLine             int  // those with a completed handshake that none explains
	Unproven            int  // those without, that none explains: perhaps forged
}

// Find returns what is known of a source at a time. It is false for one that
// is not known, or was idle for an hour.
func (t *Tracker) Find(k Key, now int64) (Source, bool) {
	sl, m := t.lookup(k, now)
	if sl == nil {
		return Source{}, false
	}
	if sl.tier == 0 {
		s := Source{Key: k, Estimate: 1, Low: 1, High: maxClocks, Open: true}
		if sl.flags&slotValidated != 0 {
			s.OffLine = 1
		} else {
			s.Unproven = 1
		}
		return s, true
	}
	return t.describe(t.record(sl), m), true
}

func (t *Tracker) lookup(k Key, now int64) (*slot, moment) {
	m := t.moment(now)
	i := t.table.find(t.key.hash(&k))
	if i < 0 || t.table.at(i).idle(m) {
		return nil, m
	}
	return t.table.at(i), m
}

// All returns the sources with more than one SYN in the last hour, in an order
// that depends on what was fed alone.
func (t *Tracker) All(now int64) iter.Seq[Source] {
	return func(yield func(Source) bool) {
		m := t.moment(now)
		for i := range t.table.top {
			sl := t.table.at(i)
			if sl.tier == slotFree || sl.tier == 0 || sl.idle(m) {
				continue
			}
			if !yield(t.describe(t.record(sl), m)) {
				return
			}
		}
	}
}

// unexplained returns how many SYNs there were that may have met a line by
// chance: chains and lone SYNs, or, where those come and go, the SYNs of the
// window that met none.
func (r record) unexplained(now moment) int {
	n := 0
	for i := range r.c {
		if r.c[i].live(now.ms) {
			n++
		}
	}
	for i := range r.o[:r.h.lone] {
		if int32(now.ms-r.o[i].t) <= ttl {
			n++
		}
	}
	return max(n, r.h.strangers(now.sec))
}

// certain tells whether a chain is a clock of a host. Where a stack has a clock
// per 4-tuple, a NAT that changes ports shows one of them again, under another
// port, whenever the host uses a port again. So a stack that is known for it
// has no certain chain, and one that has mostly lone SYNs needs more.
func (c *chain) certain(h *header, needed int) bool {
	if c.flags&chainValidated == 0 && h.unproven() > maxLone {
		needed += doubt
	}
	if c.n < 2 || int(c.score) < needed {
		return false
	}
	s := &h.stacks[c.stack]
	return s.id&stackPerTuple == 0 && (s.offLine() <= s.onLine() || c.n > chainsSettled)
}

// run is one clock: chains whose offsets are the same.
type run struct {
	offset      uint32
	first, last int32 // ms before now, negative
	n           int
	score       uint16
	validated   bool
}

func (t *Tracker) describe(r record, now moment) Source {
	h := *r.h // a query changes nothing
	h.turn(now.sec)
	r.h = &h
	s := Source{Key: r.h.key.key()}
	for i := range r.h.stacks {
		s.OnLine += r.h.stacks[i].onLine()
		s.OffLine += r.h.stacks[i].offLine()
	}
	s.Unproven = r.h.unproven()

	runs := t.runs(r, now)
	s.Clocks, s.Validated = concurrent(runs)
	s.Saturated = r.h.flags&headSaturated != 0 && r.place(now.ms) < 0
	t.classify(&s, r, runs, now.ms)
	t.estimate(&s, r, now.ms)
	return s
}

// runs returns the certain chains, with those joined that are one clock.
func (t *Tracker) runs(r record, at moment) []run {
	needed, now := needed(r.unexplained(at)), at.ms
	var buf [maxChains]run
	list := buf[:0]
	for i := range r.c {
		if c := &r.c[i]; c.live(now) && c.certain(r.h, needed) {
			list = append(list, run{
				offset: c.v + (now-c.t)*t.ruler.perMS, first: int32(c.first - now), last: int32(c.t - now),
				n: int(c.n), score: c.score, validated: c.flags&chainValidated != 0,
			})
		}
	}
	slices.SortFunc(list, func(a, b run) int { return cmp.Compare(a.offset, b.offset) })
	var out []run
	for _, x := range list {
		if n := len(out); n > 0 && t.same(out[n-1], x) {
			out[n-1].join(x)
			continue
		}
		out = append(out, x)
	}
	// Offsets are on a circle.
	if n := len(out); n > 1 && t.same(out[n-1], out[0]) {
		out[0].join(out[n-1])
		out = out[:n-1]
	}
	return out
}

// same tells whether b, which is at or after a, is the same clock.
func (t *Tracker) same(a, b run) bool { return b.offset-a.offset < sameOffset*t.ruler.perMS }

func (a *run) join(b run) {
	a.first, a.last = min(a.first, b.first), max(a.last, b.last)
	a.n += b.n
	a.score = max(a.score, b.score)
	a.validated = a.validated || b.validated
}

// concurrent returns the largest number of clocks at one instant, and how many
// of those have a completed handshake. One that begins after another has ended
// may be the same host after a restart.
func concurrent(runs []run) (most, validated int) {
	for i := range runs {
		at, n, v := runs[i].first, 0, 0
		for j := range runs {
			// A clock that begins in the ms that another ends in is behind it.
			if runs[j].first <= at && (runs[j].last > at || j == i) {
				n++
				if runs[j].validated {
					v++
				}
			}
		}
		if n > most || n == most && v > validated {
			most, validated = n, v
		}
	}
	return most, validated
}

func (k *packedKey) key() Key {
	return Key{NetNS: k.netns, Source: netip.AddrFrom16(k.src).Unmap(), Local: netip.AddrFrom16(k.local).Unmap()}
}

// classify decides what the source is.
func (t *Tracker) classify(s *Source, r record, runs []run, now uint32) {
	total := s.OnLine + s.OffLine
	switch {
	case s.Clocks >= 2:
		s.Class, s.Strength = Shared, Strong
	case len(runs) == 1 && runs[0].score >= strongChain && t.strangers(r, runs[0], now) >= max(minOff, (total+19)/20):
		s.Class, s.Strength = Shared, Medium
	case len(runs) >= 2:
		s.Class, s.Strength = Restarted, Medium
	case r.h.randomised():
		s.Class, s.Strength = Randomised, Strong
	case len(runs) == 1 && runs[0].n >= minOne && runs[0].n*100 >= (runs[0].n+s.OffLine)*95:
		s.Class, s.Strength = OneClock, Strong
	}
}

// strangers returns how many connections, with completed handshakes, are off
// the line of the one clock while that lived.
func (t *Tracker) strangers(r record, one run, now uint32) int {
	n := 0
	for _, o := range r.o[:r.h.lone] {
		at := int32(o.t - now)
		if o.flags&chainValidated == 0 || at <= one.first || at >= one.last || t.ruler.close(o, one, now) {
			continue
		}
		n++
	}
	return n
}

// close tells whether a lone SYN may be an odd one of a clock.
func (r *ruler) close(o lone, one run, now uint32) bool {
	d := int32(o.v + (now-o.t)*r.perMS - one.offset)
	return magnitude(d) < uint64(sameOffset*r.perMS)
}

// randomised tells whether a kind of stack has a new clock for each
// connection. If 64 clocks were equally active, of n connections n²/128 would
// meet an earlier one: three of 20, so that none excludes them at 95 %.
func (h *header) randomised() bool {
	for i := range h.stacks {
		s := &h.stacks[i]
		least := minRandom
		if s.id&stackPerTuple != 0 {
			least = minPerTuple
		}
		if s.offLine() >= least && s.onLine()*10 <= s.offLine() {
			return true
		}
	}
	return false
}
