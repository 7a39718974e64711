// SPDX-License-Identifier: Apache-2.0

// Package paws is the arithmetic of PAWS (Protection Against Wrapped
// Sequences, RFC 7323 section 5) as Linux does it: the comparisons, the
// checks, and what becomes of a SYN that meets a socket in TIME_WAIT.
//
// All functions are pure. Timestamps (TSval, ts_recent) are the 32-bit values
// of the TCP option, in host byte order and in the peer's ticks. Times are
// whole seconds of one clock, the 32 bits that the kernel compares: the
// monotonic clock since 4.19 (ktime_get_seconds), the wall clock before.
package paws

// Constants of include/net/tcp.h.
const (
	// MSL is TCP_PAWS_MSL: for how many seconds a timestamp protects
	// against an RST, and against a SYN in the per-host check of
	// tcp_tw_recycle.
	MSL = 60
	// Window is TCP_PAWS_WINDOW: by how many ticks a segment may be older
	// than ts_recent in tcp_validate_incoming. TIME_WAIT, SYN_RECV and
	// SYN_SENT allow none.
	Window = 1
	// Wrap24Days is TCP_PAWS_24DAYS, in seconds: how long ts_recent is
	// valid in kernels up to 6.6.
	Wrap24Days = 24 * 24 * 60 * 60
	// WrapMicroseconds is TCP_PAWS_WRAP, in seconds: how long ts_recent is
	// valid in kernels since 6.7, where a tick may be a microsecond.
	WrapMicroseconds = 2147
)

// Before reports whether a is older than b modulo 2^32: before() in
// include/net/tcp.h, time_before32() in include/linux/jiffies.h. Values that
// are exactly 2^31 apart are each before the other, as in the kernel.
func Before(a, b uint32) bool { return int32(a-b) < 0 }

// After reports whether a is newer than b modulo 2^32: after() in
// include/net/tcp.h.
func After(a, b uint32) bool { return Before(b, a) }

// Recent is the timestamp that a socket remembers of its peer: ts_recent and
// ts_recent_stamp of struct tcp_options_received or struct tcp_timewait_sock.
type Recent struct {
	TSval uint32 // ts_recent
	Stamp uint32 // ts_recent_stamp: when it was taken, in seconds; 0: timestamps were not negotiated
}

// Check reports whether a segment with tsval passes, at the time now, on a
// socket that remembers r: tcp_paws_check. window is 0 or Window; wrap is
// Wrap24Days or WrapMicroseconds, by kernel version.
//
// It passes if it is not older than r.TSval by more than window, if r is too
// old to tell, or if r.TSval is 0, which some systems send in the handshake.
// Callers must not ask about an r whose Stamp is 0.
func Check(r Recent, tsval uint32, window int32, now, wrap uint32) bool {
	return int32(r.TSval-tsval) <= window ||
		!Before(now, r.Stamp+wrap) ||
		r.TSval == 0
}

// Reject reports whether a segment with tsval is refused, at the time now, on
// a socket in TIME_WAIT, SYN_RECV or SYN_SENT that remembers r:
// tcp_paws_reject. An RST is let through once r is MSL seconds old. The other
// arguments are as for Check.
func Reject(r Recent, tsval uint32, rst bool, now, wrap uint32) bool {
	if Check(r, tsval, 0, now, wrap) {
		return false
	}
	return !rst || Before(now, r.Stamp+MSL)
}
