// SPDX-License-Identifier: Apache-2.0

package event

import "slices"

// The members that Decode and the schema treat on their own.
const (
	nameTime  = "time"
	nameEvent = "event"
	nameNetNS = "netns"
)

// description is all that there is to know about the JSON of one kind.
type description struct {
	kind    Kind
	doc     string
	create  func() Event
	members []member // without "event"
}

// descriptions describes every kind, in the order of Kinds.
var descriptions = []description{
	describeStart(), describeCensus(), describeTimeWait(), describeTimeWaitEnd(), describeTWReuse(),
	describeConnectFail(), describeSYN(), describeSYNRefused(), describePAWSReject(), describeSYNReject(), describeListenDrop(),
	describeFinding(), describeDestinations(), describeSources(), describeSysctlChange(), describeLoss(), describeStats(), describeStop(),
}

const (
	docTimestamps = "TCP timestamps were negotiated"
	docTSRecent   = "ts_recent, the last TSval taken from the peer, in the peer's ticks; left out without timestamps"
	docBound      = "the local port was taken by bind() without IP_BIND_ADDRESS_NO_PORT; left out when false"
	docAge        = "ms since it entered TIME_WAIT"
)

// onSocket describes an event with a Socket.
func onSocket[T any, E eventOf[T]](k Kind, doc string, at func(E) (*Header, *Socket), list ...[]member) description {
	members := []member{timeMember(func(ev E) *Header { h, _ := at(ev); return h })}
	members = append(members, socketMembers(func(ev E) *Socket { _, s := at(ev); return s })...)
	return plain[T, E](k, doc, members, slices.Concat(list...))
}

// plain describes an event.
func plain[T any, E eventOf[T]](k Kind, doc string, list ...[]member) description {
	return description{kind: k, doc: doc, create: func() Event { return E(new(T)) }, members: slices.Concat(list...)}
}

// eventOf is the pointer type that makes T an event.
type eventOf[T any] interface {
	*T
	Event
}

func describeTimeWait() description {
	return onSocket(KindTimeWait, "a socket has entered TIME_WAIT",
		func(t *TimeWait) (*Header, *Socket) { return &t.Header, &t.Socket },
		[]member{
			enum("role", "the side of the connection that this host is", roleNames[:], func(t *TimeWait) *Role { return &t.Role }),
			enum("substate", "fin_wait2: closed by us, the peer's FIN is awaited", substateNames[:], func(t *TimeWait) *Substate { return &t.Substate }),
			boolean("timestamps", docTimestamps, func(t *TimeWait) *bool { return &t.Timestamps }),
		},
		opt(count("ts_recent", docTSRecent, func(t *TimeWait) *uint32 { return &t.TSRecent })),
		[]member{count("timeout_ms", "ms for which the kernel will keep it", func(t *TimeWait) *uint32 { return &t.TimeoutMS })},
		opt(boolean("bound", docBound, func(t *TimeWait) *bool { return &t.Bound })))
}

func describeCensus() description {
	return onSocket(KindCensus, "a socket that was in TIME_WAIT before twscope began to watch its network namespace",
		func(c *Census) (*Header, *Socket) { return &c.Header, &c.Socket },
		[]member{
			enum("role", "the side of the connection that this host is", roleNames[:], func(c *Census) *Role { return &c.Role }),
			enum("substate", "fin_wait2: closed by us, the peer's FIN is awaited", substateNames[:], func(c *Census) *Substate { return &c.Substate }),
			boolean("timestamps", docTimestamps, func(c *Census) *bool { return &c.Timestamps }),
		},
		opt(count("ts_recent", docTSRecent, func(c *Census) *uint32 { return &c.TSRecent })),
		[]member{
			count("remaining_ms", "ms until its timer ends", func(c *Census) *uint32 { return &c.RemainingMS }),
			{
				name: "reusable", schema: typed("boolean", "connect() could take it over now"),
				// "refused" holds the value; this member repeats whether it is there.
				set: func(_ Event, raw []byte) error { _, err := parseBool(raw); return err },
			},
		},
		opt(
			field("refused", enumSchema("why connect() would not take it over; left out when reusable", reusableNames[1:]),
				func(c *Census) *Reusable { return &c.Reuse }, func(raw []byte) (Reusable, error) {
					v, err := parseEnum(reusableNames[1:], raw)
					return ReusableNow + 1 + Reusable(v), err
				}),
			count("reuse_in_ms", "with too_young: ms until connect() could take it over", func(c *Census) *uint32 { return &c.ReuseInMS }),
			boolean("bound", docBound, func(c *Census) *bool { return &c.Bound }),
		))
}

func describeTimeWaitEnd() description {
	return onSocket(KindTimeWaitEnd, "a socket has left TIME_WAIT",
		func(t *TimeWaitEnd) (*Header, *Socket) { return &t.Header, &t.Socket },
		[]member{
			enum("reason", "expired: its timer ran out; reused: by connect() of this host; reset: by the peer's RST; "+
				"syn: a new SYN of the peer was accepted; killed: by ss -K or with its namespace; unknown: gone",
				endReasonNames[:], func(t *TimeWaitEnd) *EndReason { return &t.Reason }),
			count("age_ms", docAge, func(t *TimeWaitEnd) *uint32 { return &t.AgeMS }),
		})
}

func describeTWReuse() description {
	return onSocket(KindTWReuse, "connect() took over a socket in TIME_WAIT (tcp_tw_reuse)",
		func(t *TWReuse) (*Header, *Socket) { return &t.Header, &t.Socket },
		[]member{count("age_ms", "ms since the old socket entered TIME_WAIT", func(t *TWReuse) *uint32 { return &t.AgeMS })})
}

func describeConnectFail() description {
	return onSocket(KindConnectFail, "a connect() call of the kernel that failed before a SYN was sent; the local port is left out when none was found",
		func(c *ConnectFail) (*Header, *Socket) { return &c.Header, &c.Socket },
		[]member{
			field("errno", with(typed("string", "name of the errno, or E and its number"), "pattern", "^E[A-Z0-9]+$"),
				func(c *ConnectFail) *int32 { return &c.Errno }, func(raw []byte) (int32, error) {
					s, err := parseString(raw)
					if err != nil {
						return 0, err
					}
					return parseErrno(s)
				}),
			boolean("inferred", "the errno was inferred from the socket's state", func(c *ConnectFail) *bool { return &c.Inferred }),
			count("range_low", "first port of the range that the kernel searched", func(c *ConnectFail) *uint16 { return &c.RangeLow }),
			count("range_high", "last port of that range", func(c *ConnectFail) *uint16 { return &c.RangeHigh }),
		},
		opt(
			enum("cause", "why it failed, by the budget of ports at that instant; left out: not looked at", causeNames[:],
				func(c *ConnectFail) *Cause { return &c.Cause }),
			value("refused", refusedSchema(), func(c *ConnectFail) *Refused { return &c.Refused }),
			count("ports_total", docPortsTotal, func(c *ConnectFail) *uint32 { return &c.PortsTotal }),
			count("ports_time_wait", "of these, ports in TIME_WAIT towards this destination", func(c *ConnectFail) *uint32 { return &c.PortsTimeWait }),
			count("ports_in_use", "of these, ports in use towards this destination", func(c *ConnectFail) *uint32 { return &c.PortsInUse }),
			enum("timestamps", "whether connections to this destination negotiate TCP timestamps", timestampNames[:],
				func(c *ConnectFail) *TimestampUse { return &c.Timestamps }),
			count("per_call", "failures of the kernel for one failed call of the program: 3 for a program built by Go, which is taken to call net.Dial; left out: not known",
				func(c *ConnectFail) *uint8 { return &c.PerCall }),
		))
}

func describeSYN() description {
	return onSocket(KindSYN, "a SYN has arrived at a listener of this host",
		func(y *SYN) (*Header, *Socket) { return &y.Header, &y.Socket },
		[]member{boolean("timestamps", "the SYN carried the timestamps option", func(y *SYN) *bool { return &y.Timestamps })},
		opt(
			count("tsval", "TSval of the SYN, in the peer's ticks; left out without timestamps", func(y *SYN) *uint32 { return &y.TSval }),
			count("ttl", docTTL, func(y *SYN) *uint8 { return &y.TTL }),
			str("fingerprint", docFingerprint, func(y *SYN) *string { return &y.Fingerprint }),
		),
		[]member{boolean("validated", "the handshake completed, so the source address is not spoofed", func(y *SYN) *bool { return &y.Validated })})
}

func describeSYNRefused() description {
	return onSocket(KindSYNRefused, "a peer refused a SYN of this host: it answered with a bare ACK, or not at all",
		func(r *SYNRefused) (*Header, *Socket) { return &r.Header, &r.Socket },
		[]member{
			enum("signature", "silence: no answer before the retransmission; challenge_ack: a bare ACK that acknowledges none of the SYN",
				signatureNames[:], func(r *SYNRefused) *Signature { return &r.Signature }),
			count("attempts", "SYNs of this connect() refused so far, this one included", func(r *SYNRefused) *uint32 { return &r.Attempts }),
			count("delay_ms", "ms since the first SYN of this connect()", func(r *SYNRefused) *uint32 { return &r.DelayMS }),
		})
}

func describeLoss() description {
	return plain[Loss](KindLoss, "something is missing from the log", []member{
		timeMember(func(l *Loss) *Header { return &l.Header }),
		str("hop", "where it was lost: unseen, recursion, ring, sample, decode, owner, rate, write, encode", func(l *Loss) *string { return &l.Hop }),
		count("count", "how many, since the loss event before of the same hop and kind", func(l *Loss) *uint64 { return &l.Count }),
	}, opt(
		str("of", "the kind of event that is missing; left out when several are", func(l *Loss) *string { return &l.Of }),
		str("why", "the cause and the remedy", func(l *Loss) *string { return &l.Why }),
	))
}
