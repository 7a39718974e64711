// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The life of TIME_WAIT sockets on the fentry and kprobe rungs: entered, not
 * created, re-used, ended. (The tracepoint rung is part of connect.bpf.c.)
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "timewait.h"
#include "tcpopt.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline enum tws_substate tws_substate_of(int state)
{
	return state == TCP_FIN_WAIT2 ? TWS_SUBSTATE_FIN_WAIT2
				      : TWS_SUBSTATE_TIME_WAIT;
}

static __always_inline void tws_sock_enters(const struct sock *sk, int state,
					    __u32 timeout_ms, const bool btf)
{
	const struct tcp_sock *tp = tws_tcp_sock(sk, btf);
	struct tws_tuple tuple;

	tws_sock_tuple(&tuple, sk, tp, btf);
	tws_timewait_enter(sk, tp, &tuple, tws_substate_of(state), timeout_ms,
			   btf);
}

/*
 * tcp_time_wait(sk, state, timeo) at entry. Whether a TIME_WAIT socket will be
 * made is known only after inet_twsk_alloc(), so when that is hooked too, the
 * timeout is all that is kept here.
 */
static __always_inline void tws_time_wait_begins(struct sock *sk, int state,
						 int timeout_jiffies,
						 const bool btf)
{
	struct tws_scratch *scratch;

	if (!tws_cfg.timewait_at_alloc) {
		tws_sock_enters(sk, state, tws_jiffies_to_ms(timeout_jiffies),
				btf);
		return;
	}
	scratch = tws_get_scratch();
	if (!scratch)
		return;
	scratch->timewait_sk = (__u64)sk;
	scratch->timeout_jiffies = timeout_jiffies;
}

SEC("fentry/tcp_time_wait")
int BPF_PROG(tws_fentry_time_wait, struct sock *sk, int state, int timeo)
{
	tws_time_wait_begins(sk, state, timeo, true);
	return 0;
}

SEC("kprobe/tcp_time_wait")
int BPF_KPROBE(tws_kprobe_time_wait, struct sock *sk, int state, int timeo)
{
	tws_time_wait_begins(sk, state, timeo, false);
	return 0;
}

/* inet_twsk_alloc() returned: NULL when tcp_max_tw_buckets is reached. */
static __always_inline void tws_twsk_allocated(const struct sock *sk, int state,
					       const void *tw, const bool btf)
{
	struct tws_scratch *scratch = tws_get_scratch();
	struct tws_tally *c;
	__u32 timeout = 0;

	if (!tw) {
		c = tws_get_counts(tws_netns(&sk->__sk_common, btf));
		tws_count(c, overflow);
		return;
	}
	if (scratch && scratch->timewait_sk == (__u64)sk)
		timeout = tws_jiffies_to_ms(scratch->timeout_jiffies);
	tws_sock_enters(sk, state, timeout, btf);
}

SEC("fexit/inet_twsk_alloc")
int BPF_PROG(tws_fexit_twsk_alloc, struct sock *sk, void *death_row, int state,
	     void *tw)
{
	if (tws_is_tcp(sk, true))
		tws_twsk_allocated(sk, state, tw, true);
	return 0;
}

/*
 * A kretprobe has no arguments. tcp_time_wait() has just left the socket on
 * this CPU; a softirq in between can only replace it by another socket in the
 * same situation, which then is reported twice and this one not at all, so the
 * entry of inet_twsk_alloc() notes it once more.
 */
SEC("kprobe/inet_twsk_alloc")
int BPF_KPROBE(tws_kprobe_twsk_alloc, struct sock *sk, void *death_row,
	       int state)
{
	struct tws_scratch *scratch = tws_get_scratch();

	if (!scratch)
		return 0;
	scratch->alloc_sk = tws_is_tcp(sk, false) ? (__u64)sk : 0;
	scratch->alloc_state = state;
	return 0;
}

SEC("kretprobe/inet_twsk_alloc")
int BPF_KRETPROBE(tws_kret_twsk_alloc, void *tw)
{
	struct tws_scratch *scratch = tws_get_scratch();

	if (scratch && scratch->alloc_sk)
		tws_twsk_allocated((void *)scratch->alloc_sk,
				   scratch->alloc_state, tw, false);
	return 0;
}

/* How old a TIME_WAIT socket is, in ms. */
static __always_inline __u32 tws_tw_age_ms(const struct inet_timewait_sock *tw)
{
	__u32 left = tws_tw_remaining_ms(tw);
	__u32 whole = TCP_TIMEWAIT_LEN_MS;

	/* CLOCK_MONOTONIC in ms, tcp_time_stamp_ms() */
	if (bpf_core_field_exists(tw->tw_entry_stamp))
		return (__u32)(bpf_ktime_get_ns() / 1000000) -
		       BPF_CORE_READ(tw, tw_entry_stamp);
	/* TCP_LINGER2 of the socket, which may shorten it too, is gone */
	if (tws_tw_substate(tw) == TWS_SUBSTATE_FIN_WAIT2)
		whole = tws_jiffies_to_ms(
			BPF_CORE_READ(tw, __tw_common.skc_net.net,
				      ipv4.sysctl_tcp_fin_timeout));
	return left < whole ? whole - left : 0;
}

/*
 * Is this TIME_WAIT socket being taken over by the connect() that the current
 * task is in? Then its socket in SYN_SENT has the same peer.
 */
static __always_inline struct tws_sock *
tws_taken_by_connect(const struct inet_timewait_sock *tw)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 slot = (__u32)pid_tgid % TWS_CONNECTING_SLOTS;
	struct tws_tuple old, new;
	struct tws_connecting *c;
	const struct sock *sk;

	c = bpf_map_lookup_elem(&tws_connecting, &slot);
	if (!c || c->pid_tgid != pid_tgid)
		return NULL;
	sk = (void *)c->sk;
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT)
		return NULL;
	tws_fill_tuple(&old, &tw->__tw_common, false);
	tws_fill_tuple(&new, &sk->__sk_common, false);
	new.lport = old.lport;
	if (!tws_same_tuple(&old, &new))
		return NULL;
	return tws_sock_find(sk, false);
}

static __always_inline void tws_reused(const struct inet_timewait_sock *tw,
				       const struct tws_sock *s)
{
	struct tws_tally *c;
	struct tws_tuple tuple;
	struct tws_reuse *e;

	tws_fill_tuple(&tuple, &tw->__tw_common, false);
	c = tws_get_counts(tuple.netns);
	if (!tws_want_port(c, TWS_KIND_TW_REUSE, &tuple, &s->owner))
		return;
	e = tws_reserve(c, TWS_KIND_TW_REUSE, struct tws_reuse);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = s->owner;
	e->connect_ns = tws_connect_ns(e->h.time_ns, s);
	e->age_ms = tws_tw_age_ms(tw);
	tws_submit(e, sizeof(*e));
}

/*
 * inet_twsk_deschedule_put(): something ends a TIME_WAIT socket before its
 * timer does. A connect() of ours; a segment, which
 * tcp_timewait_state_process() was looking at on this CPU; or nobody on the
 * network: ss -K, or the end of the namespace.
 */
static __always_inline void tws_descheduled(const struct inet_timewait_sock *tw)
{
	struct tws_scratch *scratch = tws_get_scratch();
	struct tws_sock *s;

	s = tws_taken_by_connect(tw);
	if (s)
		tws_reused(tw, s);
	if (!tws_cfg.twsk_ends || !scratch)
		return;
	scratch->ended_tw = (__u64)tw;
	if (s)
		scratch->ended_reason = TWS_END_REUSED;
	else if (scratch->process_tw != (__u64)tw)
		scratch->ended_reason = TWS_END_KILLED;
	else
		scratch->ended_reason =
			scratch->process_syn ? TWS_END_SYN : TWS_END_RESET;
	scratch->process_tw = 0;
}

SEC("fentry/inet_twsk_deschedule_put")
int BPF_PROG(tws_fentry_deschedule, struct inet_timewait_sock *tw)
{
	tws_descheduled(tw);
	return 0;
}

SEC("kprobe/inet_twsk_deschedule_put")
int BPF_KPROBE(tws_kprobe_deschedule, struct inet_timewait_sock *tw)
{
	tws_descheduled(tw);
	return 0;
}

/* Remember which segment is being looked at, for tws_descheduled(). */
static __always_inline void
tws_segment_begins(const struct inet_timewait_sock *tw,
		   const struct sk_buff *skb)
{
	struct tws_scratch *scratch = tws_get_scratch();
	struct tws_segment_info segment;

	if (!scratch || !tws_read_segment(&segment, skb))
		return;
	scratch->process_tw = (__u64)tw;
	scratch->process_syn =
		(segment.flags & (TWS_TCP_SYN | TWS_TCP_RST)) == TWS_TCP_SYN;
}

SEC("fentry/tcp_timewait_state_process")
int BPF_PROG(tws_fentry_segment, struct inet_timewait_sock *tw,
	     struct sk_buff *skb)
{
	tws_segment_begins(tw, skb);
	return 0;
}

SEC("kprobe/tcp_timewait_state_process")
int BPF_KPROBE(tws_kprobe_segment, struct inet_timewait_sock *tw,
	       struct sk_buff *skb)
{
	tws_segment_begins(tw, skb);
	return 0;
}

/* inet_twsk_kill(): the end of every TIME_WAIT socket, early or in time. */
static __always_inline void tws_ended(const struct inet_timewait_sock *tw)
{
	struct tws_scratch *scratch = tws_get_scratch();
	enum tws_end reason = TWS_END_EXPIRED;
	struct tws_time_wait_end *e;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_tuple tuple;

	if (scratch && scratch->ended_tw == (__u64)tw) {
		reason = scratch->ended_reason;
		scratch->ended_tw = 0;
	}
	tws_fill_tuple(&tuple, &tw->__tw_common, false);
	tws_socket_owner(&owner, NULL, &tuple);
	c = tws_get_counts(tuple.netns);
	if (!tws_want_port(c, TWS_KIND_TIME_WAIT_END, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_TIME_WAIT_END, struct tws_time_wait_end);
	if (!e)
		return;
	e->tuple = tuple;
	e->reason = reason;
	e->age_ms = tws_tw_age_ms(tw);
	tws_submit(e, sizeof(*e));
}

SEC("fentry/inet_twsk_kill")
int BPF_PROG(tws_fentry_kill, struct inet_timewait_sock *tw)
{
	tws_ended(tw);
	return 0;
}

SEC("kprobe/inet_twsk_kill")
int BPF_KPROBE(tws_kprobe_kill, struct inet_timewait_sock *tw)
{
	tws_ended(tw);
	return 0;
}
