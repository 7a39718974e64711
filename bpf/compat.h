/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One accessor per kernel drift, each with the change that made it needed. */
#ifndef TWSCOPE_COMPAT_H
#define TWSCOPE_COMPAT_H

#include "../headers/kernel.h"

/*
 * tws_typed - let the verifier take an address for a pointer to a structure,
 * whose members then are plain loads that may fault: @type * or NULL
 *
 * bpf_rdonly_cast() is there since 6.2 (a35b9af4ec2c "bpf: Add a kfunc for
 * generic type cast") and costs nothing. NULL where it is not: probe-read.
 */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define tws_typed(type, address)                                         \
	((const type *)(bpf_rdonly_cast                                  \
				? bpf_rdonly_cast(                       \
					  (const void *)(address),       \
					  bpf_core_type_id_kernel(type)) \
				: NULL))

/*
 * tws_ctx_arg - an argument of a tp_btf program as a plain number
 *
 * Where a tracepoint's pointer may be NULL, some verifiers refuse arithmetic
 * on it without a check, and others take it for never NULL and delete the
 * check (c53795d48ee8). A number can be probe-read in any case.
 */
static __always_inline __u64 tws_ctx_arg(const __u64 *ctx, int n)
{
	__u64 arg = 0;

	bpf_probe_read_kernel(&arg, sizeof(arg), &ctx[n]);
	return arg;
}

/*
 * The table of established and TIME_WAIT sockets: per protocol up to 6.0,
 * then per network namespace (d1e5e6408b30 "tcp: Introduce optional per-netns
 * ehash."), when skc_prot->h.hashinfo became NULL for TCP. In between, from
 * 5.17 (fbb8295248e1) to 6.0, tcp_death_row was a pointer.
 */
static __always_inline const struct inet_hashinfo *
tws_hashinfo(const struct sock *sk)
{
	const struct proto *prot = sk->__sk_common.skc_prot;
	const struct net *net = sk->__sk_common.skc_net.net;
	const struct inet_hashinfo *hashinfo = prot->h.hashinfo;

	if (!hashinfo &&
	    bpf_core_field_exists(net->ipv4.tcp_death_row.hashinfo))
		hashinfo = net->ipv4.tcp_death_row.hashinfo;
	return hashinfo;
}

/*
 * net.ipv4.ip_local_port_range, low | high << 16: two ints behind a seqlock up
 * to 6.7, one u32 since (d9f28735af87 "Use READ/WRITE_ONCE() for IP
 * local_port_range").
 */
static __always_inline __u32 tws_net_port_range(const struct net *net)
{
	struct local_ports___pair *pair;
	int range[2] = {};

	/* exists only where the types agree */
	if (bpf_core_field_exists(struct local_ports, range))
		return BPF_CORE_READ(net, ipv4.ip_local_ports.range);
	if (!bpf_core_field_exists(struct local_ports___pair, range))
		return 0;
	pair = (void *)__builtin_preserve_access_index(
		&net->ipv4.ip_local_ports);
	bpf_core_read(&range, sizeof(range), &pair->range);
	return (__u32)range[0] | (__u32)range[1] << 16;
}

/*
 * IP_LOCAL_PORT_RANGE of a socket, low | high << 16, 0 when not set: absent up
 * to 6.2, a pair of u16 up to 6.7, one u32 since.
 */
static __always_inline __u32 tws_sock_port_range(const struct sock *sk)
{
	struct inet_sock___pair *pair = (void *)sk;
	struct inet_sock *inet = (void *)sk;

	if (bpf_core_field_exists(inet->local_port_range))
		return BPF_CORE_READ(inet, local_port_range);
	if (!bpf_core_field_exists(pair->local_port_range))
		return 0;
	return (__u32)BPF_CORE_READ(pair, local_port_range.lo) |
	       (__u32)BPF_CORE_READ(pair, local_port_range.hi) << 16;
}

/*
 * tws_cgroup_ancestors - where a cgroup keeps its ancestors, by level
 *
 * Ids up to 6.0, then pointers (7f203bc89eb6 "cgroup: Replace
 * cgroup->ancestor_ids[] with ->ancestors[]"). Call it outside of loops: the
 * compiler moves an offset that does not change out of a loop and past the
 * check that guards it, and loading an offset that the kernel has not is what
 * the verifier refuses. For the same reason neither branch may be computed
 * ahead of the check, hence the empty asm.
 */
static __always_inline const void *
tws_cgroup_ancestors(const struct cgroup *cgrp)
{
	const struct cgroup___ids *old = (const void *)cgrp;

	if (bpf_core_field_exists(struct cgroup, ancestors)) {
		asm volatile("" : "+r"(cgrp));
		return &cgrp->ancestors;
	}
	asm volatile("" : "+r"(old));
	return &old->ancestor_ids;
}

/* The id of the ancestor at a level, of what tws_cgroup_ancestors() returned. */
static __always_inline __u64 tws_cgroup_ancestor(const void *ancestors,
						 __u32 level)
{
	const struct cgroup *ancestor;
	__u64 id = 0;

	bpf_probe_read_kernel(&id, sizeof(id), ancestors + level * sizeof(id));
	if (!bpf_core_field_exists(struct cgroup, ancestors))
		return id;
	ancestor = (const void *)id;
	return BPF_CORE_READ(ancestor, kn, id);
}

/* The first subflow of an MPTCP socket; kernels built without MPTCP have none. */
static __always_inline struct sock *tws_mptcp_first(const struct sock *sk)
{
	const struct mptcp_sock *msk = (const void *)sk;

	if (!bpf_core_field_exists(msk->first))
		return NULL;
	return BPF_CORE_READ(msk, first);
}

#endif
