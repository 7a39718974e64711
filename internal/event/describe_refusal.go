// SPDX-License-Identifier: Apache-2.0

package event

// judgementMembers are those of a Judgement; they are there together.
func judgementMembers[E Event](at func(E) *Judgement) []member {
	return opt(
		enum("verdict", "why the SYN was refused; left out: no SYN, or not looked at", verdictNames[:],
			func(ev E) *Verdict { return &at(ev).Verdict }),
		field("log10_odds", typed("number", "log10 of the odds for the verdict against the next best one; 0 for unknown"),
			func(ev E) *float64 { return &at(ev).Odds }, parseNumber),
		member{
			name:   "offset_s",
			schema: typed("number", "s by which the clock of the SYN differs from the one that the socket remembered, at 1000 ticks per second; negative: behind"),
			set: func(ev Event, raw []byte) (err error) {
				j := at(ev.(E))
				j.OffsetS, err = parseNumber(raw)
				j.HasOffset = err == nil
				return err
			},
		},
		str("because", "what speaks for the verdict", func(ev E) *string { return &at(ev).Because }),
	)
}

const (
	docTTL         = "TTL or IPv6 hop limit as it arrived"
	docFingerprint = "what its options tell about the host that sent it"
	docReply       = "the kernel's answer; rate_limited: held back by tcp_invalid_ratelimit"
)

// ageMember is an age that is left out when it is not known.
func ageMember[E Event](doc string, at func(E) (*uint32, *bool)) member {
	return member{name: "age_ms", schema: countSchema[uint32](doc), set: func(ev Event, raw []byte) (err error) {
		age, has := at(ev.(E))
		*age, err = parseCount[uint32](raw)
		*has = err == nil
		return err
	}}
}

func describePAWSReject() description {
	return onSocket(KindPAWSReject, "a segment was refused as an old duplicate (PAWS, RFC 7323 section 5)",
		func(p *PAWSReject) (*Header, *Socket) { return &p.Header, &p.Socket },
		[]member{enum("where", "the state of the socket that refused it; passive: the tw_recycle check of kernels up to 4.11; unknown: known from a counter only",
			whereNames[:], func(p *PAWSReject) *Where { return &p.Where })},
		opt(
			enum("segment", "the kind of segment; ack: one without data", segmentNames[:], func(p *PAWSReject) *Segment { return &p.Segment }),
			count("tsval", "TSval of the segment, in the peer's ticks", func(p *PAWSReject) *uint32 { return &p.TSval }),
			count("ts_recent", "ts_recent of the socket, in the peer's ticks", func(p *PAWSReject) *uint32 { return &p.TSRecent }),
			integer("delta", "tsval - ts_recent modulo 2^32, signed, in ticks; negative: older", func(p *PAWSReject) *int32 { return &p.Delta }),
			ageMember("ms since ts_recent was taken", func(p *PAWSReject) (*uint32, *bool) { return &p.AgeMS, &p.HasAge }),
			enum("reply", docReply, replyNames[:], func(p *PAWSReject) *Reply { return &p.Reply }),
			str("reason", "the kernel's drop reason", func(p *PAWSReject) *string { return &p.Reason }),
			str("counter", "the counter of /proc/net/netstat that moved", func(p *PAWSReject) *string { return &p.Counter }),
			count("count", "segments that this event stands for; left out: one", func(p *PAWSReject) *uint64 { return &p.Count }),
			count("seq", "sequence number of a SYN", func(p *PAWSReject) *uint32 { return &p.Seq }),
			count("ttl", docTTL, func(p *PAWSReject) *uint8 { return &p.TTL }),
			str("fingerprint", docFingerprint, func(p *PAWSReject) *string { return &p.Fingerprint }),
		),
		judgementMembers(func(p *PAWSReject) *Judgement { return &p.Judgement }))
}

func describeSYNReject() description {
	return onSocket(KindSYNReject, "a socket in TIME_WAIT refused a SYN that PAWS let pass; no counter of the kernel tells of it",
		func(r *SYNReject) (*Header, *Socket) { return &r.Header, &r.Socket },
		[]member{
			enum("rule", "sequence: neither TSval nor sequence number is beyond those of the old connection; "+
				"fin_wait2: the peer's FIN is awaited, in which substate no SYN is accepted; "+
				"no_listener: the SYN was acceptable, but nobody listens any more",
				ruleNames[:], func(r *SYNReject) *Rule { return &r.Rule }),
			boolean("timestamps", "the SYN carried the timestamps option", func(r *SYNReject) *bool { return &r.Timestamps }),
		},
		opt(
			count("tsval", "TSval of the SYN, in the peer's ticks; left out without timestamps", func(r *SYNReject) *uint32 { return &r.TSval }),
			count("ts_recent", "ts_recent of the socket, in the peer's ticks; left out: none", func(r *SYNReject) *uint32 { return &r.TSRecent }),
		),
		[]member{
			count("seq", "sequence number of the SYN", func(r *SYNReject) *uint32 { return &r.Seq }),
			count("rcv_nxt", "the sequence number that the socket expected next", func(r *SYNReject) *uint32 { return &r.RcvNxt }),
		},
		opt(
			ageMember(docAge, func(r *SYNReject) (*uint32, *bool) { return &r.AgeMS, &r.HasAge }),
			enum("reply", docReply, replyNames[:], func(r *SYNReject) *Reply { return &r.Reply }),
			count("ttl", docTTL, func(r *SYNReject) *uint8 { return &r.TTL }),
			str("fingerprint", docFingerprint, func(r *SYNReject) *string { return &r.Fingerprint }),
		),
		judgementMembers(func(r *SYNReject) *Judgement { return &r.Judgement }))
}

func describeListenDrop() description {
	return onSocket(KindListenDrop, "a listener dropped connections that were about to be made, because its queues were full; "+
		"counts are since the event before of the same listener; without laddr it is not known which listener",
		func(l *ListenDrop) (*Header, *Socket) { return &l.Header, &l.Socket },
		[]member{
			count("dropped", "SYNs and final ACKs that it dropped", func(l *ListenDrop) *uint64 { return &l.Dropped }),
			count("overflows", "drops of the whole namespace for a full accept queue (ListenOverflows)", func(l *ListenDrop) *uint64 { return &l.Overflows }),
			count("syn_queue", "drops of the whole namespace for a full SYN queue (TCPReqQFullDrop)", func(l *ListenDrop) *uint64 { return &l.SYNQueue }),
			count("cookies", "SYN cookies sent by the whole namespace for a full SYN queue (TCPReqQFullDoCookies)", func(l *ListenDrop) *uint64 { return &l.Cookies }),
		},
		opt(
			count("backlog", "connections that waited for accept() when we looked", func(l *ListenDrop) *uint32 { return &l.Backlog }),
			count("limit", "how many may wait: the least of listen()'s backlog and net.core.somaxconn; left out: not known", func(l *ListenDrop) *uint32 { return &l.Limit }),
		))
}

func describeSources() description {
	return plain[Sources](KindSources, "what is known of the source addresses that matter most: those whose SYNs were refused, those with several timestamp clocks, then the busiest",
		[]member{
			timeMember(func(y *Sources) *Header { return &y.Header }),
			value("sources", listOf("those that matter most first", sourceSchema()), func(y *Sources) *[]Source { return &y.List }),
			count("omitted", "sources that are not in the list", func(y *Sources) *uint64 { return &y.Omitted }),
			count("evicted", "sources forgotten for want of room, since the start of the run", func(y *Sources) *uint64 { return &y.Evicted }),
			count("skipped", "SYNs not looked at, to bound what that costs, since the start of the run", func(y *Sources) *uint64 { return &y.Skipped }),
		})
}

func sourceSchema() map[string]any {
	u32, u64 := countSchema[uint32], countSchema[uint64]
	return object("one source address, as seen from one address of this host", append([]member{
		inner(nameNetNS, u32(docNetNS)),
		inner("syns", u64("SYNs that were looked at, refused ones among them, since the start of the run")),
		inner("completed", u64("handshakes that completed, since the start of the run")),
		inner("class", enumSchema("one_clock: one clock explains nearly all SYNs; shared: several clocks at the same time; "+
			"randomised: the offset differs from connection to connection, from one host or many; restarted: one clock after another", clockClassNames[:])),
		inner("strength", enumSchema("how sure the class is", strengthNames[:])),
		inner("clocks", u32("clocks seen at one instant of the last hour: a lower bound")),
		inner("estimate", u32("the same with those that were likely not seen")),
		inner("low", u32("lower end of the 95 % interval of estimate")),
		inner("high", u32("upper end of it")),
		inner("on_line", u32("connections of the last hour that a clock explains")),
		inner("off_line", u32("those with a completed handshake that none explains")),
		inner("repeated", u64("4-tuples used again within 130 s with the same clock")),
		inner("rewritten", u64("4-tuples used again within 130 s with another clock")),
		inner("refused", u64("SYNs that PAWS refused on sockets in TIME_WAIT")),
		inner("rejected", u64("SYNs that such sockets refused for other reasons")),
		inner("verdicts", mapOf("why: verdict and how many", u64(""))),
		inner("recycle_syns", u64("SYNs to which the check of tcp_tw_recycle was applied")),
		inner("recycle_2_6_32", u64("of these, those that a server with tcp_tw_recycle on Linux 2.6.32 would have refused")),
		inner("recycle_3_10", u64("the same on Linux 3.10")),
	}, opt(
		inner("raddr", addrSchema("the source address")),
		inner("laddr", addrSchema("the address of this host")),
		inner("open", typed("boolean", "there is no upper bound, high is the most that a NAT can hold; left out when false")),
		inner("fingerprints", listOf("kinds of systems that sent SYNs, at most 4", typed("string", ""))),
	)...))
}
