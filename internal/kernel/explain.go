// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strconv"
)

// Severity grades an effect.
type Severity uint8

// The severities.
const (
	OK      Severity = iota // as it should be
	Info                    // worth knowing
	Warning                 // does harm, or not what it was set for
)

// String returns "ok", "info" or "warning".
func (s Severity) String() string {
	switch s {
	case OK:
		return "ok"
	case Info:
		return "info"
	default:
		return "warning"
	}
}

// Effect is what one sysctl does in one network namespace.
type Effect struct {
	Name     string // full name of the sysctl
	Value    string
	Effect   string // one plain sentence
	Severity Severity
}

// timeWaitSeconds is TCP_TIMEWAIT_LEN of include/net/tcp.h, a constant in all
// kernels.
const timeWaitSeconds = 60

// narrowRange is the size of the dynamic port range of RFC 6335, in ports.
const narrowRange = 16384

// Explain says what the sysctls of one network namespace, see [ReadSysctls],
// do there, those that exist, in a fixed order.
func Explain(values map[string]string, offset TSOffset) []Effect {
	x := explainer{values: values, offset: offset}
	var effects []Effect
	for _, name := range sysctls() {
		value, ok := values[name]
		if !ok {
			continue
		}
		text, severity := x.explain(name, value)
		effects = append(effects, Effect{Name: name, Value: value, Effect: text, Severity: severity})
	}
	return effects
}

type explainer struct {
	values map[string]string
	offset TSOffset
}

func (x explainer) explain(name, value string) (string, Severity) {
	switch name {
	case SysctlPortRange:
		return x.portRange(value)
	case SysctlReservedPorts:
		return x.reservedPorts(value)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return "is not a number, so twscope cannot tell what it does", Warning
	}
	switch name {
	case SysctlTWReuse:
		return x.twReuse(n)
	case SysctlTWReuseDelay:
		return x.twReuseDelay(n)
	case SysctlTimestamps:
		return x.timestamps(n)
	case SysctlMaxTWBuckets:
		return x.maxTWBuckets(n)
	case SysctlRFC1337:
		return rfc1337(n)
	case SysctlFinTimeout:
		return fmt.Sprintf("does not shorten TIME_WAIT, which is always %d s; it limits how long a closed socket waits for the peer's FIN", timeWaitSeconds), OK
	case SysctlRateLimit:
		return rateLimit(n)
	case SysctlTWRecycle:
		return twRecycle(n)
	default:
		return listenQueue(name, n), OK
	}
}

// listenQueue explains by inet_csk_listen_start, tcp_conn_request and
// sk_acceptq_is_full.
func listenQueue(name string, n int) string {
	switch {
	case name == SysctlSomaxconn:
		return fmt.Sprintf("at most %d connections wait for accept(), if the program asks listen() for as many", n)
	case name == SysctlMaxSYNBacklog:
		return fmt.Sprintf("without SYN cookies, no more than %d handshakes are begun towards one listener", n)
	case n == 0:
		return "no SYN cookies: when the queue of SYNs is full, SYNs are dropped"
	default:
		return "SYN cookies are sent when the queue of SYNs is full, so that SYNs need not be dropped"
	}
}

// twReuse explains by tcp_twsk_unique (net/ipv4/tcp_ipv4.c).
func (x explainer) twReuse(n int) (string, Severity) {
	switch {
	case n == 0:
		return "connect() takes over no socket in TIME_WAIT: each one blocks its port towards its destination for 60 s", Info
	case x.values[SysctlTimestamps] == "0":
		return "does nothing here: it needs TCP timestamps, and tcp_timestamps is 0", Warning
	case n == 2:
		return "connect() takes over sockets in TIME_WAIT only on loopback addresses (127.0.0.0/8, ::1) or if bound to lo; not to other hosts, nor over lo between this host's other addresses", Info
	default:
		return fmt.Sprintf("connect() takes over a socket that has been in TIME_WAIT for %s, if its peer negotiated timestamps; towards a peer without them it does nothing", x.reuseAge()), OK
	}
}

func (x explainer) reuseAge() string {
	if ms, ok := x.values[SysctlTWReuseDelay]; ok {
		return "more than " + ms + " ms"
	}
	return "about 1 s"
}

func (x explainer) twReuseDelay(ms int) (string, Severity) {
	if x.values[SysctlTWReuse] == "0" {
		return "does nothing here: tcp_tw_reuse is 0", OK
	}
	if ms > 1000 {
		return fmt.Sprintf("connect() takes over a socket only after %d ms in TIME_WAIT; the default is 1000", ms), Info
	}
	return fmt.Sprintf("connect() takes over a socket after %d ms in TIME_WAIT, if tcp_tw_reuse allows it", ms), OK
}

func (x explainer) timestamps(n int) (string, Severity) {
	switch {
	case n == 0:
		return "no connection here has timestamps: neither we nor our peers can re-use sockets in TIME_WAIT, and PAWS protects nobody from old duplicates", Warning
	case n == 2:
		return "timestamps show the time since boot, one clock for all connections: this host alone causes no PAWS rejects behind a NAT, but its uptime is visible", Info
	case x.offset == TSOffsetPerTuple:
		return "timestamps start at a random offset for each pair of addresses and ports: behind a NAT that re-uses ports, servers can refuse this host's SYNs by PAWS", Info
	case x.offset == TSOffsetPerAddresses:
		return "timestamps start at a random offset for each pair of addresses: to one server they are one clock, also behind a NAT that re-uses ports", OK
	default:
		return "timestamps are negotiated, and start at a random offset", OK
	}
}

func (x explainer) portRange(value string) (string, Severity) {
	low, high, err := ParsePortRange(value)
	if err != nil {
		return err.Error() + ", so twscope cannot tell what it does", Warning
	}
	total := int(high) - int(low) + 1
	usable := total
	reserved, err := parsePorts(x.values[SysctlReservedPorts])
	if err == nil {
		usable -= reserved.count(low, high)
	}
	if usable == 0 {
		return "leaves connect() no port: all are in ip_local_reserved_ports", Warning
	}
	text := fmt.Sprintf("gives connect() %d ports per local address and destination, which sustains %d connections/s towards each if this side closes first and re-uses none", usable, usable/timeWaitSeconds)
	if total%2 == 1 && total > 1 {
		// __inet_hash_connect rounds the size down to an even number.
		text += "; both ends have the same parity, so each search leaves out one port"
	}
	if usable < narrowRange {
		return text + fmt.Sprintf("; that is less than the %d of RFC 6335", narrowRange), Warning
	}
	return text, OK
}

func (x explainer) reservedPorts(value string) (string, Severity) {
	ports, err := parsePorts(value)
	if err != nil {
		return err.Error() + ", so twscope cannot tell what it does", Warning
	}
	all := ports.count(0, 65535)
	if all == 0 {
		return "reserves no ports", OK
	}
	low, high, err := ParsePortRange(x.values[SysctlPortRange])
	if err != nil {
		return fmt.Sprintf("keeps %d ports from being chosen by connect()", all), Info
	}
	within := ports.count(low, high)
	text := fmt.Sprintf("reserves %d ports, %d of them in ip_local_port_range, which connect() never chooses", all, within)
	if within == 0 {
		return text, OK
	}
	return text, Info
}

// maxTWBuckets explains by inet_twsk_alloc (net/ipv4/inet_timewait_sock.c).
func (x explainer) maxTWBuckets(n int) (string, Severity) {
	if n <= 0 {
		return "allows no socket in TIME_WAIT: connections close without it, and old duplicates can reach new ones", Warning
	}
	text := fmt.Sprintf("at %d sockets in TIME_WAIT, further connections close without it and count as TCPTimeWaitOverflow", n)
	low, high, err := ParsePortRange(x.values[SysctlPortRange])
	if total := int(high) - int(low) + 1; err == nil && n < total {
		return text + fmt.Sprintf("; that is fewer than the %d ports towards a single destination", total), Warning
	}
	return text, OK
}

func rfc1337(n int) (string, Severity) {
	if n == 0 {
		return "an RST ends a TIME_WAIT, so a client that PAWS refused gets in at its next try", OK
	}
	return "RSTs are ignored in TIME_WAIT: a client that PAWS refuses retries in vain, and each of its SYNs starts the 60 s again", Warning
}

func rateLimit(ms int) (string, Severity) {
	if ms <= 0 {
		return "every rejected segment is answered by an ACK, without limit", Info
	}
	return fmt.Sprintf("at most one rejected segment without data in %d ms is answered on each connection; to the peer the others look lost", ms), OK
}

func twRecycle(n int) (string, Severity) {
	if n == 0 {
		return "is off, as it must be: it refuses clients behind a NAT", OK
	}
	return "refuses SYNs of clients that share an address behind a NAT, without an answer (PAWSPassive): turn it off", Warning
}
