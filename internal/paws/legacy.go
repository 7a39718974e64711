// SPDX-License-Identifier: Apache-2.0

package paws

// What differs in 2.6.32 (include/net/tcp.h of 2.6.32.67), whose servers still
// run with tcp_tw_recycle: a ts_recent of 0 is a timestamp like any other, and
// seconds are unsigned longs, so on 64 bits they do not wrap. From 3.10 on, as
// far as read, 0 tells nothing; from 4.19 on seconds are compared modulo 2^32.

// Check2632 reports whether a segment with tsval passes in 2.6.32:
// tcp_paws_check. The arguments are as for Check.
func Check2632(r Recent, tsval uint32, window int32, now uint32) bool {
	return int32(r.TSval-tsval) <= window ||
		uint64(now) >= uint64(r.Stamp)+Wrap24Days
}

// Reject2632 reports whether a segment with tsval is refused in 2.6.32:
// tcp_paws_reject. The arguments are as for Reject.
func Reject2632(r Recent, tsval uint32, rst bool, now uint32) bool {
	if Check2632(r, tsval, 0, now) {
		return false
	}
	return !rst || uint64(now) < uint64(r.Stamp)+MSL
}

// Receive2632 returns what becomes of s at the time now, in seconds, in
// 2.6.32: tcp_timewait_state_process, which differs from today's in
// Reject2632 only.
func (tw TimeWait) Receive2632(s SYN, now uint32) Outcome {
	return tw.receive(s, Reject2632(tw.Recent, s.TSval, false, now))
}
