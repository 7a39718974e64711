// SPDX-License-Identifier: Apache-2.0

// Package refusal tells why a socket in TIME_WAIT refused a SYN, and how many
// SYNs a server with tcp_tw_recycle would have refused.
//
// It is pure: it has no clock of its own, no goroutine and no kernel. It is fed
// events in the order of the log, takes the time from them alone, and answers
// the same for the same events and seed.
//
// # A NAT, or a restart
//
// Linux, Apple's systems and FreeBSD hash the 4-tuple, or the addresses alone,
// into the offset of TSval (Linux: secure_tcp_ts_off, and since 7.0, 6.18.17
// and 6.12.94 secure_tcp_seq_and_ts_off, net/core/secure_seq.c). So while one
// host holds an address, a 4-tuple that is used again shows the clock that it
// showed before. When it shows another, then either the host was restarted (or
// another has the address), or a NAT gave the 4-tuple to another connection.
//
// One such change never tells which. But a restart lies between the last moment
// that the old clock is known to have run and the first of the new. So:
//
//   - Two changes within 50 s whose intervals have no instant in common need
//     two restarts within 50 s. No host does that.
//   - Five changes within an hour, no two of which have an instant in common,
//     need five restarts.
//   - A 4-tuple that shows its clock at both ends of a span was on one host, not
//     restarted, through it. A change within the span was no restart.
//   - The same holds for a certain clock (package clock) to which the refused
//     SYN belongs, and that was seen before the old clock was seen last.
//   - A clock that comes back to a 4-tuple after another was there cannot have
//     ended. This holds for every kind of stack.
//
// Each is a fact; with one fact and two changes a NAT is told, or with two facts
// where only refused SYNs make them, because a SYN from before a restart may
// come after it. Before there is one, it is told with odds of 10 where two
// changes or more share no time as long as Options.Outage in which no handshake
// completed. "Known to have
// run" is strict: it is when a SYN arrived whose handshake completed, because
// what arrives late proves nothing about the time of its arrival. The client
// answers our SYN-ACK after its SYN has come in.
//
// Systems that draw the offset for each connection (OpenBSD) change a 4-tuple's
// clock without a NAT, so only those above, known by the order of their TCP
// options, count as changes. Where SYNs have no fingerprint all do, with odds
// of no more than 100.
//
// # Odds
//
// All are log10, and at most 12.
//
//   - nat-port-rewrite: log10(3600/50) = 1.86 for each fact that a restart would
//     have to explain, at one restart per hour, and log10(2^32/4000) = 6.03 for
//     each return, the chance that another clock is on the line. At most 2
//     without a fingerprint and without a return. 1 without a fact.
//   - nat-multi-clock: that of the less certain of both clocks.
//   - restart: that of the less certain of both clocks but at most 4, or 1 for
//     each 4-tuple that kept its new clock after all changes, at most 4.
//   - old-duplicate: log10(2^32/15000) = 5.46 for a TSval that is up to 15 s
//     behind the line, and log10(2^32) = 9.63 for that of a SYN seen before.
//     Without timestamps log10(2^31/2^16) = 4.52 for a sequence number up to
//     64 KiB behind, within 15 s.
//   - client-randomised: 2 for a stack that is known to, 1 for clocks that are.
//   - seq-reject: 12, because it is the kernel's own rule.
//   - spoof-suspect: log10 of the SYNs without handshake.
//
// # What cannot be told
//
// A source with too few SYNs, or that uses 4-tuples again too seldom for a
// fact, stays unknown. An address that moves from one busy host to another in
// less than Options.Outage is taken for a NAT's until 4-tuples keep their new
// clock, unless Outage is less than 0. So is a host that is restarted twice in
// 50 s.
// Two hosts behind a NAT whose clocks are less than two minutes apart are one
// clock here.
//
// # Memory
//
// Sources, 4-tuples and addresses are bounded in number. When a place is
// wanted, a CLOCK hand looks for one; what no completed handshake vouches for
// makes room first, and never takes the place of what one does.
package refusal
