// SPDX-License-Identifier: Apache-2.0

package event

import "github.com/rs/zerolog"

func (j *Judgement) members(e *zerolog.Event) {
	if j.Verdict == VerdictNone {
		return
	}
	e.Str("verdict", j.Verdict.String()).Float64("log10_odds", rounded(j.Odds))
	if j.HasOffset {
		e.Float64("offset_s", rounded(j.OffsetS))
	}
	optional(e, "because", j.Because)
}

// Kind returns KindPAWSReject.
func (*PAWSReject) Kind() Kind { return KindPAWSReject }

// MarshalZerologObject writes the members of the JSON object.
func (p *PAWSReject) MarshalZerologObject(e *zerolog.Event) { p.members(e, new(scratch)) }

func (p *PAWSReject) members(e *zerolog.Event, s *scratch) {
	s.begin(e, p.Time, KindPAWSReject)
	s.socket(e, &p.Socket)
	e.Str("where", p.Where.String())
	if p.Segment != SegmentUnknown {
		e.Str("segment", p.Segment.String())
	}
	// tcp_paws_check() lets everything pass a ts_recent of 0, so in a reject
	// that is one which the rung does not know.
	if p.TSRecent != 0 {
		e.Uint32("tsval", p.TSval).Uint32("ts_recent", p.TSRecent).Int32("delta", p.Delta)
	} else if p.TSval != 0 {
		e.Uint32("tsval", p.TSval)
	}
	if p.HasAge {
		e.Uint32("age_ms", p.AgeMS)
	}
	if p.Reply != ReplyUnknown {
		e.Str("reply", p.Reply.String())
	}
	optional(e, "reason", p.Reason)
	optional(e, "counter", p.Counter)
	if p.Count != 0 {
		e.Uint64("count", p.Count)
	}
	if p.Segment == SegmentSYN {
		e.Uint32("seq", p.Seq)
		hops(e, p.TTL, p.Fingerprint)
	}
	p.Judgement.members(e)
}

// hops writes what a SYN tells about its sender.
func hops(e *zerolog.Event, ttl uint8, fingerprint string) {
	if ttl != 0 {
		e.Uint8("ttl", ttl)
	}
	optional(e, "fingerprint", fingerprint)
}

// Kind returns KindSYNReject.
func (*SYNReject) Kind() Kind { return KindSYNReject }

// MarshalZerologObject writes the members of the JSON object.
func (r *SYNReject) MarshalZerologObject(e *zerolog.Event) { r.members(e, new(scratch)) }

func (r *SYNReject) members(e *zerolog.Event, s *scratch) {
	s.begin(e, r.Time, KindSYNReject)
	s.socket(e, &r.Socket)
	e.Str("rule", r.Rule.String()).Bool("timestamps", r.Timestamps)
	if r.Timestamps {
		e.Uint32("tsval", r.TSval)
	}
	if r.TSRecent != 0 {
		e.Uint32("ts_recent", r.TSRecent)
	}
	e.Uint32("seq", r.Seq).Uint32("rcv_nxt", r.RcvNxt)
	if r.HasAge {
		e.Uint32("age_ms", r.AgeMS)
	}
	if r.Reply != ReplyUnknown {
		e.Str("reply", r.Reply.String())
	}
	hops(e, r.TTL, r.Fingerprint)
	r.Judgement.members(e)
}

// Kind returns KindListenDrop.
func (*ListenDrop) Kind() Kind { return KindListenDrop }

// MarshalZerologObject writes the members of the JSON object.
func (l *ListenDrop) MarshalZerologObject(e *zerolog.Event) { l.members(e, new(scratch)) }

func (l *ListenDrop) members(e *zerolog.Event, s *scratch) {
	s.begin(e, l.Time, KindListenDrop)
	s.socket(e, &l.Socket)
	e.Uint64("dropped", l.Dropped).Uint64("overflows", l.Overflows).
		Uint64("syn_queue", l.SYNQueue).Uint64("cookies", l.Cookies)
	if l.Limit != 0 {
		e.Uint32("backlog", l.Backlog).Uint32("limit", l.Limit)
	}
}

// Kind returns KindSources.
func (*Sources) Kind() Kind { return KindSources }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (y *Sources) MarshalZerologObject(e *zerolog.Event) { y.members(e, new(scratch)) }

func (y *Sources) members(e *zerolog.Event, s *scratch) {
	s.begin(e, y.Time, KindSources)
	list := e.CreateArray()
	for i := range y.List {
		list.Dict(y.List[i].dict(e, s))
	}
	e.Array("sources", list).Uint64("omitted", y.Omitted).Uint64("evicted", y.Evicted).Uint64("skipped", y.Skipped)
}

func (y *Sources) shorten(keep int) Event {
	c := *y
	c.List = first(y.List, keep)
	c.Omitted += uint64(len(y.List) - len(c.List))
	return &c
}

// maxFingerprints and maxVerdicts bound what one source says.
const (
	maxFingerprints = 4
	maxVerdicts     = 16
)

func (y *Source) dict(e *zerolog.Event, s *scratch) *zerolog.Event {
	o := e.CreateDict().Uint32("netns", y.NetNS)
	s.optionalAddr(o, "raddr", y.Raddr)
	s.optionalAddr(o, "laddr", y.Laddr)
	o.Uint64("syns", y.SYNs).Uint64("completed", y.Completed).
		Str("class", y.Class.String()).Str("strength", y.Strength.String()).
		Uint32("clocks", y.Clocks).Uint32("estimate", y.Estimate).Uint32("low", y.Low).Uint32("high", y.High)
	flag(o, "open", y.Open)
	o.Uint32("on_line", y.OnLine).Uint32("off_line", y.OffLine).
		Uint64("repeated", y.Repeated).Uint64("rewritten", y.Rewritten).
		Uint64("refused", y.Refused).Uint64("rejected", y.Rejected).
		Dict("verdicts", countMap(e, firstKeys(y.Verdicts, maxVerdicts))).
		Uint64("recycle_syns", y.RecycleSYNs).Uint64("recycle_2_6_32", y.Recycle2632).Uint64("recycle_3_10", y.Recycle310)
	if len(y.Fingerprints) > 0 {
		o.Array("fingerprints", textList(e, first(y.Fingerprints, maxFingerprints)))
	}
	return o
}
