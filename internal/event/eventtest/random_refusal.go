// SPDX-License-Identifier: Apache-2.0

package eventtest

import "github.com/twscope/twscope/internal/event"

func (g generator) judgement() event.Judgement {
	if g.bool() {
		return event.Judgement{}
	}
	j := event.Judgement{Verdict: event.Verdict(1 + g.N(8)), Odds: g.number(), Because: g.text()}
	if j.HasOffset = g.bool(); j.HasOffset {
		j.OffsetS = float64(int64(g.Uint32())-1e9) / 1000
	}
	return j
}

func (g generator) pawsReject(h event.Header) event.Event {
	e := &event.PAWSReject{
		Header: h, Socket: g.socket(), Where: event.Where(g.N(7)), Segment: event.Segment(g.N(6)),
		Reply: event.Reply(g.N(5)), Reason: g.text(), Counter: g.text(), Count: uint64(g.maybe()), Judgement: g.judgement(),
	}
	if g.bool() {
		e.TSval, e.TSRecent, e.Delta = g.Uint32(), g.Uint32(), g.Int32()
	}
	e.HasAge, e.AgeMS = g.ticks()
	if e.Segment == event.SegmentSYN {
		e.Seq, e.TTL, e.Fingerprint = g.Uint32(), uint8(g.maybe()), g.text()
	}
	return e
}

func (g generator) synReject(h event.Header) event.Event {
	e := &event.SYNReject{
		Header: h, Socket: g.socket(), Rule: event.Rule(g.N(4)), TSRecent: g.maybe(), Seq: g.Uint32(), RcvNxt: g.Uint32(),
		Reply: event.Reply(g.N(5)), TTL: uint8(g.maybe()), Fingerprint: g.text(), Judgement: g.judgement(),
	}
	e.Timestamps, e.TSval = g.ticks()
	e.HasAge, e.AgeMS = g.ticks()
	return e
}

func (g generator) listenDrop(h event.Header) event.Event {
	e := &event.ListenDrop{
		Header: h, Socket: g.socket(), Dropped: g.Uint64(), Overflows: g.Uint64(), SYNQueue: g.Uint64(), Cookies: g.Uint64(),
	}
	if g.bool() {
		e.Backlog, e.Limit = g.Uint32(), 1+g.Uint32()/2
	}
	return e
}

func (g generator) sources(h event.Header) event.Event {
	e := &event.Sources{Header: h, List: []event.Source{}, Omitted: g.Uint64(), Evicted: g.Uint64(), Skipped: g.Uint64()}
	for range g.N(4) {
		s := event.Source{
			NetNS: g.Uint32(), Raddr: g.addr(), Laddr: g.addr(), SYNs: g.Uint64(), Completed: g.Uint64(),
			Class: event.ClockClass(g.N(5)), Strength: event.Strength(g.N(3)),
			Clocks: g.Uint32(), Estimate: g.Uint32(), Low: g.Uint32(), High: g.Uint32(), Open: g.bool(),
			OnLine: g.Uint32(), OffLine: g.Uint32(), Repeated: g.Uint64(), Rewritten: g.Uint64(),
			Refused: g.Uint64(), Rejected: g.Uint64(), Verdicts: g.counts(),
			RecycleSYNs: g.Uint64(), Recycle2632: g.Uint64(), Recycle310: g.Uint64(),
		}
		for range g.N(5) {
			s.Fingerprints = append(s.Fingerprints, g.text())
		}
		e.List = append(e.List, s)
	}
	return e
}
