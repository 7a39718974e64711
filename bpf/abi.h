/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract with user space. Every record in the ring buffer and every
 * value in a shared map is one of these; Go types are generated from them
 * (internal/bpf) and a test holds both sides against each other.
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are
 * in host byte order. Times are CLOCK_BOOTTIME in ns. "local" and "remote" are
 * as seen from this host.
 */
#ifndef TWSCOPE_ABI_H
#define TWSCOPE_ABI_H

#include <linux/types.h>

#define TWS_COMM_LEN 16
#define TWS_CGROUPS_MAX 8
#define TWS_TCPOPT_MAX 40 /* bytes of options in a TCP header, RFC 9293 3.1 */
#define TWS_TCPOPT_KINDS 24

enum tws_kind : __u8 {
	TWS_KIND_NONE,
	TWS_KIND_TIME_WAIT,
	TWS_KIND_TIME_WAIT_END,
	TWS_KIND_TW_REUSE,
	TWS_KIND_CONNECT_FAIL,
	TWS_KIND_SYN,
	TWS_KIND_SYN_REFUSED,
	TWS_KIND_PAWS_REJECT,
	TWS_KIND_SYN_REJECT,
	/* not an event: a connect() left SYN_SENT; if a TIME_WAIT socket had
	 * its 4-tuple, that is gone, and was re-used if the sequence numbers
	 * go on from there
	 */
	TWS_KIND_CONNECTED,
	TWS_KIND_MAX,
};

enum tws_role : __u8 {
	TWS_ROLE_UNKNOWN,
	TWS_ROLE_CLIENT,
	TWS_ROLE_SERVER,
};

enum tws_substate : __u8 {
	TWS_SUBSTATE_TIME_WAIT,
	TWS_SUBSTATE_FIN_WAIT2,
};

enum tws_end : __u8 {
	TWS_END_EXPIRED,
	TWS_END_REUSED,
	TWS_END_RESET,
	TWS_END_SYN,
	TWS_END_KILLED,
};

enum tws_signature : __u8 {
	TWS_SIGNATURE_SILENCE,
	TWS_SIGNATURE_CHALLENGE_ACK,
};

enum tws_where : __u8 {
	TWS_WHERE_UNKNOWN,
	TWS_WHERE_TIME_WAIT,
	TWS_WHERE_FIN_WAIT2,
	TWS_WHERE_ESTABLISHED,
	TWS_WHERE_SYN_RECV,
	TWS_WHERE_SYN_SENT,
};

enum tws_segment : __u8 {
	TWS_SEGMENT_UNKNOWN,
	TWS_SEGMENT_SYN,
	TWS_SEGMENT_ACK,
	TWS_SEGMENT_DATA,
	TWS_SEGMENT_FIN,
	TWS_SEGMENT_RST,
};

enum tws_reply : __u8 {
	TWS_REPLY_UNKNOWN,
	TWS_REPLY_ACK,
	TWS_REPLY_RATE_LIMITED,
	TWS_REPLY_NONE,
	TWS_REPLY_RST,
};

/* why a socket in TIME_WAIT refused a SYN that PAWS let pass */
enum tws_rule : __u8 {
	TWS_RULE_UNKNOWN,
	TWS_RULE_SEQUENCE,
	TWS_RULE_FIN_WAIT2,
	TWS_RULE_NO_LISTENER,
};

/* which MIB counter moved with a PAWS reject */
enum tws_counter : __u8 {
	TWS_COUNTER_NONE,
	TWS_COUNTER_PAWS_ESTAB,
	TWS_COUNTER_PAWS_TIMEWAIT,
	TWS_COUNTER_PAWS_ACTIVE,
	TWS_COUNTER_PAWS_OLD_ACK,
	TWS_COUNTER_TSECR_REJECTED,
};

struct tws_tuple {
	__u8 laddr[16];
	__u8 raddr[16];
	__u16 lport;
	__u16 rport;
	__u32 netns; /* inode of the network namespace */
};

/* pid 0: not known */
struct tws_owner {
	__u64 cgroup; /* cgroup v2 id */
	__u32 pid;    /* thread group id, initial pid namespace */
	__u32 match;  /* 1: the owner filters select it */
	char comm[TWS_COMM_LEN];
};

struct tws_header {
	__u64 time_ns;
	enum tws_kind kind;
	__u8 pad[7];
};

struct tws_time_wait {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	__u32 ts_recent;
	__u32 timeout_ms;
	__u32 snd_nxt; /* a connect() that takes it over starts from here */
	__u32 isn;     /* initial sequence number, if role is client */
	enum tws_role role;
	enum tws_substate substate;
	__u8 timestamps;
	__u8 bound; /* the port was taken at bind(), not at connect() */
	__u8 pad[4];
};

struct tws_time_wait_end {
	struct tws_header h;
	struct tws_tuple tuple;
	__u32 age_ms;
	enum tws_end reason;
	__u8 pad[3];
};

/* TWS_KIND_TW_REUSE and TWS_KIND_CONNECTED */
struct tws_reuse {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	__u64 connect_ns;
	__u32 age_ms; /* of the TIME_WAIT socket; CONNECTED: 0 */
	__u32 isn;    /* CONNECTED: the initial sequence number; else 0 */
};

struct tws_connect_fail {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	__s32 error; /* positive errno */
	__u16 range_low;
	__u16 range_high;
	__u8 inferred;
	__u8 pad[7];
};

struct tws_tcpopt {
	__u32 tsval;
	__u32 tsecr;
	__u16 mss;
	__u8 wscale;
	__u8 saw_tstamp;
	__u8 has_mss;
	__u8 has_wscale;
	__u8 sack_permitted;
	__u8 malformed; /* a length byte that is 0, 1 or beyond the header */
	__u8 count;	/* kinds listed below, at most TWS_TCPOPT_KINDS */
	__u8 eol_pad;	/* bytes behind the end-of-list option */
	__u8 pad[6];
	/* option kinds in order of appearance, NOPs included, one in a byte,
	 * the first in the lowest byte of the first word
	 */
	__u64 kinds[3];
};

/* What a SYN tells about who sent it. */
struct tws_syn_header {
	struct tws_tcpopt opt;
	__u16 window;
	__u8 ttl;
	__u8 ip_version; /* 4 or 6; 0: opt.tsval is all that is known */
	__u8 pad[4];
};

struct tws_syn {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	struct tws_syn_header syn;
	__u8 validated;
	__u8 pad[7];
};

struct tws_syn_refused {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	__u64 delay_ns;
	__u32 attempts;
	enum tws_signature signature;
	__u8 pad[3];
};

struct tws_paws_reject {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	__u32 tsval;
	__u32 ts_recent;
	__u32 age_ms;
	__u32 reason; /* enum skb_drop_reason of the running kernel; 0: none */
	enum tws_where where;
	enum tws_segment segment;
	enum tws_reply reply;
	enum tws_counter counter;
	__u32 seq;
	struct tws_syn_header syn; /* if it is one */
	__u8 has_ts_recent;
	__u8 has_age;
	__u8 pad[6];
};

struct tws_syn_reject {
	struct tws_header h;
	struct tws_tuple tuple;
	struct tws_owner owner;
	struct tws_syn_header syn;
	__u32 ts_recent; /* 0: none */
	__u32 seq;
	__u32 rcv_nxt;
	__u32 age_ms;
	enum tws_rule rule;
	enum tws_reply reply;
	__u8 has_age;
	__u8 pad[5];
};

/* A TIME_WAIT socket as the census iterator writes it to its seq file. */
struct tws_census {
	struct tws_tuple tuple;
	__u32 ts_recent;
	__s32 ts_recent_age_s; /* since ts_recent was taken, in s */
	__u32 entry_age_ms;    /* since tw_entry_stamp (6.14 and later) */
	__u32 remaining_ms;
	__u32 snd_nxt;
	enum tws_role role;
	enum tws_substate substate;
	__u8 timestamps;
	__u8 has_entry_age;
	__u8 loopback; /* bound to lo, or an address in 127/8 or ::1 */
	__u8 pad[3];
};

/*
 * A connection that is open, as the census iterator writes it to its seq file;
 * the last one is no connection but tells the time.
 */
struct tws_open {
	struct tws_tuple tuple; /* lport 0: connect() has none yet */
	__u64 time_ns;		/* of the last one, else 0 */
	__u64 jiffies;		/* at time_ns */
	enum tws_role role;
	__u8 bound;
	__u8 match; /* as in tws_owner */
	__u8 pad[5];
};

/*
 * How connections of connect() to one destination ended without TIME_WAIT:
 * those that the owner filters select.
 */
struct tws_closes {
	__u64 there; /* the peer closed first */
	__u64 reset; /* by RST, of either side */
};

/* what the kernel side knows about a socket that is not in TIME_WAIT */
struct tws_sock {
	struct tws_owner owner;
	struct tws_tuple tuple; /* of a client; lport 0 unless it was bound */
	__u64 syn_jiffies;	/* when connect() was called; 0: before us */
	__u32 attempts;		/* SYNs of this connect() that were refused */
	enum tws_role role;
	__u8 challenged; /* a bare ACK came and the SYN was not repeated yet */
	__u8 bound;	 /* the port was taken at bind(), not at connect() */
	__u8 timewait;	 /* it has left a TIME_WAIT socket */
};

struct tws_listener_key {
	__u8 addr[16]; /* all zero: any address */
	__u32 netns;
	__u16 port;
	__u16 pad;
};

struct tws_listener {
	struct tws_owner owner;
	__u32 sockets; /* now listening on this address and port */
	__u32 mixed;   /* 1: of more than one process (SO_REUSEPORT) */
};

/* per network namespace and CPU; never lossy */
struct tws_tally {
	__u64 all[TWS_KIND_MAX];      /* happened, before any filter */
	__u64 filtered[TWS_KIND_MAX]; /* of these, kept back by the filters */
	__u64 shed[TWS_KIND_MAX];     /* passed, but left out under overload */
	__u64 lost[TWS_KIND_MAX];     /* passed, but the ring was full */
	__u64 paws[8];	/* by enum tws_counter, before any filter */
	__u64 overflow; /* TIME_WAIT not created */
	__u64 no_owner; /* the table of sockets was full */
	__u64 no_close; /* the table of destinations was full */
	__u64 repaired; /* TIME_WAIT that tws_set_state() was not run for */
};

/* Whose counts are at this place of tws_counts. */
struct tws_netns_place {
	__u32 netns;  /* 0: nobody's yet */
	__u32 claims; /* how many want it: the one who makes it 1 has it */
};

/* User space's word to the kernel side while both run. */
struct tws_orders {
	__u64 boottime_offset; /* CLOCK_BOOTTIME minus CLOCK_MONOTONIC, in ns */
	__u32 shed_mask;       /* emit one record in shed_mask + 1; 0: all */
	__u32 pad;
};

struct tws_prefix_key {
	__u32 prefixlen; /* bits of port and addr that count */
	__u16 port;	 /* 0: any */
	__u8 addr[16];
	__u8 pad[2];
};

#define TWS_SYN_PARTS 8

/* How many SYN records one CPU has made in this part of a second. */
struct tws_turns {
	__u64 part; /* number of the part, 1 / TWS_SYN_PARTS s each */
	__u64 taken;
	__u64 skipped; /* since the start */
};

/* Set once before load; the verifier drops what is switched off. */
struct tws_config {
	__u64 cgroup_ids[TWS_CGROUPS_MAX];
	__u32 cgroup_levels[TWS_CGROUPS_MAX];
	__u32 cgroup_count; /* 0: no cgroup filter */
	__u32 kinds;	    /* bit 1 << enum tws_kind: emit it */
	__u32 hz;
	__u32 wakeup_bytes; /* wake the reader when so much is waiting */
	__u32 paws_wrap_s;  /* TCP_PAWS_WRAP or TCP_PAWS_24DAYS, in s */
	/* enum skb_drop_reason of the running kernel; 0: it has none */
	__u32 reason_tw_paws;
	__u32 reason_paws;
	__u32 reason_paws_ack;
	__u32 reason_tsecr;
	__u32 reason_none;    /* SKB_DROP_REASON_NOT_SPECIFIED */
	__u32 syn_quota;      /* SYN records a CPU and s; 0: all */
	__u32 kfree_skb_args; /* of the tracepoint, from BTF */
	__u8 filter_netns;
	__u8 filter_dst;
	__u8 filter_src;
	__u8 filter_pid;
	__u8 filter_comm;
	/* which handler serves an observation on the tracepoint rung */
	__u8 timewait_on_state;
	__u8 connect_fail_on_state;
	__u8 reuse_on_state;
	__u8 syn_on_state;
	__u8 timewait_at_alloc; /* fexit inet_twsk_alloc tells overflow apart */
	__u8 sk_storage;	/* tracing programs may use it: 5.11 */
	__u8 twsk_ends;		/* time_wait_end asks for reasons */
	/* which PAWS rejects are taken from kfree_skb */
	__u8 drops_timewait;
	__u8 drops_established;
	__u8 drops_syn_recv;
	/* emit what port budgets need of those too whom the owner filters
	 * leave out: their sockets hold the same ports
	 */
	__u8 all_owners;
};

#endif
