// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * SYNs that arrive at a listener, and SYNs of ours that a peer refuses: with a
 * bare ACK of an old connection, or with silence.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "paws_emit.h"
#include "syn.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* tcp_v6_conn_request() hands IPv4 over to tcp_v4_conn_request(). */
static __always_inline void tws_syn_arrived6(const struct sock *sk,
					     const struct sk_buff *skb)
{
	if (BPF_CORE_READ(skb, protocol) != bpf_htons(ETH_P_IP))
		tws_syn_arrived(sk, skb);
}

/*
 * A listener made by socket(..., IPPROTO_MPTCP) answers SYNs in
 * subflow_v4_conn_request() and subflow_v6_conn_request(), net/mptcp/subflow.c.
 */
SEC("fentry/tcp_v4_conn_request")
int BPF_PROG(tws_fentry_conn4, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived(sk, skb);
	return 0;
}

SEC("fentry/tcp_v6_conn_request")
int BPF_PROG(tws_fentry_conn6, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived6(sk, skb);
	return 0;
}

SEC("fentry/subflow_v4_conn_request")
int BPF_PROG(tws_fentry_subflow4, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived(sk, skb);
	return 0;
}

SEC("fentry/subflow_v6_conn_request")
int BPF_PROG(tws_fentry_subflow6, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived6(sk, skb);
	return 0;
}

SEC("kprobe/tcp_v4_conn_request")
int BPF_KPROBE(tws_kprobe_conn4, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived(sk, skb);
	return 0;
}

SEC("kprobe/tcp_v6_conn_request")
int BPF_KPROBE(tws_kprobe_conn6, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived6(sk, skb);
	return 0;
}

SEC("kprobe/subflow_v4_conn_request")
int BPF_KPROBE(tws_kprobe_subflow4, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived(sk, skb);
	return 0;
}

SEC("kprobe/subflow_v6_conn_request")
int BPF_KPROBE(tws_kprobe_subflow6, struct sock *sk, struct sk_buff *skb)
{
	tws_syn_arrived6(sk, skb);
	return 0;
}

/*
 * An RST that we send in SYN_SENT answers a segment that
 * tcp_rcv_synsent_state_process() found unacceptable. When it acknowledges
 * none of our SYN, it is the stale ACK of an old connection at the peer. When
 * it does, only its TSecr can be wrong: PAWSActive.
 * Either pointer may be NULL.
 */
SEC("tp_btf/tcp_send_reset")
int tws_send_reset(__u64 *ctx)
{
	struct sock *sk = (void *)tws_ctx_arg(ctx, 0);
	struct sk_buff *skb = (void *)tws_ctx_arg(ctx, 1);
	const struct tcp_sock *tp = (const void *)sk;
	struct tws_segment_info segment;
	struct tws_sock *s;
	__u32 una;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT ||
	    !tws_is_tcp(sk, false))
		return 0;
	if (!skb || !tws_read_segment(&segment, skb) ||
	    !(segment.flags & TWS_TCP_ACK))
		return 0;
	una = BPF_CORE_READ(tp, snd_una);
	if ((__s32)(segment.ack_seq - una) > 0 &&
	    (__s32)(BPF_CORE_READ(tp, snd_nxt) - segment.ack_seq) >= 0) {
		tws_paws_syn_sent(sk, skb, &segment);
		return 0;
	}
	tws_syn_refused(sk, TWS_SIGNATURE_CHALLENGE_ACK);
	s = tws_sock_find(sk, false);
	if (s)
		s->challenged = 1;
	return 0;
}

/* A SYN is repeated: the one before got no answer, unless it got an ACK. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tws_retransmit, struct sock *sk)
{
	struct tws_sock *s;

	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_SYN_SENT ||
	    !tws_is_tcp(sk, false))
		return 0;
	s = tws_sock_find(sk, false);
	if (s && s->challenged)
		s->challenged = 0;
	else
		tws_syn_refused(sk, TWS_SIGNATURE_SILENCE);
	return 0;
}
