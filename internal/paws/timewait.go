// SPDX-License-Identifier: Apache-2.0

package paws

// TimeWait is what decides about a SYN on a socket in TIME_WAIT: struct
// tcp_timewait_sock.
type TimeWait struct {
	Recent
	FinWait2 bool   // tw_substate is TCP_FIN_WAIT2: the peer has not closed yet
	RcvNxt   uint32 // tw_rcv_nxt: the sequence number expected next
	RcvWnd   uint32 // tw_rcv_wnd, in bytes
}

// SYN is a segment with SYN and neither ACK nor RST, without data, on the
// 4-tuple of a socket in TIME_WAIT.
type SYN struct {
	Seq        uint32
	Timestamps bool // it carries the timestamps option
	TSval      uint32
}

// Outcome is what tcp_timewait_state_process does with a SYN.
type Outcome uint8

// The outcomes. PAWS and Sequence look alike to the peer: an ACK of the old
// connection, or silence within tcp_invalid_ratelimit.
const (
	Accept   Outcome = iota // TCP_TW_SYN: the listener gets it, if there is one
	PAWS                    // refused as an old duplicate, and the TIME_WAIT timer starts again
	Sequence                // refused: neither its sequence number nor its TSval is newer
	Reset                   // TCP_TW_RST: answered by RST, and the TIME_WAIT socket is gone
)

// Receive returns what becomes of s at the time now, in seconds:
// tcp_timewait_state_process of net/ipv4/tcp_minisocks.c, the same rule in
// 6.18 and 7.1. wrap is as for Check.
func (tw TimeWait) Receive(s SYN, now, wrap uint32) Outcome {
	return tw.receive(s, Reject(tw.Recent, s.TSval, false, now, wrap))
}

// receive returns the same, where older tells whether PAWS finds the TSval of
// s, if it counts, too old.
func (tw TimeWait) receive(s SYN, older bool) Outcome {
	// The kernel looks for the option only if the socket has a Stamp, so a
	// TSval alone proves nothing on a connection without timestamps.
	timestamps := s.Timestamps && tw.Stamp != 0
	if timestamps && older {
		return PAWS
	}
	if tw.FinWait2 {
		// tcp_in_window of a segment that is one sequence number long. What
		// lies in the window begins at RcvNxt or later, which means RST.
		inWindow := s.Seq == tw.RcvNxt ||
			After(s.Seq+1, tw.RcvNxt) && Before(s.Seq, tw.RcvNxt+tw.RcvWnd)
		if inWindow {
			return Reset
		}
		return Sequence
	}
	if After(s.Seq, tw.RcvNxt) || timestamps && After(s.TSval, tw.TSval) {
		return Accept
	}
	return Sequence
}
