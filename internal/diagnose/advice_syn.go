// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// measuredUntimed is what remains when timestamps are off: a lab run on Linux
// 6.18 with two clients behind a NAT of 200 ports, the server closing first.
const measuredUntimed = "measured in a lab: 68 of 800 connects took longer than 0.9 s with timestamps off at the clients"

// Remedies for the owner of the server.
var (
	rfc1337Off = Advice{
		Do:     "sysctl -w net.ipv4.tcp_rfc1337=0 on this host",
		Why:    "the client answers the ACK of the old connection by RST; with 1 that RST is ignored, so the SYN is refused again and again, and each time TIME_WAIT begins anew",
		Buys:   "a refused SYN is accepted when it is sent again: after some ms from Linux 5.6 and later, after 1 s from others",
		Caveat: "a forged or late RST can then end TIME_WAIT too; it is the default",
		When:   "net.ipv4.tcp_rfc1337 is 1 here",
	}
	clientCloses = Advice{
		Do:     "let the client close first: read its FIN before you close (HTTP: answer without \"Connection: close\")",
		Why:    "TIME_WAIT stays with the side that closes first; without it this host has no socket that could refuse a SYN",
		Buys:   "no refusals on sockets in TIME_WAIT",
		Caveat: "the clients must do it, and each client's port then rests for 60 s (port-exhaustion)",
		When:   "always",
	}
	timestampsOff = Advice{
		Do:     "sysctl -w net.ipv4.tcp_timestamps=0 on this host",
		Why:    "PAWS then has nothing to compare; a SYN is judged by its sequence number alone",
		Buys:   "no refusals by PAWS",
		Caveat: "sequence numbers of different hosts are not in order either, and what they refuse no counter shows: " + measuredUntimed + "; tcp_tw_reuse of the clients does nothing then",
		When:   "net.ipv4.tcp_timestamps is not 0 here",
	}
	recycleOff = Advice{
		Do:     "keep these clients away from servers with net.ipv4.tcp_tw_recycle=1: set it to 0 there, or run Linux 4.12 or later",
		Why:    "it compares the timestamps of all connections of an address, which only one host with one clock can satisfy",
		Buys:   "no refusals by it",
		Caveat: "a client that meets its own port in TIME_WAIT is judged by PAWS for that port as before",
		When:   "always",
	}
	perConnection = Advice{
		Do:     "do not limit, count or ban by this address alone",
		Why:    "what is allowed to one address is shared by all that are behind it",
		Buys:   "limits that fit as many clients as there are clocks",
		Caveat: "clocks are network stacks: one machine with containers, or a proxy with several workers, has several",
		When:   "always",
	}
)

// Remedies for the owner of the clients.
var (
	oneClock = Advice{
		Do: "sysctl -w net.ipv4.tcp_timestamps=2 on the client",
		Why: "with 2, Linux 4.10 and later uses timestamps without random offset: one clock for all connections of a host, so that a port which the " +
			"NAT uses again shows a greater timestamp",
		Buys:   "no refusals by PAWS, if one kernel is behind the address",
		Caveat: "cures one host, or all containers of one host; several hosts have been up for different times, and stay as they are. It shows how long the host has been up",
		When:   "nothing shows that several hosts share the address",
	}
	fewerConnections = Advice{
		Do:     "keep the connections of the clients alive and use each for many requests",
		Why:    "a port comes again only when a connection begins",
		Buys:   "n requests on each connection make 1/n of the SYNs, and fewer than 1/n of the refusals",
		Caveat: "both sides must allow it, and the client's idle timeout must be below the server's",
		When:   "always",
	}
	timestampsOn = Advice{
		Do:     "turn TCP timestamps on at the clients and here",
		Why:    "a SYN with a greater timestamp than the old connection's is accepted whatever its sequence number (RFC 6191)",
		Buys:   "no refusals for the sequence number, where one clock is behind an address",
		Caveat: "behind a NAT that uses ports again within 60 s, other clocks are then refused by PAWS (nat-paws-drop)",
		When:   "the refused SYNs carry no timestamps",
	}
	closeHere = Advice{
		Do:     "let this host close first",
		Why:    "TIME_WAIT stays with the side that closes first: this host then knows which ports rest, and the peer has no socket that could refuse",
		Buys:   "no refusals on the peer's sockets in TIME_WAIT",
		Caveat: "the ports of this host are in TIME_WAIT for 60 s each, see port-exhaustion",
		When:   "the peer has answered with stale ACKs",
	}
	timestampsOnHere = Advice{
		Do:     "sysctl -w net.ipv4.tcp_timestamps=1 on this host",
		Why:    "without timestamps the peer judges a SYN on a port that it still holds by its sequence number alone",
		Buys:   "SYNs on ports that this host itself uses again are accepted",
		Caveat: "holds if the peer has timestamps on too and no NAT changes the ports on the way",
		When:   "net.ipv4.tcp_timestamps is 0 here",
	}
)

// Remedies for the owner of the NAT.
var (
	holdPorts = Advice{
		Do: "let the NAT hold a port for at least 60 s after its connection has ended (netfilter: net.netfilter.nf_conntrack_tcp_timeout_time_wait=120, " +
			"its default; clouds: the NAT's TIME_WAIT timeout)",
		Why:    "a server holds the old connection for 60 s in TIME_WAIT: a port that comes later meets no socket",
		Buys:   "no refusals, up to ports / 60 s new connections per second and destination",
		Caveat: "beyond that rate the NAT has no port left and new connections fail there",
		When:   "always",
	}
	morePorts = Advice{
		Do:     "give the NAT more outer ports or addresses",
		Why:    "each is then used again later",
		Buys:   "no refusals from rate * 60 s ports per destination on, with ports that are used in turn",
		Caveat: "",
		When:   "always",
	}
	notRandom = Advice{
		Do:     "take --random-fully off the NAT's MASQUERADE and SNAT rules",
		Why:    "a random port may be one that was just used; without, Linux keeps the client's own port where it can",
		Buys:   "fewer refusals, as long as the NAT need not change ports",
		Caveat: "next to nothing where ports are scarce: with 200 ports and two clients a lab run had 344 instead of 310 refusals in 800 connects without it",
		When:   "always",
	}
)

// Remedies for innocent refusals.
var (
	letBe = Advice{
		Do:     "nothing: PAWS does what it is there for",
		Why:    "a late duplicate must not become a new connection",
		Caveat: "",
		When:   "always",
	}
	waitForIt = Advice{
		Do:     "nothing, or wait: it ends by itself",
		Why:    "the last socket that remembers the old clock leaves TIME_WAIT 60 s after its connection, or after the last SYN that it refused",
		Buys:   "no refusals from then on",
		Caveat: "if it comes again every few minutes, see what restarts the clients, or moves their address",
		When:   "always",
	}
	noCount = Advice{
		Do:     "do not take the number of clocks for a number of hosts here",
		Why:    "each connection has a clock of its own, so one host looks like many, and many like one",
		Caveat: "",
		When:   "always",
	}
)

// Remedies for the queues of a listener.
var (
	longerBacklog = Advice{
		Do:     "give listen() a longer backlog",
		Why:    "the accept queue holds what the program has not accepted yet, and it bounds the SYN queue too",
		Buys:   "bursts of as many connections as the backlog holds",
		Caveat: "a program that is too slow for its load on the average only makes clients wait longer; net.core.somaxconn bounds it",
		When:   "always",
	}
	raiseSomaxconn = Advice{
		Do:     "raise net.core.somaxconn, and the program's backlog with it",
		Why:    "listen() takes the lesser of both; it is read at listen(), so restart the program",
		Buys:   "bursts of as many connections as the backlog holds",
		Caveat: "a program that is too slow for its load on the average only makes clients wait longer; the sysctl is that of the network namespace",
		When:   "the limit of the listener is net.core.somaxconn, or is not known",
	}
	acceptFaster = Advice{
		Do:     "call accept() more often: in a loop until EAGAIN, and not behind slow work in the same thread",
		Why:    "the queue is full because connections come faster than they are accepted",
		Buys:   "as many connections per second as accept() takes",
		Caveat: "",
		When:   "the accept queue is full",
	}
	moreListeners = Advice{
		Do:     "open more listeners on the port with SO_REUSEPORT, one for each thread",
		Why:    "each has queues of its own, and the kernel spreads the SYNs over them",
		Buys:   "n times the queue with n listeners",
		Caveat: "when one of them is closed, what waits in its queue is reset (net.ipv4.tcp_migrate_req=1 moves it, Linux 5.14)",
		When:   "always",
	}
	cookiesOn = Advice{
		Do:     "sysctl -w net.ipv4.tcp_syncookies=1",
		Why:    "when the SYN queue is full, SYNs are then answered by cookies instead of dropped",
		Buys:   "no SYN is dropped for a full SYN queue",
		Caveat: "connections made by a cookie lose some TCP options if the client has no timestamps",
		When:   "net.ipv4.tcp_syncookies is 0 here",
	}
)

// uselessForSYNs is what the documentation of refused SYNs warns of.
func uselessForSYNs() []Useless {
	return []Useless{
		{
			"net.ipv4.tcp_tw_recycle",
			"it makes things worse: it compares the timestamps of all hosts behind an address; gone since Linux 4.12",
		},
		{
			"net.ipv4.tcp_tw_reuse on the server",
			"it is for connections that a host opens itself; SYNs that arrive never ask for it",
		},
		{
			"a shorter TIME_WAIT: net.ipv4.tcp_fin_timeout, a smaller net.ipv4.tcp_max_tw_buckets",
			"the first does not change TIME_WAIT (60 s, a constant), the second cuts it off for all connections alike: old segments may then reach new connections",
		},
	}
}

// uselessForQueues is what the documentation of full queues warns of.
func uselessForQueues() []Useless {
	return []Useless{
		{"a longer backlog for a program that is too slow on the average", "the queue is full again, and clients have waited longer before they give up"},
		{"net.ipv4.tcp_abort_on_overflow=1", "it resets connections instead of letting clients try again; it is for tests"},
		{"net.ipv4.tcp_timestamps, net.ipv4.tcp_tw_reuse, changes of a NAT", "these connections were not refused for their timestamps, and TIME_WAIT has no part in it"},
	}
}

// choice collects the remedies that apply.
type choice struct{ list []event.Remedy }

func (c *choice) add(applies bool, a *Advice, buys string) {
	if !applies {
		return
	}
	if buys == "" {
		buys = a.Buys
	}
	c.list = append(c.list, a.remedy(buys))
}

// rfc1337 tells whether RST cannot end TIME_WAIT here.
func (n *namespace) rfc1337() bool {
	v, known := n.number(kernel.SysctlRFC1337)
	return known && v != 0
}

// severalHosts tells whether one clock on one host would not do.
func (s *source) severalHosts() bool { return s != nil && s.told.Class == event.ClockShared }

func (v *refusalView) natRemedies() []event.Remedy {
	var c choice
	all := "none of " + several(v.number(), "refusal", "refusals") + " like these"
	c.add(v.ns.rfc1337(), &rfc1337Off, "")
	c.add(true, &holdPorts, all+", up to ports / 60 s new connections per second and destination")
	c.add(true, &clientCloses, all)
	c.add(true, &fewerConnections, "")
	c.add(!v.source.severalHosts(), &oneClock, all+", if one kernel is behind the address")
	c.add(true, &morePorts, "")
	c.add(true, &notRandom, "")
	c.add(!v.ns.timestampsOff(), &timestampsOff, "")
	return c.list
}

func (v *refusalView) restartRemedies() []event.Remedy {
	var c choice
	c.add(v.ns.rfc1337(), &rfc1337Off, "")
	c.add(true, &waitForIt, "")
	c.add(true, &clientCloses, "")
	return c.list
}

func (v *refusalView) delayRemedies() []event.Remedy {
	var c choice
	c.add(true, &letBe, "")
	return c.list
}

func (v *refusalView) sequenceRemedies() []event.Remedy {
	var c choice
	c.add(v.ns.rfc1337(), &rfc1337Off, "")
	c.add(true, &clientCloses, "")
	c.add(true, &holdPorts, "")
	c.add(v.timed < v.count, &timestampsOn, "")
	c.add(true, &fewerConnections, "")
	c.add(true, &morePorts, "")
	return c.list
}

func (v *sourceView) recycleRemedies() []event.Remedy {
	var c choice
	if on, known := v.ns.number(kernel.SysctlTWRecycle); v.did.count > 0 || known && on != 0 {
		here := recycleOff
		here.Do = "sysctl -w net.ipv4.tcp_tw_recycle=0 on this host"
		c.add(true, &here, "")
	} else {
		c.add(true, &recycleOff, "")
	}
	c.add(v.told.Class == event.ClockRandomised, &oneClock, "no refusals by it, if one kernel is behind the address")
	return c.list
}

func (v *sourceView) randomisedRemedies() []event.Remedy {
	var c choice
	c.add(true, &noCount, "")
	c.add(true, &oneClock, "")
	return c.list
}

// peerRemedies are for this host as the client.
func peerRemedies(n *namespace, stale bool) []event.Remedy {
	var c choice
	c.add(true, &fewerConnections, "")
	c.add(stale, &closeHere, "")
	c.add(n.timestampsOff(), &timestampsOnHere, "")
	ts, known := n.number(kernel.SysctlTimestamps)
	c.add(known && ts == 1, &oneClock, "no refusals by PAWS, if a NAT changes the ports on the way and no other host is behind it")
	c.add(true, &holdPorts, "")
	c.add(!stale, &recycleOff, "")
	return c.list
}

func (l *listener) remedies(n *namespace) []event.Remedy {
	var c choice
	most, known := n.number(kernel.SysctlSomaxconn)
	c.add(l.acceptFull(), &acceptFaster, "")
	switch {
	case l.limit != 0 && known && int64(l.limit) < int64(most):
		c.add(true, &longerBacklog, fmt.Sprintf("bursts of up to %s connections instead of %s, which is what net.core.somaxconn allows", group(most), group(l.limit)))
	case l.limit != 0:
		c.add(true, &raiseSomaxconn, fmt.Sprintf("bursts of more than the %s connections that it holds now", group(l.limit)))
	default:
		c.add(true, &longerBacklog, "")
		c.add(true, &raiseSomaxconn, "")
	}
	c.add(true, &moreListeners, "")
	cookies, known := n.number(kernel.SysctlSYNCookies)
	c.add(known && cookies == 0, &cookiesOn, "")
	return c.list
}
