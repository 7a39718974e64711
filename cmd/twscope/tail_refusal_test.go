// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// TestRefusalFacts has what tail says of SYNs that were refused.
func TestRefusalFacts(t *testing.T) {
	client, server := netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.2")
	listener := event.Socket{Local: netip.AddrPortFrom(server, 80)}
	rewrite := event.Judgement{Verdict: event.VerdictNATPortRewrite, Odds: 6.254, OffsetS: -417898.686, HasOffset: true, Because: "two restarts \x1b[2J"}
	tests := []struct {
		name string
		ev   event.Event
		want string
	}{
		{
			"PAWS", &event.PAWSReject{
				Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSval: 100, TSRecent: 2209, Delta: -2109, Reply: event.ReplyACK,
				Reason: "TCP_RFC7323_TW_PAWS", Counter: "PAWSTimewait", Judgement: rewrite,
			},
			"SYN refused in time_wait, TSval 100 is 2109 ticks behind ts_recent 2209, answered with an ACK, TCP_RFC7323_TW_PAWS, counter PAWSTimewait, " +
				"verdict nat-port-rewrite (two restarts \x1b[2J, log10 odds 6.25, clock 4.179e+05 s behind)",
		},
		{"verdict alone", &event.PAWSReject{Segment: event.SegmentSYN, Judgement: event.Judgement{Verdict: event.VerdictUnknown}}, "SYN refused, verdict unknown"},
		{
			"clock ahead", &event.PAWSReject{Segment: event.SegmentSYN, Judgement: event.Judgement{Verdict: event.VerdictRestart, OffsetS: 20.5, HasOffset: true}},
			"SYN refused, verdict restart (clock 20.5 s ahead)",
		},
		{
			"sequence", &event.SYNReject{
				Rule: event.RuleSequence, Seq: 5, RcvNxt: 9, AgeMS: 1500, HasAge: true, Reply: event.ReplyRateLimited,
				Judgement: event.Judgement{Verdict: event.VerdictSeqReject, Odds: 2, Because: "no timestamps"},
			},
			"SYN refused in TIME_WAIT for its sequence number 5, expected next was 9, no timestamps, 1.5 s after it entered TIME_WAIT, " +
				"answer held back by the rate limit, verdict seq-reject (no timestamps, log10 odds 2)",
		},
		{"FIN_WAIT2", &event.SYNReject{Rule: event.RuleFinWait2, Timestamps: true, TSval: 7, TSRecent: 6}, "SYN refused in TIME_WAIT in FIN_WAIT2, where no SYN is accepted, TSval 7, ts_recent 6"},
		{"no listener", &event.SYNReject{Rule: event.RuleNoListener, Reply: event.ReplyNone}, "SYN refused in TIME_WAIT because nobody listens any more, no timestamps, not answered"},
		{
			"listener", &event.ListenDrop{Socket: listener, Dropped: 40, Overflows: 41, Backlog: 129, Limit: 128},
			"40 dropped, 129 of at most 128 wait for accept(), 41 for a full accept queue in the namespace",
		},
		{
			"SYN queue", &event.ListenDrop{SYNQueue: 3, Cookies: 9},
			"a listener, which is not known: 0 dropped, 3 for a full SYN queue in the namespace, 9 SYN cookies sent in the namespace",
		},
		{"no sources", &event.Sources{}, "0 sources"},
		{
			"sources", &event.Sources{Omitted: 1, Evicted: 2, Skipped: 3, List: []event.Source{
				{
					Raddr: client, Laddr: server, SYNs: 400, Class: event.ClockShared, Strength: event.StrengthStrong, Clocks: 4, Refused: 148, Rejected: 2,
					Verdicts: map[string]uint64{"seq-reject": 2, "nat-port-rewrite": 148}, RecycleSYNs: 252, Recycle2632: 90, Recycle310: 99,
				},
				{Raddr: client, SYNs: 1},
				{SYNs: 20, Class: event.ClockOne},
				{SYNs: 9},
			}},
			"5 sources; 10.0.1.1 -> 10.0.1.2: 400 SYNs, shared by at least 4 clocks (strong), 150 refused (148 nat-port-rewrite, 2 seq-reject), " +
				"tcp_tw_recycle would refuse 90 of 252 (Linux 3.10: 99); 10.0.1.1 -> *: 1 SYN, too few to tell; * -> *: 20 SYNs, one clock; " +
				"2 forgotten for want of room; 3 SYNs not looked at",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := facts(tt.ev, time.UTC); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
