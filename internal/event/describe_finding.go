// SPDX-License-Identifier: Apache-2.0

package event

const (
	docPortsTotal = "ports that connect() may choose from: the range minus reserved ports and those taken by listen() or bind()"
	docNetNS      = "inode of the network namespace"
	docLocalAddr  = "local address as seen from this host; IPv4-mapped addresses are shown as IPv4"
	docRemoteAddr = "remote address as seen from this host; IPv4-mapped addresses are shown as IPv4"
)

func addrSchema(doc string) map[string]any {
	return with(typed("string", doc), "anyOf", []any{map[string]any{"format": "ipv4"}, map[string]any{"format": "ipv6"}})
}

func numberSchema(doc string) map[string]any { return with(typed("number", doc), "minimum", 0) }

func refusedSchema() map[string]any {
	u32 := countSchema[uint32]
	return object("TIME_WAIT sockets that connect() may not take over, by reason", []member{
		inner("disabled", u32("tcp_tw_reuse is 0")),
		inner("loopback_only", u32("tcp_tw_reuse is 2, and it is no loopback connection")),
		inner("no_timestamps", u32("the peer negotiated no timestamps")),
		inner("too_young", u32("within tcp_tw_reuse_delay")),
		inner("fin_wait2", u32("the peer's FIN is awaited")),
	})
}

func describeDestinations() description {
	texts := typed("string", "")
	return plain[Destinations](KindDestinations, "the port budgets of the busiest destinations: from one local address to one remote address and port",
		[]member{
			timeMember(func(d *Destinations) *Header { return &d.Header }),
			value("destinations", listOf("the busiest first", destinationSchema()), func(d *Destinations) *[]Destination { return &d.List }),
			value("namespaces", listOf("what decides about ports in the network namespaces of these destinations, as far as it is known",
				object("one network namespace", append([]member{
					inner(nameNetNS, countSchema[uint32](docNetNS)),
					inner("sysctls", mapOf("full name of a sysctl: its value", texts)),
				}, opt(inner("listening", typed("string", "ports of sockets in LISTEN, in the form of ip_local_reserved_ports; left out: not known")))...))),
				func(d *Destinations) *[]NamespacePorts { return &d.Namespaces }),
			count("omitted", "destinations that are not in the list", func(d *Destinations) *uint64 { return &d.Omitted }),
			count("evicted", "destinations forgotten for want of room, since the start of the run", func(d *Destinations) *uint64 { return &d.Evicted }),
		})
}

func destinationSchema() map[string]any {
	u16, u32, u64 := countSchema[uint16], countSchema[uint32], countSchema[uint64]
	return object("one destination", append([]member{
		inner(nameNetNS, u32(docNetNS)),
		inner("rport", u16("remote port")),
		inner("ports_total", u32(docPortsTotal)),
		inner("ports_reserved", u32("ports of the range that are in ip_local_reserved_ports")),
		inner("ports_blocked", u32("ports of the range that are taken by listen(), or by bind() without IP_BIND_ADDRESS_NO_PORT")),
		inner("in_use", u32("ports in use by open connections to this destination")),
		inner("time_wait", u32("ports in TIME_WAIT towards this destination")),
		inner("reusable", u32("of these, those that connect() would take over now")),
		inner("refused", refusedSchema()),
		inner("timestamps", enumSchema("whether connections to this destination negotiate TCP timestamps", timestampNames[:])),
		inner("rate", numberSchema("connections begun per second")),
		inner("rate_out", numberSchema("ports given back per second")),
		inner("sustainable_rate", numberSchema("connections per second, closed by this host first, that these ports suffice for if each holds its port for 60 s; "+
			"the timer of the kernel may add 2 s (HZ=250), 4.1 s (HZ=1000) or 5.1 s (HZ=100)")),
		inner("reused", u64("TIME_WAIT sockets that connect() took over, since the start of the run")),
		inner("failed", u64("connect() calls of the kernel that failed, since the start of the run")),
		inner("failed_calls", u64("calls of programs that failed, since the start of the run: of programs built by Go only, each taken for net.Dial, which makes 3 calls of the kernel (one that succeeds at a later try counts in part)")),
		inner("closed_here", u64("connections that this host closed first, which leaves TIME_WAIT, since the start of the run")),
		inner("closed_there", u64("connections that the peer closed first, since the start of the run")),
		inner("closed_reset", u64("connections that ended by RST, since the start of the run")),
		inner("bound", u32("of the ports in use and in TIME_WAIT, those taken by bind() without IP_BIND_ADDRESS_NO_PORT")),
	}, opt(
		inner("laddr", addrSchema(docLocalAddr)),
		inner("raddr", addrSchema(docRemoteAddr)),
		inner("reusable_in_ms", u32("ms until the youngest of refused.too_young can be taken over; left out: there is none")),
		inner("exhausted_in_s", numberSchema("seconds until the ports are used up, 0: they are; left out: no forecast")),
		inner("pid", u32("process that opened most of the recent connections, in the initial pid namespace; left out: none did, as when a program is run anew for each")),
		inner("comm", typed("string", "name of the program that did, unprintable bytes as \\xNN or \\u{N}")),
		inner("unknown", listOf("parts of this budget that are not known, in words", typed("string", ""))),
	)...))
}

func describeFinding() description {
	return plain[Finding](KindFinding, "a conclusion from the events before it",
		[]member{
			timeMember(func(f *Finding) *Header { return &f.Header }),
			str("id", "the same in all events of one finding", func(f *Finding) *string { return &f.ID }),
			str("code", "what kind of finding it is, see twscope explain", func(f *Finding) *string { return &f.Code }),
			enum("state", "open: first event of this id; update: its numbers have changed; close: its cause has gone", findingStateNames[:],
				func(f *Finding) *FindingState { return &f.State }),
			enum("severity", "critical: connections fail; warning: something is about to fail, or a setting does not do what it is set for; info: nothing fails",
				severityNames[:], func(f *Finding) *Severity { return &f.Severity }),
			value("subject", subjectSchema(), func(f *Finding) *Subject { return &f.Subject }),
			str("summary", "what is the case, in one sentence", func(f *Finding) *string { return &f.Summary }),
		},
		opt(str("changed", "what has changed since the event before of this id", func(f *Finding) *string { return &f.Changed })),
		[]member{
			field("evidence", mapOf("the numbers and texts behind it", map[string]any{"type": []string{"number", "string"}}),
				func(f *Finding) *[]Fact { return &f.Evidence }, parseEvidence),
			field("confidence", with(numberSchema("from 0 to 1"), "maximum", 1), func(f *Finding) *float64 { return &f.Confidence }, parseNumber),
			str("wrong_if", "what would prove it wrong", func(f *Finding) *string { return &f.WrongIf }),
			value("remedies", listOf("what helps, checked against this host, the best first",
				object("one remedy", append([]member{
					inner("do", typed("string", "what to do")),
					inner("why", typed("string", "why it helps")),
				}, opt(
					inner("buys", typed("string", "how much it buys, with the formula; left out: that cannot be told")),
					inner("caveat", typed("string", "its price and precondition; left out: none")),
				)...))), func(f *Finding) *[]Remedy { return &f.Remedies }),
		},
		opt(truncatedMember(func(f *Finding) *bool { return &f.Truncated })))
}

func subjectSchema() map[string]any {
	port := func(doc string) map[string]any { return with(countSchema[uint16](doc), "minimum", 1) }
	return object("what it is about; members that do not apply are left out", opt(
		inner(nameNetNS, countSchema[uint32](docNetNS)),
		inner("laddr", addrSchema(docLocalAddr)),
		inner("lport", port("local port")),
		inner("raddr", addrSchema(docRemoteAddr)),
		inner("rport", port("remote port")),
		inner("pid", countSchema[uint32]("process, in the initial pid namespace")),
		inner("comm", typed("string", "name of that process, unprintable bytes as \\xNN or \\u{N}")),
		inner("file", typed("string", "path of a configuration file")),
		inner("line", countSchema[uint32]("line of that file, from 1")),
	))
}
