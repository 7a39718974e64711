// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"net/netip"
)

// Verdict tells why a socket in TIME_WAIT refused a SYN.
type Verdict uint8

// The verdicts. Their names are written with dashes, as the codes of findings
// are.
const (
	VerdictNone             Verdict = iota // left out of JSON: no SYN, or nobody has looked
	VerdictNATPortRewrite                  // "nat-port-rewrite": a NAT gave the 4-tuple to a connection with another clock
	VerdictNATMultiClock                   // "nat-multi-clock": two clocks that live at the same time met on it
	VerdictRestart                         // "restart": the peer, or who has its address, was replaced
	VerdictOldDuplicate                    // "old-duplicate": a SYN of before, which came late
	VerdictClientRandomised                // "client-randomised": the peer draws a new offset for each connection
	VerdictSeqReject                       // "seq-reject": PAWS has no part in it, the sequence number is old
	VerdictSpoofSuspect                    // "spoof-suspect": nothing shows that the peer exists
	VerdictUnknown                         // "unknown"
)

// Judgement is what is concluded about one refused SYN. It is in JSON only
// with a verdict.
type Judgement struct {
	Verdict Verdict
	// Odds is log10 of the odds for the verdict against the next best one; 0
	// for VerdictUnknown.
	Odds float64
	// OffsetS is by how much the clock of the SYN differs from that which the
	// socket remembered, in s, at 1000 ticks per second and modulo 2^32 of
	// them; negative: it is behind. HasOffset tells if it is known.
	OffsetS   float64
	HasOffset bool
	Because   string // what speaks for it, in words
}

// Rule is the test by which a SYN was refused.
type Rule uint8

// The rules of tcp_timewait_state_process, PAWS aside.
const (
	RuleUnknown    Rule = iota // "unknown"
	RuleSequence               // "sequence": neither TSval nor sequence number is beyond those of the old connection
	RuleFinWait2               // "fin_wait2": the substate is FIN_WAIT2, in which no SYN is accepted
	RuleNoListener             // "no_listener": the SYN was acceptable, but nobody listens any more
)

// SYNReject is one SYN that a socket in TIME_WAIT refused although PAWS let it
// pass. No counter of the kernel tells of it.
type SYNReject struct {
	Header
	Socket
	Rule        Rule
	Timestamps  bool   // the SYN carried the timestamps option
	TSval       uint32 // left out of JSON without timestamps
	TSRecent    uint32 // ts_recent of the socket; 0: none, left out of JSON
	Seq         uint32 // sequence number of the SYN
	RcvNxt      uint32 // what the socket expected next
	AgeMS       uint32 // since the socket entered TIME_WAIT, in ms; HasAge tells if known
	HasAge      bool
	Reply       Reply
	TTL         uint8  // or IPv6 hop limit; 0: not known (left out)
	Fingerprint string // see Fingerprint; empty: not known (left out)
	Judgement
}

// ListenDrop says that a listener dropped connections that were about to be
// made, because its queues were full. Dropped is of the time since the event
// before of the same listener, the other counts since the one before of the
// namespace, or since the start: several listeners of one look repeat them.
type ListenDrop struct {
	Header
	Socket           // the listener, without remote address; without a local one it is not known which
	Dropped   uint64 // SYNs and final ACKs dropped: sk_drops of the listener, or ListenDrops
	Overflows uint64 // of the whole namespace, for a full accept queue: ListenOverflows
	SYNQueue  uint64 // of the whole namespace, for a full SYN queue without cookies: TCPReqQFullDrop
	Cookies   uint64 // of the whole namespace, SYN cookies sent for a full SYN queue: TCPReqQFullDoCookies
	Backlog   uint32 // connections that waited for accept() when we looked
	Limit     uint32 // how many may: the least of listen()'s backlog and net.core.somaxconn; 0: not known
}

// ClockClass is what the timestamp clocks of a source address tell about who
// is behind it. None of them says that there is no NAT.
type ClockClass uint8

// The classes.
const (
	ClockNotEnough  ClockClass = iota // "not_enough": too few SYNs to tell
	ClockOne                          // "one_clock": one clock explains nearly all SYNs
	ClockShared                       // "shared": several clocks at the same time
	ClockRandomised                   // "randomised": the offset differs from connection to connection; one host or many
	ClockRestarted                    // "restarted": one clock after another
)

// Strength is how sure a class is.
type Strength uint8

// The strengths.
const (
	StrengthWeak   Strength = iota // "weak"
	StrengthMedium                 // "medium"
	StrengthStrong                 // "strong"
)

// Source is what is known of one source address, as seen from one address of
// this host: a system may draw another clock for each.
type Source struct {
	NetNS uint32     `json:"netns"`
	Raddr netip.Addr `json:"raddr"` // the source
	Laddr netip.Addr `json:"laddr"` // our address
	// SYNs are those that we looked at since the start, refused ones among
	// them: one that is refused and sent again is another, as in the kernel's
	// counters. Completed are the handshakes that completed.
	SYNs      uint64     `json:"syns"`
	Completed uint64     `json:"completed"`
	Class     ClockClass `json:"class"`
	Strength  Strength   `json:"strength"`
	// Clocks is how many clocks were seen at one instant of the last hour: a
	// lower bound. Estimate, from Low to High (95 %), adds those that were
	// likely not seen; Open: there is no upper bound.
	Clocks   uint32 `json:"clocks"`
	Estimate uint32 `json:"estimate"`
	Low      uint32 `json:"low"`
	High     uint32 `json:"high"`
	Open     bool   `json:"open"`
	OnLine   uint32 `json:"on_line"`  // connections of the last hour that a clock explains
	OffLine  uint32 `json:"off_line"` // those with a completed handshake that none explains
	// Repeated and Rewritten count 4-tuples that were used again within 130 s,
	// with the same clock and with another.
	Repeated  uint64 `json:"repeated"`
	Rewritten uint64 `json:"rewritten"`
	// Refused are SYNs that PAWS refused on sockets in TIME_WAIT, Rejected
	// those that were refused there for other reasons; Verdicts says why both
	// were.
	Refused  uint64            `json:"refused"`
	Rejected uint64            `json:"rejected"`
	Verdicts map[string]uint64 `json:"verdicts"`
	// Recycle2632 and Recycle310 are how many of RecycleSYNs a server with
	// tcp_tw_recycle on Linux 2.6.32 and 3.10 would have refused.
	RecycleSYNs uint64 `json:"recycle_syns"`
	Recycle2632 uint64 `json:"recycle_2_6_32"`
	Recycle310  uint64 `json:"recycle_3_10"`
	// Fingerprints are the kinds of systems that sent SYNs, see Fingerprint;
	// at most 4.
	Fingerprints []string `json:"fingerprints"`
}

// UnmarshalJSON reads a source.
func (y *Source) UnmarshalJSON(raw []byte) error {
	type plain Source // without methods
	var p plain
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	*y = Source(p)
	y.Raddr, y.Laddr = cleanAddr(y.Raddr), cleanAddr(y.Laddr)
	return nil
}

// Sources are the source addresses that matter most: those whose SYNs were
// refused, those with several clocks, then the busiest.
type Sources struct {
	Header
	List    []Source
	Omitted uint64 // sources that are not in the list
	Evicted uint64 // sources forgotten for want of room, since the start of the run
	Skipped uint64 // SYNs not looked at, to bound what that costs, since the start of the run
}
