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
					       const struct tcp_sock *tp,
					       const struct tws_tuple *tuple,
					       enum tws_substate substate,
					       __u32 timeout_ms)
{
	__u64 key = (__u64)sk;
	struct tws_time_wait *e;
	struct tws_tally *c;
	struct tws_owner owner;
	struct tws_sock *s;
	enum tws_role role;

	s = bpf_map_lookup_elem(&tws_socks, &key);
	role = tws_socket_owner(&owner, s, tuple);
	c = tws_get_counts(tuple->netns);
	if (!tws_want(c, TWS_KIND_TIME_WAIT, tuple, &owner))
		return;
	e = tws_reserve(c, TWS_KIND_TIME_WAIT, struct tws_time_wait);
	if (!e)
		return;
	e->tuple = *tuple;
	e->owner = owner;
	e->role = role;
	e->substate = substate;
	e->timeout_ms = substate == TWS_SUBSTATE_TIME_WAIT ? TCP_TIMEWAIT_LEN_MS
							   : timeout_ms;
	e->connect_ns = s ? s->syn_ns : 0;
	/* tcp_time_wait() hands both on to the TIME_WAIT socket; a stamp is
	 * there exactly when timestamps were negotiated
	 */
	e->timestamps = TWS_TCP(tp, sk, rx_opt.ts_recent_stamp) != 0;
	e->ts_recent = TWS_TCP(tp, sk, rx_opt.ts_recent);
	e->snd_nxt = TWS_TCP(tp, sk, snd_nxt);
	tws_submit(e, sizeof(*e));
}

#define TWS_EHASH_CHAIN_MAX 32

/* The part of a sock_common that tells a socket, and its state. */
struct tws_identity {
	__u32 hash;
	__be16 dport;
	__u16 num;
	__u16 family;
	__u8 state;
	__u8 pad;
};

/*
 * One read where the members lie side by side, as in every kernel so far, else
 * one each.
 */
static __always_inline void tws_read_identity(struct tws_identity *id,
					      const struct sock_common *skc)
{
	__u32 at = bpf_core_field_offset(skc->skc_hash);

	if (bpf_core_field_offset(skc->skc_dport) == at + 4 &&
	    bpf_core_field_offset(skc->skc_num) == at + 6 &&
	    bpf_core_field_offset(skc->skc_family) == at + 8 &&
	    bpf_core_field_offset(skc->skc_state) == at + 10) {
		bpf_probe_read_kernel(id, sizeof(*id), (void *)skc + at);
		return;
	}
	id->hash = BPF_CORE_READ(skc, skc_hash);
	id->dport = BPF_CORE_READ(skc, skc_dport);
	id->num = BPF_CORE_READ(skc, skc_num);
	id->state = BPF_CORE_READ(skc, skc_state);
}

/*
 * tws_find_timewait - the TIME_WAIT socket that has just replaced @sk
 *
 * inet_twsk_hashdance() put it at the head of the chain that @sk was in, with
 * the same hash, before tcp_time_wait() calls tcp_done(). The hash covers
 * addresses, ports and namespace under a secret, so together with the ports
 * it tells the socket. NULL: none was made.
 */
static __always_inline struct inet_timewait_sock *
tws_find_timewait(const struct sock *sk, const struct tws_tuple *tuple)
{
	const struct inet_hashinfo *hashinfo = tws_hashinfo(sk);
	__u32 hash = TWS_READ(true, sk, __sk_common.skc_hash);
	__be16 dport = bpf_htons(tuple->rport);
	struct tws_identity id = {};
	struct inet_ehash_bucket *bucket;
	struct hlist_nulls_node *node;
	__u32 i;

	if (!hashinfo)
		return NULL;
	/* probe-read: no arithmetic is allowed on a pointer with a type */
	bucket = (void *)BPF_CORE_READ(hashinfo, ehash) +
		 (__u64)(hash & TWS_READ(true, hashinfo, ehash_mask)) *
			 bpf_core_type_size(struct inet_ehash_bucket);
	node = BPF_CORE_READ(bucket, chain.first);
#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_EHASH_CHAIN_MAX; i++) {
		struct sock_common *skc;

		/* the end of a nulls list is an odd number */
		if (!node || (__u64)node & 1)
			return NULL;
		skc = (void *)node -
		      bpf_core_field_offset(struct sock_common, skc_nulls_node);
		tws_read_identity(&id, skc);
		if (id.hash == hash && id.state == TCP_TIME_WAIT &&
		    id.num == tuple->lport && id.dport == dport)
			return (void *)skc;
		node = BPF_CORE_READ(node, next);
	}
	return NULL;
}

/*
 * The 4-tuples that have been in TIME_WAIT of late, by the kernel's own hash
 * of them: a byte holds the time of the last one, in units of 4096 jiffies.
 * Tells most connections apart that cannot have taken over a TIME_WAIT socket;
 * others are looked up by user space, which knows all of them.
 */
#define TWS_RECENT_SHIFT 12 /* jiffies to units */
#define TWS_RECENT_S 120    /* TIME_WAIT, and a rearmed timer */

static __always_inline __u8 *tws_recent_slot(__u32 hash)
{
	__u32 page = hash / TWS_RECENT_PAGE % TWS_RECENT_PAGES;
	struct tws_recent_page *p = bpf_map_lookup_elem(&tws_recent, &page);

	return p ? &p->seen[hash % TWS_RECENT_PAGE] : NULL;
}

static __always_inline void tws_recent_mark(__u32 hash)
{
	__u8 *slot = tws_recent_slot(hash);

	if (slot)
		*slot = bpf_jiffies64() >> TWS_RECENT_SHIFT;
}

static __always_inline bool tws_recent_test(__u32 hash)
{
	__u8 units = (tws_cfg.hz * TWS_RECENT_S >> TWS_RECENT_SHIFT) + 1;
	__u8 now = bpf_jiffies64() >> TWS_RECENT_SHIFT;
	__u8 *slot = tws_recent_slot(hash);

	return slot && (__u8)(now - *slot) <= units;
}

/*
 * tws_timewait_on_close - FIN_WAIT2 or CLOSING to CLOSE without an error
 *
 * Of all that ends there only tcp_time_wait() leaves a TIME_WAIT socket, so
 * look for it: a reset, an abort, or a TIME_WAIT that tcp_max_tw_buckets
 * forbade leaves none.
 */
static __always_inline void tws_timewait_on_close(const struct sock *sk,
						  const struct tcp_sock *tp)
{
	struct inet_timewait_sock *tw;
	enum tws_substate substate;
	struct tws_tuple tuple;

	tws_sock_tuple(&tuple, sk, tp, true);
	tw = tws_find_timewait(sk, &tuple);
	if (!tw)
		return;
	if (tws_cfg.reuse_on_state)
		tws_recent_mark(TWS_READ(true, sk, __sk_common.skc_hash));
	substate = tws_tw_substate(tw);
	tws_timewait_enter(sk, tp, &tuple, substate,
			   substate == TWS_SUBSTATE_FIN_WAIT2
				   ? tws_tw_remaining_ms(tw)
				   : 0);
}

#endif
