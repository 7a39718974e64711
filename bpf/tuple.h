/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses, ports and network namespace of full, request and TIME_WAIT sockets. */
#ifndef TWSCOPE_TUPLE_H
#define TWSCOPE_TUPLE_H

#include "abi.h"
#include "../headers/kernel.h"

static __always_inline void tws_map_ipv4(__u8 addr[16], __be32 ipv4)
{
	__u32 *word = (__u32 *)addr;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = ipv4;
}

static __always_inline __u32 tws_netns(const struct sock_common *skc)
{
	return BPF_CORE_READ(skc, skc_net.net, ns.inum);
}

/*
 * tws_fill_tuple - all kinds of sockets begin with a sock_common
 *
 * The local port is skc_num, in host order. It is 0 for a socket that
 * inet_put_port() has just taken its port from; those callers use
 * tws_sock_tuple().
 */
static __always_inline void tws_fill_tuple(struct tws_tuple *t,
					   const struct sock_common *skc)
{
	if (BPF_CORE_READ(skc, skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&t->laddr, skc, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&t->raddr, skc, skc_v6_daddr);
	} else {
		tws_map_ipv4(t->laddr, BPF_CORE_READ(skc, skc_rcv_saddr));
		tws_map_ipv4(t->raddr, BPF_CORE_READ(skc, skc_daddr));
	}
	t->lport = BPF_CORE_READ(skc, skc_num);
	t->rport = bpf_ntohs(BPF_CORE_READ(skc, skc_dport));
	t->netns = tws_netns(skc);
}

/* A full socket: inet_sport outlives skc_num (tcp_set_state puts the port). */
static __always_inline void tws_sock_tuple(struct tws_tuple *t,
					   const struct sock *sk)
{
	const struct inet_sock *inet = (const void *)sk;

	tws_fill_tuple(t, &sk->__sk_common);
	if (!t->lport)
		t->lport = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
}

static __always_inline bool tws_same_tuple(const struct tws_tuple *a,
					   const struct tws_tuple *b)
{
	const __u64 *x = (const void *)a;
	const __u64 *y = (const void *)b;

	_Static_assert(sizeof(*a) == 5 * sizeof(*x), "all of the tuple");
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3] &&
	       x[4] == y[4];
}

static __always_inline bool tws_is_tcp(const struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) &&
	       BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline bool tws_addr_is_loopback(const __u8 addr[16])
{
	const __u32 *word = (const __u32 *)addr;

	if (word[0] || word[1])
		return false;
	if (word[2] == bpf_htonl(0xffff))
		return addr[12] == 127;
	return !word[2] && word[3] == bpf_htonl(1);
}

#endif
