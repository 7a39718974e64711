// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"net/netip"
)

// Refused counts TIME_WAIT sockets that connect() may not take over, by what
// tcp_twsk_unique answers.
type Refused struct {
	Disabled     uint32 `json:"disabled"`      // tcp_tw_reuse is 0
	LoopbackOnly uint32 `json:"loopback_only"` // tcp_tw_reuse is 2, and it is no loopback connection
	NoTimestamps uint32 `json:"no_timestamps"` // the peer negotiated none
	TooYoung     uint32 `json:"too_young"`     // within tcp_tw_reuse_delay
	FinWait2     uint32 `json:"fin_wait2"`     // the substate is FIN_WAIT2 (kernels since 6.12)
}

// Total returns the sum of all reasons.
func (r *Refused) Total() uint64 {
	return uint64(r.Disabled) + uint64(r.LoopbackOnly) + uint64(r.NoTimestamps) + uint64(r.TooYoung) + uint64(r.FinWait2)
}

// TimestampUse tells whether the connections to a destination negotiate TCP
// timestamps.
type TimestampUse uint8

// The answers.
const (
	TimestampsUnknown TimestampUse = iota // "unknown"
	TimestampsYes                         // "yes"
	TimestampsNo                          // "no"
	TimestampsMixed                       // "mixed"
)

// Cause tells why connect() failed.
type Cause uint8

// The causes.
const (
	CauseUnknown              Cause = iota // left out of JSON: nobody has looked
	CauseTimeWaitNotReusable               // "time_wait_not_reusable"
	CausePortsInUse                        // "ports_in_use": by connections that are open
	CauseRangeTiny                         // "range_tiny"
	CauseReserved                          // "reserved": by ip_local_reserved_ports
	CauseBoundWithoutNoPort                // "bound_without_no_port": by bind() without IP_BIND_ADDRESS_NO_PORT, or listen()
	CauseExplicitBindConflict              // "explicit_bind_conflict": the local port was chosen before, and its 4-tuple is taken
	CauseNoRouteOrAddress                  // "no_route_or_address"
	CauseOther                             // "other": the numbers do not explain it
)

// Destination is the budget of local ports from one local address to one
// remote address and port, at one instant. Addresses are as in Socket.
type Destination struct {
	NetNS uint32     `json:"netns"`
	Laddr netip.Addr `json:"laddr"`
	Raddr netip.Addr `json:"raddr"`
	Rport uint16     `json:"rport"`
	// PortsTotal is what connect() may choose from: the range minus the
	// reserved and the blocked ports.
	PortsTotal    uint32  `json:"ports_total"`
	PortsReserved uint32  `json:"ports_reserved"` // of the range, those in ip_local_reserved_ports
	PortsBlocked  uint32  `json:"ports_blocked"`  // of the range, those taken by listen() or by bind()
	InUse         uint32  `json:"in_use"`         // by open connections
	TimeWait      uint32  `json:"time_wait"`
	Reusable      uint32  `json:"reusable"` // of TimeWait, those that connect() would take over now
	Refused       Refused `json:"refused"`
	// ReusableInMS is when the youngest of Refused.TooYoung can be taken
	// over, in ms; 0: there is none.
	ReusableInMS    uint32       `json:"reusable_in_ms"`
	Timestamps      TimestampUse `json:"timestamps"`
	Rate            float64      `json:"rate"`             // connections begun per second
	RateOut         float64      `json:"rate_out"`         // ports given back per second
	SustainableRate float64      `json:"sustainable_rate"` // connections per second, closed here first, that the ports suffice for at 60 s each
	ExhaustedInS    float64      `json:"exhausted_in_s"`   // seconds until the ports are used up; below 0: no forecast, left out of JSON
	// Totals since the start of the run.
	Reused      uint64   `json:"reused"`       // TIME_WAIT sockets that connect() took over
	Failed      uint64   `json:"failed"`       // connect() calls of the kernel that failed
	FailedCalls uint64   `json:"failed_calls"` // calls of programs built by Go that failed, each taken for net.Dial, which tries three times
	ClosedHere  uint64   `json:"closed_here"`  // connections that this host closed first, which leaves TIME_WAIT
	ClosedThere uint64   `json:"closed_there"` // that the peer closed first
	ClosedReset uint64   `json:"closed_reset"` // that ended by RST
	Bound       uint32   `json:"bound"`        // of InUse and TimeWait, ports taken by bind() without IP_BIND_ADDRESS_NO_PORT
	PID         uint32   `json:"pid"`          // who opened most of the recent connections; 0: no process did
	Comm        string   `json:"comm"`
	Unknown     []string `json:"unknown"` // parts of the budget that are not known, in words
}

// UnmarshalJSON reads a destination; one without "exhausted_in_s" has no
// forecast.
func (d *Destination) UnmarshalJSON(raw []byte) error {
	type plain Destination // without methods
	p := plain{ExhaustedInS: -1}
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	*d = Destination(p)
	d.Laddr, d.Raddr = cleanAddr(d.Laddr), cleanAddr(d.Raddr)
	return nil
}

// NamespacePorts is what decides about ports in one network namespace, at one
// instant.
type NamespacePorts struct {
	NetNS uint32 `json:"netns"`
	// Sysctls are those that the budgets depend on, by full name, such as
	// "net.ipv4.ip_local_port_range". A name without value is not there.
	Sysctls map[string]string `json:"sysctls"`
	// Listening are the ports of sockets in LISTEN, in the form of
	// ip_local_reserved_ports: "22,80,8000-8010". Empty: none, or not known,
	// which HasListening tells.
	Listening    string `json:"listening"`
	HasListening bool   `json:"-"`
}

// UnmarshalJSON reads what decides about ports in a namespace.
func (n *NamespacePorts) UnmarshalJSON(raw []byte) error {
	type plain NamespacePorts
	p := struct {
		*plain
		Listening *string `json:"listening"`
	}{plain: (*plain)(n)}
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	if n.HasListening = p.Listening != nil; n.HasListening {
		n.Listening = *p.Listening
	}
	return nil
}

// Destinations are the port budgets of the busiest destinations.
type Destinations struct {
	Header
	List       []Destination
	Namespaces []NamespacePorts // those that the list names, as far as they are known
	Omitted    uint64           // destinations that are not in the list
	Evicted    uint64           // destinations forgotten for want of room, since the start of the run
}
