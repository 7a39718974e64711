// SPDX-License-Identifier: Apache-2.0

package refusal

import "strings"

// stack is how a TCP stack makes the offset of TSval.
type stack uint8

const (
	stackUnseen   stack = iota // no fingerprint
	stackStranger              // not in the table
	stackKeyed                 // the same for the same 4-tuple until restart
	stackDrawn                 // drawn for each connection
)

// stacks are the systems whose way is known, by the options of their SYNs.
var stacks = [...]struct {
	options string // in the form of event.Fingerprint
	prefix  bool   // others may follow: MPTCP, a TCP Fast Open cookie
	ttl     string // initial TTL; empty: any
	kind    stack
}{
	// Linux: tcp_syn_options and tcp_options_write, net/ipv4/tcp_output.c;
	// no offset until 4.9, then secure_tcp_ts_off, now
	// secure_tcp_seq_and_ts_off. 4.10 itself drew it for each connection.
	{options: "mss,sok,ts,nop,ws", prefix: true, kind: stackKeyed},
	// Apple: tcp_output and tcp_subr.c of xnu, randomize_timestamps: MD5 of the
	// 4-tuple since 2021, none before.
	{options: "mss,nop,ws,nop,nop,ts,sok,eol+1", ttl: "64", kind: stackKeyed},
	// FreeBSD: tcp_addoptions, sys/netinet/tcp_output.c; tcp_new_ts_offset, a
	// keyed hash. Windows 7 has the same order with timestamps, and TTL 128.
	{options: "mss,nop,ws,sok,ts", ttl: "64", kind: stackKeyed},
	// OpenBSD: tcp_output, sys/netinet/tcp_output.c; tcp_newtcpcb draws
	// ts_modulate by arc4random.
	{options: "mss,nop,nop,sok,nop,ws,nop,nop,ts", ttl: "64", kind: stackDrawn},
}

// stackOf returns the kind of a fingerprint, in the form of
// event.Fingerprint's String.
func stackOf(fingerprint string) stack {
	if fingerprint == "" {
		return stackUnseen
	}
	options := fingerprint[strings.LastIndexByte(fingerprint, ':')+1:]
	_, rest, _ := strings.Cut(fingerprint, ":")
	ttl, _, _ := strings.Cut(rest, ":")
	for i := range stacks {
		s := &stacks[i]
		tail, ok := strings.CutPrefix(options, s.options)
		if ok && (tail == "" || s.prefix && tail[0] == ',') && (s.ttl == "" || s.ttl == ttl) {
			return s.kind
		}
	}
	return stackStranger
}
