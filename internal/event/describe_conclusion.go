// SPDX-License-Identifier: Apache-2.0

package event

// conclusionSchema describes what package verdict writes.
func conclusionSchema() map[string]any {
	text, u64 := typed("string", ""), countSchema[uint64]
	return object("what the run found; left out: nobody has drawn a conclusion", append([]member{
		inner("schema", with(typed("string", "version of this object, major.minor"), "pattern", `^\d+\.\d+$`)),
		inner("answer", typed("string", "one sentence")),
		inner("basis", typed("string", "what the answer rests on: finding, failures, warning, refused, refused_here, slow_target, not_client, not_server, open, ports_taken, nothing")),
		inner("severity", enumSchema("of the worst finding", append([]string{"none"}, severityNames[:]...))),
		inner("doubts", listOf("why the answer may be wrong", text)),
		inner("run", conclusionRun()),
		inner("connections", conclusionConnections()),
		inner("time_wait", object("sockets in TIME_WAIT, those of servers included", []member{
			inner("before", u64("when the run began")),
			inner("entered", u64("since then")),
			inner("peak", u64("at the same time")),
			inner("reused", u64("taken over by connect()")),
		})),
		inner("failures", conclusionFailures()),
		inner("refusals", conclusionRefusals()),
		inner("destinations", listOf("the busiest first", conclusionDestination())),
		inner("destinations_omitted", u64("destinations that are not in the list")),
		inner("codes", listOf("all codes of findings, the worst first", object("one code", []member{
			inner("code", typed("string", "as in finding events")),
			inner("severity", enumSchema("the worst", severityNames[:])),
			inner("findings", u64("how many there were")),
		}))),
		inner("findings", listOf("the worst first", conclusionFinding())),
		inner("findings_omitted", u64("findings that are not in the list")),
		inner("remedies", listOf("what helps against the findings, the best first", conclusionRemedy())),
		inner("remedies_omitted", u64("remedies that are not in the list")),
		inner("not_seen", listOf("what the run could not see, in words", text)),
		inner("lost", listOf("what is missing in the log", object("one place", append([]member{
			inner("hop", typed("string", "where it was lost, as in loss events")),
			inner("count", u64("how many")),
		}, opt(
			inner("of", typed("string", "kind of event; left out: several, or not known")),
			inner("why", typed("string", "what happened, and what to do; left out: not known")),
		)...)))),
		inner("unreconciled", listOf("counters of the kernel that the counts of twscope differ from", reconciliationSchema())),
	}, opt(
		inner("ports", object("the greatest use of a budget of local ports; left out: none is known", append([]member{
			inner("used", countSchema[uint32]("ports that connect() could not have")),
			inner("total", countSchema[uint32](docPortsTotal)),
			inner("share", with(numberSchema("used / total"), "maximum", 1)),
			inner("looks", u64("how often the budget was looked at; what was used in between is not known")),
		}, conclusionTarget()...))),
		inner("truncated", typed("boolean", "true: lists were cut")),
	)...))
}

func conclusionTarget() []member {
	return opt(
		inner(nameNetNS, countSchema[uint32](docNetNS)),
		inner("laddr", addrSchema(docLocalAddr)),
		inner("raddr", addrSchema(docRemoteAddr)),
		inner("rport", with(countSchema[uint16]("remote port"), "minimum", 1)),
	)
}

func conclusionTime(doc string) map[string]any {
	return with(typed("string", doc+": RFC 3339, in UTC"), "format", "date-time")
}

func conclusionRun() map[string]any {
	return object("the run that it is about", append([]member{
		inner("began", conclusionTime("its begin, or the first event that there is")),
		inner("ended", conclusionTime("its end, or the last event that there is")),
		inner("duration_s", numberSchema("seconds in between")),
		inner("filters", mapOf("flag without dashes: its values", listOf("", typed("string", "")))),
		inner("earlier_runs", countSchema[uint64]("runs in the log before this one")),
	}, opt(
		inner("version", typed("string", "of twscope")),
		inner("host", typed("string", "host name")),
		inner("kernel", typed("string", "kernel release")),
		inner("reason", typed("string", "what ended it; left out: it has not ended")),
	)...))
}

func conclusionConnections() map[string]any {
	u64 := countSchema[uint64]
	return object("connections that have ended", []member{
		inner("made", u64("opened by this host: closed_here + closed_there + reset")),
		inner("closed_here", u64("of these, closed by this host first, which leaves TIME_WAIT")),
		inner("closed_there", u64("closed by the peer first")),
		inner("reset", u64("ended by RST")),
		inner("accepted", u64("opened by clients and closed by this host first; others that were accepted are not counted")),
		inner("role_unknown", u64("closed by this host first, opened by whom is not known")),
		inner("active_s", numberSchema("seconds from the first to the last that was made, 1 at least")),
		inner("mean_per_s", numberSchema("made / active_s")),
		inner("peak_per_s", numberSchema("the greatest count of a second, or rate of all budgets")),
	})
}

func conclusionFailures() map[string]any {
	u64 := countSchema[uint64]
	calls := opt(inner("calls", u64("calls of programs; left out: not known")))
	return object("connect() calls that failed before a SYN was sent", append([]member{
		inner("kernel", u64("calls of the kernel")),
		inner("no_port", u64("of these, for want of a local port")),
		inner("by_cause", listOf("the most frequent first", object("one cause", append([]member{
			inner("cause", enumSchema("as in connect_fail events", causeNames[:])),
			inner("kernel", u64("calls of the kernel")),
		}, calls...)))),
	}, calls...))
}

func conclusionRefusals() map[string]any {
	u64 := countSchema[uint64]
	return object("SYNs and segments that were refused", []member{
		inner("syns_unanswered", u64("SYNs of this host without an answer")),
		inner("syns_stale_ack", u64("SYNs of this host that got a bare ACK of an older connection")),
		inner("syns_refused_here", u64("SYNs that sockets of this host refused, by PAWS or for their sequence number")),
		inner("by_verdict", mapOf("verdict: how many of syns_refused_here", u64(""))),
		inner("segments_refused_here", u64("other segments that PAWS refused here")),
		inner("listen_drops", u64("SYNs and final ACKs that listeners of this host dropped")),
	})
}

func conclusionDestination() map[string]any {
	u32, u64 := countSchema[uint32], countSchema[uint64]
	return object("one destination", append([]member{
		inner("made", u64("as in connections")),
		inner("closed_here", u64("as in connections")),
		inner("closed_there", u64("as in connections")),
		inner("reset", u64("as in connections")),
		inner("peak_per_s", numberSchema("greatest rate of its budget")),
		inner("time_wait_peak", u32("ports in TIME_WAIT at the same time")),
		inner("ports_used", u32("ports used at the same time")),
		inner("ports_total", u32("ports that connect() chose from at that time; 0: not known")),
		inner("failed", u64("connect() calls of the kernel that failed")),
		inner("syns_unanswered", u64("SYNs without an answer")),
		inner("syns_stale_ack", u64("SYNs that got a bare ACK of an older connection")),
	}, opt(append(conclusionTarget(),
		inner("pid", u32("who opened most connections")),
		inner("comm", typed("string", "name of that process")),
		inner("failed_calls", u64("calls of programs that failed; left out: not known")),
		inner("open_s", numberSchema("seconds for which a connection stays open, on average; left out: not known")),
	)...)...))
}

func conclusionFinding() map[string]any {
	fact := map[string]any{"anyOf": []any{map[string]any{"type": "number"}, map[string]any{"type": "string"}}}
	return object("one finding, with its final numbers", append([]member{
		inner("id", typed("string", "as in finding events")),
		inner("code", typed("string", "as in finding events")),
		inner("severity", enumSchema("the worst that it had", severityNames[:])),
		inner("closed", typed("boolean", "its cause had gone by the end")),
		inner("subject", typed("string", "what it is about, such as an address and port")),
		inner("summary", typed("string", "one sentence, the last one while it was open and the load no less than half of the greatest")),
		inner("first", conclusionTime("its first event")),
		inner("last", conclusionTime("its last event")),
		inner("confidence", with(numberSchema("from 0 to 1"), "maximum", 1)),
		inner("evidence", mapOf("numbers and texts, in the order of writing", fact)),
	}, opt(inner("closing", typed("string", "what was said when it closed; left out: it did not")))...))
}

func conclusionRemedy() map[string]any {
	return object("one remedy", append([]member{
		inner("do", typed("string", "what to do")),
		inner("why", typed("string", "why it helps")),
		inner("codes", listOf("codes of the findings that it is for", typed("string", ""))),
	}, opt(
		inner("buys", typed("string", "how much it buys, with the formula; left out: that cannot be told")),
		inner("caveat", typed("string", "its price and precondition; left out: none")),
	)...))
}
