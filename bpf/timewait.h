/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A socket enters TIME_WAIT: the handler behind every rung. */
#ifndef TWSCOPE_TIMEWAIT_H
#define TWSCOPE_TIMEWAIT_H

#include "emit.h"

static __always_inline enum tws_substate
tws_tw_substate(const struct inet_timewait_sock *tw)
{
	return BPF_CORE_READ(tw, tw_substate) == TCP_FIN_WAIT2
		       ? TWS_SUBSTATE_FIN_WAIT2
		       : TWS_SUBSTATE_TIME_WAIT;
}

static __always_inline __u32 tws_jiffies_to_ms(__u64 jiffies)
{
	return jiffies * 1000 / tws_cfg.hz;
}

/* How long the timer of a TIME_WAIT socket still runs, in ms; 0: it is over. */
static __always_inline __u32
tws_tw_remaining_ms(const struct inet_timewait_sock *tw)
{
	__s64 left = BPF_CORE_READ(tw, tw_timer.expires) - bpf_jiffies64();

	return left > 0 ? tws_jiffies_to_ms(left) : 0;
}

/*
 * tws_timewait_enter - emit one time_wait record
 *
 * @sk: the full socket, before or after tcp_done()
 * @timeout_ms: of the FIN_WAIT2 substate; true TIME_WAIT always lasts
 *		TCP_TIMEWAIT_LEN, whatever tcp_fin_timeout says
 */
static __always_inline void tws_timewait_enter(const struct sock *sk,
					       enum tws_substate substate,
					       __u32 timeout_ms)
{
	const struct tcp_sock *tp = (const void *)sk;
	__u64 key = (__u64)sk;
	struct tws_time_wait *e;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_tuple tuple;
	struct tws_sock *s;
	enum tws_role role;

	tws_sock_tuple(&tuple, sk);
	s = bpf_map_lookup_elem(&tws_socks, &key);
	role = tws_socket_owner(&owner, s, &tuple);
	c = tws_get_counts(tuple.netns);
	if (!tws_want(c, TWS_KIND_TIME_WAIT, &tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_TIME_WAIT, struct tws_time_wait);
	if (!e)
		return;
	e->tuple = tuple;
	e->owner = owner;
	e->role = role;
	e->substate = substate;
	e->timeout_ms = substate == TWS_SUBSTATE_TIME_WAIT ? TCP_TIMEWAIT_LEN_MS
							   : timeout_ms;
	e->connect_ns = s ? s->syn_ns : 0;
	/* tcp_time_wait() hands both on to the TIME_WAIT socket; a stamp is
	 * there exactly when timestamps were negotiated
	 */
	e->timestamps = BPF_CORE_READ(tp, rx_opt.ts_recent_stamp) != 0;
	e->ts_recent = BPF_CORE_READ(tp, rx_opt.ts_recent);
	e->snd_nxt = BPF_CORE_READ(tp, snd_nxt);
	tws_submit(e, sizeof(*e));
}

#define TWS_EHASH_CHAIN_MAX 32

/*
 * tws_find_timewait - the TIME_WAIT socket that has just replaced @sk
 *
 * inet_twsk_hashdance() put it at the head of the chain that @sk was in, with
 * the same hash, before tcp_time_wait() calls tcp_done(). NULL: none was made.
 */
static __always_inline struct inet_timewait_sock *
tws_find_timewait(const struct sock *sk, const struct tws_tuple *tuple)
{
	struct inet_hashinfo *hashinfo = tws_hashinfo(sk);
	__u32 hash = BPF_CORE_READ(sk, __sk_common.skc_hash);
	struct inet_ehash_bucket *bucket;
	struct hlist_nulls_node *node;
	__u32 i;

	bucket = BPF_CORE_READ(hashinfo, ehash);
	bucket = (void *)bucket +
		 (__u64)(hash & BPF_CORE_READ(hashinfo, ehash_mask)) *
			 bpf_core_type_size(struct inet_ehash_bucket);
	node = BPF_CORE_READ(bucket, chain.first);
#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_EHASH_CHAIN_MAX; i++) {
		struct sock_common *skc;
		struct tws_tuple other;

		/* the end of a nulls list is an odd number */
		if (!node || (__u64)node & 1)
			return NULL;
		skc = (void *)node -
		      bpf_core_field_offset(struct sock_common, skc_nulls_node);
		if (BPF_CORE_READ(skc, skc_hash) == hash &&
		    BPF_CORE_READ(skc, skc_state) == TCP_TIME_WAIT) {
			tws_fill_tuple(&other, skc);
			if (tws_same_tuple(&other, tuple))
				return (void *)skc;
		}
		node = BPF_CORE_READ(node, next);
	}
	return NULL;
}

/*
 * tws_timewait_on_close - FIN_WAIT2 or CLOSING to CLOSE without an error
 *
 * Of all that ends there only tcp_time_wait() leaves a TIME_WAIT socket, so
 * look for it: a reset, an abort, or a TIME_WAIT that tcp_max_tw_buckets
 * forbade leaves none.
 */
static __always_inline void tws_timewait_on_close(const struct sock *sk)
{
	struct inet_timewait_sock *tw;
	struct tws_tuple tuple;

	tws_sock_tuple(&tuple, sk);
	tw = tws_find_timewait(sk, &tuple);
	if (tw)
		tws_timewait_enter(sk, tws_tw_substate(tw),
				   tws_tw_remaining_ms(tw));
}

#endif
