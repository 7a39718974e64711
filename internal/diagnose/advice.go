// SPDX-License-Identifier: Apache-2.0

package diagnose

// Advice is a remedy as it is documented. In a finding it stands only if its
// preconditions hold there, with numbers.
type Advice struct {
	Do     string
	Why    string
	Buys   string // the formula
	Caveat string // price and preconditions
	When   string // when it is offered
}

// Useless is what is often advised and does not help.
type Useless struct {
	What, Why string
}

const (
	formulaFree  = "the rate is not bound by TIME_WAIT any more, but by ports / time that a connection is open"
	formulaTimes = "n * ports / 60 s with n of them"
)

var (
	keepAlive = Advice{
		Do:     "keep connections alive and use each for many requests",
		Why:    "a connection that is not closed leaves no TIME_WAIT",
		Buys:   "n requests on each connection need 1/n of the ports: n = load / sustainable rate suffices",
		Caveat: "both sides must allow it, and the client's idle timeout must be below the server's",
		When:   "ports are in TIME_WAIT",
	}
	serverCloses = Advice{
		Do:     "let the server close first: send \"Connection: close\" (HTTP), and wait for its FIN before closing",
		Why:    "TIME_WAIT stays with the side that closes first; the client's port is free at once",
		Buys:   formulaFree,
		Caveat: "TIME_WAIT moves to the server, which takes a new SYN on the same ports only if its timestamp or sequence number is greater",
		When:   "this host closes first",
	}
	lingerZero = Advice{
		Do:     "close with RST: set SO_LINGER to 1, 0 before close()",
		Why:    "a connection that is reset has no TIME_WAIT",
		Buys:   formulaFree,
		Caveat: "data that is not sent yet is lost, and the peer sees ECONNRESET, perhaps before it has read everything: for stress tests, after the whole answer was read",
		When:   "this host closes first",
	}
	turnReuseOn = Advice{
		Do:     "sysctl -w net.ipv4.tcp_tw_reuse=1",
		Why:    "connect() then takes over sockets in TIME_WAIT that have TCP timestamps, once they are older than tcp_tw_reuse_delay (1 s)",
		Buys:   "ports / (share * delay + (1 - share) * 60 s), where share is that of sockets with timestamps",
		Caveat: "holds for all outgoing connections of the network namespace, and only for these; a NAT on the way that re-uses ports faster may lead to refused SYNs",
		When:   "timestamps are negotiated, and tcp_tw_reuse is 0, or 2 and the destination is no loopback address",
	}
	timestampsHere = Advice{
		Do:     "sysctl -w net.ipv4.tcp_timestamps=1 on this host",
		Why:    "this network namespace negotiates no TCP timestamps, without which tcp_tw_reuse cannot work",
		Buys:   "ports / delay with tcp_tw_reuse=1, if the peer has timestamps on too",
		Caveat: "whether the peer negotiates them cannot be seen before",
		When:   "net.ipv4.tcp_timestamps is 0 here",
	}
	timestampsAtPeer = Advice{
		Do:     "turn TCP timestamps on at the peer, and set tcp_tw_reuse=1 here",
		Why:    "tcp_tw_reuse needs timestamps, and the peer negotiates none",
		Buys:   "ports / delay (delay: tcp_tw_reuse_delay, 1 s)",
		Caveat: "load balancers have them off on purpose: with them, hosts with different clocks behind one NAT may have SYNs refused",
		When:   "the peer negotiates none, and this host would",
	}
	moreDestinations = Advice{
		Do:     "spread the load over more destination addresses or ports",
		Why:    "each remote address and port has a budget of ports of its own",
		Buys:   formulaTimes,
		Caveat: "the server must listen on them",
		When:   "always",
	}
	moreSources = Advice{
		Do:     "use more source addresses",
		Why:    "each local address has a budget of ports of its own",
		Buys:   formulaTimes,
		Caveat: "the program must bind() to them, with IP_BIND_ADDRESS_NO_PORT, and answers must find the way back to them",
		When:   "always",
	}
	widenRange = Advice{
		Do:     "widen net.ipv4.ip_local_port_range",
		Why:    "each further port is one more in the budget of every destination",
		Buys:   "ports of the new range / 60 s, without those that are reserved or listened on",
		Caveat: "a service whose port is in the range may not start while a connection holds that port: reserve it in net.ipv4.ip_local_reserved_ports first",
		When:   "the range is less than 90 % of 1024-65535, and the kernel searched this range",
	}
	widenOwnRange = Advice{
		Do:     "widen the range that the program gives its sockets by IP_LOCAL_PORT_RANGE",
		Why:    "the kernel searched that range and not net.ipv4.ip_local_port_range",
		Buys:   "ports of the new range / 60 s",
		Caveat: "the range of a socket must lie within net.ipv4.ip_local_port_range",
		When:   "the range that was searched is not that of the network namespace",
	}
	freeReserved = Advice{
		Do:     "take ports out of net.ipv4.ip_local_reserved_ports",
		Why:    "connect() never chooses a reserved port",
		Buys:   "(ports + ports taken out) / 60 s",
		Caveat: "somebody has reserved them for a service that may need them",
		When:   "a tenth of the range is reserved, or more",
	}
	bindNoPort = Advice{
		Do:     "set IP_BIND_ADDRESS_NO_PORT before bind(), or do not bind() at all",
		Why:    "the port is then chosen by connect(), once for each destination",
		Buys:   "each destination has (ports + ports taken by bind()) / 60 s for itself",
		Caveat: "the program must not need its port before it connects",
		When:   "ports are taken by bind()",
	}
	removeLine = Advice{
		Do:     "remove the line",
		Why:    "the kernel has no such setting; what tcp_tw_reuse=1 can do is safe, this was not",
		Caveat: "",
		When:   "always",
	}
	raiseBuckets = Advice{
		Do:     "raise net.ipv4.tcp_max_tw_buckets",
		Why:    "every connection that this host closes first then has its TIME_WAIT",
		Buys:   "buckets / 60 s connections per second without loss",
		Caveat: "each takes about 250 bytes of kernel memory, and a port of its destination for 60 s",
		When:   "always",
	}
)

// useless is what each code's documentation warns of.
func useless() []Useless {
	return []Useless{
		{
			"net.ipv4.tcp_tw_recycle",
			"gone since Linux 4.12, and for good reason: it dropped SYNs of clients behind a NAT",
		},
		{
			"a smaller net.ipv4.tcp_max_tw_buckets",
			"it cuts TIME_WAIT short for all connections alike: old segments may reach new connections, and peers get RST for a FIN sent again; it protects memory, nothing else",
		},
		{
			"net.ipv4.tcp_fin_timeout",
			"it bounds FIN_WAIT2, how long the peer's FIN is waited for; TIME_WAIT is 60 s whatever it says (TCP_TIMEWAIT_LEN)",
		},
	}
}
