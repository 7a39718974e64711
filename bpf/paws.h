/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The predicates of RFC 7323 section 5 as the kernel computes them, pure. */
#ifndef TWSCOPE_PAWS_H
#define TWSCOPE_PAWS_H

#include <linux/types.h>

#define TWS_PAWS_MSL 60 /* TCP_PAWS_MSL, in s */

/* time_before32(), include/linux/jiffies.h */
static __always_inline bool tws_before32(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/*
 * tws_paws_check - tcp_paws_check(), include/net/tcp.h
 *
 * @window: TCP_PAWS_WINDOW, in ticks, or 0
 * @stamp_s, @now_s: ktime_get_seconds() when ts_recent was taken, and now
 * @wrap_s: TCP_PAWS_24DAYS up to 6.6, TCP_PAWS_WRAP since (614e8316aa4c)
 *
 * True: the segment passes.
 */
static __always_inline bool tws_paws_check(__u32 ts_recent, __u32 tsval,
					   __s32 window, __s32 stamp_s,
					   __s32 now_s, __u32 wrap_s)
{
	if ((__s32)(ts_recent - tsval) <= window)
		return true;
	if (!tws_before32(now_s, (__u32)stamp_s + wrap_s))
		return true;
	return !ts_recent;
}

/* tcp_paws_reject(): an RST passes once ts_recent is older than TCP_PAWS_MSL. */
static __always_inline bool tws_paws_reject(__u32 ts_recent, __u32 tsval,
					    __s32 stamp_s, __s32 now_s,
					    __u32 wrap_s, bool rst)
{
	if (tws_paws_check(ts_recent, tsval, 0, stamp_s, now_s, wrap_s))
		return false;
	return !rst || tws_before32(now_s, (__u32)stamp_s + TWS_PAWS_MSL);
}

#endif
