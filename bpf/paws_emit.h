/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A segment was refused by PAWS: the record, whatever hook found out. */
#ifndef TWSCOPE_PAWS_EMIT_H
#define TWSCOPE_PAWS_EMIT_H

#include "emit.h"
#include "packet.h"
#include "paws.h"

/* What a hook found out before it knows whether anybody wants to hear it. */
struct tws_reject {
	__u32 ts_recent;
	__u32 tsval;
	__u32 age_ms;
	__u32 reason;
	enum tws_where where;
	enum tws_segment segment;
	enum tws_reply reply;
	enum tws_counter counter;
	bool has_ts_recent;
	bool has_age;
	enum tws_rule rule; /* not PAWS, but this */
	__u8 pad[1];
};

static __always_inline void
tws_paws_emit(const struct tws_tuple *tuple, const struct tws_owner *owner,
	      const struct tws_reject *r,
	      const struct tws_segment_info *segment, const struct sk_buff *skb)
{
	struct tws_tally *c = tws_get_counts(tuple->netns);
	struct tws_paws_reject *e;

	switch (r->counter) {
	case TWS_COUNTER_PAWS_ESTAB:
		tws_count(c, paws[TWS_COUNTER_PAWS_ESTAB]);
		break;
	case TWS_COUNTER_PAWS_TIMEWAIT:
		tws_count(c, paws[TWS_COUNTER_PAWS_TIMEWAIT]);
		break;
	case TWS_COUNTER_PAWS_ACTIVE:
		tws_count(c, paws[TWS_COUNTER_PAWS_ACTIVE]);
		break;
	case TWS_COUNTER_PAWS_OLD_ACK:
		tws_count(c, paws[TWS_COUNTER_PAWS_OLD_ACK]);
		break;
	case TWS_COUNTER_TSECR_REJECTED:
		tws_count(c, paws[TWS_COUNTER_TSECR_REJECTED]);
		break;
	default:
		break;
	}
	if (!tws_want(c, TWS_KIND_PAWS_REJECT, tuple, owner))
		return;
	e = tws_reserve(c, TWS_KIND_PAWS_REJECT, struct tws_paws_reject);
	if (!e)
		return;
	e->tuple = *tuple;
	e->owner = *owner;
	e->tsval = r->tsval;
	e->ts_recent = r->ts_recent;
	e->age_ms = r->age_ms;
	e->reason = r->reason;
	e->where = r->where;
	e->segment = r->segment;
	e->reply = r->reply;
	e->counter = r->counter;
	e->has_ts_recent = r->has_ts_recent;
	e->has_age = r->has_age;
	e->seq = segment->seq;
	tws_fill_syn(&e->syn, segment, skb);
	tws_submit(e, sizeof(*e));
}

/* Payload, when skb->data still points at the TCP header. */
static __always_inline bool tws_has_data(const struct sk_buff *skb,
					 const struct tws_segment_info *segment)
{
	return BPF_CORE_READ(skb, len) > segment->header_len;
}

/* ktime_get_seconds(), the clock of ts_recent_stamp */
static __always_inline __s32 tws_now_s(void)
{
	return bpf_ktime_get_ns() / 1000000000;
}

static __always_inline void tws_reject_stamp(struct tws_reject *r,
					     __s32 stamp_s)
{
	__s32 age_s = tws_now_s() - stamp_s;

	if (!stamp_s || age_s < 0)
		return;
	r->age_ms = (__u32)age_s * 1000;
	r->has_age = true;
}

/* PAWSActive: a SYN-ACK whose TSecr echoes none of our SYNs. */
static __always_inline void
tws_paws_syn_sent(const struct sock *sk, const struct sk_buff *skb,
		  const struct tws_segment_info *segment)
{
	struct tws_reject r = {
		.tsval = segment->opt.tsval,
		.where = TWS_WHERE_SYN_SENT,
		.segment =
			tws_segment_kind(segment, tws_has_data(skb, segment)),
		.reply = TWS_REPLY_NONE,
		.counter = TWS_COUNTER_PAWS_ACTIVE,
		.reason = tws_cfg.reason_paws,
	};
	struct tws_owner owner;
	struct tws_tuple tuple;

	tws_sock_tuple(&tuple, sk, NULL, false);
	tws_socket_owner(&owner, tws_sock_find(sk, false), &tuple);
	tws_paws_emit(&tuple, &owner, &r, segment, skb);
}

#endif
