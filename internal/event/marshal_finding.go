// SPDX-License-Identifier: Apache-2.0

package event

import (
	"math"
	"net/netip"
	"strconv"

	"github.com/rs/zerolog"
)

// Kind returns KindDestinations.
func (*Destinations) Kind() Kind { return KindDestinations }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (d *Destinations) MarshalZerologObject(e *zerolog.Event) { d.members(e, new(scratch)) }

func (d *Destinations) members(e *zerolog.Event, s *scratch) {
	s.begin(e, d.Time, KindDestinations)
	list := e.CreateArray()
	for i := range d.List {
		list.Dict(d.List[i].dict(e, s))
	}
	namespaces := e.CreateArray()
	for i := range d.Namespaces {
		n := &d.Namespaces[i]
		o := e.CreateDict().Uint32("netns", n.NetNS).Dict("sysctls", textMap(e, n.Sysctls, sysctlText))
		if n.HasListening {
			o.Str("listening", text(n.Listening))
		}
		namespaces.Dict(o)
	}
	e.Array("destinations", list).Array("namespaces", namespaces).
		Uint64("omitted", d.Omitted).Uint64("evicted", d.Evicted)
}

func (d *Destinations) shorten(keep int) Event {
	c := *d
	c.List, c.Namespaces = first(d.List, keep), first(d.Namespaces, keep)
	c.Omitted += uint64(len(d.List) - len(c.List))
	return &c
}

func (d *Destination) dict(e *zerolog.Event, s *scratch) *zerolog.Event {
	o := e.CreateDict().Uint32("netns", d.NetNS)
	s.optionalAddr(o, "laddr", d.Laddr)
	s.optionalAddr(o, "raddr", d.Raddr)
	o.Uint16("rport", d.Rport).
		Uint32("ports_total", d.PortsTotal).Uint32("ports_reserved", d.PortsReserved).Uint32("ports_blocked", d.PortsBlocked).
		Uint32("in_use", d.InUse).Uint32("time_wait", d.TimeWait).Uint32("reusable", d.Reusable).
		RawJSON("refused", s.refusals(&d.Refused))
	if d.ReusableInMS != 0 {
		o.Uint32("reusable_in_ms", d.ReusableInMS)
	}
	o.Str("timestamps", d.Timestamps.String()).
		Float64("rate", rounded(max(d.Rate, 0))).Float64("rate_out", rounded(max(d.RateOut, 0))).
		Float64("sustainable_rate", rounded(max(d.SustainableRate, 0)))
	if d.ExhaustedInS >= 0 {
		o.Float64("exhausted_in_s", rounded(d.ExhaustedInS))
	}
	o.Uint64("reused", d.Reused).Uint64("failed", d.Failed).Uint64("failed_calls", d.FailedCalls).
		Uint64("closed_here", d.ClosedHere).Uint64("closed_there", d.ClosedThere).Uint64("closed_reset", d.ClosedReset).
		Uint32("bound", d.Bound)
	if d.PID != 0 {
		o.Uint32("pid", d.PID)
	}
	optional(o, "comm", d.Comm)
	if len(d.Unknown) > 0 {
		o.Array("unknown", textList(e, first(d.Unknown, maxUnknown)))
	}
	return o
}

// maxUnknown is how many parts of one budget are named at most.
const maxUnknown = 16

// refusals returns r as JSON. It is in every failed connect(), of which there
// can be thousands a second, so it takes no dictionary of zerolog's.
func (s *scratch) refusals(r *Refused) []byte {
	b := append(s.refused[:0], `{"disabled":`...)
	b = strconv.AppendUint(b, uint64(r.Disabled), 10)
	b = append(b, `,"loopback_only":`...)
	b = strconv.AppendUint(b, uint64(r.LoopbackOnly), 10)
	b = append(b, `,"no_timestamps":`...)
	b = strconv.AppendUint(b, uint64(r.NoTimestamps), 10)
	b = append(b, `,"too_young":`...)
	b = strconv.AppendUint(b, uint64(r.TooYoung), 10)
	b = append(b, `,"fin_wait2":`...)
	b = strconv.AppendUint(b, uint64(r.FinWait2), 10)
	return append(b, '}')
}

// Kind returns KindFinding.
func (*Finding) Kind() Kind { return KindFinding }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (f *Finding) MarshalZerologObject(e *zerolog.Event) { f.members(e, new(scratch)) }

func (f *Finding) members(e *zerolog.Event, s *scratch) {
	s.begin(e, f.Time, KindFinding)
	e.Str("id", text(f.ID)).Str("code", text(f.Code)).
		Str("state", f.State.String()).Str("severity", f.Severity.String()).
		Dict("subject", f.Subject.dict(e, s)).Str("summary", text(f.Summary))
	optional(e, "changed", f.Changed)
	evidence := e.CreateDict()
	for i := range f.Evidence {
		if v := &f.Evidence[i]; v.Text != "" {
			evidence.Str(text(v.Name), text(v.Text))
		} else {
			evidence.Float64(text(v.Name), rounded(v.Number))
		}
	}
	remedies := e.CreateArray()
	for i := range f.Remedies {
		r := &f.Remedies[i]
		o := e.CreateDict().Str("do", text(r.Do)).Str("why", text(r.Why))
		optional(o, "buys", r.Buys)
		optional(o, "caveat", r.Caveat)
		remedies.Dict(o)
	}
	e.Dict("evidence", evidence).Float64("confidence", rounded(min(max(f.Confidence, 0), 1))).
		Str("wrong_if", text(f.WrongIf)).Array("remedies", remedies)
	flag(e, "truncated", f.Truncated)
}

func (f *Finding) shorten(keep int) Event {
	c := *f
	c.Truncated = true
	c.Evidence, c.Remedies = first(f.Evidence, keep), first(f.Remedies, keep)
	return &c
}

func (s *Subject) dict(e *zerolog.Event, c *scratch) *zerolog.Event {
	o := e.CreateDict()
	if s.NetNS != 0 {
		o.Uint32("netns", s.NetNS)
	}
	c.optionalAddr(o, "laddr", s.Laddr)
	if s.Lport != 0 {
		o.Uint16("lport", s.Lport)
	}
	c.optionalAddr(o, "raddr", s.Raddr)
	if s.Rport != 0 {
		o.Uint16("rport", s.Rport)
	}
	if s.PID != 0 {
		o.Uint32("pid", s.PID)
	}
	optional(o, "comm", s.Comm)
	optional(o, "file", s.File)
	if s.Line != 0 {
		o.Uint32("line", s.Line)
	}
	return o
}

func (s *scratch) optionalAddr(e *zerolog.Event, key string, a netip.Addr) {
	if a.IsValid() {
		e.RawJSON(key, s.address(a, 0))
	}
}

// cleanAddr returns an address as it stands in JSON.
func cleanAddr(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// rounded returns v with three decimals, which is more than any rate is known
// to; JSON has no number for what is not finite, that becomes 0.
func rounded(v float64) float64 {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0
	case math.Abs(v) >= 1e12: // no decimals to speak of, and v*1000 would not be exact
		return v
	}
	return math.Round(v*1000) / 1000
}

// Canonical returns ev as a reader of the log gets it: texts cleaned, numbers
// rounded, lists that do not fit into a line cut. What draws conclusions from
// a log and from the run that writes it needs it, to draw the same ones.
func (e *Encoder) Canonical(ev Event) (Event, error) { return Decode(e.Append(nil, ev)) }
