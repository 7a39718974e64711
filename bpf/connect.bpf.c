// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * connect() and listen(): who owns a socket, how a connect() ended, and, on
 * the tracepoint rung, what else the change of a socket's state tells. All of
 * that hangs on one tracepoint that fires about eleven times in the life of a
 * connection, hence on one program.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "emit.h"
#include "syn.h"
#include "timewait.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Every type of the contract, so that the Go types come from one object. */
struct tws_abi {
	struct tws_time_wait time_wait;
	struct tws_time_wait_end time_wait_end;
	struct tws_reuse reuse;
	struct tws_connect_fail connect_fail;
	struct tws_syn syn;
	struct tws_syn_refused syn_refused;
	struct tws_paws_reject paws_reject;
	struct tws_syn_reject syn_reject;
	struct tws_census census;
	__u32 pad;
	struct tws_open open;
	struct tws_closes closes;
	struct tws_sock sock;
	struct tws_listener_key listener_key;
	struct tws_listener listener;
	struct tws_tally counts;
	struct tws_prefix_key prefix_key;
	struct tws_config config;
	struct tws_orders orders;
	struct tws_turns turns;
	struct tws_netns_place netns_place;
};

const struct tws_abi *tws_abi_unused __attribute__((unused));

static __always_inline struct tws_connecting *
tws_connecting_slot(__u64 pid_tgid)
{
	__u32 slot = (__u32)pid_tgid % TWS_CONNECTING_SLOTS;

	return bpf_map_lookup_elem(&tws_connecting, &slot);
}

/* CLOSE to SYN_SENT, inside connect(): before the port search. */
static __always_inline void tws_on_connect(struct sock *sk)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 id = tws_sock_id(sk, true);
	struct tws_connecting *slot;
	struct tws_sock_place place;
	struct tws_tally *c;
	struct tws_sock *s;

	slot = tws_connecting_slot(pid_tgid);
	if (slot) {
		slot->pid_tgid = pid_tgid;
		slot->sk = (__u64)sk;
	}
	s = tws_sock_begin(&place, id, sk, TWS_ROLE_CLIENT, true);
	if (!s) {
		c = tws_get_counts(tws_netns(&sk->__sk_common, true));
		tws_count(c, no_owner);
		return;
	}
	tws_current_owner(&s->owner);
	s->syn_jiffies = bpf_jiffies64();
	s->bound = s->tuple.lport != 0;
	tws_sock_publish(&place, id);
}

static __always_inline void tws_on_listen(struct sock *sk)
{
	struct tws_owner owner, *stored;

	tws_current_owner(&owner);
	tws_add_listener(sk, &owner);
	if (!tws_cfg.sk_storage ||
	    !BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport))
		return;
	stored = bpf_sk_storage_get(&tws_reuseport, sk, NULL,
				    BPF_SK_STORAGE_GET_F_CREATE);
	if (stored)
		*stored = owner;
}

static __always_inline void tws_on_listen_end(struct sock *sk)
{
	struct tws_listener_key key;
	struct tws_listener *l;

	tws_listener_key(&key, sk);
	if (!key.port)
		key.port = bpf_ntohs(
			BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	l = bpf_map_lookup_elem(&tws_listeners, &key);
	if (l && l->sockets)
		__sync_fetch_and_sub(&l->sockets, 1);
}

/* A connection that connect() has made no entry for. */
static __always_inline void tws_add(struct sock *sk, const struct tws_owner *o,
				    enum tws_role role)
{
	__u64 id = tws_sock_id(sk, true);
	struct tws_sock_place place;
	struct tws_sock *s;

	s = tws_sock_begin(&place, id, sk, role, true);
	if (!s)
		return;
	s->owner = *o;
	tws_sock_publish(&place, id);
}

/*
 * ESTABLISHED to FIN_WAIT1: this side closes first, so there may be a TIME_WAIT
 * socket in the end, which tws_destroy_sock() looks for where there is an
 * entry.
 */
static __always_inline void tws_on_close_first(struct sock *sk)
{
	const struct tws_owner nobody = {};

	if (tws_cfg.timewait_on_state && !tws_sock_find(sk, true))
		tws_add(sk, &nobody, TWS_ROLE_UNKNOWN);
}

/*
 * SYN_RECV to ESTABLISHED. The child of a SO_REUSEPORT listener carries the
 * owner of its very listener; keep it where every rung can read it.
 */
static __always_inline void tws_on_accept(struct sock *sk)
{
	struct tws_owner *stored;

	if (tws_cfg.sk_storage &&
	    BPF_CORE_READ_BITFIELD(sk, __sk_common.skc_reuseport)) {
		stored = bpf_sk_storage_get(&tws_reuseport, sk, NULL, 0);
		if (stored)
			tws_add(sk, stored, TWS_ROLE_SERVER);
	}
	if (tws_cfg.syn_on_state)
		tws_syn_validated(sk);
}

static __always_inline void tws_connect_failed(const struct sock *sk, int error,
					       bool inferred)
{
	struct tws_connect_fail *e;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_tuple tuple;
	struct tws_sock *s;
	__u32 range;

	tws_sock_tuple(&tuple, sk, NULL, false);
	s = tws_sock_find(sk, false);
	if (s)
		owner = s->owner;
	else
		tws_current_owner(&owner);
	c = tws_get_counts(tuple.netns);
	if (!tws_want(c, TWS_KIND_CONNECT_FAIL, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_CONNECT_FAIL, struct tws_connect_fail);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = owner;
	e->error = error;
	e->inferred = inferred;
	range = tws_sock_port_range(sk);
	if (!range)
		range = tws_net_port_range(
			BPF_CORE_READ(sk, __sk_common.skc_net.net));
	e->range_low = range & 0xffff;
	e->range_high = range >> 16;
	tws_submit(e, sizeof(*e));
}

/*
 * tws_connect_failed_here - infer the errno of a failed port search
 *
 * tcp_v4_connect() and tcp_v6_connect() go back to CLOSE without an error on
 * the socket and with nothing sent when inet_hash_connect() found no port:
 * then there is no local port either. With an explicit port the 4-tuple was
 * taken when no initial sequence number was chosen yet. What fails later (no
 * route for the ports, no memory) has one.
 */
static __always_inline bool tws_connect_failed_here(const struct sock *sk)
{
	const struct inet_sock *inet = (const void *)sk;
	const struct tcp_sock *tp = (const void *)sk;
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tws_connecting *slot = tws_connecting_slot(pid_tgid);

	if (BPF_CORE_READ(sk, sk_err) || BPF_CORE_READ(tp, packets_out))
		return false;
	if (!slot || slot->pid_tgid != pid_tgid || slot->sk != (__u64)sk)
		return false;
	return !BPF_CORE_READ(inet, inet_sport) ||
	       !BPF_CORE_READ(tp, write_seq);
}

/*
 * SYN_SENT is over. When tcp_tw_reuse may have been at work, tell user space,
 * which knows whether the 4-tuple was in TIME_WAIT, and with which sequence
 * numbers.
 *
 * @acked: 1 when the peer has acknowledged the SYN, so that snd_una is past it
 */
static __always_inline void
tws_left_syn_sent(const struct sock *sk, const struct tcp_sock *tp, __u32 acked)
{
	const struct net *net = TWS_READ(true, sk, __sk_common.skc_net.net);
	struct tws_tally *c;
	struct tws_tuple tuple;
	struct tws_reuse *e;
	struct tws_sock *s;

	if (!TWS_READ(true, net, ipv4.sysctl_tcp_tw_reuse) &&
	    !(BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & SOCK_BINDPORT_LOCK))
		return;
	if (!tws_recent_test(TWS_READ(true, sk, __sk_common.skc_hash)))
		return;
	s = tws_sock_find(sk, true);
	if (!s)
		return;
	tws_sock_tuple(&tuple, sk, tp, true);
	c = tws_get_counts(tuple.netns);
	if (!tws_want_port(c, TWS_KIND_CONNECTED, &tuple, &s->owner))
		return;
	e = tws_reserve(c, TWS_KIND_CONNECTED, struct tws_reuse);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = s->owner;
	e->connect_ns = tws_connect_ns(e->h.time_ns, s);
	e->isn = TWS_TCP(tp, sk, snd_una) - acked;
	tws_submit(e, sizeof(*e));
}

/*
 * SYN_SENT to ESTABLISHED. A connect() that the kernel did not run
 * tws_set_state() for has no entry yet: since 7.0 a task may be preempted inside
 * the program, and it is then left out for every other task on that CPU. Whose
 * it was cannot be told here any more.
 */
static __always_inline void tws_on_connected(struct sock *sk)
{
	const struct tws_owner nobody = {};
	struct tws_tally *c;

	if (!tws_sock_find(sk, true)) {
		tws_add(sk, &nobody, TWS_ROLE_CLIENT);
		c = tws_get_counts(tws_netns(&sk->__sk_common, true));
		tws_count(c, no_owner);
	}
	if (tws_cfg.reuse_on_state)
		tws_left_syn_sent(sk, tws_tcp_sock(sk, true), 1);
}

/*
 * tws_ended_without - a connection of connect() has ended without TIME_WAIT
 *
 * Rare where the client closes first, which is where every instruction counts.
 * User space applies the filters by address.
 */
static __always_inline void tws_ended_without(const struct tws_sock *s,
					      int oldstate)
{
	struct tws_closes *closes, fresh = {};
	struct tws_tuple key = s->tuple;
	struct tws_tally *c;

	key.lport = 0;
	if (s->role != TWS_ROLE_CLIENT || tws_is_foreign(&s->owner))
		return;
	closes = bpf_map_lookup_elem(&tws_closed, &key);
	if (!closes) {
		bpf_map_update_elem(&tws_closed, &key, &fresh, BPF_NOEXIST);
		closes = bpf_map_lookup_elem(&tws_closed, &key);
	}
	if (!closes) {
		c = tws_get_counts(key.netns);
		tws_count(c, no_close);
	} else if (oldstate == TCP_LAST_ACK) {
		__sync_fetch_and_add(&closes->there, 1);
	} else {
		__sync_fetch_and_add(&closes->reset, 1);
	}
}

/*
 * The connection is over: its entry tells whose it was, and goes.
 *
 * @oldstate: 0 if it is not known
 */
static __always_inline void tws_forget(const struct sock *sk, int oldstate)
{
	__u64 id = tws_sock_id(sk, true);
	struct tws_sock_place p;
	struct tws_sock *s;

	if (!tws_sock_place(&p, id))
		return;
	s = bpf_map_lookup_elem(&tws_socks, &p.index);
	if (s && !s->timewait && oldstate && oldstate != TCP_SYN_SENT)
		tws_ended_without(s, oldstate);
	tws_sock_release(&p, id);
}

static __always_inline void tws_on_close(struct sock *sk, int oldstate)
{
	int error = TWS_READ(true, sk, sk_err);

	switch (oldstate) {
	case TCP_LISTEN:
		tws_on_listen_end(sk);
		return;
	case TCP_SYN_SENT:
		if (tws_cfg.connect_fail_on_state &&
		    tws_connect_failed_here(sk))
			tws_connect_failed(sk, EADDRNOTAVAIL, true);
		else if (tws_cfg.reuse_on_state)
			tws_left_syn_sent(sk, NULL, 0);
		if (error == ETIMEDOUT)
			tws_syn_unanswered(sk);
		break;
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
		if (tws_cfg.timewait_on_state && !error)
			tws_timewait_on_close(sk, tws_tcp_sock(sk, true));
		break;
	}
}

/*
 * Half of the changes tell nothing, and this runs ten times for a connection
 * over loopback.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tws_set_state, struct sock *sk, int oldstate, int newstate)
{
	switch (newstate) {
	case TCP_SYN_SENT:
		if (tws_is_tcp(sk, true))
			tws_on_connect(sk);
		break;
	case TCP_LISTEN:
		if (tws_is_tcp(sk, true))
			tws_on_listen(sk);
		break;
	case TCP_ESTABLISHED:
		if (!tws_is_tcp(sk, true))
			break;
		if (oldstate == TCP_SYN_RECV)
			tws_on_accept(sk);
		else if (oldstate == TCP_SYN_SENT)
			tws_on_connected(sk);
		break;
	case TCP_FIN_WAIT1:
		if (tws_is_tcp(sk, true))
			tws_on_close_first(sk);
		break;
	case TCP_CLOSE:
		if (!tws_is_tcp(sk, true))
			break;
		tws_on_close(sk, oldstate);
		/* read anew: what the verifier has learned about each state
		 * would have it look at all that follows once for each
		 */
		tws_forget(sk, *(volatile __u64 *)&ctx[1]);
		break;
	}
	return 0;
}

/*
 * A TIME_WAIT socket that tws_set_state() was not run for. It was the socket's
 * own if their sequence numbers are the same; the 4-tuple may have been used
 * again since.
 */
static __always_inline void tws_close_missed(const struct sock *sk,
					     const struct tcp_sock *tp)
{
	struct inet_timewait_sock *tw;
	struct tws_tuple tuple;
	struct tws_tally *c;

	tws_sock_tuple(&tuple, sk, tp, true);
	tw = tws_find_timewait(sk, &tuple);
	if (!tw || BPF_CORE_READ((struct sock_common *)tw, skc_tw_snd_nxt) !=
			   TWS_TCP(tp, sk, snd_nxt))
		return;
	tws_timewait_found(sk, tp, tw, &tuple);
	c = tws_get_counts(tuple.netns);
	tws_count(c, repaired);
}

/*
 * The end of every socket, right behind its change to CLOSE when its process
 * has closed it already. An entry that is still there tells that
 * tws_set_state() was not run for that change: the kernel does not run a
 * program that already runs on the CPU (05b24ff9b2cf, 6.1), and a softirq may
 * change another socket's state in the middle of it. At full speed that is up
 * to 3 in 1,000.
 */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tws_destroy_sock, struct sock *sk)
{
	if (!tws_sock_find(sk, true))
		return 0;
	if (tws_cfg.timewait_on_state)
		tws_close_missed(sk, tws_tcp_sock(sk, true));
	tws_forget(sk, 0);
	return 0;
}

/*
 * The errno of the port search itself. inet_hash_connect() and
 * inet6_hash_connect() have had this signature in every kernel.
 */
static __always_inline void tws_hash_connected(struct sock *sk, int ret)
{
	if (!tws_is_tcp(sk, true))
		return;
	if (!tws_sock_find(sk, true))
		tws_on_connect(sk); /* left out, see tws_on_connected() */
	if (ret < 0)
		tws_connect_failed(sk, -ret, false);
}

SEC("fexit/inet_hash_connect")
int BPF_PROG(tws_fexit_hash_connect, void *death_row, struct sock *sk, int ret)
{
	tws_hash_connected(sk, ret);
	return 0;
}

SEC("fexit/inet6_hash_connect")
int BPF_PROG(tws_fexit_hash_connect6, void *death_row, struct sock *sk, int ret)
{
	tws_hash_connected(sk, ret);
	return 0;
}

static __always_inline int tws_hash_connect_returned(int ret)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	struct tws_connecting *slot;

	if (ret >= 0)
		return 0;
	slot = tws_connecting_slot(pid_tgid);
	if (slot && slot->pid_tgid == pid_tgid)
		tws_connect_failed((void *)slot->sk, -ret, false);
	return 0;
}

SEC("kretprobe/inet_hash_connect")
int BPF_KRETPROBE(tws_kret_hash_connect, int ret)
{
	return tws_hash_connect_returned(ret);
}

SEC("kretprobe/inet6_hash_connect")
int BPF_KRETPROBE(tws_kret_hash_connect6, int ret)
{
	return tws_hash_connect_returned(ret);
}

/* --pid selects descendants too: follow the family while it is watched. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(tws_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 parent_tgid = BPF_CORE_READ(parent, tgid);
	__u32 child_tgid = BPF_CORE_READ(child, tgid);
	__u8 yes = 1;

	if (parent_tgid != child_tgid &&
	    bpf_map_lookup_elem(&tws_filter_pid, &parent_tgid))
		bpf_map_update_elem(&tws_filter_pid, &child_tgid, &yes,
				    BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(tws_exit, struct task_struct *task)
{
	__u32 tgid = BPF_CORE_READ(task, tgid);

	/* the last thread takes the process with it */
	if (!BPF_CORE_READ(task, signal, live.counter))
		bpf_map_delete_elem(&tws_filter_pid, &tgid);
	return 0;
}
