/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The table of sockets that connect() opened, or that were there before us, by
 * their address: two arrays, because the verifier turns a look-up in an array
 * into a few instructions, and a hash map costs a call, a lock and a free list.
 * Every connection does three look-ups, an insertion and a deletion.
 *
 * A socket may be in any of the four ways of either of two sets. At half of
 * the capacity one in 10,000 finds no place, and is counted as without owner.
 */
#ifndef TWSCOPE_SOCKS_H
#define TWSCOPE_SOCKS_H

#include "maps.h"
#include "tuple.h"

#define TWS_SOCKS_WAYS 4
#define TWS_SOCKS_SETS 32768 /* a power of two */

struct tws_sock_set {
	__u64 id[TWS_SOCKS_WAYS]; /* tws_sock_id(); 0: no socket */
	/* how many want this way: the one who makes it 1 has it */
	__u32 claims[TWS_SOCKS_WAYS];
	/* sockets of this set, their first choice, that are in their second */
	__u32 spilled;
	__u32 pad[3]; /* one cache line */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TWS_SOCKS_SETS);
	__type(key, __u32);
	__type(value, struct tws_sock_set);
} tws_sock_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TWS_SOCKS_SETS *TWS_SOCKS_WAYS);
	__type(key, __u32);
	__type(value, struct tws_sock);
} tws_socks SEC(".maps");

/* Where a socket is in the table. */
struct tws_sock_place {
	struct tws_sock_set *set;
	__u32 index; /* of tws_socks; its last two bits are the way */
	__u32 pad;
};

/*
 * tws_sock_id - the address of a socket as a number to calculate with
 *
 * @btf: a constant, as for TWS_READ()
 *
 * The verifier allows no arithmetic on a pointer to a structure, but the
 * difference of two pointers is a number. Where @sk is a number already, it is
 * the other pointer that has to become one.
 */
static __always_inline __u64 tws_sock_id(const struct sock *sk, const bool btf)
{
	__u32 zero = 0;
	void *base = bpf_map_lookup_elem(&tws_control, &zero);
	__u64 id = (__u64)sk, origin = 0;

	if (!base)
		return 0;
	if (btf) {
		asm volatile("%0 -= %1" : "+r"(id) : "r"(base));
		return id;
	}
	bpf_probe_read_kernel(&id, sizeof(id), &sk);
	bpf_probe_read_kernel(&origin, sizeof(origin), &base);
	return id - origin;
}

static __always_inline __u32 tws_sock_set_of(__u64 id, int choice)
{
	/* neighbours in a slab, some 2 KiB apart, get neighbouring sets: the
	 * fewer pages of the table are in use, the fewer are missed by the TLB
	 */
	if (!choice)
		return (id >> 10) % TWS_SOCKS_SETS;
	/* 2^64 / golden ratio */
	return (id * 0x9e3779b97f4a7c15ull >> 49) % TWS_SOCKS_SETS;
}

static __always_inline bool tws_sock_place(struct tws_sock_place *p, __u64 id)
{
	__u32 set, way;
	int choice;

	if (!id)
		return false;
#pragma clang loop unroll(full)
	for (choice = 0; choice < 2; choice++) {
		set = tws_sock_set_of(id, choice);
		p->set = bpf_map_lookup_elem(&tws_sock_sets, &set);
		if (!p->set)
			return false;
#pragma clang loop unroll(full)
		for (way = 0; way < TWS_SOCKS_WAYS; way++) {
			if (p->set->id[way] == id) {
				p->index = set * TWS_SOCKS_WAYS + way;
				return true;
			}
		}
		/* most look-ups find nothing: spare them the second line */
		if (!p->set->spilled)
			return false;
	}
	return false;
}

/* Note in the set of first choice that a socket is, or was, in the other. */
static __always_inline void tws_sock_spilled(__u64 id, int more)
{
	__u32 first = tws_sock_set_of(id, 0);
	struct tws_sock_set *set = bpf_map_lookup_elem(&tws_sock_sets, &first);

	if (set)
		__sync_fetch_and_add(&set->spilled, more);
}

static __always_inline struct tws_sock *tws_sock_find(const struct sock *sk,
						      const bool btf)
{
	struct tws_sock_place p;

	if (!tws_sock_place(&p, tws_sock_id(sk, btf)))
		return NULL;
	return bpf_map_lookup_elem(&tws_socks, &p.index);
}

/* Only whoever changes the socket, under its lock, calls this for it. */
static __always_inline void tws_sock_release(const struct tws_sock_place *p,
					     __u64 id)
{
	__u32 way = p->index % TWS_SOCKS_WAYS;

	p->set->id[way] = 0;
	__sync_fetch_and_add(&p->set->claims[way], -1);
	if (p->index / TWS_SOCKS_WAYS != tws_sock_set_of(id, 0))
		tws_sock_spilled(id, -1);
}

/*
 * tws_sock_add - a place for a socket, to be filled before it is published
 *
 * Two CPUs that want the same way at the same instant see a number above one
 * and both look on, so a place is never shared. Returns NULL if there is none.
 */
static __always_inline struct tws_sock *tws_sock_add(struct tws_sock_place *p,
						     __u64 id)
{
	__u32 set, way;
	int choice;

	if (!id)
		return NULL;
	if (tws_sock_place(p, id))
		return bpf_map_lookup_elem(&tws_socks, &p->index);
#pragma clang loop unroll(full)
	for (choice = 0; choice < 2; choice++) {
		set = tws_sock_set_of(id, choice);
		p->set = bpf_map_lookup_elem(&tws_sock_sets, &set);
		if (!p->set)
			return NULL;
#pragma clang loop unroll(full)
		for (way = 0; way < TWS_SOCKS_WAYS; way++) {
			volatile __u32 *claims = &p->set->claims[way];

			if (*claims)
				continue;
			__sync_fetch_and_add(&p->set->claims[way], 1);
			if (*claims == 1) {
				if (choice)
					tws_sock_spilled(id, 1);
				p->index = set * TWS_SOCKS_WAYS + way;
				return bpf_map_lookup_elem(&tws_socks,
							   &p->index);
			}
			__sync_fetch_and_add(&p->set->claims[way], -1);
		}
	}
	return NULL;
}

/* Add a socket with all but its owner, which the caller then publishes. */
static __always_inline struct tws_sock *
tws_sock_begin(struct tws_sock_place *p, __u64 id, const struct sock *sk,
	       enum tws_role role, const bool btf)
{
	struct tws_sock *s = tws_sock_add(p, id);

	if (!s)
		return NULL;
	tws_fill_tuple(&s->tuple, &sk->__sk_common, btf);
	s->syn_jiffies = 0;
	s->attempts = 0;
	s->role = role;
	s->challenged = 0;
	s->bound = 0;
	s->timewait = 0;
	return s;
}

static __always_inline void tws_sock_publish(const struct tws_sock_place *p,
					     __u64 id)
{
	volatile __u64 *place = &p->set->id[p->index % TWS_SOCKS_WAYS];

	*place = id;
}

#endif
