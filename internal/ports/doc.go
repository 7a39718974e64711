// SPDX-License-Identifier: Apache-2.0

// Package ports keeps the book of local TCP ports: for every destination
// (network namespace, local address, remote address and port) which of them
// are in use, which are in TIME_WAIT and when the kernel gives those back,
// what the budget sustains, when it will be used up, and why a connect()
// failed for want of a port.
//
// It is pure: it has no clock, no goroutine and no kernel. It is fed events
// and time, int64 nanoseconds since the Unix epoch as in event.Header. Time
// that goes backwards a little is taken as it is; the book itself never goes
// back.
//
// # The budget
//
// __inet_hash_connect (net/ipv4/inet_hashtables.c) searches the range
// net.ipv4.ip_local_port_range, or the socket's IP_LOCAL_PORT_RANGE. It passes
// over reserved ports, and over every port whose bind bucket was made by
// bind() or listen() (fastreuse or fastreuseport >= 0), whatever its
// destination. What is left serves every destination once: the budget is per
// 4-tuple, not per port. A port in TIME_WAIT towards the same destination can
// be had only if tcp_twsk_unique (net/ipv4/tcp_ipv4.c) agrees.
//
// Since 4.9 a search in a range of an odd number of ports leaves out one of
// them (remaining &= ~1U): the last if it starts at the first, and else the
// first. Both are used in the long run, so both count, but a search may fail
// with one port left. A range of three starts at the first always, so that
// its last is never used. With IP_LOCAL_PORT_RANGE kernels by 6.8 leave out
// none.
//
// # When TIME_WAIT ends
//
// The kernel's timer wheel rounds a timer up to the next multiple of its
// level's granularity, see timer. A FIN, or another segment that is not to be
// in TIME_WAIT any more, starts the 60 s anew (tcp_timewait_state_process,
// net/ipv4/tcp_minisocks.c); the book does not see that, unless ends are fed,
// and then is early by the time since the socket entered. Mostly that is one
// round trip.
//
// A socket that enters in the substate FIN_WAIT2 is taken as one in TIME_WAIT,
// because the peer's FIN, which nothing reports, follows as soon as the peer
// closes. A census that finds it in FIN_WAIT2 corrects that. Both hold a port
// and both count as TimeWait; ss shows the latter as FIN-WAIT-2.
package ports
