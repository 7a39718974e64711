// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Segments refused as old duplicates: the successors of the check that counted
 * LINUX_MIB_PAWSPASSIVEREJECTED until 4.11.
 *
 * Two ways to see them. Where the kernel names the reason when it drops the
 * skb, that name is the verdict. Elsewhere the test is repeated at the entry
 * of the function that makes it: every rejecting function computes it from the
 * socket and the segment alone, before it changes either, so nothing is gained
 * by waiting for a return value, which does not tell a reject apart anyway.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "paws_emit.h"
#include "timewait.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * tws_predict_reply - tcp_oow_rate_limited(), net/ipv4/tcp_input.c, at entry
 *
 * @last_oow: tw_last_oow_ack_time, last_oow_ack_time; in jiffies
 */
static __always_inline enum tws_reply tws_predict_reply(const struct net *net,
							__u32 last_oow,
							enum tws_segment kind,
							bool has_data)
{
	__s32 elapsed = (__u32)bpf_jiffies64() - last_oow;

	if (kind == TWS_SEGMENT_RST)
		return TWS_REPLY_NONE;
	if (kind != TWS_SEGMENT_SYN && (has_data || kind == TWS_SEGMENT_FIN))
		return TWS_REPLY_ACK;
	if (last_oow && elapsed >= 0 &&
	    elapsed < BPF_CORE_READ(net, ipv4.sysctl_tcp_invalid_ratelimit))
		return TWS_REPLY_RATE_LIMITED;
	return TWS_REPLY_ACK;
}

/*
 * tws_reply_sent - the same after the fact
 *
 * The kernel notes the jiffy in which it sends an ACK. If that is the one noted
 * at the reject before, no ACK was sent this time.
 */
static __always_inline enum tws_reply tws_reply_sent(const void *sk,
						     __u32 last_oow,
						     enum tws_segment kind,
						     bool has_data)
{
	__u64 key = (__u64)sk;
	__u32 *known;

	if (kind == TWS_SEGMENT_RST)
		return TWS_REPLY_NONE;
	if (kind != TWS_SEGMENT_SYN && (has_data || kind == TWS_SEGMENT_FIN))
		return TWS_REPLY_ACK;
	known = bpf_map_lookup_elem(&tws_oow_acks, &key);
	if (known && *known == last_oow)
		return TWS_REPLY_RATE_LIMITED;
	bpf_map_update_elem(&tws_oow_acks, &key, &last_oow, BPF_ANY);
	return TWS_REPLY_ACK;
}

/* How long ago a socket entered TIME_WAIT; before 6.14 only ts_recent tells. */
static __always_inline void
tws_reject_tw_age(struct tws_reject *r, const struct tcp_timewait_sock *tw)
{
	const struct inet_timewait_sock *itw = &tw->tw_sk;

	if (!bpf_core_field_exists(itw->tw_entry_stamp)) {
		tws_reject_stamp(r, BPF_CORE_READ(tw, tw_ts_recent_stamp));
		return;
	}
	/* tcp_time_stamp_ms(): CLOCK_MONOTONIC in ms */
	r->age_ms = (__u32)(bpf_ktime_get_ns() / 1000000) -
		    BPF_CORE_READ(itw, tw_entry_stamp);
	r->has_age = true;
}

/* A SYN that PAWS let pass and a TIME_WAIT socket refused. */
static __always_inline void tws_syn_reject_emit(
	const struct tcp_timewait_sock *tw, const struct tws_tuple *tuple,
	const struct tws_owner *owner, const struct tws_reject *r,
	const struct tws_segment_info *segment, const struct sk_buff *skb)
{
	struct tws_tally *c = tws_get_counts(tuple->netns);
	struct tws_syn_reject *e;

	if (!tws_want(c, TWS_KIND_SYN_REJECT, tuple, owner))
		return;
	e = tws_reserve(c, TWS_KIND_SYN_REJECT, struct tws_syn_reject);
	if (!e)
		return;
	e->tuple = *tuple;
	e->owner = *owner;
	tws_fill_syn(&e->syn, segment, skb);
	e->ts_recent = r->ts_recent;
	e->seq = segment->seq;
	e->rcv_nxt = BPF_CORE_READ(tw, tw_sk.__tw_common.skc_tw_rcv_nxt);
	e->age_ms = r->age_ms;
	e->has_age = r->has_age;
	e->rule = r->rule;
	e->reply = r->reply;
	tws_submit(e, sizeof(*e));
}

/* The owner of a TIME_WAIT socket is the listener that accepted it. */
static __always_inline void tws_emit_tw(const struct tcp_timewait_sock *tw,
					struct tws_reject *r,
					const struct tws_segment_info *segment,
					const struct sk_buff *skb)
{
	struct tws_owner owner;
	struct tws_tuple tuple;

	tws_reject_tw_age(r, tw);
	tws_fill_tuple(&tuple, &tw->tw_sk.__tw_common, false);
	tws_socket_owner(&owner, NULL, &tuple);
	if (r->rule)
		tws_syn_reject_emit(tw, &tuple, &owner, r, segment, skb);
	else
		tws_paws_emit(&tuple, &owner, r, segment, skb);
}

static __always_inline enum tws_counter tws_timewait_counter(void)
{
	/* c449d5f3a3d7 split PAWSTimewait off, in the series that named the
	 * reason
	 */
	return tws_cfg.reason_tw_paws ? TWS_COUNTER_PAWS_TIMEWAIT
				      : TWS_COUNTER_PAWS_ESTAB;
}

static __always_inline bool tws_after(__u32 a, __u32 b)
{
	return (__s32)(b - a) < 0;
}

/* Only a SYN by itself can open a connection on a socket in TIME_WAIT. */
static __always_inline bool tws_opens(const struct tws_segment_info *segment)
{
	return (segment->flags & (TWS_TCP_SYN | TWS_TCP_ACK | TWS_TCP_RST)) ==
	       TWS_TCP_SYN;
}

/*
 * tws_syn_rule - why tcp_timewait_state_process() refuses a SYN
 *
 * PAWS has let it pass. TWS_RULE_NO_LISTENER: it would be accepted.
 */
static __always_inline enum tws_rule
tws_syn_rule(const struct tcp_timewait_sock *tw,
	     const struct tws_segment_info *segment)
{
	__u32 ts_recent = BPF_CORE_READ(tw, tw_ts_recent);

	if (tws_tw_substate(&tw->tw_sk) == TWS_SUBSTATE_FIN_WAIT2)
		return TWS_RULE_FIN_WAIT2;
	if (tws_after(segment->seq,
		      BPF_CORE_READ(tw, tw_sk.__tw_common.skc_tw_rcv_nxt)))
		return TWS_RULE_NO_LISTENER;
	if (BPF_CORE_READ(tw, tw_ts_recent_stamp) && segment->opt.saw_tstamp &&
	    tws_after(segment->opt.tsval, ts_recent))
		return TWS_RULE_NO_LISTENER;
	return TWS_RULE_SEQUENCE;
}

/* Does nobody listen on the address of a socket any more, for sure. */
static __always_inline bool
tws_listener_gone(const struct tcp_timewait_sock *tw)
{
	struct tws_listener *l;
	struct tws_tuple tuple;

	tws_fill_tuple(&tuple, &tw->tw_sk.__tw_common, false);
	l = tws_find_listener(&tuple);
	return l && !l->sockets;
}

/* Is the sequence number in the window of the old connection. */
static __always_inline bool
tws_in_window(const struct tcp_timewait_sock *tw,
	      const struct tws_segment_info *segment)
{
	__u32 into = segment->seq -
		     BPF_CORE_READ(tw, tw_sk.__tw_common.skc_tw_rcv_nxt);

	return into < BPF_CORE_READ(tw, tw_rcv_wnd);
}

/*
 * tws_syn_refusal - will the kernel refuse a SYN that PAWS lets pass
 *
 * Up to 6.15 nothing tells afterwards.
 */
static __always_inline bool
tws_syn_refusal(const struct tcp_timewait_sock *tw, const struct sk_buff *skb,
		const struct tws_segment_info *segment, struct tws_reject *r)
{
	r->rule = tws_syn_rule(tw, segment);
	r->reply = TWS_REPLY_ACK;
	if (r->rule == TWS_RULE_NO_LISTENER)
		return tws_listener_gone(tw);
	if (r->rule == TWS_RULE_FIN_WAIT2 && tws_in_window(tw, segment))
		r->reply = TWS_REPLY_RST;
	else
		r->reply = tws_predict_reply(
			BPF_CORE_READ(tw, tw_sk.__tw_common.skc_net.net),
			BPF_CORE_READ(tw, tw_last_oow_ack_time),
			TWS_SEGMENT_SYN, tws_has_data(skb, segment));
	return true;
}

/* tcp_timewait_state_process() at entry */
static __always_inline void
tws_timewait_process(const struct tcp_timewait_sock *tw,
		     const struct sk_buff *skb)
{
	__s32 stamp = BPF_CORE_READ(tw, tw_ts_recent_stamp);
	struct tws_segment_info segment;
	struct tws_reject r = {};
	bool has_data;

	if (!tws_read_segment(&segment, skb))
		return;
	r.tsval = segment.opt.tsval;
	r.ts_recent = BPF_CORE_READ(tw, tw_ts_recent);
	r.has_ts_recent = true;
	if (!stamp || !segment.opt.saw_tstamp ||
	    !tws_paws_reject(r.ts_recent, r.tsval, stamp, tws_now_s(),
			     tws_cfg.paws_wrap_s,
			     segment.flags & TWS_TCP_RST)) {
		if (tws_opens(&segment) &&
		    tws_syn_refusal(tw, skb, &segment, &r))
			tws_emit_tw(tw, &r, &segment, skb);
		return;
	}
	has_data = tws_has_data(skb, &segment);
	r.segment = tws_segment_kind(&segment, has_data);
	r.reply = tws_predict_reply(
		BPF_CORE_READ(tw, tw_sk.__tw_common.skc_net.net),
		BPF_CORE_READ(tw, tw_last_oow_ack_time), r.segment, has_data);
	if (tws_tw_substate(&tw->tw_sk) == TWS_SUBSTATE_FIN_WAIT2) {
		/* answered in the same way, but no kernel counts it */
		r.where = TWS_WHERE_FIN_WAIT2;
	} else {
		r.where = TWS_WHERE_TIME_WAIT;
		r.counter = tws_timewait_counter();
		r.reason = tws_cfg.reason_tw_paws;
	}
	tws_emit_tw(tw, &r, &segment, skb);
}

SEC("fentry/tcp_timewait_state_process")
int BPF_PROG(tws_fentry_tw_process, struct inet_timewait_sock *tw,
	     struct sk_buff *skb)
{
	tws_timewait_process((void *)tw, skb);
	return 0;
}

SEC("kprobe/tcp_timewait_state_process")
int BPF_KPROBE(tws_kprobe_tw_process, struct inet_timewait_sock *tw,
	       struct sk_buff *skb)
{
	tws_timewait_process((void *)tw, skb);
	return 0;
}

/* tcp_check_req() at entry: a segment for a connection in SYN_RECV */
static __always_inline void tws_check_req(const struct sk_buff *skb,
					  const struct request_sock *req)
{
	const struct tcp_request_sock *treq = (const void *)req;
	struct tws_segment_info segment;
	struct tws_reject r = {};
	struct tws_owner owner;
	struct tws_tuple tuple;
	__s32 now = tws_now_s();
	bool has_data;

	r.ts_recent = BPF_CORE_READ(req, ts_recent);
	if (!r.ts_recent || !tws_read_segment(&segment, skb) ||
	    !segment.opt.saw_tstamp)
		return;
	r.tsval = segment.opt.tsval;
	r.has_ts_recent = true;
	/* the kernel takes the first SYN-ACK's time for the stamp: seconds */
	if (!tws_paws_reject(r.ts_recent, r.tsval, now, now,
			     tws_cfg.paws_wrap_s, segment.flags & TWS_TCP_RST))
		return;
	has_data = tws_has_data(skb, &segment);
	r.segment = tws_segment_kind(&segment, has_data);
	r.where = TWS_WHERE_SYN_RECV;
	r.counter = TWS_COUNTER_PAWS_ESTAB;
	r.reason = tws_cfg.reason_paws;
	r.reply = tws_predict_reply(
		BPF_CORE_READ(req, __req_common.skc_net.net),
		BPF_CORE_READ(treq, last_oow_ack_time), r.segment, has_data);
	tws_fill_tuple(&tuple, &req->__req_common, false);
	tws_socket_owner(&owner, NULL, &tuple);
	tws_paws_emit(&tuple, &owner, &r, &segment, skb);
}

SEC("fentry/tcp_check_req")
int BPF_PROG(tws_fentry_check_req, struct sock *sk, struct sk_buff *skb,
	     struct request_sock *req)
{
	tws_check_req(skb, req);
	return 0;
}

SEC("kprobe/tcp_check_req")
int BPF_KPROBE(tws_kprobe_check_req, struct sock *sk, struct sk_buff *skb,
	       struct request_sock *req)
{
	tws_check_req(skb, req);
	return 0;
}

/*
 * tws_disordered_ack - tcp_disordered_ack(), net/ipv4/tcp_input.c
 *
 * A pure ACK that was overtaken by a newer one passes although its timestamp
 * is old, when it changes nothing and is not older than the retransmission
 * timeout allows.
 */
static __always_inline bool
tws_disordered_ack(const struct sock *sk,
		   const struct tws_segment_info *segment, bool pure,
		   __u32 ts_recent)
{
	const struct inet_connection_sock *icsk = (const void *)sk;
	const struct tcp_sock *tp = (const void *)sk;
	__u32 wl1, window, max_age;

	if (!pure || segment->seq != BPF_CORE_READ(tp, rcv_nxt) ||
	    segment->ack_seq != BPF_CORE_READ(tp, snd_una))
		return false;
	wl1 = BPF_CORE_READ(tp, snd_wl1);
	window = (__u32)segment->window
		 << BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.snd_wscale);
	if (tws_after(segment->seq, wl1) ||
	    (segment->seq == wl1 &&
	     (window > BPF_CORE_READ(tp, snd_wnd) || !window)))
		return false;
	max_age = BPF_CORE_READ(icsk, icsk_rto) * 1200 / tws_cfg.hz;
	return (__s32)(ts_recent - segment->opt.tsval) <= (__s32)max_age;
}

/* tcp_validate_incoming() at entry: ESTABLISHED and later */
static __always_inline void tws_validate_incoming(const struct sock *sk,
						  const struct sk_buff *skb)
{
	const struct tcp_sock *tp = (const void *)sk;
	__s32 stamp = BPF_CORE_READ(tp, rx_opt.ts_recent_stamp);
	struct tws_segment_info segment;
	struct tws_reject r = {};
	struct tws_owner owner;
	struct tws_tuple tuple;
	bool has_data, pure;

	if (!stamp || !tws_read_segment(&segment, skb) ||
	    !segment.opt.saw_tstamp || segment.flags & TWS_TCP_RST)
		return;
	r.tsval = segment.opt.tsval;
	r.ts_recent = BPF_CORE_READ(tp, rx_opt.ts_recent);
	r.has_ts_recent = true;
	if (tws_paws_check(r.ts_recent, r.tsval, 1 /* TCP_PAWS_WINDOW */, stamp,
			   tws_now_s(), tws_cfg.paws_wrap_s))
		return;
	has_data = tws_has_data(skb, &segment);
	r.segment = tws_segment_kind(&segment, has_data);
	pure = r.segment == TWS_SEGMENT_ACK && segment.flags & TWS_TCP_ACK;
	if (tws_disordered_ack(sk, &segment, pure, r.ts_recent))
		return;
	r.where = TWS_WHERE_ESTABLISHED;
	if (tws_cfg.reason_paws_ack && pure &&
	    tws_after(BPF_CORE_READ(tp, rcv_nxt), segment.seq)) {
		/* dropped in silence since 6.14 (124c4c32e9f3) */
		r.counter = TWS_COUNTER_PAWS_OLD_ACK;
		r.reason = tws_cfg.reason_paws_ack;
		r.reply = TWS_REPLY_NONE;
	} else {
		r.counter = TWS_COUNTER_PAWS_ESTAB;
		r.reason = tws_cfg.reason_paws;
		r.reply = tws_predict_reply(
			BPF_CORE_READ(sk, __sk_common.skc_net.net),
			BPF_CORE_READ(tp, last_oow_ack_time), r.segment,
			has_data);
	}
	tws_reject_stamp(&r, stamp);
	tws_sock_tuple(&tuple, sk, NULL, false);
	tws_socket_owner(&owner, tws_sock_find(sk, false), &tuple);
	tws_paws_emit(&tuple, &owner, &r, &segment, skb);
}

SEC("fentry/tcp_validate_incoming")
int BPF_PROG(tws_fentry_validate, struct sock *sk, struct sk_buff *skb)
{
	tws_validate_incoming(sk, skb);
	return 0;
}

SEC("kprobe/tcp_validate_incoming")
int BPF_KPROBE(tws_kprobe_validate, struct sock *sk, struct sk_buff *skb)
{
	tws_validate_incoming(sk, skb);
	return 0;
}

/* The kernel dropped a segment on a TIME_WAIT socket, for PAWS by its name. */
static __always_inline void
tws_dropped_tw(const struct tcp_timewait_sock *tw, const struct sk_buff *skb,
	       const struct tws_segment_info *segment, struct tws_reject *r)
{
	bool has_data = tws_has_data(skb, segment);
	__s32 stamp = BPF_CORE_READ(tw, tw_ts_recent_stamp);
	bool paws = r->reason != tws_cfg.reason_none;

	r->where = TWS_WHERE_TIME_WAIT;
	r->counter = TWS_COUNTER_PAWS_TIMEWAIT;
	r->ts_recent = BPF_CORE_READ(tw, tw_ts_recent);
	r->has_ts_recent = true;
	r->segment = tws_segment_kind(segment, has_data);
	if (!paws) {
		/* In the substate FIN_WAIT2 it has no name either. */
		r->reason = 0;
		r->counter = TWS_COUNTER_NONE;
		r->where = TWS_WHERE_FIN_WAIT2;
		r->rule = tws_syn_rule(tw, segment);
		if (r->rule == TWS_RULE_FIN_WAIT2 && stamp &&
		    segment->opt.saw_tstamp &&
		    tws_paws_reject(r->ts_recent, r->tsval, stamp, tws_now_s(),
				    tws_cfg.paws_wrap_s, false))
			r->rule = TWS_RULE_UNKNOWN; /* PAWS */
	}
	if (r->rule == TWS_RULE_NO_LISTENER)
		r->reply = TWS_REPLY_ACK;
	else if (r->rule == TWS_RULE_FIN_WAIT2 && tws_in_window(tw, segment))
		r->reply = TWS_REPLY_RST;
	else
		r->reply = tws_reply_sent(
			tw, BPF_CORE_READ(tw, tw_last_oow_ack_time), r->segment,
			has_data);
	tws_emit_tw(tw, r, segment, skb);
}

/*
 * The same in tcp_check_req(). Its callers drop the segment in the name of the
 * listener, so the request socket with its ts_recent is out of reach.
 */
static __always_inline void
tws_dropped_req(const struct sock *listener, const struct sk_buff *skb,
		const struct tws_segment_info *segment, struct tws_reject *r)
{
	struct tws_tuple tuple = {};
	struct tws_owner owner;

	if (!tws_packet_tuple(&tuple, segment, skb))
		return;
	tuple.netns = tws_netns(&listener->__sk_common, false);
	r->where = TWS_WHERE_SYN_RECV;
	r->counter = r->reason == tws_cfg.reason_tsecr
			     ? TWS_COUNTER_TSECR_REJECTED
			     : TWS_COUNTER_PAWS_ESTAB;
	r->segment = tws_segment_kind(segment, tws_has_data(skb, segment));
	if (r->segment == TWS_SEGMENT_RST)
		r->reply = TWS_REPLY_NONE;
	tws_socket_owner(&owner, NULL, &tuple);
	tws_paws_emit(&tuple, &owner, r, segment, skb);
}

/* The same on a full socket, in tcp_validate_incoming(). */
static __always_inline void
tws_dropped_sock(const struct sock *sk, const struct sk_buff *skb,
		 const struct tws_segment_info *segment, struct tws_reject *r)
{
	const struct tcp_sock *tp = (const void *)sk;
	bool has_data = tws_has_data(skb, segment);
	struct tws_owner owner;
	struct tws_tuple tuple;

	r->where = TWS_WHERE_ESTABLISHED;
	r->ts_recent = BPF_CORE_READ(tp, rx_opt.ts_recent);
	r->has_ts_recent = true;
	r->segment = tws_segment_kind(segment, has_data);
	if (tws_cfg.reason_paws_ack && r->reason == tws_cfg.reason_paws_ack) {
		r->counter = TWS_COUNTER_PAWS_OLD_ACK;
		r->reply = TWS_REPLY_NONE;
	} else {
		r->counter = TWS_COUNTER_PAWS_ESTAB;
		r->reply =
			tws_reply_sent(sk, BPF_CORE_READ(tp, last_oow_ack_time),
				       r->segment, has_data);
	}
	tws_reject_stamp(r, BPF_CORE_READ(tp, rx_opt.ts_recent_stamp));
	tws_sock_tuple(&tuple, sk, NULL, false);
	tws_socket_owner(&owner, tws_sock_find(sk, false), &tuple);
	tws_paws_emit(&tuple, &owner, r, segment, skb);
}

static __always_inline bool tws_is_paws_reason(__u32 reason)
{
	return reason && (reason == tws_cfg.reason_tw_paws ||
			  reason == tws_cfg.reason_paws ||
			  reason == tws_cfg.reason_paws_ack ||
			  reason == tws_cfg.reason_tsecr);
}

/*
 * kfree_skb fires for every dropped packet of the host, so the reason is
 * looked at first. It has the reason since 5.17 and the receiving socket
 * (rx_sk) since 6.11; user space attaches this program only where it has both.
 */
SEC("tp_btf/kfree_skb")
int tws_kfree_skb(__u64 *ctx)
{
	struct tws_segment_info segment;
	struct tws_reject r = {};
	struct sk_buff *skb;
	bool nameless;
	void *rx_sk;
	__u8 state;

	if (tws_cfg.kfree_skb_args < 4)
		return 0;
	r.reason = ctx[2];
	nameless = tws_cfg.drops_timewait && r.reason == tws_cfg.reason_none;
	if (!nameless && !tws_is_paws_reason(r.reason))
		return 0;
	skb = (void *)ctx[0];
	rx_sk = (void *)tws_ctx_arg(ctx, 3);
	state = BPF_CORE_READ((struct sock_common *)rx_sk, skc_state);
	if (nameless && state != TCP_TIME_WAIT)
		return 0;
	if (!tws_read_segment(&segment, skb))
		return 0;
	r.tsval = segment.opt.tsval;
	switch (state) {
	case TCP_TIME_WAIT:
		if (tws_cfg.drops_timewait &&
		    (!nameless || tws_opens(&segment)))
			tws_dropped_tw(rx_sk, skb, &segment, &r);
		break;
	case TCP_LISTEN:
		if (tws_cfg.drops_syn_recv)
			tws_dropped_req(rx_sk, skb, &segment, &r);
		break;
	case TCP_SYN_SENT: /* tws_send_reset has it, with the MIB counter */
	case 0:		   /* no socket */
		break;
	default:
		if (tws_cfg.drops_established)
			tws_dropped_sock(rx_sk, skb, &segment, &r);
	}
	return 0;
}
