/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A socket enters TIME_WAIT: the handler behind every rung. */
#ifndef TWSCOPE_TIMEWAIT_H
#define TWSCOPE_TIMEWAIT_H

#include "emit.h"

static __always_inline enum tws_substate
tws_tw_substate(const struct inet_timewait_sock *tw)
{
	return TWS_PEEK(struct inet_timewait_sock, tw, tw_substate) ==
			       TCP_FIN_WAIT2
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

/* When connect() was called, to a jiffy, given now. 0: not known. */
static __always_inline __u64 tws_connect_ns(__u64 now, const struct tws_sock *s)
{
	if (!s->syn_jiffies)
		return 0;
	return now - tws_jiffies_to_ns(bpf_jiffies64() - s->syn_jiffies);
}

/*
 * tws_enter_ns - the time at which a socket enters TIME_WAIT
 *
 * A segment of the peer brings it there, and the kernel has read the clock for
 * that segment; reading it again would cost as much as all else here. The
 * substate FIN_WAIT2 may also come from close().
 */
static __always_inline __u64 tws_enter_ns(const struct sock *sk,
					  const struct tcp_sock *tp,
					  enum tws_substate substate)
{
	struct tws_orders *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&tws_control, &zero);
	if (!control || substate != TWS_SUBSTATE_TIME_WAIT)
		return bpf_ktime_get_boot_ns();
	return TWS_TCP(tp, sk, tcp_mstamp) * 1000 + control->boottime_offset;
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
					       __u32 timeout_ms, const bool btf)
{
	struct tws_sock *s = tws_sock_find(sk, btf);
	struct tws_time_wait *e;
	struct tws_tally *c;
	struct tws_owner owner;
	enum tws_role role;

	if (s)
		s->timewait = 1;
	role = tws_socket_owner(&owner, s, tuple);
	c = tws_get_counts(tuple->netns);
	if (!tws_want_port(c, TWS_KIND_TIME_WAIT, tuple, &owner))
		return;
	e = tws_reserve_at(c, TWS_KIND_TIME_WAIT, struct tws_time_wait,
			   tws_enter_ns(sk, tp, substate));
	if (!e)
		return;
	e->tuple = *tuple;
	e->owner = owner;
	e->role = role;
	e->substate = substate;
	e->timeout_ms = substate == TWS_SUBSTATE_TIME_WAIT ? TCP_TIMEWAIT_LEN_MS
							   : timeout_ms;
	e->bound = s && s->bound;
	/* tcp_time_wait() hands both on to the TIME_WAIT socket; a stamp is
	 * there exactly when timestamps were negotiated
	 */
	e->timestamps = TWS_TCP(tp, sk, rx_opt.ts_recent_stamp) != 0;
	e->ts_recent = TWS_TCP(tp, sk, rx_opt.ts_recent);
	e->snd_nxt = TWS_TCP(tp, sk, snd_nxt);
	e->isn = TWS_TCP(tp, sk, snd_una) - (__u32)TWS_TCP(tp, sk, bytes_acked);
	tws_submit(e, sizeof(*e));
}

#define TWS_EHASH_CHAIN_MAX 32

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
	__u64 node;
	__u32 i;

	if (!hashinfo)
		return NULL;
	/* probe-read: no arithmetic is allowed on a pointer with a type */
	node = tws_peek_word((__u64)&hashinfo->ehash) +
	       (__u64)(hash & TWS_READ(true, hashinfo, ehash_mask)) *
		       bpf_core_type_size(struct inet_ehash_bucket);
	node = tws_peek_word(
		node + bpf_core_field_offset(struct inet_ehash_bucket, chain));
#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_EHASH_CHAIN_MAX; i++) {
		__u64 skc;

		/* the end of a nulls list is an odd number */
		if (!node || node & 1)
			return NULL;
		skc = node -
		      bpf_core_field_offset(struct sock_common, skc_nulls_node);
		if (TWS_PEEK(struct sock_common, skc, skc_hash) == hash &&
		    TWS_PEEK(struct sock_common, skc, skc_num) ==
			    tuple->lport &&
		    TWS_PEEK(struct sock_common, skc, skc_dport) == dport &&
		    TWS_PEEK(struct sock_common, skc, skc_state) ==
			    TCP_TIME_WAIT)
			return (void *)skc;
		node = tws_peek_word(
			node +
			bpf_core_field_offset(struct hlist_nulls_node, next));
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

static __always_inline void
tws_timewait_found(const struct sock *sk, const struct tcp_sock *tp,
		   const struct inet_timewait_sock *tw,
		   const struct tws_tuple *tuple)
{
	enum tws_substate substate = tws_tw_substate(tw);

	if (tws_cfg.reuse_on_state)
		tws_recent_mark(TWS_READ(true, sk, __sk_common.skc_hash));
	tws_timewait_enter(sk, tp, tuple, substate,
			   substate == TWS_SUBSTATE_FIN_WAIT2
				   ? tws_tw_remaining_ms(tw)
				   : 0,
			   true);
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
	struct tws_tuple tuple;

	tws_sock_tuple(&tuple, sk, tp, true);
	tw = tws_find_timewait(sk, &tuple);
	if (tw)
		tws_timewait_found(sk, tp, tw, &tuple);
}

#endif
