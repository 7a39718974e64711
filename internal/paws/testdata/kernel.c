/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Linux computes, with the types and operators that it uses, as the truth
 * that kernel_test.go holds the package against. Reads cases from stdin and
 * writes answers to stdout, BATCH at a time.
 *
 * The kernel is compiled with -fno-strict-overflow: compile this with -fwrapv.
 */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t ulong64; /* unsigned long of a 64-bit kernel */
typedef int64_t long64;

#define BATCH 4096

#define PAWS_MSL 60
#define PAWS_WINDOW 1
#define PAWS_24DAYS (60 * 60 * 24 * 24)

#define RST 1
#define WINDOW 2
#define TSTAMP 4
#define FINWAIT2 8

struct question {
	u32 ts_recent, stamp, tsval, now, wrap;
	u32 seq, rcv_nxt, rcv_wnd;
	u32 host_ts, host_stamp;
	u32 flags;
};

struct answer {
	u8 before, check, reject, check_2632, reject_2632;
	u8 timewait, timewait_2632;
	u8 refuses_2632, refuses_310, refuses_el7;
	u8 pad[2];
	u32 host_2632[2], host_310[2];
};

enum tw_status { ACK_PAWS, ACK, RESET, SYN, SUCCESS };

/* before, after: include/net/tcp.h; time_before32: include/linux/jiffies.h */
static int before(u32 a, u32 b)
{
	return (s32)(a - b) < 0;
}

#define after(a, b) before(b, a)
#define time_before32(a, b) ((s32)((u32)(a) - (u32)(b)) < 0)

/*
 * include/net/tcp.h of 6.18. ts_recent_stamp is an int, ktime_get_seconds() a
 * 64-bit time; wrap is TCP_PAWS_WRAP, or TCP_PAWS_24DAYS in 4.19 to 6.6.
 */
static int paws_check(const struct question *q, int win)
{
	int stamp = q->stamp;
	long64 now = q->now;

	if ((s32)(q->ts_recent - q->tsval) <= win)
		return 1;
	if (!time_before32(now, stamp + (s32)q->wrap))
		return 1;
	return !q->ts_recent;
}

static int paws_reject(const struct question *q, int rst)
{
	int stamp = q->stamp;
	long64 now = q->now;

	if (paws_check(q, 0))
		return 0;
	if (rst && !time_before32(now, stamp + PAWS_MSL))
		return 0;
	return 1;
}

/* include/net/tcp.h of 2.6.32.67: ts_recent_stamp is a long */
static int paws_check_2632(const struct question *q, int win)
{
	long64 stamp = q->stamp;
	ulong64 now = q->now;

	if ((s32)(q->ts_recent - q->tsval) <= win)
		return 1;
	return now >= (ulong64)(stamp + PAWS_24DAYS);
}

static int paws_reject_2632(const struct question *q, int rst)
{
	long64 stamp = q->stamp;
	ulong64 now = q->now;

	if (paws_check_2632(q, 0))
		return 0;
	return !(rst && now >= (ulong64)(stamp + PAWS_MSL));
}

/* net/ipv4/tcp_minisocks.c */
static int in_window(u32 seq, u32 end_seq, u32 s_win, u32 e_win)
{
	if (seq == s_win)
		return 1;
	if (after(end_seq, s_win) && before(seq, e_win))
		return 1;
	return seq == e_win && seq == end_seq;
}

/*
 * tcp_timewait_state_process of net/ipv4/tcp_minisocks.c, the same in 2.6.32
 * and 6.18 for a segment that has SYN and neither ACK nor RST nor data.
 */
static enum tw_status timewait(const struct question *q,
			       int (*reject)(const struct question *, int))
{
	u32 seq = q->seq, end_seq = q->seq + 1;
	int saw_tstamp = 0, paws = 0;

	if (q->stamp) {
		saw_tstamp = (q->flags & TSTAMP) != 0;
		if (saw_tstamp)
			paws = reject(q, 0);
	}
	if (q->flags & FINWAIT2) {
		if (paws || !in_window(seq, end_seq, q->rcv_nxt,
				       q->rcv_nxt + q->rcv_wnd))
			return paws ? ACK_PAWS : ACK;
		if (!before(seq, q->rcv_nxt))
			return RESET;
		return SUCCESS; /* no ACK bit: dropped as a duplicate ACK is */
	}
	if (!paws && seq == q->rcv_nxt && seq == end_seq)
		return SUCCESS;
	if (!paws && (after(seq, q->rcv_nxt) ||
		      (saw_tstamp && (s32)(q->ts_recent - q->tsval) < 0)))
		return SYN;
	return paws ? ACK_PAWS : ACK;
}

/* tcp_v4_conn_request of net/ipv4/tcp_ipv4.c in 2.6.32.67 */
static int refuses_2632(const struct question *q)
{
	ulong64 now = q->now, stamp = q->host_stamp;

	return q->flags & TSTAMP && now < stamp + PAWS_MSL &&
	       (s32)(q->host_ts - q->tsval) > PAWS_WINDOW;
}

/*
 * tcp_peer_is_proven of net/ipv4/tcp_metrics.c; in 3.10.65 its caller asks only
 * if there are timestamps. Without them req->ts_recent is 0.
 */
static int is_proven(const struct question *q, int timestamps)
{
	u32 tsval = q->flags & TSTAMP ? q->tsval : 0;

	if ((u32)(ulong64)q->now - q->host_stamp < PAWS_MSL &&
	    ((s32)(q->host_ts - tsval) > PAWS_WINDOW || !timestamps))
		return 0;
	return 1;
}

static int refuses_310(const struct question *q)
{
	return q->flags & TSTAMP && !is_proven(q, 1);
}

static int refuses_el7(const struct question *q)
{
	return !is_proven(q, (q->flags & TSTAMP) != 0);
}

/* tcp_time_wait and tcp_v4_remember_stamp of 2.6.32.67 */
static void remember_2632(const struct question *q, u32 *host)
{
	u32 ts = q->host_ts;
	ulong64 stamp = q->host_stamp, now = q->now;
	long64 recent_stamp = q->stamp;

	if (recent_stamp && ((s32)(ts - q->ts_recent) <= 0 ||
			     (stamp + PAWS_MSL < now &&
			      stamp <= (ulong64)recent_stamp))) {
		stamp = recent_stamp;
		ts = q->ts_recent;
	}
	host[0] = ts;
	host[1] = stamp;
}

/* tcp_time_wait and tcp_remember_stamp of 3.10.65 and 3.10.0-1160.el7 */
static void remember_310(const struct question *q, u32 *host)
{
	u32 ts = q->host_ts, stamp = q->host_stamp;
	ulong64 now = q->now;
	long64 recent_stamp = q->stamp;

	if (recent_stamp && ((s32)(ts - q->ts_recent) <= 0 ||
			     ((u32)now - stamp > PAWS_MSL &&
			      stamp <= (u32)recent_stamp))) {
		stamp = (u32)recent_stamp;
		ts = q->ts_recent;
	}
	host[0] = ts;
	host[1] = stamp;
}

static void solve(const struct question *q, struct answer *a)
{
	int rst = (q->flags & RST) != 0;
	int win = q->flags & WINDOW ? PAWS_WINDOW : 0;

	memset(a, 0, sizeof(*a));
	a->before = before(q->seq, q->rcv_nxt);
	a->check = paws_check(q, win);
	a->reject = paws_reject(q, rst);
	a->check_2632 = paws_check_2632(q, win);
	a->reject_2632 = paws_reject_2632(q, rst);
	a->timewait = timewait(q, paws_reject);
	a->timewait_2632 = timewait(q, paws_reject_2632);
	a->refuses_2632 = refuses_2632(q);
	a->refuses_310 = refuses_310(q);
	a->refuses_el7 = refuses_el7(q);
	remember_2632(q, a->host_2632);
	remember_310(q, a->host_310);
}

/* Moves all of @size bytes. Returns 0 at the end of input or on an error. */
static int move(ssize_t (*op)(int, u8 *, size_t), int fd, void *buf, size_t size)
{
	u8 *at = buf;

	while (size) {
		ssize_t n = op(fd, at, size);

		if (n <= 0)
			return 0;
		at += n;
		size -= n;
	}
	return 1;
}

static ssize_t in(int fd, u8 *buf, size_t size)
{
	return read(fd, buf, size);
}

static ssize_t out(int fd, u8 *buf, size_t size)
{
	return write(fd, buf, size);
}

int main(void)
{
	static struct question questions[BATCH];
	static struct answer answers[BATCH];

	while (move(in, 0, questions, sizeof(questions))) {
		for (int i = 0; i < BATCH; i++)
			solve(&questions[i], &answers[i]);
		if (!move(out, 1, answers, sizeof(answers)))
			return 1;
	}
	return 0;
}
