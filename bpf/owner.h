/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who opened a socket: the process that called connect() or listen(), taken
 * in that call and kept, because what happens to a connection later happens
 * on whatever CPU and task the network interrupts.
 */
#ifndef TWSCOPE_OWNER_H
#define TWSCOPE_OWNER_H

#include "compat.h"
#include "config.h"
#include "maps.h"
#include "socks.h"
#include "tuple.h"

static __always_inline bool tws_cgroup_matches(struct task_struct *task)
{
	struct cgroup *cgrp = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	__u32 depth = BPF_CORE_READ(cgrp, level);
	const void *ancestors = tws_cgroup_ancestors(cgrp);
	__u32 i;

	for (i = 0; i < TWS_CGROUPS_MAX; i++) {
		__u32 level = tws_cfg.cgroup_levels[i];

		if (i >= tws_cfg.cgroup_count)
			return false;
		if (level <= depth && tws_cgroup_ancestor(ancestors, level) ==
					      tws_cfg.cgroup_ids[i])
			return true;
	}
	return false;
}

/* OR within a kind of filter, AND between kinds. */
static __always_inline bool tws_owner_matches(struct task_struct *task,
					      const struct tws_owner *o)
{
	if (tws_cfg.filter_pid &&
	    !bpf_map_lookup_elem(&tws_filter_pid, &o->pid))
		return false;
	if (tws_cfg.filter_comm &&
	    !bpf_map_lookup_elem(&tws_filter_comm, &o->comm))
		return false;
	return !tws_cfg.cgroup_count || tws_cgroup_matches(task);
}

static __always_inline bool tws_filters_owner(void)
{
	return tws_cfg.filter_pid || tws_cfg.filter_comm ||
	       tws_cfg.cgroup_count;
}

/* Do the owner filters leave this one out? A NULL owner passes none. */
static __always_inline bool tws_is_foreign(const struct tws_owner *o)
{
	return tws_filters_owner() && (!o || !o->match);
}

/* Of eight characters those in front of a NUL. */
static __always_inline __u64 tws_until_nul(__u64 chars)
{
	__u64 nul = (chars - 0x0101010101010101ull) & ~chars &
		    0x8080808080808080ull;

	return nul ? chars & (((nul & -nul) >> 7) - 1) : chars;
}

/*
 * The name of a task, filled up with NULs: it is a key of tws_filter_comm, and
 * up to 6.1 the kernel leaves the end of an older name behind it.
 */
static __always_inline void tws_task_comm(char comm[TWS_COMM_LEN],
					  const struct task_struct *task)
{
	__u64 *word = (__u64 *)comm;
	__u64 at = (__u64)&task->comm;

	_Static_assert(TWS_COMM_LEN == 2 * sizeof(*word), "two words");
	word[0] = tws_until_nul(tws_peek_word(at));
	if (word[0] >> 56)
		word[1] = tws_until_nul(tws_peek_word(at + sizeof(*word)));
	else
		word[1] = 0;
}

/*
 * tws_task_owner - the process of a task, named by its leader
 *
 * io_uring's workers and its SQPOLL thread belong to the process that made
 * them (since 5.12), so they name the right one. A kernel thread is not an
 * owner: it works for somebody that cannot be known here.
 */
static __always_inline bool
tws_task_owner(struct tws_owner *o, struct task_struct *task, const bool btf)
{
	struct task_struct *leader;
	struct kernfs_node *kn;
	struct cgroup *cgrp;
	struct css_set *css;

	__builtin_memset(o, 0, sizeof(*o));
	if (TWS_READ(btf, task, flags) & PF_KTHREAD)
		return false;
	o->pid = TWS_READ(btf, task, tgid);
	leader = TWS_READ(btf, task, group_leader);
	tws_task_comm(o->comm, leader);
	css = TWS_READ(btf, task, cgroups);
	cgrp = TWS_READ(btf, css, dfl_cgrp);
	kn = TWS_READ(btf, cgrp, kn);
	o->cgroup = TWS_READ(btf, kn, id);
	return true;
}

/* The same for a task of any kind. */
static __always_inline bool tws_any_owner(struct tws_owner *o,
					  struct task_struct *task)
{
	if (!tws_task_owner(o, task, false))
		return false;
	o->match = tws_owner_matches(task, o);
	return true;
}

/* The same for the current task, which costs less. */
static __always_inline bool tws_current_owner(struct tws_owner *o)
{
	struct task_struct *task;
	bool known;

	if (bpf_core_enum_value_exists(enum bpf_func_id,
				       BPF_FUNC_get_current_task_btf)) {
		task = (void *)bpf_get_current_task_btf();
		known = tws_task_owner(o, task, true);
	} else {
		task = (void *)bpf_get_current_task();
		known = tws_task_owner(o, task, false);
	}
	if (!known)
		return false;
	o->match = tws_owner_matches(task, o);
	return true;
}

/* The listener that accepted a connection to this local address and port. */
static __always_inline struct tws_listener *
tws_find_listener(const struct tws_tuple *t)
{
	struct tws_listener_key key = { .netns = t->netns, .port = t->lport };
	struct tws_listener *l;

	__builtin_memcpy(key.addr, t->laddr, sizeof(key.addr));
	l = bpf_map_lookup_elem(&tws_listeners, &key);
	if (l)
		return l;
	__builtin_memset(key.addr, 0, sizeof(key.addr));
	return bpf_map_lookup_elem(&tws_listeners, &key);
}

/*
 * tws_socket_owner - owner and role of a connected socket
 *
 * A connect() of ours left an entry for the socket, and so did the child of a
 * SO_REUSEPORT listener. Everybody else was accepted by whoever listens on the
 * local port; when several processes do and the child does not tell which,
 * the owner stays unknown.
 */
static __always_inline enum tws_role tws_socket_owner(struct tws_owner *o,
						      const struct tws_sock *s,
						      const struct tws_tuple *t)
{
	struct tws_listener *l;

	/* whose end was missed has left its entry to a later socket */
	if (s && s->tuple.rport != t->rport)
		s = NULL;
	if (s && s->role != TWS_ROLE_UNKNOWN) {
		*o = s->owner;
		return s->role;
	}
	l = tws_find_listener(t);
	if (!l && s) {
		*o = s->owner; /* from the census: who holds it */
		return TWS_ROLE_UNKNOWN;
	}
	__builtin_memset(o, 0, sizeof(*o));
	if (!l)
		return TWS_ROLE_UNKNOWN;
	if (!l->mixed)
		*o = l->owner;
	return TWS_ROLE_SERVER;
}

/* The key under which a listening socket is found by its children. */
static __always_inline void tws_listener_key(struct tws_listener_key *key,
					     const struct sock *sk)
{
	const struct sock_common *skc = &sk->__sk_common;

	__builtin_memset(key, 0, sizeof(*key));
	if (BPF_CORE_READ(skc, skc_family) == AF_INET6)
		BPF_CORE_READ_INTO(&key->addr, skc, skc_v6_rcv_saddr);
	else if (BPF_CORE_READ(skc, skc_rcv_saddr))
		tws_map_ipv4(key->addr, BPF_CORE_READ(skc, skc_rcv_saddr));
	key->netns = tws_netns(skc, false);
	key->port = BPF_CORE_READ(skc, skc_num);
}

static __always_inline void tws_add_listener(const struct sock *sk,
					     const struct tws_owner *o)
{
	struct tws_listener fresh = { .owner = *o, .sockets = 1 };
	struct tws_listener_key key;
	struct tws_listener *l;

	tws_listener_key(&key, sk);
	l = bpf_map_lookup_elem(&tws_listeners, &key);
	if (!l || !l->sockets) {
		bpf_map_update_elem(&tws_listeners, &key, &fresh, BPF_ANY);
		return;
	}
	__sync_fetch_and_add(&l->sockets, 1);
	if (l->owner.pid != o->pid)
		l->mixed = 1;
}

/*
 * A listener that was there before us: its first holder is its owner, and
 * more holders of the same socket do not make it mixed.
 */
static __always_inline void tws_census_listener(const struct sock *sk,
						const struct tws_owner *o)
{
	struct tws_listener fresh = { .owner = *o, .sockets = 1 };
	struct tws_listener_key key;

	tws_listener_key(&key, sk);
	bpf_map_update_elem(&tws_listeners, &key, &fresh, BPF_NOEXIST);
}

#endif
