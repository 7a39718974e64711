/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map. All objects share one set of them: user space creates each map
 * once and hands it to every object. Hash maps are preallocated, because
 * tracing programs on kernels before 6.1 must not allocate; the sizes are
 * defaults that user space may change.
 */
#ifndef TWSCOPE_MAPS_H
#define TWSCOPE_MAPS_H

#include "abi.h"

/*
 * Records for user space. 8 MiB hold 75,000 TIME_WAIT records: 3.5 s at
 * 20,000 connections/s.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} tws_events SEC(".maps");

/*
 * Who listens where. Entries outlive their listener, because its children may
 * enter TIME_WAIT after it was closed; LRU bounds them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tws_listener_key);
	__type(value, struct tws_listener);
} tws_listeners SEC(".maps");

/*
 * The owner of a SO_REUSEPORT listener, copied by the kernel to the children
 * of that very listener.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct tws_owner);
} tws_reuseport SEC(".maps");

/*
 * Exact counts by network namespace. tws_places tells which place in tws_counts
 * is whose; place 0 takes what finds none. Two arrays, because a look-up in a
 * hash map costs as much as all the counting.
 */
#define TWS_NETNS_PLACES 1024
#define TWS_NETNS_TRIES 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TWS_NETNS_PLACES);
	__type(key, __u32);
	__type(value, struct tws_netns_place);
} tws_places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TWS_NETNS_PLACES);
	__type(key, __u32);
	__type(value, struct tws_tally);
} tws_counts SEC(".maps");

/*
 * How connections ended that leave no TIME_WAIT socket here and so have no
 * record, by namespace, addresses and remote port; the local port is 0.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tws_tuple);
	__type(value, struct tws_closes);
} tws_closed SEC(".maps");

/*
 * The connect() that a task is in, by its thread id modulo the size: two tasks
 * that share a slot at the same instant lose one observation each, which is
 * what the check of pid_tgid finds out.
 */
struct tws_connecting {
	__u64 pid_tgid;
	__u64 sk;
};

#define TWS_CONNECTING_SLOTS 4096

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TWS_CONNECTING_SLOTS);
	__type(key, __u32);
	__type(value, struct tws_connecting);
} tws_connecting SEC(".maps");

/* What one CPU must remember between two hooks of the same kernel call. */
struct tws_scratch {
	__u64 timewait_sk; /* tcp_time_wait() in progress */
	__u64 alloc_sk;	   /* inet_twsk_alloc() in progress */
	__u64 process_tw;  /* tcp_timewait_state_process() looks at a segment */
	__u64 ended_tw;	   /* inet_twsk_deschedule_put() in progress */
	__u32 timeout_jiffies;
	__u8 alloc_state;
	__u8 process_syn;
	enum tws_end ended_reason;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tws_scratch);
} tws_scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tws_orders);
} tws_control SEC(".maps");

/* One byte for a hash of a 4-tuple, see tws_recent_test(). */
#define TWS_RECENT_PAGE 4096
#define TWS_RECENT_PAGES 1024

struct tws_recent_page {
	__u8 seen[TWS_RECENT_PAGE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TWS_RECENT_PAGES);
	__type(key, __u32);
	__type(value, struct tws_recent_page);
} tws_recent SEC(".maps");

/* Which SYNs are looked at. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tws_turns);
} tws_syn_turns SEC(".maps");

/* tw_last_oow_ack_time at the last reject, to tell whether an ACK was sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u32);
} tws_oow_acks SEC(".maps");

/* The filters. The values mean nothing: a key is in the set or not. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u8);
} tws_filter_netns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tws_prefix_key);
	__type(value, __u8);
} tws_filter_dst SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tws_prefix_key);
	__type(value, __u8);
} tws_filter_src SEC(".maps");

/* thread group ids: those given, and their descendants as they are forked */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, __u8);
} tws_filter_pid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, char[TWS_COMM_LEN]);
	__type(value, __u8);
} tws_filter_comm SEC(".maps");

static __always_inline struct tws_scratch *tws_get_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tws_scratch, &zero);
}

#endif
