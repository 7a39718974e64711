// SPDX-License-Identifier: Apache-2.0

package paws

// Recycle is a kernel's version of tcp_tw_recycle: one timestamp for each peer
// address, whoever shares that address, and no SYN may be older than it for
// MSL seconds. 4.12 removed it (4396e46187ca).
type Recycle uint8

// The versions, each by the source it was read in.
const (
	// Recycle2632 is that of 2.6.32.67: tcp_v4_conn_request and
	// tcp_v4_remember_stamp of net/ipv4/tcp_ipv4.c, IPv4 only.
	Recycle2632 Recycle = iota
	// Recycle310 is that of 3.10.65: tcp_peer_is_proven and
	// tcp_remember_stamp of net/ipv4/tcp_metrics.c, IPv4 and IPv6.
	Recycle310
	// RecycleEL7 is that of 3.10.0-1160.el7, which also refuses a SYN
	// without timestamps. Mainline does so since a26552afe894 (3.17).
	RecycleEL7
)

// Host is what a kernel with tcp_tw_recycle remembers of a peer address:
// tcp_ts and tcp_ts_stamp of struct inet_peer, tcpm_ts and tcpm_ts_stamp of
// struct tcp_metrics_block. The zero Host knows nothing and refuses nothing.
type Host struct {
	TSval uint32 // in ticks of whoever was last remembered
	Stamp uint32 // when that TSval was received, in seconds of the wall clock
}

// Refuses reports whether a listener drops s in silence at the time now, in
// seconds of the wall clock, and counts PAWSPassive.
//
// Callers must not ask about a SYN that meets a socket in TIME_WAIT, which
// TimeWait.Receive judges instead, nor about one that is answered by a SYN
// cookie, which no kernel holds against Host.
func (h Host) Refuses(k Recycle, s SYN, now uint32) bool {
	if k == Recycle2632 {
		// unsigned longs: a Stamp ahead of a clock that was set back counts
		return s.Timestamps && uint64(now) < uint64(h.Stamp)+MSL && h.newer(s.TSval)
	}
	if now-h.Stamp >= MSL {
		return false
	}
	if !s.Timestamps {
		return k == RecycleEL7
	}
	return h.newer(s.TSval)
}

func (h Host) newer(tsval uint32) bool { return int32(h.TSval-tsval) > Window }

// Remember returns what the kernel knows of the address after a connection
// from it that remembers r has entered TIME_WAIT, at the time now:
// tcp_v4_remember_stamp, tcp_remember_stamp. The newest clock of the last MSL
// seconds wins, so whoever has another clock is shut out. A connection without
// timestamps (r.Stamp is 0) changes nothing: tcp_time_wait does not ask.
func (h Host) Remember(k Recycle, r Recent, now uint32) Host {
	expired := now-h.Stamp > MSL
	if k == Recycle2632 {
		expired = uint64(h.Stamp)+MSL < uint64(now)
	}
	newest := int32(h.TSval-r.TSval) <= 0 || expired && h.Stamp <= r.Stamp
	if r.Stamp == 0 || !newest {
		return h
	}
	return Host(r)
}
