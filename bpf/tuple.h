/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses, ports and network namespace of full, request and TIME_WAIT sockets. */
#ifndef TWSCOPE_TUPLE_H
#define TWSCOPE_TUPLE_H

#include "abi.h"
#include "compat.h"

static __always_inline void tws_map_ipv4(__u8 addr[16], __be32 ipv4)
{
	__u32 *word = (__u32 *)addr;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = ipv4;
}

/*
 * TWS_READ - a member of a kernel structure
 *
 * @btf: a constant. True where the verifier knows what @p is (an argument of a
 *	 tp_btf or fentry program, and what is loaded from it): a plain load,
 *	 which costs next to nothing. False elsewhere: a probe-read, 10 ns.
 */
#define TWS_READ(btf, p, member) \
	((btf) ? (p)->member : BPF_CORE_READ(p, member))

/*
 * TWS_PEEK - a member of what lies at an address
 *
 * A plain load where the verifier lets us say what it is, else a probe-read,
 * 25 ns.
 */
#define TWS_PEEK(type, address, member)                              \
	({                                                           \
		const type *p_ = tws_typed(type, address);           \
		p_ ? p_->member                                      \
		   : BPF_CORE_READ((const type *)(address), member); \
	})

/*
 * tws_peek_word - a pointer that lies at an address, as a number
 *
 * Calculating with it is allowed then. Any structure will do that begins with
 * 64 bits that are no pointer.
 */
static __always_inline __u64 tws_peek_word(__u64 address)
{
	const struct timespec64 *word = tws_typed(struct timespec64, address);
	__u64 value = 0;

	if (word)
		return word->tv_sec;
	bpf_probe_read_kernel(&value, sizeof(value), (const void *)address);
	/* or the compiler shares one load between both branches */
	asm volatile("" : "+r"(value));
	return value;
}

/*
 * tws_tcp_sock - @sk as a structure that the verifier knows to the end
 *
 * NULL where it does not: before 5.9, or without BTF. TWS_TCP() then
 * probe-reads.
 */
static __always_inline const struct tcp_sock *
tws_tcp_sock(const struct sock *sk, const bool btf)
{
	const struct tcp_sock *tp = tws_typed(struct tcp_sock, sk);

	if (!tp && btf &&
	    bpf_core_enum_value_exists(enum bpf_func_id,
				       BPF_FUNC_skc_to_tcp_sock))
		tp = (const void *)bpf_skc_to_tcp_sock((void *)sk);
	return tp;
}

#define TWS_TCP(tp, sk, member) \
	((tp) ? (tp)->member    \
	      : BPF_CORE_READ((const struct tcp_sock *)(sk), member))

static __always_inline __u32 tws_netns(const struct sock_common *skc,
				       const bool btf)
{
	const struct net *net = TWS_READ(btf, skc, skc_net.net);

	return TWS_READ(btf, net, ns.inum);
}

/*
 * tws_fill_tuple - all kinds of sockets begin with a sock_common
 *
 * The local port is skc_num, in host order. It is 0 for a socket that
 * inet_put_port() has just taken its port from; those callers use
 * tws_sock_tuple().
 */
static __always_inline void tws_fill_tuple(struct tws_tuple *t,
					   const struct sock_common *skc,
					   const bool btf)
{
	if (TWS_READ(btf, skc, skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&t->laddr, skc, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&t->raddr, skc, skc_v6_daddr);
	} else {
		tws_map_ipv4(t->laddr, TWS_READ(btf, skc, skc_rcv_saddr));
		tws_map_ipv4(t->raddr, TWS_READ(btf, skc, skc_daddr));
	}
	t->lport = TWS_READ(btf, skc, skc_num);
	t->rport = bpf_ntohs(TWS_READ(btf, skc, skc_dport));
	t->netns = tws_netns(skc, btf);
}

/* A full socket: inet_sport outlives skc_num (tcp_set_state puts the port). */
static __always_inline void tws_sock_tuple(struct tws_tuple *t,
					   const struct sock *sk,
					   const struct tcp_sock *tp,
					   const bool btf)
{
	tws_fill_tuple(t, &sk->__sk_common, btf);
	if (!t->lport)
		t->lport = bpf_ntohs(
			TWS_TCP(tp, sk, inet_conn.icsk_inet.inet_sport));
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

static __always_inline bool tws_is_tcp(const struct sock *sk, const bool btf)
{
	__u16 family = TWS_READ(btf, sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) &&
	       TWS_READ(btf, sk, sk_protocol) == IPPROTO_TCP;
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
