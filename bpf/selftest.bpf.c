// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The pure helpers as callable functions, so that tests can hold them against Go. */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "emit.h"
#include "paws.h"
#include "tcpopt.h"
#include "timewait.h"
#include "tuple.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct tws_tcpopt_case {
	__u32 len;
	__u32 pad;
	__u8 options[48]; /* TWS_TCPOPT_MAX and what may lie behind */
	struct tws_tcpopt out;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tws_tcpopt_case);
} tws_test_buffer SEC(".maps");

/* The walk reads kernel memory, which the context of a program is not always. */
SEC("syscall")
int tws_test_tcpopt(struct tws_tcpopt_case *ctx)
{
	struct tws_tcpopt_case *buffer;
	struct tws_tcpopt out;
	__u32 zero = 0;

	buffer = bpf_map_lookup_elem(&tws_test_buffer, &zero);
	if (!buffer)
		return 1;
	__builtin_memcpy(buffer->options, ctx->options, sizeof(ctx->options));
	tws_tcpopt_walk(&out, buffer->options, ctx->len);
	ctx->out = out;
	return 0;
}

struct tws_paws_case {
	__u32 ts_recent;
	__u32 tsval;
	__s32 window;
	__s32 stamp_s;
	__s32 now_s;
	__u32 wrap_s;
	__u8 rst;
	__u8 check;
	__u8 reject;
	__u8 pad;
};

SEC("syscall")
int tws_test_paws(struct tws_paws_case *ctx)
{
	ctx->check = tws_paws_check(ctx->ts_recent, ctx->tsval, ctx->window,
				    ctx->stamp_s, ctx->now_s, ctx->wrap_s);
	ctx->reject = tws_paws_reject(ctx->ts_recent, ctx->tsval, ctx->stamp_s,
				      ctx->now_s, ctx->wrap_s, ctx->rst);
	return 0;
}

#define TWS_TEST_MATCHES 1
#define TWS_TEST_LOCAL_LOOPBACK 2
#define TWS_TEST_REMOTE_LOOPBACK 4

/*
 * The packet is a struct tws_tuple. Programs of type syscall may sleep, so they
 * may not use the tries of prefixes.
 */
SEC("tc")
int tws_test_tuple(struct __sk_buff *skb)
{
	struct tws_tuple tuple;
	int result = 0;

	if (bpf_skb_load_bytes(skb, 0, &tuple, sizeof(tuple)))
		return -1;
	if (tws_tuple_matches(&tuple))
		result |= TWS_TEST_MATCHES;
	if (tws_addr_is_loopback(tuple.laddr))
		result |= TWS_TEST_LOCAL_LOOPBACK;
	if (tws_addr_is_loopback(tuple.raddr))
		result |= TWS_TEST_REMOTE_LOOPBACK;
	return result;
}

struct tws_jiffies_case {
	__u64 jiffies;
	__u32 ms;
	__u32 pad;
};

SEC("syscall")
int tws_test_jiffies(struct tws_jiffies_case *ctx)
{
	ctx->ms = tws_jiffies_to_ms(ctx->jiffies);
	return 0;
}
