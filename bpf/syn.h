/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SYNs: those that arrive here, and those of ours that a peer refuses. */
#ifndef TWSCOPE_SYN_H
#define TWSCOPE_SYN_H

#include "emit.h"
#include "packet.h"

/*
 * tws_syn_turn - may this CPU look at one more SYN
 *
 * SYNs tell of the clocks of their sources, which some of them do as well as
 * all. What is left out is counted.
 */
static __always_inline bool tws_syn_turn(void)
{
	struct tws_turns *t;
	__u32 zero = 0;
	__u64 part;

	if (!tws_cfg.syn_quota)
		return true;
	t = bpf_map_lookup_elem(&tws_syn_turns, &zero);
	if (!t)
		return false;
	part = bpf_jiffies64() * TWS_SYN_PARTS / tws_cfg.hz;
	if (t->part != part) {
		t->part = part;
		t->taken = 0;
	}
	if (t->taken >= tws_cfg.syn_quota / TWS_SYN_PARTS) {
		t->skipped++;
		return false;
	}
	t->taken++;
	return true;
}

/* A SYN reached a listener. */
static __always_inline void tws_syn_arrived(const struct sock *listener,
					    const struct sk_buff *skb)
{
	struct tws_segment_info segment;
	struct tws_tuple tuple = {};
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_syn *e;

	if (!tws_syn_turn() || !tws_read_segment(&segment, skb) ||
	    !tws_packet_tuple(&tuple, &segment, skb))
		return;
	tuple.netns = tws_netns(&listener->__sk_common, false);
	tws_socket_owner(&owner, NULL, &tuple);
	c = tws_get_counts(tuple.netns);
	if (!tws_want(c, TWS_KIND_SYN, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_SYN, struct tws_syn);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = owner;
	tws_fill_syn(&e->syn, &segment, skb);
	tws_submit(e, sizeof(*e));
}

/*
 * tws_syn_validated - a handshake is complete: the source is no forgery
 *
 * ts_recent is the TSval of the SYN, or of the ACK that completed the
 * handshake when that was newer.
 */
static __always_inline void tws_syn_validated(const struct sock *child)
{
	const struct tcp_sock *tp = (const void *)child;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_tuple tuple;
	struct tws_syn *e;

	if (!tws_syn_turn())
		return;
	tws_sock_tuple(&tuple, child, NULL, false);
	tws_socket_owner(&owner, tws_sock_find(child, false), &tuple);
	c = tws_get_counts(tuple.netns);
	if (!tws_want(c, TWS_KIND_SYN, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_SYN, struct tws_syn);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = owner;
	e->validated = 1;
	e->syn.opt.saw_tstamp = BPF_CORE_READ(tp, rx_opt.ts_recent_stamp) != 0;
	e->syn.opt.tsval = BPF_CORE_READ(tp, rx_opt.ts_recent);
	tws_submit(e, sizeof(*e));
}

/* One more SYN of this connect() was refused. */
static __always_inline void tws_syn_refused(const struct sock *sk,
					    enum tws_signature signature)
{
	struct tws_syn_refused *e;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_tuple tuple;
	struct tws_sock *s;
	__u32 attempts;

	tws_sock_tuple(&tuple, sk, NULL, false);
	s = tws_sock_find(sk, false);
	tws_socket_owner(&owner, s, &tuple);
	if (s)
		attempts = ++s->attempts; /* under the socket's lock */
	else
		attempts = BPF_CORE_READ((struct inet_connection_sock *)sk,
					 icsk_retransmits);
	c = tws_get_counts(tuple.netns);
	if (!tws_want(c, TWS_KIND_SYN_REFUSED, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_SYN_REFUSED, struct tws_syn_refused);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = owner;
	e->signature = signature;
	e->attempts = attempts;
	if (s && s->syn_jiffies)
		e->delay_ns =
			tws_jiffies_to_ns(bpf_jiffies64() - s->syn_jiffies);
	tws_submit(e, sizeof(*e));
}

/* The last SYN of a connect() that timed out. */
static __always_inline void tws_syn_unanswered(const struct sock *sk)
{
	struct tws_sock *s = tws_sock_find(sk, false);

	if (!s || !s->challenged)
		tws_syn_refused(sk, TWS_SIGNATURE_SILENCE);
}

#endif
