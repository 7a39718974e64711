/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that twscope reads, each cut down to the members that
 * are read. CO-RE finds the real offsets at load time, so the order and the
 * padding here mean nothing; names must be the kernel's own. A member whose
 * type changed between kernels is read through bpf/compat.h only.
 */
#ifndef TWSCOPE_KERNEL_H
#define TWSCOPE_KERNEL_H

#include <linux/types.h>

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded" /* no layout of ours */
#pragma clang attribute push(__attribute__((preserve_access_index)), \
			     apply_to = record)

/* include/linux/time64.h */
struct timespec64 {
	__s64 tv_sec;
};

/* include/linux/types.h, include/linux/list_nulls.h */
struct hlist_nulls_node {
	struct hlist_nulls_node *next;
};

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

/* include/net/net_namespace.h, include/linux/ns_common.h */
struct ns_common {
	unsigned int inum;
};

/* include/net/inet_hashtables.h */
struct inet_ehash_bucket {
	struct hlist_nulls_head chain;
};

struct inet_hashinfo {
	struct inet_ehash_bucket *ehash;
	unsigned int ehash_mask;
};

/* include/net/netns/ipv4.h */
struct inet_timewait_death_row {
	struct inet_hashinfo *hashinfo; /* since 6.1, d1e5e6408b30 */
};

struct local_ports {
	__u32 range; /* low | high << 16, since 6.8 */
};

/* include/net/netns/ipv4.h up to 6.7; the flavour suffix is CO-RE's */
struct local_ports___pair {
	int range[2];
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row;
	struct local_ports ip_local_ports;
	__u8 sysctl_tcp_tw_reuse; /* an int up to 5.11: the low byte serves */
	int sysctl_tcp_invalid_ratelimit; /* in jiffies */
	int sysctl_tcp_fin_timeout;	  /* in jiffies */
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

/* include/uapi/linux/in6.h */
struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};

/* include/net/sock.h */
struct proto {
	union {
		struct inet_hashinfo *hashinfo;
	} h;
};

struct sock_common {
	union {
		struct {
			__be32 skc_daddr;
			__be32 skc_rcv_saddr;
		};
	};
	union {
		unsigned int skc_hash;
	};
	union {
		struct {
			__be16 skc_dport;
			__u16 skc_num;
		};
	};
	unsigned short skc_family;
	volatile unsigned char skc_state;
	unsigned char skc_reuse : 4;
	unsigned char skc_reuseport : 1;
	int skc_bound_dev_if;
	struct proto *skc_prot;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	union {
		struct hlist_nulls_node skc_nulls_node;
	};
	union {
		__u32 skc_tw_rcv_nxt;
	};
	union {
		__u32 skc_tw_snd_nxt;
	};
	unsigned long skc_flags; /* bits by enum sock_flags */
};

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	__u16 sk_protocol;
	unsigned int sk_userlocks : 4;
};

enum sock_flags {
	SOCK_DEAD,
};

/* include/net/inet_sock.h */
struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
	__u32 local_port_range; /* low | high << 16, since 6.8 */
};

/* include/net/inet_sock.h 6.3 to 6.7 */
struct inet_sock___pair {
	struct {
		__u16 lo;
		__u16 hi;
	} local_port_range;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_rto; /* in jiffies */
	__u8 icsk_retransmits;
};

/* include/linux/tcp.h */
struct tcp_options_received {
	int ts_recent_stamp;
	__u32 ts_recent;
	__u16 snd_wscale : 4;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 packets_out;
	__u32 rcv_nxt;
	__u64 bytes_acked;
	__u64 tcp_mstamp; /* of the segment in hand, CLOCK_MONOTONIC, us */
	__u32 snd_wl1;
	__u32 snd_wnd;
	__u32 last_oow_ack_time; /* in jiffies */
	struct tcp_options_received rx_opt;
};

/* include/net/request_sock.h */
struct request_sock {
	struct sock_common __req_common;
	__u32 ts_recent;
};

struct tcp_request_sock {
	__u32 last_oow_ack_time; /* in jiffies */
};

/* net/mptcp/protocol.h: the first subflow carries the TCP state */
struct mptcp_sock {
	struct sock *first;
};

/* include/linux/timer_types.h */
struct timer_list {
	unsigned long expires;
};

/* include/net/inet_timewait_sock.h */
struct inet_timewait_sock {
	struct sock_common __tw_common;
	volatile unsigned char tw_substate;
	__be16 tw_sport;
	__u32 tw_entry_stamp; /* ms, since 6.14 */
	struct timer_list tw_timer;
};

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
	__u32 tw_ts_recent;
	__u32 tw_last_oow_ack_time;
	int tw_ts_recent_stamp;
	__u32 tw_rcv_wnd;
};

/* include/linux/skbuff.h */
struct sk_buff {
	unsigned int len;
	__be16 protocol;
	__u16 transport_header;
	__u16 network_header;
	unsigned char *head;
	unsigned char *data;
};

/* include/uapi/linux/tcp.h; the flag bits are read as a byte, see tcpopt.h */
struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
};

/* include/linux/cgroup-defs.h, include/linux/kernfs.h */
struct kernfs_node {
	__u64 id;
};

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[0]; /* since 6.1 */
};

struct cgroup___ids {
	__u64 ancestor_ids[0]; /* up to 6.0 */
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

/* include/linux/sched.h */
typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	char comm[16];
	struct task_struct *group_leader;
	struct css_set *cgroups;
	struct signal_struct *signal;
};

/* include/linux/fs.h, include/linux/net.h */
struct inode {
	unsigned short i_mode;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct socket {
	struct sock *sk;
};

/* include/linux/bpf.h, net/ipv4/tcp_ipv4.c, kernel/bpf/map_iter.c,
 * kernel/bpf/task_iter.c
 */
struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	unsigned int uid;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *key;
	void *value;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	unsigned int fd;
	struct file *file;
};

#pragma clang attribute pop
#pragma clang diagnostic pop

/* Registers: bpf_tracing.h uses the names of the uapi headers. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8;
	unsigned long rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags;
	unsigned long rsp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct pt_regs;
#endif

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define ETIMEDOUT 110
#define EADDRNOTAVAIL 99
#define SOCK_BINDPORT_LOCK 8 /* include/net/sock.h */

/* include/net/tcp_states.h */
enum {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

/* include/net/inet_timewait_sock.h: TCP_TIMEWAIT_LEN, in ms */
#define TCP_TIMEWAIT_LEN_MS 60000

#endif
