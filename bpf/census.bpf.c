// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What was there before us: the TIME_WAIT sockets of the reader's network
 * namespace, and who holds listening and connected sockets.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "timewait.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Told by its state and probe-read: bpf_skc_to_tcp_timewait_sock() returns
 * NULL for the TIME_WAIT socket of an MPTCP listener's child, whose skc_prot
 * is tcp_prot_override.
 */
SEC("iter/tcp")
int tws_census_timewait(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct inet_timewait_sock *tw = (void *)skc;
	struct tcp_timewait_sock *tcptw = (void *)skc;
	struct tws_census e = {};
	__s32 stamp;

	if (!skc || BPF_CORE_READ(skc, skc_state) != TCP_TIME_WAIT)
		return 0;
	tws_fill_tuple(&e.tuple, skc, false);
	/* a TIME_WAIT socket has no owner that could pass an owner filter */
	if (!tws_tuple_matches(&e.tuple) ||
	    (tws_filters_owner() && !tws_cfg.all_owners))
		return 0;
	e.role = tws_find_listener(&e.tuple) ? TWS_ROLE_SERVER
					     : TWS_ROLE_UNKNOWN;
	e.substate = tws_tw_substate(tw);
	e.snd_nxt = BPF_CORE_READ(skc, skc_tw_snd_nxt);
	if (tws_cfg.reuse_on_state)
		tws_recent_mark(BPF_CORE_READ(skc, skc_hash));
	e.remaining_ms = tws_tw_remaining_ms(tw);
	stamp = BPF_CORE_READ(tcptw, tw_ts_recent_stamp);
	e.timestamps = stamp != 0;
	if (stamp) {
		e.ts_recent = BPF_CORE_READ(tcptw, tw_ts_recent);
		e.ts_recent_age_s =
			(__s32)(bpf_ktime_get_ns() / 1000000000) - stamp;
	}
	if (bpf_core_field_exists(tw->tw_entry_stamp)) {
		e.has_entry_age = 1;
		e.entry_age_ms = (__u32)(bpf_ktime_get_ns() / 1000000) -
				 BPF_CORE_READ(tw, tw_entry_stamp);
	}
	e.loopback = tws_addr_is_loopback(e.tuple.laddr) ||
		     tws_addr_is_loopback(e.tuple.raddr) ||
		     BPF_CORE_READ(skc, skc_bound_dev_if) == 1;
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

/*
 * tws_census_holders - owners of sockets that were opened before us
 *
 * Who called connect() or listen() is past knowing; who holds the descriptor
 * is not. Processes come in the order of their ids, and the first holder
 * stays, which for a socket passed over fork is the parent.
 */
SEC("iter/task_file")
int tws_census_holders(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct tws_sock_place place;
	struct tws_owner owner;
	struct file *file = ctx->file;
	struct socket *socket;
	struct sock *sk;
	struct tws_sock *s;
	__u8 state;
	__u64 id;

	if (!task || !file ||
	    (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (sk && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		sk = tws_mptcp_first(sk);
	if (!sk || !tws_is_tcp(sk, false))
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_CLOSE || state == TCP_TIME_WAIT)
		return 0;
	if (!tws_any_owner(&owner, task))
		return 0;
	if (state == TCP_LISTEN) {
		tws_census_listener(sk, &owner);
		return 0;
	}
	id = tws_sock_id(sk, false);
	if (tws_sock_place(&place, id))
		return 0;
	s = tws_sock_begin(&place, id, sk, TWS_ROLE_UNKNOWN, false);
	if (!s)
		return 0;
	s->owner = owner;
	tws_sock_publish(&place, id);
	return 0;
}

/*
 * tws_census_open - the connections that hold a port now, of all namespaces
 *
 * The entries know them from before connect() chose a port, which is why the
 * sockets are asked. One that is gone meanwhile shows another peer, or faults.
 */
SEC("iter/bpf_map_elem")
int tws_census_open(struct bpf_iter__bpf_map_elem *ctx)
{
	const struct tws_sock_set *set = ctx->value;
	const __u32 *key = ctx->key;
	struct tws_open e = {};
	__u32 zero = 0, way, first;
	void *control = bpf_map_lookup_elem(&tws_control, &zero);
	__u64 origin = 0;

	if (!set || !key) {
		e.time_ns = bpf_ktime_get_boot_ns();
		e.jiffies = bpf_jiffies64();
		bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
		return 0;
	}
	first = *key * TWS_SOCKS_WAYS;
	bpf_probe_read_kernel(&origin, sizeof(origin), &control);
#pragma clang loop unroll(full)
	for (way = 0; way < TWS_SOCKS_WAYS; way++) {
		const struct sock_common *skc = (void *)(set->id[way] + origin);
		__u32 index = first + way;
		const struct tws_sock *s;

		if (!set->id[way])
			continue;
		s = bpf_map_lookup_elem(&tws_socks, &index);
		if (!s || !tws_tuple_matches(&s->tuple) ||
		    BPF_CORE_READ(skc, skc_state) == TCP_CLOSE ||
		    bpf_ntohs(BPF_CORE_READ(skc, skc_dport)) != s->tuple.rport)
			continue;
		e.tuple = s->tuple;
		e.tuple.lport = BPF_CORE_READ(skc, skc_num);
		e.role = s->role;
		e.bound = s->bound;
		e.match = s->owner.match;
		bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	}
	return 0;
}
