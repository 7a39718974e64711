// SPDX-License-Identifier: Apache-2.0

package event

import "github.com/rs/zerolog"

// Kind returns KindTimeWait.
func (*TimeWait) Kind() Kind { return KindTimeWait }

// MarshalZerologObject writes the members of the JSON object.
func (t *TimeWait) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *TimeWait) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindTimeWait)
	s.socket(e, &t.Socket)
	e.Str("role", t.Role.String()).Str("substate", t.Substate.String()).Bool("timestamps", t.Timestamps)
	if t.Timestamps {
		e.Uint32("ts_recent", t.TSRecent)
	}
	e.Uint32("timeout_ms", t.TimeoutMS)
	flag(e, "bound", t.Bound)
}

// Kind returns KindCensus.
func (*Census) Kind() Kind { return KindCensus }

// MarshalZerologObject writes the members of the JSON object.
func (c *Census) MarshalZerologObject(e *zerolog.Event) { c.members(e, new(scratch)) }

func (c *Census) members(e *zerolog.Event, s *scratch) {
	s.begin(e, c.Time, KindCensus)
	s.socket(e, &c.Socket)
	e.Str("role", c.Role.String()).Str("substate", c.Substate.String()).Bool("timestamps", c.Timestamps)
	if c.Timestamps {
		e.Uint32("ts_recent", c.TSRecent)
	}
	e.Uint32("remaining_ms", c.RemainingMS).Bool("reusable", c.Reuse == ReusableNow)
	if c.Reuse != ReusableNow {
		e.Str("refused", c.Reuse.String())
	}
	if c.Reuse == ReuseRefusedTooYoung {
		e.Uint32("reuse_in_ms", c.ReuseInMS)
	}
	flag(e, "bound", c.Bound)
}

// Kind returns KindTimeWaitEnd.
func (*TimeWaitEnd) Kind() Kind { return KindTimeWaitEnd }

// MarshalZerologObject writes the members of the JSON object.
func (t *TimeWaitEnd) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *TimeWaitEnd) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindTimeWaitEnd)
	s.socket(e, &t.Socket)
	e.Str("reason", t.Reason.String()).Uint32("age_ms", t.AgeMS)
}

// Kind returns KindTWReuse.
func (*TWReuse) Kind() Kind { return KindTWReuse }

// MarshalZerologObject writes the members of the JSON object.
func (t *TWReuse) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *TWReuse) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindTWReuse)
	s.socket(e, &t.Socket)
	e.Uint32("age_ms", t.AgeMS)
}

// Kind returns KindConnectFail.
func (*ConnectFail) Kind() Kind { return KindConnectFail }

// MarshalZerologObject writes the members of the JSON object.
func (c *ConnectFail) MarshalZerologObject(e *zerolog.Event) { c.members(e, new(scratch)) }

func (c *ConnectFail) members(e *zerolog.Event, s *scratch) {
	s.begin(e, c.Time, KindConnectFail)
	s.socket(e, &c.Socket)
	e.Str("errno", ErrnoName(c.Errno)).Bool("inferred", c.Inferred).
		Uint16("range_low", c.RangeLow).Uint16("range_high", c.RangeHigh)
	if c.Cause != CauseUnknown {
		e.Str("cause", c.Cause.String()).RawJSON("refused", s.refusals(&c.Refused)).
			Uint32("ports_total", c.PortsTotal).Uint32("ports_time_wait", c.PortsTimeWait).
			Uint32("ports_in_use", c.PortsInUse).Str("timestamps", c.Timestamps.String())
	}
	if c.PerCall != 0 {
		e.Uint8("per_call", c.PerCall)
	}
}

// Kind returns KindSYN.
func (*SYN) Kind() Kind { return KindSYN }

// MarshalZerologObject writes the members of the JSON object.
func (y *SYN) MarshalZerologObject(e *zerolog.Event) { y.members(e, new(scratch)) }

func (y *SYN) members(e *zerolog.Event, s *scratch) {
	s.begin(e, y.Time, KindSYN)
	s.socket(e, &y.Socket)
	e.Bool("timestamps", y.Timestamps)
	if y.Timestamps {
		e.Uint32("tsval", y.TSval)
	}
	hops(e, y.TTL, y.Fingerprint)
	e.Bool("validated", y.Validated)
}

// Kind returns KindSYNRefused.
func (*SYNRefused) Kind() Kind { return KindSYNRefused }

// MarshalZerologObject writes the members of the JSON object.
func (r *SYNRefused) MarshalZerologObject(e *zerolog.Event) { r.members(e, new(scratch)) }

func (r *SYNRefused) members(e *zerolog.Event, s *scratch) {
	s.begin(e, r.Time, KindSYNRefused)
	s.socket(e, &r.Socket)
	e.Str("signature", r.Signature.String()).Uint32("attempts", r.Attempts).Uint32("delay_ms", r.DelayMS)
}

// Kind returns KindLoss.
func (*Loss) Kind() Kind { return KindLoss }

// MarshalZerologObject writes the members of the JSON object.
func (l *Loss) MarshalZerologObject(e *zerolog.Event) { l.members(e, new(scratch)) }

func (l *Loss) members(e *zerolog.Event, s *scratch) {
	s.begin(e, l.Time, KindLoss)
	e.Str("hop", text(l.Hop))
	optional(e, "of", l.Of)
	e.Uint64("count", l.Count)
	optional(e, "why", l.Why)
}
