/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The TCP header and its options, RFC 9293 section 3.1. The walk is bounded,
 * takes any bytes, and stops where tcp_parse_options() stops.
 */
#ifndef TWSCOPE_TCPOPT_H
#define TWSCOPE_TCPOPT_H

#include "abi.h"
#include "maps.h"
#include "../headers/kernel.h"

#define TWS_TCPOPT_EOL 0
#define TWS_TCPOPT_NOP 1
#define TWS_TCPOPT_MSS 2
#define TWS_TCPOPT_WINDOW 3
#define TWS_TCPOPT_SACK_PERM 4
#define TWS_TCPOPT_TIMESTAMP 8

/* bytes 12 to 15 of a TCP header */
struct tws_tcp_tail {
	__u8 doff; /* header length in 4-byte words, in the high half */
	__u8 flags;
	__be16 window;
};

#define TWS_TCP_FIN 0x01
#define TWS_TCP_SYN 0x02
#define TWS_TCP_RST 0x04
#define TWS_TCP_ACK 0x10

#define TWS_TCP_HEADER_LEN 20

static __always_inline __u32 tws_be32(const __u8 *p)
{
	return (__u32)p[0] << 24 | (__u32)p[1] << 16 | (__u32)p[2] << 8 | p[3];
}

/* Reads an option's value, @len bytes with kind and length, at @option. */
static __always_inline void tws_tcpopt_value(struct tws_tcpopt *opt, __u8 kind,
					     __u8 len, const void *option)
{
	__u8 value[8] = {};

	switch (kind) {
	case TWS_TCPOPT_MSS:
		if (len != 4 || bpf_probe_read_kernel(value, 2, option + 2))
			return;
		opt->mss = (__u16)value[0] << 8 | value[1];
		opt->has_mss = 1;
		break;
	case TWS_TCPOPT_WINDOW:
		if (len != 3 || bpf_probe_read_kernel(value, 1, option + 2))
			return;
		opt->wscale = value[0];
		opt->has_wscale = 1;
		break;
	case TWS_TCPOPT_SACK_PERM:
		if (len == 2)
			opt->sack_permitted = 1;
		break;
	case TWS_TCPOPT_TIMESTAMP:
		if (len != 10 || bpf_probe_read_kernel(value, 8, option + 2))
			return;
		opt->tsval = tws_be32(value);
		opt->tsecr = tws_be32(value + 4);
		opt->saw_tstamp = 1;
		break;
	}
}

/* Notes the kind of option number @n. */
static __always_inline void tws_tcpopt_note(struct tws_tcpopt *opt, __u32 n,
					    __u8 kind)
{
	__u64 byte = (__u64)kind << (n & 7) * 8;

	if (n < 8)
		opt->kinds[0] |= byte;
	else if (n < 16)
		opt->kinds[1] |= byte;
	else if (n < 24)
		opt->kinds[2] |= byte;
	else
		return;
	opt->count = n + 1;
}

static const struct tws_tcpopt tws_no_options;

/*
 * tws_tcpopt_walk - parse options
 *
 * @options: kernel memory, of which @len bytes are options. It is probe-read
 *	     option by option: verifiers up to 5.11 refuse a variable offset
 *	     into the stack, and a buffer in a map could be overwritten by a
 *	     softirq on the same CPU.
 *
 * As in tcp_parse_options() (net/ipv4/tcp_input.c): a length below 2 or beyond
 * the header ends the walk, what was read before it counts, and the last of
 * several options of one kind wins.
 *
 * Verifiers follow every path through the loop whose state differs from those
 * they have seen. So that all paths look the same after each option, the
 * result is cleared by a helper and the position lives in memory, one byte
 * wide: verifiers know nothing of the contents of either.
 */
static __always_inline void tws_tcpopt_walk(struct tws_tcpopt *opt,
					    const void *options, __u32 len)
{
	volatile __u8 position = 0;
	__u32 i;

	bpf_probe_read_kernel(opt, sizeof(*opt), &tws_no_options);
	if (len > TWS_TCPOPT_MAX)
		len = TWS_TCPOPT_MAX;
#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_TCPOPT_MAX; i++) {
		__u32 at = position;
		__u8 head[2] = {};

		if (at >= len)
			return;
		/* an skb has room behind its header, so 2 bytes are there */
		if (bpf_probe_read_kernel(head, sizeof(head), options + at))
			return;
		if (head[0] == TWS_TCPOPT_EOL) {
			opt->eol_pad = len - at - 1;
			return;
		}
		tws_tcpopt_note(opt, i, head[0]);
		if (head[0] == TWS_TCPOPT_NOP) {
			position = at + 1;
			continue;
		}
		if (at + 1 >= len || head[1] < 2 || at + head[1] > len) {
			opt->malformed = 1;
			return;
		}
		tws_tcpopt_value(opt, head[0], head[1], options + at);
		position = at + head[1];
	}
}

/* What a hook needs to know of a segment. */
struct tws_segment_info {
	struct tws_tcpopt opt;
	__u32 seq;
	__u32 ack_seq;
	__u16 source;
	__u16 dest;
	__u16 window;
	__u8 flags;
	__u8 header_len;
};

/*
 * tws_read_segment - the TCP header of a received skb and its options
 *
 * The TCP code has pulled the whole header into the linear part before any of
 * our hooks. False: the header could not be read.
 */
static __always_inline bool tws_read_segment(struct tws_segment_info *info,
					     const struct sk_buff *skb)
{
	unsigned char *th =
		BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, transport_header);
	struct {
		__be16 source;
		__be16 dest;
		__be32 seq;
		__be32 ack_seq;
		struct tws_tcp_tail tail;
	} tcp;

	__builtin_memset(info, 0, sizeof(*info));
	if (bpf_probe_read_kernel(&tcp, sizeof(tcp), th))
		return false;
	info->source = bpf_ntohs(tcp.source);
	info->dest = bpf_ntohs(tcp.dest);
	info->seq = bpf_ntohl(tcp.seq);
	info->ack_seq = bpf_ntohl(tcp.ack_seq);
	info->window = bpf_ntohs(tcp.tail.window);
	info->flags = tcp.tail.flags;
	info->header_len = (tcp.tail.doff >> 4) * 4;
	if (info->header_len <= TWS_TCP_HEADER_LEN)
		return true;
	tws_tcpopt_walk(&info->opt, th + TWS_TCP_HEADER_LEN,
			info->header_len - TWS_TCP_HEADER_LEN);
	return true;
}

/* The kind of segment as people name it; SYN, FIN and RST before the rest. */
static __always_inline enum tws_segment
tws_segment_kind(const struct tws_segment_info *info, bool has_data)
{
	if (info->flags & TWS_TCP_RST)
		return TWS_SEGMENT_RST;
	if (info->flags & TWS_TCP_SYN)
		return TWS_SEGMENT_SYN;
	if (info->flags & TWS_TCP_FIN)
		return TWS_SEGMENT_FIN;
	return has_data ? TWS_SEGMENT_DATA : TWS_SEGMENT_ACK;
}

#endif
