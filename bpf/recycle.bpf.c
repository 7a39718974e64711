// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A server with net.ipv4.tcp_tw_recycle, for the lab only: an XDP program on
 * the server's interface that refuses SYNs as Linux 2.6.32 did, in front of a
 * kernel that no longer knows how. tcp_v4_conn_request() and
 * tcp_v4_remember_stamp(), net/ipv4/tcp_ipv4.c of 2.6.32.67; IPv4 alone, as
 * there.
 *
 * Linux 4.12 removed the check (4396e46187ca).
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#define TWS_PAWS_MSL 60	  /* TCP_PAWS_MSL, in seconds */
#define TWS_PAWS_WINDOW 1 /* TCP_PAWS_WINDOW, in ticks */

#define TWS_TIMESTAMP_KIND 8
#define TWS_TIMESTAMP_LEN 10
#define TWS_OPTIONS_MAX 40

#define TWS_NSEC_PER_SEC 1000000000ULL

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Do as said, but let every SYN pass. */
const volatile bool tws_only_count;

/* tcp_ts and tcp_ts_stamp of struct inet_peer */
struct tws_peer {
	__u32 tsval;
	__u32 stamp; /* seconds; 2.6.32 takes the wall clock */
};

/*
 * By source address, in network byte order. A lab has a handful; two CPUs that
 * remember the same address at once leave either TSval, as in 2.6.32.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct tws_peer);
} tws_peers SEC(".maps");

/* What PAWSPassive would have counted. */
__u64 tws_refused;
/* SYNs that the check was made for. */
__u64 tws_asked;

struct tws_packet {
	struct bpf_sock_tuple tuple;
	__u32 tsval;
	bool has_tsval;
	bool syn; /* without ACK */
	bool fin;
	__u8 pad;
};

static __always_inline __u32 tws_seconds(void)
{
	return bpf_ktime_get_ns() / TWS_NSEC_PER_SEC;
}

/*
 * Finds the TSval among @len bytes of options, as tcp_parse_options() does: the
 * last one counts.
 *
 * The position lives in memory, one byte wide, of whose contents verifiers know
 * nothing. So all paths through the loop look the same after each option, and
 * are not followed one by one.
 */
static __always_inline void tws_find_tsval(struct tws_packet *pkt,
					   const __u8 *options, __u32 len,
					   const void *data_end)
{
	volatile __u8 position = 0;
	int i;

#pragma clang loop unroll(disable)
	for (i = 0; i < TWS_OPTIONS_MAX; i++) {
		__u32 at = position;
		const __u8 *option = options + at;

		if (at >= len || (const void *)(option + 1) > data_end ||
		    option[0] == 0)
			return;
		if (option[0] == 1) {
			position = at + 1;
			continue;
		}
		if (at + 1 >= len || (const void *)(option + 2) > data_end ||
		    option[1] < 2 || at + option[1] > len)
			return;
		if (option[0] == TWS_TIMESTAMP_KIND &&
		    option[1] == TWS_TIMESTAMP_LEN &&
		    (const void *)(option + TWS_TIMESTAMP_LEN) <= data_end) {
			pkt->tsval = (__u32)option[2] << 24 |
				     (__u32)option[3] << 16 |
				     (__u32)option[4] << 8 | option[5];
			pkt->has_tsval = true;
		}
		position = at + option[1];
	}
}

/* False: not a TCP segment over IPv4 that a server would look at. */
static __always_inline bool tws_parse(struct tws_packet *pkt,
				      const struct xdp_md *ctx)
{
	const void *data = (const void *)(long)ctx->data;
	const void *data_end = (const void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct iphdr *ip = (const void *)(eth + 1);
	/* no options: nothing in the lab sends any */
	const struct tcphdr *tcp = (const void *)(ip + 1);
	const __u8 *options = (const void *)(tcp + 1);

	if ((const void *)options > data_end)
		return false;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_TCP || tcp->doff < 5)
		return false;
	pkt->tuple.ipv4.saddr = ip->saddr;
	pkt->tuple.ipv4.daddr = ip->daddr;
	pkt->tuple.ipv4.sport = tcp->source;
	pkt->tuple.ipv4.dport = tcp->dest;
	pkt->syn = tcp->syn && !tcp->ack && !tcp->rst && !tcp->fin;
	pkt->fin = tcp->fin && !tcp->rst && !tcp->syn;
	if (pkt->syn || pkt->fin)
		tws_find_tsval(pkt, options, tcp->doff * 4 - sizeof(*tcp),
			       data_end);
	return true;
}

/* The state of the socket that the segment is for; 0: there is none. */
static __always_inline __u32 tws_state(struct xdp_md *ctx,
				       struct tws_packet *pkt)
{
	struct bpf_sock *sk;
	__u32 state;

	/* unlike bpf_sk_lookup_tcp() it finds TIME_WAIT too */
	sk = bpf_skc_lookup_tcp(ctx, &pkt->tuple, sizeof(pkt->tuple.ipv4),
				BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	state = sk->state;
	bpf_sk_release(sk);
	return state;
}

/*
 * The FIN of a client ends the connection in TIME_WAIT if the server has sent
 * its own before. TIME_WAIT here may be its substate FIN_WAIT2, which a closed
 * socket soon is in.
 */
static __always_inline void tws_remember(struct tws_packet *pkt, __u32 state)
{
	struct tws_peer now = { .tsval = pkt->tsval, .stamp = tws_seconds() };
	const struct tws_peer *peer;

	if (state != BPF_TCP_FIN_WAIT1 && state != BPF_TCP_FIN_WAIT2 &&
	    state != BPF_TCP_CLOSING && state != BPF_TCP_TIME_WAIT)
		return;
	peer = bpf_map_lookup_elem(&tws_peers, &pkt->tuple.ipv4.saddr);
	/* the second condition of tcp_v4_remember_stamp() holds: now is now */
	if (!peer || (__s32)(peer->tsval - now.tsval) <= 0 ||
	    peer->stamp + TWS_PAWS_MSL < now.stamp)
		bpf_map_update_elem(&tws_peers, &pkt->tuple.ipv4.saddr, &now,
				    BPF_ANY);
}

/* A SYN that meets a socket in TIME_WAIT is that socket's to judge. */
static __always_inline bool tws_refuses(struct tws_packet *pkt, __u32 state)
{
	const struct tws_peer *peer;

	if (state != BPF_TCP_LISTEN)
		return false;
	__sync_fetch_and_add(&tws_asked, 1);
	peer = bpf_map_lookup_elem(&tws_peers, &pkt->tuple.ipv4.saddr);
	if (!peer || tws_seconds() >= peer->stamp + TWS_PAWS_MSL ||
	    (__s32)(peer->tsval - pkt->tsval) <= TWS_PAWS_WINDOW)
		return false;
	__sync_fetch_and_add(&tws_refused, 1);
	return !tws_only_count;
}

SEC("xdp")
int tws_recycle(struct xdp_md *ctx)
{
	struct tws_packet pkt = {};

	if (!tws_parse(&pkt, ctx) || !pkt.has_tsval)
		return XDP_PASS;
	if (pkt.fin)
		tws_remember(&pkt, tws_state(ctx, &pkt));
	else if (pkt.syn && tws_refuses(&pkt, tws_state(ctx, &pkt)))
		return XDP_DROP;
	return XDP_PASS;
}
