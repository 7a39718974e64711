// SPDX-License-Identifier: Apache-2.0

// Package clock tells how many TCP timestamp clocks share a source address,
// from the TSval of the SYNs that it sends to one address of ours. A clock is
// one TCP stack's identity, not a box or a person: a proxy with many workers
// is several, the pods behind one node are several, and one host that changes
// networks is another.
//
// It is pure: it has no clock of its own, no goroutine and no kernel. It is
// fed SYNs and time, and answers the same for the same seed.
//
// # What a clock does
//
// RFC 7323 (section 5.4) lets TSval tick from once per ms to once per s, and
// gives no origin. What systems do (Linux: secure_tcp_ts_off and, since 7.0,
// secure_tcp_seq_and_ts_off in net/core/secure_seq.c) is one of:
//
//   - an offset per pair of addresses, or none: all connections of a host to
//     one address are on one line of TSval over time. That can be counted.
//   - an offset per 4-tuple (Linux since 7.0, and the stable releases that took
//     165573e41f2f; Apple; FreeBSD) or per connection: every connection is on
//     a line of its own. How many hosts there are cannot be told, and is not.
//
// A key is therefore (netns, source, local): two addresses of ours would see
// two clocks of one client.
//
// # The cone
//
// Lines are not straight. The rate may be 1000, 300, 250 or 100 Hz, and Linux
// takes TSval from CLOCK_MONOTONIC, which stands still in suspend, so that a
// phone falls back from its line several times an hour. But no clock runs
// backwards or faster than its rate: from one SYN to the next, dt ms later,
//
//	0 <= TSval - TSval' <= 1000 Hz * dt * (1 + 100 ppm) + 3 s
//
// modulo 2^32. A SYN between -1 s and +3 s of a line is on it. A SYN below, but
// in the cone, is a hop: it opens a line that continues the chain. If the old
// line goes on afterwards, the clock did not stand still, and what followed the
// hop is taken apart again: it was late, or it is another clock. Rates are not
// learned, because a slower clock and one that sleeps cannot be told apart by
// SYNs; tighter windows would make two clocks of one.
//
// Each match adds log10 of the odds against chance: 2^32 by the width of the
// window and by the number of lines that might have been met. A chain is
// certain, and counts, from two connections and 10^4 on, times a quarter of the
// SYNs that met nothing; and from 10^6 on if no handshake of it completed and
// many SYNs had none, which may be forged. A match by the same ports does not count: it is a
// retransmission, or a 4-tuple with a clock of its own that is used again.
//
// # Counting
//
// The number of clocks is that of certain chains that lived at one instant,
// after joining those within a minute of each other. One that begins when
// another has ended may be the same host after a restart. So it is a lower
// bound, and a NAT is claimed only where clocks were seen in turns. How many
// were not seen follows from those seen once and twice (Chao); the estimate is
// left open where connections are on no line, instead of counting those.
//
// A source with one certain clock and some completed handshakes off its line
// is shared too, with less strength. Completed, because anybody can forge a SYN
// with any TSval, and forged ones are off all lines.
//
// # Whose SYN it was
//
// When a socket in TIME_WAIT refuses a SYN by its TSval, Locate tells the clock
// that the SYN is of, and the clock that ts_recent was of, at the earlier time
// when the socket took it. If they are two, and both Certain, Concurrent tells
// whether they lived at the same time, as behind a NAT, or one after the other,
// as after a restart. A FitHop is weaker than a FitLine: its Odds are those of
// the chain, not of the fit. Nothing is located where connections have offsets
// of their own: Find says so by the class Randomised, Strong, which is as sure
// as its OffLine handshakes are many; and it says of Shared with which Strength
// it is. A class is of the last hour, and of what was fed until then: ask before
// the refused SYN is forgotten, not before it is fed, which makes no difference.
//
// # What cannot be told
//
// Stacks with a clock per 4-tuple, of a system that is not known for it, whose
// ports a NAT changes, show a line again for each local port that is used
// again. A host that has some hundreds of local ports or fewer, and is busy,
// then looks like as many hosts, each of which connects now and then: nothing
// in the SYNs differs. With Linux's default range it is not so, because ports
// come round after thousands of connections, when their lines are forgotten.
//
// A clock faster than Config.TickRate looks like one that is drawn for each
// connection.
//
// # Memory
//
// A SYN costs no allocation, and the memory is bounded by Config.Sources. A
// source with one SYN costs a slot of 24 bytes, and 8 of an index. A
// completed handshake, or a match a second later, gives it a record: of 2
// chains and 4 lone SYNs, then 12 and 16, then 64 and 64. All are bounded in
// number, and none is allocated for a SYN as such. When a place is wanted, a
// CLOCK hand looks for one: SYNs without handshake drive out each other, and
// never a source with a record. So a flood of forged sources costs no more
// than the lone SYNs of others.
package clock
