/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only code that counts, filters by address and touches the ring buffer.
 * Every event is counted before it is emitted, so a full ring makes a hole in
 * the log but never a wrong count.
 */
#ifndef TWSCOPE_EMIT_H
#define TWSCOPE_EMIT_H

#include "config.h"
#include "maps.h"
#include "owner.h"

/*
 * tws_netns_claim - a place for a namespace that is new
 *
 * Two CPUs that want the same place at the same instant both see a number above
 * one and look on. So a namespace may get two places, which user space adds up.
 */
static __always_inline __u32 tws_netns_claim(__u32 netns)
{
	struct tws_netns_place *p;
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_NETNS_TRIES; i++) {
		__u32 place = (netns + i) % TWS_NETNS_PLACES;
		volatile __u32 *claims;

		p = bpf_map_lookup_elem(&tws_places, &place);
		if (!p || !place)
			continue;
		if (p->netns == netns)
			return place;
		claims = &p->claims;
		if (*claims)
			continue;
		__sync_fetch_and_add(&p->claims, 1);
		if (*claims == 1) {
			p->netns = netns;
			return place;
		}
		__sync_fetch_and_add(&p->claims, -1);
	}
	return 0;
}

static __always_inline struct tws_tally *tws_get_counts(__u32 netns)
{
	__u32 place = netns % TWS_NETNS_PLACES;
	struct tws_netns_place *p = bpf_map_lookup_elem(&tws_places, &place);

	if (!p || p->netns != netns)
		place = tws_netns_claim(netns);
	return bpf_map_lookup_elem(&tws_counts, &place);
}

/*
 * Atomic although per CPU: a softirq may interrupt a program that runs in
 * process context between its load and its store.
 */
#define tws_count(c, field)                                   \
	do {                                                  \
		if (c)                                        \
			__sync_fetch_and_add(&(c)->field, 1); \
	} while (0)

static __always_inline bool tws_prefix_matches(void *trie, __u16 port,
					       const __u8 addr[16])
{
	struct tws_prefix_key key = {
		.prefixlen = 16 + 128,
		.port = port,
	};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(trie, &key);
}

static __always_inline bool tws_tuple_matches(const struct tws_tuple *t)
{
	if (tws_cfg.filter_netns &&
	    !bpf_map_lookup_elem(&tws_filter_netns, &t->netns))
		return false;
	if (tws_cfg.filter_dst &&
	    !tws_prefix_matches(&tws_filter_dst, t->rport, t->raddr) &&
	    !tws_prefix_matches(&tws_filter_dst, 0, t->raddr))
		return false;
	return !tws_cfg.filter_src ||
	       tws_prefix_matches(&tws_filter_src, 0, t->laddr);
}

/*
 * tws_shed - leave out this one: more happens than user space can write
 *
 * Never what is rare and tells most: PAWS rejects, refused SYNs, re-uses.
 */
static __always_inline bool tws_shed(struct tws_tally *c, enum tws_kind kind)
{
	struct tws_orders *control;
	__u32 zero = 0;

	if (kind == TWS_KIND_PAWS_REJECT || kind == TWS_KIND_SYN_REFUSED ||
	    kind == TWS_KIND_TW_REUSE)
		return false;
	control = bpf_map_lookup_elem(&tws_control, &zero);
	if (!control || !control->shed_mask ||
	    !(bpf_get_prandom_u32() & control->shed_mask))
		return false;
	tws_count(c, shed[kind]);
	return true;
}

/*
 * tws_want - count an event and say whether to emit it
 *
 * @o: the owner, or NULL for a record that has none; such a record passes no
 *     owner filter.
 */
static __always_inline bool tws_want(struct tws_tally *c, enum tws_kind kind,
				     const struct tws_tuple *t,
				     const struct tws_owner *o)
{
	tws_count(c, all[kind]);
	if (!tws_tuple_matches(t) ||
	    (tws_filters_owner() && (!o || !o->match))) {
		tws_count(c, filtered[kind]);
		return false;
	}
	return tws_cfg.kinds & (1u << kind) && !tws_shed(c, kind);
}

/*
 * tws_want_port - the same for what tells of a local port
 *
 * Port budgets need it of every program, so a record that the owner filters
 * leave out is counted as such, and can be emitted nevertheless.
 */
static __always_inline bool tws_want_port(struct tws_tally *c,
					  enum tws_kind kind,
					  const struct tws_tuple *t,
					  const struct tws_owner *o)
{
	if (!tws_cfg.all_owners || !tws_is_foreign(o))
		return tws_want(c, kind, t, o);
	tws_count(c, all[kind]);
	tws_count(c, filtered[kind]);
	return tws_tuple_matches(t) && tws_cfg.kinds & (1u << kind) &&
	       !tws_shed(c, kind);
}

/*
 * tws_submit - hand a record over, and wake the reader once per batch
 *
 * The reader also looks by itself every flush interval, so a wake-up is only
 * needed when the ring fills faster than that.
 */
static __always_inline void tws_submit(void *record, __u32 size)
{
	__u64 waiting = bpf_ringbuf_query(&tws_events, BPF_RB_AVAIL_DATA);
	__u64 flags = BPF_RB_NO_WAKEUP;

	if (waiting >= tws_cfg.wakeup_bytes &&
	    waiting < tws_cfg.wakeup_bytes + 16 * size)
		flags = BPF_RB_FORCE_WAKEUP;
	bpf_ringbuf_submit(record, flags);
}

static __always_inline __u64 tws_jiffies_to_ns(__u64 jiffies)
{
	return jiffies * 1000000000 / tws_cfg.hz;
}

#define tws_reserve(c, kind_, type) \
	tws_reserve_at(c, kind_, type, bpf_ktime_get_boot_ns())

/* @time: only computed when there is room */
#define tws_reserve_at(c, kind_, type, time)                               \
	({                                                                 \
		type *record_ =                                            \
			bpf_ringbuf_reserve(&tws_events, sizeof(type), 0); \
		if (record_) {                                             \
			__builtin_memset(record_, 0, sizeof(type));        \
			record_->h.time_ns = (time);                       \
			record_->h.kind = kind_;                           \
		} else {                                                   \
			tws_count(c, lost[kind_]);                         \
		}                                                          \
		record_;                                                   \
	})

#endif
