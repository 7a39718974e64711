// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The pure helpers as callable functions, so that tests can hold them against Go. */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "paws.h"
#include "tcpopt.h"
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

SEC("syscall")
int tws_test_tcpopt(struct tws_tcpopt_case *ctx)
{
	struct tws_tcpopt_case *buffer;
	__u32 zero = 0;

	buffer = bpf_map_lookup_elem(&tws_test_buffer, &zero);
	if (!buffer)
		return 1;
	__builtin_memcpy(buffer->options, ctx->options, sizeof(ctx->options));
	tws_tcpopt_walk(&buffer->out, buffer->options, ctx->len);
	ctx->out = buffer->out;
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
