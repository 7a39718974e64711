// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"fmt"
	"net/netip"
)

// Config sets up a Tracker. Its zero value is good.
type Config struct {
	// Sources is how many (netns, source, local) triples are kept at most; 0
	// is 1,000,000. It bounds the memory: to 66 bytes for each of 1,000,000, and
	// to 76 for any number above 65,536, because the index grows by doubling.
	Sources int
	// TickRate is the fastest clock to be expected, in ticks per second: 1000,
	// or 1,000,000 where routes have features tcp_usec_ts (Linux 6.7); 0 is
	// 1000. A faster one spends odds, so that more SYNs are needed.
	TickRate int
	// Seed keys the hash of the addresses. It should be random, and the same
	// to get the same results again.
	Seed [2]uint64
}

// Key names what has clocks of its own: systems draw the offset of TSval for
// each pair of addresses (secure_tcp_ts_off, net/core/secure_seq.c), so that
// one client has a clock for each address of ours.
type Key struct {
	NetNS  uint32 // inode
	Source netip.Addr
	Local  netip.Addr
}

// Group is a kind of TCP stack, see Tracker.Group; 0 is not known.
type Group uint16

// SYN is one SYN that arrived, without ACK.
type SYN struct {
	Key
	Time      int64  // when it arrived: ns of a clock that does not jump
	TSval     uint32 // 0: no timestamps option
	SPort     uint16
	DPort     uint16
	Group     Group
	Validated bool // its handshake completed; see Tracker.Completed too
}

// Fit is what a SYN is to the clocks of its source.
type Fit uint8

// What it may be. From FitHop on, a known SYN explains it.
const (
	FitIgnored Fit = iota // no timestamps option, or TSval 0, which PAWS takes for none
	FitDropped            // fits none, and was not kept: no room, or a flood
	FitNew                // fits none
	FitHop                // in the cone of one: a clock that stood still, or ticks slower
	FitLate               // an old one of a clock, by up to 15 s
	FitLine               // on the line of one
	FitRepeat             // the same ports again: a retransmission, or the 4-tuple used again
)

// Stats are the counts of a Tracker, since it was made.
type Stats struct {
	SYNs        uint64 // with timestamps
	Ignored     uint64 // without
	Dropped     uint64 // FitDropped
	Evicted     uint64 // sources forgotten for want of room
	EvictedKept uint64 // of those, with a completed handshake or more than one SYN
	Refused     uint64 // times that a source found no room for more clocks
	Sources     int    // that are kept, idle ones too
	Tiers       [1 + len(sizes)]int
	Bytes       int // memory
}

// Tracker tracks the clocks of many sources. It is not safe for concurrent
// use.
type Tracker struct {
	ruler ruler
	key   sipKey
	table table
	slabs [len(sizes)]slab
	base  int64 // ns: the time of the first SYN
	begun bool
	stats Stats
}

// New returns a Tracker.
func New(c Config) (*Tracker, error) {
	if c.Sources == 0 {
		c.Sources = 1_000_000
	}
	if c.TickRate == 0 {
		c.TickRate = 1000
	}
	if c.Sources < 1 || c.Sources > maxSources {
		return nil, fmt.Errorf("sources: %d is not from 1 to %d", c.Sources, maxSources)
	}
	if c.TickRate != 1000 && c.TickRate != 1_000_000 {
		return nil, fmt.Errorf("tick rate: %d is neither 1000 nor 1000000", c.TickRate)
	}
	t := &Tracker{ruler: newRuler(uint32(c.TickRate / 1000)), key: c.Seed, table: newTable(c.Sources)}
	for i := range t.slabs {
		t.slabs[i] = newSlab(i, c.Sources)
	}
	return t, nil
}

// Stats returns the counts.
func (t *Tracker) Stats() Stats {
	s := t.stats
	s.Sources = t.table.used
	s.Tiers[0] = t.table.used
	s.Bytes = t.table.bytes()
	for i := range t.slabs {
		s.Tiers[i+1] = t.slabs[i].used
		s.Tiers[0] -= t.slabs[i].used
		s.Bytes += t.slabs[i].bytes()
	}
	return s
}

// moment is a time as the records hold it.
type moment struct {
	ms, sec uint32 // since the first SYN, modulo 2^32
	ns      int64  // as in SYN, at the beginning of the ms
}

func (t *Tracker) moment(ns int64) moment {
	d := (ns - t.base) / 1e6
	if ns < t.base && (ns-t.base)%1e6 != 0 {
		d--
	}
	sec := d / 1000
	if d < 0 && d%1000 != 0 {
		sec-- // so that ms is sec*1000 and a remainder, always
	}
	return moment{uint32(d), uint32(sec), t.base + d*1e6}
}

// nanos is the inverse of ms, for a time not long before or after.
func (m *moment) nanos(ms uint32) int64 { return m.ns - int64(int32(m.ms-ms))*1e6 }

// SYN takes a SYN, once. SYNs may come a second out of order. It allocates only
// while there are more sources than ever, or more with a record.
func (t *Tracker) SYN(s *SYN) Fit {
	if s.TSval == 0 {
		t.stats.Ignored++
		return FitIgnored
	}
	t.stats.SYNs++
	return t.feed(s, false)
}

// Completed says that the handshake of a SYN completed that was given to SYN
// without Validated, within the time of Lookback. It counts none anew:
// FitRepeat, unless the SYN had not been kept, which is made good. All of s but
// Validated is as it was for SYN, Time too.
func (t *Tracker) Completed(s *SYN) Fit {
	if s.TSval == 0 {
		return FitIgnored
	}
	return t.feed(s, true)
}

func (t *Tracker) feed(s *SYN, completed bool) Fit {
	if !t.begun {
		t.base, t.begun = s.Time, true
	}
	now := t.moment(s.Time)
	p := packet{v: s.TSval, t: now.ms, tag: tagOf(s), validated: s.Validated || completed}
	h := t.key.hash(&s.Key)
	i := t.table.find(h)
	if i < 0 {
		if i = t.slot(h, now); i < 0 {
			t.stats.Dropped++
			return FitDropped
		}
		t.table.at(i).first(s, &p, now)
		return FitNew
	}
	sl := t.table.at(i)
	if sl.idle(now) {
		t.demote(sl)
		sl.first(s, &p, now)
		return FitNew
	}
	fit := t.known(i, sl, s, &p, now, completed)
	if fit == FitDropped {
		t.stats.Dropped++
	}
	return fit
}

// known takes a SYN of a source that is kept.
func (t *Tracker) known(i int, sl *slot, s *SYN, p *packet, now moment, completed bool) Fit {
	sl.flags |= slotUsed
	if p.validated {
		sl.flags |= slotValidated
	}
	if sl.tier == 0 {
		if fit, done := t.second(sl, s, p, now); done {
			return fit
		}
		if !t.lift(i, sl, s, now.sec) {
			t.stats.Refused++
			return FitDropped
		}
	}
	if int32(now.sec-sl.sec) > 0 {
		sl.sec = now.sec
	}
	r := t.record(sl)
	if r.h.turn(now.sec) {
		r.forget(now.ms)
	}
	p.stack = r.h.stack(uint16(s.Group))
	if completed {
		return t.complete(sl, &r, p)
	}
	return t.add(sl, &r, p)
}

// first makes a slot that of a source with one SYN.
func (s *slot) first(syn *SYN, p *packet, now moment) {
	*s = slot{
		hash: s.hash, value: p.v, sec: now.sec, ms: uint16(now.ms - now.sec*1000),
		tag: p.tag, stack: uint16(syn.Group),
	}
	if p.validated {
		s.flags = slotValidated
	}
}

// second takes another SYN of a source with one. It is done with it unless the
// source is to have a record, which needs a completed handshake, or a match
// that nobody could have forged within the second.
func (t *Tracker) second(sl *slot, s *SYN, p *packet, now moment) (Fit, bool) {
	d, dt := t.ruler.offset(p.v, p.t, sl.value, sl.at())
	onLine := t.ruler.onLine(d, dt)
	if onLine && sl.tag == p.tag {
		return FitRepeat, true
	}
	if p.validated || (onLine || t.ruler.inCone(p.v, sl.value, dt)) && dt >= 1000 {
		return 0, false
	}
	if onLine {
		return FitLine, true
	}
	// The first is kept, because the next of its clock may come yet, but not
	// for ever.
	if sl.flags&slotValidated == 0 && dt > staleFirst {
		sl.first(s, p, now)
		return FitNew, true
	}
	return FitDropped, true
}

// staleFirst is how long, in ms, a SYN without handshake waits for another of
// its clock before it makes room.
const staleFirst = 120_000

func (s *slot) at() uint32 { return s.sec*1000 + uint32(s.ms) }

func (s *slot) idle(now moment) bool { return int32(now.sec-s.sec) > ttl/1000 }

func tagOf(s *SYN) uint16 {
	h := (uint32(s.SPort)<<16 | uint32(s.DPort)) * 0x9e3779b1
	return uint16(h>>16 ^ h)
}
