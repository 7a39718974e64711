// SPDX-License-Identifier: Apache-2.0

package eventtest

import (
	"encoding/json"
	"net/netip"

	"github.com/twscope/twscope/internal/event"
)

func (g generator) connectFail(h event.Header) event.Event {
	e := &event.ConnectFail{
		Header: h, Socket: g.socket(), Errno: int32(g.N(200)), Inferred: g.bool(),
		RangeLow: uint16(g.Uint32()), RangeHigh: uint16(g.Uint32()), PerCall: uint8(g.maybe()),
	}
	if g.bool() {
		e.Cause, e.Refused = event.Cause(1+g.N(8)), g.refused()
		e.PortsTotal, e.PortsTimeWait, e.PortsInUse = g.Uint32(), g.Uint32(), g.Uint32()
		e.Timestamps = event.TimestampUse(g.N(4))
	}
	return e
}

func (g generator) refused() event.Refused {
	return event.Refused{
		Disabled: g.Uint32(), LoopbackOnly: g.Uint32(), NoTimestamps: g.Uint32(), TooYoung: g.Uint32(), FinWait2: g.Uint32(),
	}
}

func (g generator) addr() netip.Addr { return g.addrPort().Addr().Unmap() }

// number returns one that has at most three decimals.
func (g generator) number() float64 { return float64(g.Uint32()) / 1000 }

func (g generator) finding(h event.Header) event.Event {
	e := &event.Finding{
		Header: h, ID: g.word(), Code: g.word(), State: event.FindingState(g.N(3)), Severity: event.Severity(g.N(3)),
		Summary: g.word(), Changed: g.text(), Evidence: []event.Fact{}, Confidence: float64(g.N(1001)) / 1000, WrongIf: g.word(),
		Remedies: []event.Remedy{}, Truncated: g.bool(),
		Subject: event.Subject{
			NetNS: g.maybe(), Laddr: g.addr(), Lport: uint16(g.maybe()), Raddr: g.addr(), Rport: uint16(g.maybe()),
			PID: g.maybe(), Comm: g.text(), File: g.text(), Line: g.maybe(),
		},
	}
	for range g.N(4) {
		f := event.Fact{Name: g.word(), Text: g.text()}
		if f.Text == "" {
			f.Number = float64(int64(g.Uint32())-1e9) / 1000
		}
		e.Evidence = append(e.Evidence, f)
		e.Remedies = append(e.Remedies, event.Remedy{Do: g.word(), Why: g.word(), Buys: g.text(), Caveat: g.text()})
	}
	return e
}

func (g generator) destinations(h event.Header) event.Event {
	e := &event.Destinations{Header: h, Omitted: g.Uint64(), Evicted: g.Uint64()}
	for range g.N(4) {
		d := event.Destination{
			NetNS: g.Uint32(), Laddr: g.addr(), Raddr: g.addr(), Rport: uint16(g.Uint32()),
			PortsTotal: g.Uint32(), PortsReserved: g.Uint32(), PortsBlocked: g.Uint32(),
			InUse: g.Uint32(), TimeWait: g.Uint32(), Reusable: g.Uint32(), Refused: g.refused(), ReusableInMS: g.maybe(),
			Timestamps: event.TimestampUse(g.N(4)), Rate: g.number(), RateOut: g.number(), SustainableRate: g.number(),
			ExhaustedInS: -1, Reused: g.Uint64(), Failed: g.Uint64(), FailedCalls: g.Uint64(),
			ClosedHere: g.Uint64(), ClosedThere: g.Uint64(), ClosedReset: g.Uint64(),
			Bound: g.Uint32(), PID: g.maybe(), Comm: g.text(), Unknown: g.list(),
		}
		if g.bool() {
			d.ExhaustedInS = g.number()
		}
		e.List = append(e.List, d)
		n := event.NamespacePorts{NetNS: g.Uint32(), Sysctls: g.texts(), HasListening: g.bool()}
		if n.HasListening {
			n.Listening = g.text()
		}
		e.Namespaces = append(e.Namespaces, n)
	}
	return e
}

// conclusion returns a verdict with the members that each has, and nil half of
// the time.
func (g generator) conclusion() json.RawMessage {
	if g.bool() {
		return nil
	}
	type object map[string]any
	const when = "2026-11-22T12:00:00Z"
	counts := func(names ...string) object {
		o := object{}
		for _, name := range names {
			o[name] = g.Uint64()
		}
		return o
	}
	failures := counts("kernel", "no_port")
	failures["by_cause"] = []object{{"cause": "other", "kernel": g.Uint64()}}
	refusals := counts("syns_unanswered", "syns_stale_ack", "syns_refused_here", "segments_refused_here", "listen_drops")
	refusals["by_verdict"] = g.counts()
	raw, err := json.Marshal(object{
		"schema": "1.0", "answer": g.word(), "basis": g.word(), "severity": "none", "doubts": g.list(),
		"run":         object{"began": when, "ended": when, "duration_s": g.number(), "filters": object{g.word(): g.list()}, "earlier_runs": 0},
		"connections": counts("made", "closed_here", "closed_there", "reset", "accepted", "role_unknown", "active_s", "mean_per_s", "peak_per_s"),
		"time_wait":   counts("before", "entered", "peak", "reused"), "failures": failures, "refusals": refusals,
		"destinations": []object{}, "destinations_omitted": g.Uint64(), "codes": []object{}, "findings": []object{}, "findings_omitted": 0,
		"remedies": []object{}, "remedies_omitted": 0, "not_seen": g.list(), "lost": []object{}, "unreconciled": []object{},
	})
	if err != nil {
		panic(err) // there is nothing in it that JSON has no form for
	}
	return raw
}
