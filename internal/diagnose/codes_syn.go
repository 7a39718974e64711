// SPDX-License-Identifier: Apache-2.0

package diagnose

// synCodes are the codes of findings about SYNs.
func synCodes() [9]string {
	return [...]string{
		NATPawsDrop, SYNSeqReject, NATRecycleDrop, SharedSource, PeerRefusesSYN,
		PawsDropRestart, PawsDropOldDuplicate, ClockRandomised, ListenOverflow,
	}
}

const (
	whenRefused = "Three or more SYNs of one source to one listener were refused so within a minute (fewer are told in their events only), as soon as the next " +
		"sources or stats event comes, or after 1 s without. Closes when none was refused so for 60 s."
	oddsTell = "The odds of the verdicts against the next best one, as a probability: the median of the latest 32, between 0.5 and 0.99." + synLosses
	// synLosses is lossesLower without budgets.
	synLosses = " Lines that are missing in the log (loss events) lower it."
	loserWait = "A refused SYN is answered with the ACK of the old connection; the client answers by RST, which ends TIME_WAIT, and sends its SYN again: after some ms from " +
		"Linux 5.6 and later, after 1 s from others. Where a firewall eats the ACK or the RST, or net.ipv4.tcp_rfc1337 is 1, the connection is not made at all."
)

func natPawsDropDoc() Code {
	return Code{
		ID:    NATPawsDrop,
		Title: "SYNs are refused in TIME_WAIT because a NAT gave their ports to another timestamp clock",
		Meaning: "The server closed first, so it keeps each connection in TIME_WAIT for 60 s, with the last timestamp of the client. Within that time a NAT gave the port to " +
			"another connection whose timestamps come from another clock. Half of the time its timestamp is the lesser one, and PAWS (RFC 7323, tcp_timewait_state_process) refuses the SYN " +
			"as an old duplicate. Two hosts behind the NAT are enough, and one is, if its kernel draws an offset for each pair of addresses and ports: Linux 7.0, " +
			"6.18.17, 6.12.94 and later, macOS, FreeBSD. " + loserWait,
		Detected: "Verdicts nat-port-rewrite and nat-multi-clock of paws_reject events. " + whenRefused +
			" One verdict at least must have log10_odds above 1, which takes a fact that no restart explains." +
			" What is refused for its sequence number from the same source is told in the evidence, and SYNs that a full queue dropped are not counted.",
		Confidence: oddsTell,
		WrongIf: "a capture on the clients' side of the NAT shows that a refused SYN and the connection before it on that port come from one host and one port there too, " +
			"or there is no NAT, and one host was restarted more than once within these minutes",
		Remedies: []Advice{rfc1337Off, holdPorts, clientCloses, fewerConnections, oneClock, morePorts, notRandom, timestampsOff},
		Useless:  uselessForSYNs(),
	}
}

func synSeqRejectDoc() Code {
	return Code{
		ID:    SYNSeqReject,
		Title: "SYNs are refused in TIME_WAIT for their sequence number, which no counter shows",
		Meaning: "A SYN without timestamps on a port that is in TIME_WAIT is accepted only if its sequence number is beyond that of the old connection (RFC 6191). Linux draws initial sequence " +
			"numbers by address and port, rising with time, so one host without a NAT passes. Behind a NAT that uses ports again within 60 s, or with other stacks, they are in no order. " +
			"This is what remains when timestamps are turned off to escape PAWS. " + loserWait,
		Detected: "Verdict seq-reject of syn_reject events. " + whenRefused +
			" While nat-paws-drop is open for the same source and listener, these are told in its evidence instead.",
		Confidence: "0.95: the sequence numbers and the state of the socket are known for each." + synLosses,
		WrongIf:    "the client gets its SYN-ACK to the first SYN on these ports",
		Remedies:   []Advice{rfc1337Off, clientCloses, holdPorts, timestampsOn, fewerConnections, morePorts},
		Useless:    uselessForSYNs(),
	}
}

func natRecycleDropDoc() Code {
	return Code{
		ID:    NATRecycleDrop,
		Title: "a server with tcp_tw_recycle would refuse SYNs of this source, or this one does",
		Meaning: "With tcp_tw_recycle, Linux up to 4.11 keeps the greatest timestamp of each address and drops, silently, any SYN from it that is more than 1 tick behind within 60 s " +
			"(tcp_v4_conn_request; counted as PAWSPassive). Hosts that share an address have different clocks, so the one that has been up longest wins, and the others time out. Linux 3.10 of RHEL 7 " +
			"drops SYNs without timestamps too. A source that draws a clock for each connection is refused in the same way without any NAT.",
		Detected: "Each SYN seen is put to both rules, and sources events tell the result. Opens when 1 % of the SYNs of a source and 10 at least would have been refused, and when such a server refuses one " +
			"(paws_reject events with where passive). Closes when next to none would have been for 5 minutes. Info where the kernel has no tcp_tw_recycle, warning where it has, critical where it refuses.",
		Confidence: "0.9: the rules are known exactly, which SYNs an old server would have got is not. 0.97 where it refuses." + synLosses,
		WrongIf:    "net.ipv4.tcp_tw_recycle is 0, or not there, on all servers that these clients use, in which case nothing is lost",
		Remedies:   []Advice{recycleOff, oneClock},
		Useless:    uselessForSYNs(),
	}
}

func sharedSourceDoc() Code {
	return Code{
		ID:    SharedSource,
		Title: "several timestamp clocks share a source address",
		Meaning: "Timestamps of SYNs from this address follow several lines at the same time: several network stacks are behind it, such as hosts behind a NAT, or containers behind their node. " +
			"The number is a lower bound: hosts whose clock differs from connection to connection are not counted.",
		Detected: "Class shared of a sources event, of strength medium (one certain clock, and completed connections off its line) or strong (two or more that were seen in turns). " +
			"Closes when the class has been another for 60 s, or the source is not named any more.",
		Confidence: "0.97 for strong, 0.8 for medium." + synLosses,
		WrongIf:    "one host has the address and runs no second network stack: no containers, no virtual machines, no proxy that makes its own packets",
		Remedies:   []Advice{perConnection},
		Useless:    uselessForSYNs(),
	}
}

func peerRefusesSYNDoc() Code {
	return Code{
		ID:    PeerRefusesSYN,
		Title: "a peer refuses SYNs of this host",
		Meaning: "The peer answered SYNs with a bare ACK that acknowledges none of them: it still holds a connection with the same ports, in TIME_WAIT or half-open, and did not take the SYN for a new one. Whether PAWS was the " +
			"reason, the sequence number, or a connection that never ended, cannot be seen from here. Or it left SYNs unanswered while connections from other ports got through at the same time: " +
			"tcp_tw_recycle and firewalls that drop the ACK look like this, and so does a listener whose queue is full.",
		Detected: "Three or more syn_refused events of one destination within a minute. Silence counts only where three connections to it were seen to end well within the same minute (time_wait and destinations events), " +
			"and one in 20 calls or more is silent, or where all that get through are in other network namespaces of this host (info): a peer that is dead refuses nobody. Closes when none has come for 60 s.",
		Confidence: "0.85 for stale ACKs: the old connection is certain, which state it is in is not. 0.5 for silence, which has other causes, and 0.4 if only other namespaces get through, which may have another path." + synLosses,
		WrongIf:    "a capture at the peer shows that the SYNs did not arrive, or `nstat -az TcpExtListenOverflows` grows there by as many",
		Remedies:   []Advice{fewerConnections, closeHere, timestampsOnHere, oneClock, holdPorts, recycleOff},
		Useless:    uselessForSYNs(),
	}
}

func pawsDropRestartDoc() Code {
	return Code{
		ID:    PawsDropRestart,
		Title: "SYNs are refused in TIME_WAIT because their source has a new timestamp clock",
		Meaning: "The source was restarted, or its address went to another host. The new clock is behind what sockets in TIME_WAIT remember, so PAWS refuses SYNs on the same ports, until these sockets end. " +
			"One clock followed another, they were not there at the same time: nothing points to a NAT. " + loserWait,
		Detected:   "Verdict restart of paws_reject events: the old clock was not seen again after the new one. " + whenRefused,
		Confidence: oddsTell,
		WrongIf:    "the source was up all the time (`uptime`), and its address did not change hands",
		Remedies:   []Advice{rfc1337Off, waitForIt, clientCloses},
		Useless:    uselessForSYNs(),
	}
}

func pawsDropOldDuplicateDoc() Code {
	return Code{
		ID:    PawsDropOldDuplicate,
		Title: "late duplicates of SYNs were refused, as they should be",
		Meaning: "A SYN came late, after its connection had ended: it is on the same clock as that connection, a little behind. PAWS refuses it, and that is right: " +
			"accepted, it would make a connection that nobody wants. Nothing points to a NAT, and no connection is lost.",
		Detected:   "Verdict old-duplicate of paws_reject and syn_reject events. " + whenRefused,
		Confidence: oddsTell,
		WrongIf:    "the client has a connect() waiting on one of these ports (`ss -tn state syn-sent` there)",
		Remedies:   []Advice{letBe},
		Useless:    uselessForSYNs(),
	}
}

func clockRandomisedDoc() Code {
	return Code{
		ID:    ClockRandomised,
		Title: "the timestamp clock of a source differs from connection to connection",
		Meaning: "RFC 7323 recommends a random offset for each connection. Linux 7.0, 6.18.17, 6.12.94 and later, macOS and FreeBSD derive it from addresses and ports, so that the same port shows the same clock again; " +
			"OpenBSD draws it anew. Such hosts cannot be counted, and one looks like many: to a server with tcp_tw_recycle it is refused half of the time, without any NAT. " +
			"On sockets in TIME_WAIT it passes, unless a NAT changes its ports (nat-paws-drop) or it draws the clock anew for the same port.",
		Detected: "Class randomised of a sources event, while SYNs of the source are refused, or would be by tcp_tw_recycle. Closes when the class has been another for 60 s, or the source is not named any more.",
		Confidence: "0.95 for strong, 0.8 for weaker ones: that no two of 20 or more connections fit one clock excludes up to 64 equally active hosts with one clock each at 95 %." +
			synLosses,
		WrongIf:  "net.ipv4.tcp_timestamps is 2 on the clients, or two connections from different ports of one client show the same offset",
		Remedies: []Advice{noCount, oneClock},
		Useless:  uselessForSYNs(),
	}
}

func listenOverflowDoc() Code {
	return Code{
		ID:    ListenOverflow,
		Title: "a listener drops SYNs because its queues are full",
		Meaning: "Connections come faster than the program accepts them. When the accept queue is full, SYNs and the final ACKs of handshakes are dropped (ListenOverflows); when the SYN queue is full and SYN cookies are off, SYNs " +
			"are (TCPReqQFullDrop). Clients wait 1 s and more, or time out. It looks like the refusals of nat-paws-drop to a client, but no NAT has a part in it, and neither have timestamps or TIME_WAIT.",
		Detected: "listen_drop events. Opens with the first; critical from 10 drops on. With SYN cookies alone it is a warning: they tell of a full SYN queue, often of a SYN flood, and nothing is known to be lost. " +
			"Closes when there was none for 60 s.",
		Confidence: "0.97: the kernel's own counters; which listener it is, is told by the drops of its socket, and left out if they do not." + synLosses,
		WrongIf:    "`nstat -az TcpExtListenOverflows TcpExtListenDrops TcpExtTCPReqQFullDrop` stand still in this network namespace",
		Remedies:   []Advice{acceptFaster, longerBacklog, raiseSomaxconn, moreListeners, cookiesOn},
		Useless:    uselessForQueues(),
	}
}
