/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The IP header of a received skb. */
#ifndef TWSCOPE_PACKET_H
#define TWSCOPE_PACKET_H

#include "tcpopt.h"
#include "tuple.h"

/* struct iphdr and struct ipv6hdr, as far as both are read */
#define TWS_IPV4_TTL 8
#define TWS_IPV4_SADDR 12
#define TWS_IPV4_DADDR 16
#define TWS_IPV6_HOP_LIMIT 7
#define TWS_IPV6_SADDR 8
#define TWS_IPV6_DADDR 24

static __always_inline const unsigned char *
tws_ip_header(const struct sk_buff *skb)
{
	return BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, network_header);
}

/*
 * tws_fill_syn - what a SYN tells about who sent it
 *
 * Without a branch that a verifier would follow both ways for every way that
 * leads here.
 */
static __always_inline void tws_fill_syn(struct tws_syn_header *h,
					 const struct tws_segment_info *segment,
					 const struct sk_buff *skb)
{
	__u8 ip[TWS_IPV4_TTL + 1] = {};

	bpf_probe_read_kernel(ip, sizeof(ip), tws_ip_header(skb));
	h->opt = segment->opt;
	h->window = segment->window;
	h->ip_version = ip[0] >> 4;
	h->ttl = h->ip_version == 6 ? ip[TWS_IPV6_HOP_LIMIT] : ip[TWS_IPV4_TTL];
}

/*
 * tws_packet_tuple - who sent a segment to whom; local is the destination
 *
 * The network namespace comes from the caller's socket. False: not IP.
 */
static __always_inline bool
tws_packet_tuple(struct tws_tuple *t, const struct tws_segment_info *segment,
		 const struct sk_buff *skb)
{
	const unsigned char *header = tws_ip_header(skb);
	__be32 addr = 0;
	__u8 version = 0;

	if (bpf_probe_read_kernel(&version, 1, header))
		return false;
	t->lport = segment->dest;
	t->rport = segment->source;
	if (version >> 4 == 4) {
		bpf_probe_read_kernel(&addr, 4, header + TWS_IPV4_SADDR);
		tws_map_ipv4(t->raddr, addr);
		bpf_probe_read_kernel(&addr, 4, header + TWS_IPV4_DADDR);
		tws_map_ipv4(t->laddr, addr);
		return true;
	}
	if (version >> 4 != 6)
		return false;
	bpf_probe_read_kernel(t->raddr, 16, header + TWS_IPV6_SADDR);
	bpf_probe_read_kernel(t->laddr, 16, header + TWS_IPV6_DADDR);
	return true;
}

#endif
