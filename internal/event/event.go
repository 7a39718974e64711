// SPDX-License-Identifier: Apache-2.0

// Package event is the public vocabulary of twscope: one Go type per event of
// the JSON event log, its JSON names, and the JSON Schema of every line.
//
// The format is versioned by SchemaVersion. Within one major version fields
// and event kinds are only ever added.
package event

import (
	"net/netip"

	"github.com/rs/zerolog"
)

// SchemaVersion is the version of the event log format, "major.minor". It
// stands in every start event and in the JSON Schema.
const SchemaVersion = "1.3"

// Kind names an event; its text is the value of the JSON member "event".
type Kind uint8

// The event kinds, in the order in which documentation lists them.
const (
	KindUnknown Kind = iota
	KindStart
	KindCensus
	KindTimeWait
	KindTimeWaitEnd
	KindTWReuse
	KindConnectFail
	KindSYN
	KindSYNRefused
	KindPAWSReject
	KindSYNReject
	KindListenDrop
	KindFinding
	KindDestinations
	KindSources
	KindSysctlChange
	KindLoss
	KindStats
	KindStop
)

// Event is one line of the event log.
//
// Events are passed by pointer and are owned by the source that made them:
// a consumer that keeps one beyond the call must copy it.
type Event interface {
	Kind() Kind
	// UnixNano is the event's time in nanoseconds since the Unix epoch, UTC.
	UnixNano() int64
	// MarshalZerologObject writes the members of the JSON object, "time"
	// and "event" first.
	zerolog.LogObjectMarshaler
}

// Header is what every event carries.
type Header struct {
	Time int64 // nanoseconds since the Unix epoch, UTC; JSON: RFC 3339 with nanoseconds
	// Strangers is how many members of the line Decode passed over because
	// this version does not know them. It is not in JSON, and not known of an
	// *Unknown.
	Strangers int
}

func (h *Header) setStrangers(n int) { h.Strangers = n }

// Unread returns Strangers.
func (h *Header) Unread() int { return h.Strangers }

// UnixNano returns the time of the event.
func (h *Header) UnixNano() int64 { return h.Time }

// Owner is who called connect(), or for accepted sockets who listens; never
// the task that happened to be on the CPU. The zero Owner is "not known".
type Owner struct {
	PID    uint32 // thread group id in the initial pid namespace; 0: not known
	Comm   string // name of the thread group's leader, made printable
	Cgroup string // path below the cgroup v2 mount; empty: not known
}

// Socket identifies a TCP connection as seen from this host. IPv4-mapped IPv6
// addresses are shown as IPv4. Ports are in host byte order.
type Socket struct {
	NetNS  uint32 // inode of the network namespace, as in `ls -i /run/netns`
	Local  netip.AddrPort
	Remote netip.AddrPort
	Owner  Owner
}

// Connection returns the socket of an event that has one.
func (s *Socket) Connection() *Socket { return s }

// Role tells which side of a connection this host is.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota // JSON "unknown"
	RoleClient              // JSON "client": this host called connect()
	RoleServer              // JSON "server": this host accepted it
)

// Substate is the kernel's tw_substate of a socket in TIME_WAIT.
type Substate uint8

// The substates.
const (
	SubstateTimeWait Substate = iota // JSON "time_wait"
	SubstateFinWait2                 // JSON "fin_wait2": closed by us, the peer's FIN is awaited
)

// TimeWait says that a socket has entered TIME_WAIT.
type TimeWait struct {
	Header
	Socket
	Role       Role
	Substate   Substate
	Timestamps bool   // TCP timestamps were negotiated
	TSRecent   uint32 // ts_recent: the last TSval taken from the peer; left out of JSON without timestamps
	TimeoutMS  uint32 // how long the kernel will keep it, in ms
	Bound      bool   // the port was taken by bind() without IP_BIND_ADDRESS_NO_PORT; left out of JSON when false
}

// Reusable tells whether, and why not, connect() could take over a TIME_WAIT
// socket (tcp_twsk_unique). JSON member "refused"; absent when reusable.
type Reusable uint8

// The answers of tcp_twsk_unique, in the order in which it asks.
const (
	ReusableNow          Reusable = iota // JSON: "reusable": true
	ReuseRefusedFinWait2                 // "fin_wait2": the substate is FIN_WAIT2 (kernels since 6.12)
	ReuseRefusedLoopback                 // "loopback_only": tcp_tw_reuse=2 and not a loopback socket
	ReuseRefusedNoTS                     // "no_timestamps": the peer negotiated none
	ReuseRefusedDisabled                 // "disabled": tcp_tw_reuse=0
	ReuseRefusedTooYoung                 // "too_young": within tcp_tw_reuse_delay
)

// Census is one socket that was in TIME_WAIT before twscope started, or
// before it found its network namespace.
type Census struct {
	Header
	Socket      // the owner is not known: a TIME_WAIT socket has none
	Role        Role
	Substate    Substate
	Timestamps  bool
	TSRecent    uint32
	RemainingMS uint32   // until its timer ends, in ms
	Reuse       Reusable // would connect() take it over now
	ReuseInMS   uint32   // with ReuseRefusedTooYoung: ms until it could be
	Bound       bool     // as in TimeWait
}

// EndReason tells why a TIME_WAIT socket ended.
type EndReason uint8

// The reasons.
const (
	EndExpired EndReason = iota // "expired": its timer ran out
	EndReused                   // "reused": connect() on this host took it over
	EndReset                    // "reset": the peer's RST killed it (RFC 1337)
	EndSYN                      // "syn": a new SYN of the peer was accepted in its place
	EndKilled                   // "killed": by ss -K, or with its namespace
	EndUnknown                  // "unknown": gone, the rung in use cannot tell why
)

// TimeWaitEnd says that a socket has left TIME_WAIT.
type TimeWaitEnd struct {
	Header
	Socket
	Reason EndReason
	AgeMS  uint32 // since it entered TIME_WAIT, in ms
}

// TWReuse says that connect() took over a TIME_WAIT socket.
type TWReuse struct {
	Header
	Socket        // the owner is that of the new connection
	AgeMS  uint32 // since the old socket entered TIME_WAIT, in ms
}

// ConnectFail is one connect() that failed in the port search
// (inet_hash_connect) or right after it, before a SYN was sent. It counts
// kernel calls: Go's net.Dial retries EADDRNOTAVAIL twice, so one failed Dial
// is three of these, see PerCall.
type ConnectFail struct {
	Header
	Socket         // the local port is 0 when none was found
	Errno    int32 // positive; JSON "errno" is its name, such as "EADDRNOTAVAIL"
	Inferred bool  // the errno was inferred from the socket's state, not returned to us
	// The range that the kernel searched: net.ipv4.ip_local_port_range of the
	// namespace, or the socket's IP_LOCAL_PORT_RANGE.
	RangeLow, RangeHigh uint16
	// Cause and what follows is what the budget of the destination said at
	// that instant; it is in JSON only with a cause.
	Cause         Cause
	Refused       Refused // TIME_WAIT sockets that could not be taken over, by reason
	PortsTotal    uint32  // as in Destination
	PortsTimeWait uint32
	PortsInUse    uint32
	Timestamps    TimestampUse
	// PerCall is how many failures of the kernel one failed call of the
	// program makes: 3 for a program built by Go, which is taken to call
	// net.Dial, though it may call connect() itself; 0: not known, left out of
	// JSON.
	PerCall uint8
}

// SYN is a SYN that arrived at a listener of this host.
type SYN struct {
	Header
	Socket             // the owner is who listens
	Timestamps  bool   // it carried the timestamps option
	TSval       uint32 // left out of JSON without timestamps
	TTL         uint8  // or IPv6 hop limit; 0: not known (left out)
	Fingerprint string // see Fingerprint; empty: not known (left out)
	Validated   bool   // the handshake completed, so the source address is not spoofed
}

// Signature tells how a peer refused our SYN.
type Signature uint8

// The signatures.
const (
	SignatureSilence      Signature = iota // "silence": no answer before the retransmission
	SignatureChallengeACK                  // "challenge_ack": a bare ACK that acknowledges none of our SYN
)

// SYNRefused is one SYN of ours that a peer refused: it answered with a bare
// ACK, or not at all. A bare ACK proves an old connection at the peer; it does
// not prove that PAWS was the reason.
type SYNRefused struct {
	Header
	Socket
	Signature Signature
	Attempts  uint32 // how many SYNs of this connect() have been refused, this one included
	DelayMS   uint32 // since the first SYN of this connect(), in ms
}

// Where tells which state the socket was in that rejected a segment.
type Where uint8

// The places of a PAWS reject.
const (
	WhereUnknown     Where = iota // "unknown": from a counter, which does not tell
	WhereTimeWait                 // "time_wait": tcp_timewait_state_process
	WhereFinWait2                 // "fin_wait2": the same, substate FIN_WAIT2
	WhereEstablished              // "established": tcp_validate_incoming
	WhereSYNRecv                  // "syn_recv": tcp_check_req
	WhereSYNSent                  // "syn_sent": tcp_rcv_synsent_state_process
	WherePassive                  // "passive": the tw_recycle check of kernels up to 4.11
)

// Segment is the kind of TCP segment.
type Segment uint8

// The kinds of segments.
const (
	SegmentUnknown Segment = iota
	SegmentSYN             // "syn"
	SegmentACK             // "ack": no data
	SegmentData            // "data"
	SegmentFIN             // "fin"
	SegmentRST             // "rst"
)

// Reply is what the kernel answered to a rejected segment.
type Reply uint8

// The replies.
const (
	ReplyUnknown     Reply = iota // left out of JSON
	ReplyACK                      // "ack"
	ReplyRateLimited              // "rate_limited": tcp_invalid_ratelimit held the ACK back
	ReplyNone                     // "none"
	ReplyRST                      // "rst"
)

// PAWSReject is one segment refused as an old duplicate (RFC 7323 section 5).
// On the counter rung one event stands for Count segments and has no socket.
type PAWSReject struct {
	Header
	Socket
	Where    Where
	Segment  Segment
	TSval    uint32 // the segment's timestamp, in the peer's ticks
	TSRecent uint32 // what the socket remembered; 0: not known, left out of JSON
	Delta    int32  // TSval - TSRecent mod 2^32, signed, in ticks; negative: older; 0 and left out when TSRecent is
	AgeMS    uint32 // since TSRecent was taken, in ms; HasAge tells if known
	HasAge   bool
	Reply    Reply
	Reason   string // the kernel's drop reason, such as "TCP_RFC7323_TW_PAWS"; empty: it gave none
	Counter  string // the MIB counter that moved, such as "PAWSTimewait"; empty: none
	Count    uint64 // segments that this event stands for; 0 and 1 both mean one
	// Of a SYN, on rungs that see the packet:
	Seq         uint32 // its sequence number
	TTL         uint8  // or IPv6 hop limit; 0: not known (left out)
	Fingerprint string // see Fingerprint; empty: not known (left out)
	Judgement
}
