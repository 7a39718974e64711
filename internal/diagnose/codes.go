// SPDX-License-Identifier: Apache-2.0

package diagnose

import "slices"

// Code is the documentation of one kind of finding.
type Code struct {
	ID         string
	Title      string // one line
	Meaning    string // what is the case, and what it does
	Detected   string // from which events, when it opens, when it closes
	Confidence string // what the number says, and what lowers it
	WrongIf    string // what would prove a finding wrong; stands in each of them
	Remedies   []Advice
	// Useless is what is often advised and does not help.
	Useless []Useless
}

// The codes.
const (
	PortExhaustion      = "port-exhaustion"
	PortExhaustionSoon  = "port-exhaustion-soon"
	TWReuseInert        = "tw-reuse-inert"
	TWReuseOff          = "tw-reuse-off"
	TWReuseLoopbackOnly = "tw-reuse-loopback-only"
	TWRecycleGone       = "tw-recycle-gone"
	BindWithoutNoPort   = "bind-without-no-port"
	TWBucketOverflow    = "tw-bucket-overflow"
	// About SYNs that are refused.
	NATPawsDrop          = "nat-paws-drop"
	NATRecycleDrop       = "nat-recycle-drop"
	SharedSource         = "shared-source"
	PeerRefusesSYN       = "peer-refuses-syn"
	PawsDropRestart      = "paws-drop-restart"
	PawsDropOldDuplicate = "paws-drop-old-duplicate"
	ClockRandomised      = "clock-randomised"
	SYNSeqReject         = "syn-seq-reject"
	ListenOverflow       = "listen-overflow"
)

// Codes returns the documentation of all codes, in the order in which it
// should be read.
func Codes() []Code {
	return []Code{
		portExhaustionDoc(), portExhaustionSoonDoc(), twReuseInertDoc(), twReuseOffDoc(),
		twReuseLoopbackOnlyDoc(), twRecycleGoneDoc(), bindWithoutNoPortDoc(), twBucketOverflowDoc(),
		natPawsDropDoc(), synSeqRejectDoc(), natRecycleDropDoc(), sharedSourceDoc(), peerRefusesSYNDoc(),
		pawsDropRestartDoc(), pawsDropOldDuplicateDoc(), clockRandomisedDoc(), listenOverflowDoc(),
	}
}

// Lookup returns the documentation of one code.
func Lookup(id string) (Code, bool) {
	codes := Codes()
	i := slices.IndexFunc(codes, func(c Code) bool { return c.ID == id })
	if i < 0 {
		return Code{}, false
	}
	return codes[i], true
}

// aboutPorts are the remedies of a budget of ports that is too small.
func aboutPorts() []Advice {
	return []Advice{
		keepAlive, serverCloses, turnReuseOn, timestampsHere, timestampsAtPeer, moreDestinations, moreSources,
		widenRange, widenOwnRange, freeReserved, bindNoPort, lingerZero,
	}
}

const lossesLower = " Lines that are missing in the log (loss events) and parts of the budget that are not known lower it."

func portExhaustionDoc() Code {
	return Code{
		ID:    PortExhaustion,
		Title: "connect() fails because no local port is left towards a destination",
		Meaning: "From one local address to one remote address and port, each connection needs a local port of its own, out of " +
			"net.ipv4.ip_local_port_range. The side that closes first keeps the port in TIME_WAIT for 60 s (TCP_TIMEWAIT_LEN, a constant). " +
			"When all ports are taken, connect() fails at once with EADDRNOTAVAIL, before a packet is sent: the target is not to blame. " +
			"The budget is per destination: others can still be reached.",
		Detected: "Opens with a connect_fail event whose cause is time_wait_not_reusable, ports_in_use, range_tiny, reserved or " +
			"bound_without_no_port, as soon as the next destinations event tells the rates, or after 1 s without. " +
			"Closes when no connect() has failed for 15 s and a tenth of the ports is free, or none has for 75 s. Two numbers of failures are told where they are known: " +
			"those of connect() in the kernel, and calls of the program. The latter is known of programs built by Go only, of which each is taken to call net.Dial, " +
			"which tries three times; one that succeeds at a later try counts in part. The rate that a budget sustains is ports / 60 s, of connections that this host closes first; those that the other side closes, " +
			"or that end by RST, take a port only while they are open. The kernel's timer is late by up to 2 s (HZ=250), " +
			"4.1 s (HZ=1000) or 5.1 s (HZ=100), so a load above 96, 93 or 92 % of that rate can fail now and then.",
		Confidence: "0.97: that connect() failed is what the kernel returned; the cause is computed from the budget at that instant. " +
			"0.9 if the errno was inferred from the socket's state." + lossesLower,
		WrongIf: "while it is open, `ss -Htan state all dst ADDRESS dport = :PORT` shows far fewer sockets than the ports of the range, " +
			"or the program asks for a local port of its own that is taken",
		Remedies: aboutPorts(), Useless: useless(),
	}
}

func portExhaustionSoonDoc() Code {
	return Code{
		ID:    PortExhaustionSoon,
		Title: "the local ports towards a destination will be used up soon",
		Meaning: "Connections begin faster than their ports come back from TIME_WAIT. At today's rate the ports will be used up at the time told, " +
			"and connect() will fail from then on (port-exhaustion).",
		Detected: "Opens when a destinations event forecasts exhaustion within 60 s. The forecast follows from the known instant at which each port in " +
			"TIME_WAIT comes back, and is made only for a steady rate. Closes when it has come true, when there is no forecast any more, or when it is more than 90 s ahead.",
		Confidence: "0.85: the kernel's timers are known, the load is not; it may change." + lossesLower,
		WrongIf:    "the load ends or slows down before the time told, or connections begin to be closed by the other side",
		Remedies:   aboutPorts(), Useless: useless(),
	}
}

func twReuseInertDoc() Code {
	return Code{
		ID:    TWReuseInert,
		Title: "tcp_tw_reuse is on and cannot help: no TCP timestamps are negotiated with this peer",
		Meaning: "connect() may take over a socket in TIME_WAIT only if its connection negotiated TCP timestamps (tcp_twsk_unique: ts_recent_stamp), " +
			"because nothing else tells old segments from new ones. Both sides must offer them. Load balancers often do not. The setting then does nothing, silently.",
		Detected: "tcp_tw_reuse is 1, or 2 for a loopback destination, and at least half of 20 or more sockets in TIME_WAIT towards the destination have no timestamps, " +
			"while these are a tenth of the ports or more, or connect() fails. Closes when tcp_tw_reuse is off, when timestamps are negotiated, or when the sockets are gone.",
		Confidence: "0.97: each socket tells whether timestamps were negotiated." + lossesLower,
		WrongIf:    "`ss -tin dst ADDRESS` shows \"ts\" for connections to this destination, or the counter TWRecycled grows by them",
		Remedies:   []Advice{timestampsHere, timestampsAtPeer, keepAlive, serverCloses, moreDestinations, moreSources, widenRange, lingerZero},
		Useless:    useless(),
	}
}

func twReuseOffDoc() Code {
	return Code{
		ID:    TWReuseOff,
		Title: "tcp_tw_reuse is off, and would help here",
		Meaning: "The peer negotiates TCP timestamps, so connect() could take over its sockets in TIME_WAIT after tcp_tw_reuse_delay (1 s), " +
			"but net.ipv4.tcp_tw_reuse is 0 in this network namespace.",
		Detected: "tcp_tw_reuse is 0, at least a tenth of the sockets in TIME_WAIT towards the destination have timestamps, and half of the ports or more are used, " +
			"or connect() fails, or will. Closes when tcp_tw_reuse is on, or when three quarters of the ports are free.",
		Confidence: "0.95: the condition of tcp_twsk_unique is known for each socket." + lossesLower,
		WrongIf:    "connections to this destination have no \"ts\" in `ss -tin dst ADDRESS`",
		Remedies:   []Advice{turnReuseOn, keepAlive, serverCloses, moreDestinations, moreSources, widenRange, lingerZero},
		Useless:    useless(),
	}
}

func twReuseLoopbackOnlyDoc() Code {
	return Code{
		ID:    TWReuseLoopbackOnly,
		Title: "tcp_tw_reuse is 2, for loopback only, and 1 would help here",
		Meaning: "Since 4.19 the default of net.ipv4.tcp_tw_reuse is 2: sockets in TIME_WAIT are taken over only if an address of theirs is in 127.0.0.0/8 or ::1, " +
			"or they are bound to the device lo. This destination is none of these, so for it the setting is off.",
		Detected: "tcp_tw_reuse is 2, the destination is no loopback address, its connections negotiate timestamps, and half of the ports or more are used, " +
			"or connect() fails, or will. Closes when tcp_tw_reuse has another value, or when three quarters of the ports are free.",
		Confidence: "0.95, and 0.8 where some connections have timestamps and some have not: which of them wait is not told apart." + lossesLower,
		WrongIf:    "connections to this destination have no \"ts\" in `ss -tin dst ADDRESS`, or are bound to the device lo",
		Remedies:   []Advice{turnReuseOn, keepAlive, serverCloses, moreDestinations, moreSources, widenRange, lingerZero},
		Useless:    useless(),
	}
}

func twRecycleGoneDoc() Code {
	return Code{
		ID:    TWRecycleGone,
		Title: "a configuration file sets tcp_tw_recycle, which this kernel does not have",
		Meaning: "tcp_tw_recycle was removed in Linux 4.12 (4396e46187ca), because it dropped the SYNs of clients that share an address behind a NAT. " +
			"The line does nothing but fail at boot, and shows that somebody hoped for a cure that is none.",
		Detected:   "The start event names the line, and no network namespace has the sysctl. It stays open: files are read at start only.",
		Confidence: "1: the line was read, and the sysctl is not there.",
		WrongIf:    "/proc/sys/net/ipv4/tcp_tw_recycle exists",
		Remedies:   []Advice{removeLine},
		Useless:    useless(),
	}
}

func bindWithoutNoPortDoc() Code {
	return Code{
		ID:    BindWithoutNoPort,
		Title: "a program takes local ports by bind(), so that one range serves all destinations",
		Meaning: "bind() to an address with port 0 chooses the port before the destination is known, so the port must be free towards all of them, and " +
			"connect() of other sockets passes over it (__inet_hash_connect: the bind bucket was not made by connect()). One range then serves all destinations together, " +
			"instead of each.",
		Detected: "20 or more ports, and a tenth of the range, are held by sockets that were bound, or a connect() failed for the cause bound_without_no_port. " +
			"Closes when less than a twentieth of the range is.",
		Confidence: "0.9: the kernel marks such ports; whether the program could leave the choice to connect() is not known." + lossesLower,
		WrongIf:    "the program needs to know its port before it connects, or asks for a certain one",
		Remedies:   []Advice{bindNoPort, keepAlive, moreSources, widenRange},
		Useless:    useless(),
	}
}

func twBucketOverflowDoc() Code {
	return Code{
		ID:    TWBucketOverflow,
		Title: "tcp_max_tw_buckets is reached: connections end without TIME_WAIT",
		Meaning: "When there are net.ipv4.tcp_max_tw_buckets sockets in TIME_WAIT in a network namespace, the next connection is closed without (inet_twsk_alloc). " +
			"Its port is free at once, but an old segment may reach a new connection with the same ports, and a peer whose last FIN gets lost receives RST.",
		Detected:   "The kernel's counter TCPTimeWaitOverflow has grown between two stats events. Closes when it has stood still for 60 s.",
		Confidence: "1: it is the kernel's own counter.",
		WrongIf:    "TCPTimeWaitOverflow in /proc/net/netstat of this network namespace stands still",
		Remedies:   []Advice{raiseBuckets, keepAlive, serverCloses, lingerZero},
		Useless:    useless(),
	}
}
