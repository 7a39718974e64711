// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/verdict"
)

// exhausted is a run in which the ports run out, until the program closes by
// RST.
func exhausted() []event.Event {
	list := []event.Event{start()}
	list = append(list, steady(1, 500, 1000)...)
	list = append(list, fail(3, event.CauseTimeWaitNotReusable))
	return append(list,
		budget(3.01, func(d *event.Destination) {
			d.TimeWait, d.Refused.NoTimestamps, d.Rate, d.Failed, d.ClosedHere, d.ExhaustedInS = 1000, 1000, 500, 1, 1000, 0
		}),
		budget(13, func(d *event.Destination) {
			d.TimeWait, d.Refused.NoTimestamps, d.Failed, d.ClosedHere, d.ExhaustedInS = 1000, 1000, 500, 1000, 0
		}),
		&event.Loss{Header: at(14), Hop: "ring", Of: "time_wait", Count: 3, Why: "the ring buffer was full"},
		budget(43, func(d *event.Destination) { d.Failed, d.ClosedHere, d.ClosedReset, d.Rate = 500, 1000, 15000, 500 }),
		budget(53, func(d *event.Destination) { d.Failed, d.ClosedHere, d.ClosedReset, d.Rate = 500, 1000, 20000, 500 }),
		stop(54))
}

// healthy is a run in which nothing fails.
func healthy() []event.Event {
	list := append([]event.Event{start()}, steady(1, 100, 400)...)
	return append(list, budget(6, func(d *event.Destination) { d.TimeWait, d.ClosedHere, d.Rate, d.InUse = 400, 400, 100, 2 }), stop(7))
}

// lagging is a run against a target that takes 2 s for each answer.
func lagging() []event.Event {
	list := []event.Event{start()}
	for i := range 6 {
		list = append(list, budget(float64(2+5*i), func(d *event.Destination) {
			d.InUse, d.ClosedThere, d.Rate = 50, uint64(125*i), 25
		}))
	}
	return append(list, stop(30))
}

func silent(n int) []event.Event {
	list := []event.Event{start()}
	for i := range n {
		list = append(list, refused(1+float64(i)/10, event.SignatureSilence, uint16(40000+i)))
	}
	return list
}

func paws(s float64, v event.Verdict) *event.PAWSReject {
	server := event.Socket{NetNS: netns, Local: netip.AddrPortFrom(local, 8080), Remote: netip.AddrPortFrom(remote, 1025), Owner: event.Owner{PID: 9, Comm: "nginx"}}
	return &event.PAWSReject{
		Header: at(s), Socket: server, Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSval: 1, TSRecent: 9, Delta: -8,
		Judgement: event.Judgement{Verdict: v, Odds: 6},
	}
}

func accepted(s float64) *event.TimeWait {
	t := timeWait(s, 8080)
	t.Role = event.RoleServer
	return t
}

type answerCase struct {
	name            string
	events          []event.Event
	basis, severity string
	want            []string // of the answer
	doubts          []string
}

func answerCases() []answerCase {
	unseen := start()
	unseen.Coverage = map[string]string{"time_wait": "fentry", "connect_fail": "none"}
	later := start()
	later.Part = 2
	all := start()
	all.Filters = nil
	command := start()
	command.Filters = map[string][]string{"command": {"wrk"}}
	ofProgram := start()
	ofProgram.Filters = map[string][]string{"comm": {"wrk"}}
	half := healthy()
	return []answerCase{
		{"ports run out", exhausted(), verdict.BasisFinding, "critical", []string{
			"10.0.0.2:80: all 1,000 local ports of 10.0.0.1 are in TIME_WAIT (wrk[4123])", "the load is 500", "it is over since 12:00:43 UTC",
		}, nil},
		{"nothing fails", healthy(), verdict.BasisNotClient, "none", []string{
			"not your client: 400 connections to 10.0.0.2:80 got through, no connect() failed for want of a port, " +
				"at most 40 % of the local ports were seen in use, no SYN was refused or left unanswered",
		}, nil},
		{"near the end of the ports", slices.Concat([]event.Event{start()}, steady(1, 100, 900), []event.Event{
			budget(11, func(d *event.Destination) { d.TimeWait, d.ClosedHere, d.Rate = 900, 900, 10 }), stop(12),
		}), verdict.BasisNotClient, "none", []string{"at most 90 % of the local ports were seen in use", "; with a little more load the ports towards 10.0.0.2:80 run out"}, nil},
		{"a warning", slices.Concat([]event.Event{start()}, steady(1, 100, 900), []event.Event{
			budget(11, func(d *event.Destination) {
				d.TimeWait, d.Refused.NoTimestamps, d.ClosedHere, d.Rate, d.ExhaustedInS = 900, 900, 900, 10, 10
			}), stop(12),
		}), verdict.BasisWarning, "warning", []string{"no connect() failed for want of a port, but 10.0.0.2:80: "}, nil},
		{"slow target", lagging(), verdict.BasisSlow, "none", []string{
			"not your client's ports: a connection to 10.0.0.2:80 stays open for 2 s on average, so 50 at a time make no more than 25 a second, at most 5 % of the local ports were seen in use",
		}, nil},
		{"silent target", append(silent(37), stop(60)), verdict.BasisRefused, "none", []string{
			"not your client: 10.0.0.2:80, or a firewall before it, left 37 SYNs unanswered; no connection to it was made",
		}, nil},
		{"few SYNs are lost", slices.Concat(silent(3), steady(5, 100, 400), []event.Event{stop(20)}), verdict.BasisNotClient, "none", []string{
			"not your client: 400 connections to 10.0.0.2:80 got through", ", 3 SYNs were refused or left unanswered, which are few",
		}, nil},
		{"stale ACKs, too few for a finding", []event.Event{
			start(), refused(1, event.SignatureChallengeACK, 40000), refused(2, event.SignatureChallengeACK, 40001), stop(20),
		}, verdict.BasisRefused, "none", []string{"not your client's ports: 10.0.0.2:80 answered 2 SYNs with a stale ACK", "no connection to it was made"}, nil},
		{"stale ACKs", []event.Event{
			start(), refused(1, event.SignatureChallengeACK, 40000), refused(2, event.SignatureChallengeACK, 40001),
			refused(3, event.SignatureChallengeACK, 40002), &event.Stats{Header: at(9)}, stop(20),
		}, verdict.BasisWarning, "warning", []string{"10.0.0.2:80 answered 3 SYNs with a stale ACK"}, nil},
		{"ports fail without a finding", []event.Event{start(), timeWait(1, 40000), fail(2, event.CauseUnknown), stop(3)}, verdict.BasisFailures, "none", []string{
			"it is this client: 1 connect() of the kernel has failed for want of a local port towards 10.0.0.2:80",
		}, nil},
		{"explicit bind", []event.Event{start(), timeWait(1, 40000), fail(2, event.CauseExplicitBindConflict), stop(3)}, verdict.BasisFailures, "none", []string{
			"it is this client: 1 connect() of the kernel failed before a SYN was sent, not for want of a port (explicit bind conflict)",
		}, nil},
		{
			"no route for some", slices.Concat(half[:len(half)-1], []event.Event{fail(6.5, event.CauseNoRouteOrAddress), stop(7)}), verdict.BasisNotClient, "none",
			[]string{"not your client: 400 connections"},
			nil,
		},
		{"NAT", []event.Event{
			start(), paws(1, event.VerdictNATPortRewrite), paws(1.1, event.VerdictNATPortRewrite), paws(1.2, event.VerdictNATPortRewrite), &event.Stats{Header: at(9)}, stop(20),
		}, verdict.BasisFinding, "critical", []string{"because a NAT gave their ports"}, nil},
		{"few refused here", []event.Event{start(), accepted(1), paws(2, event.VerdictRestart), stop(20)}, verdict.BasisRefusedHere, "none", []string{
			"this host refused 1 SYN in TIME_WAIT, too few to conclude from",
		}, nil},
		{
			"full listener",
			[]event.Event{start(), &event.ListenDrop{Header: at(1), Socket: event.Socket{NetNS: netns, Local: netip.AddrPortFrom(local, 8080)}, Dropped: 40, Overflows: 40}, stop(20)},
			verdict.BasisFinding, "critical",
			[]string{"the accept queue is full", "40 SYNs and final ACKs of handshakes were dropped"},
			nil,
		},
		{"healthy server", []event.Event{start(), accepted(1), accepted(2), stop(20)}, verdict.BasisNotServer, "none", []string{
			"not this host: 2 connections of clients were seen, it refused no SYN in TIME_WAIT, and no listener was seen to drop one",
		}, nil},
		{"all stay open", []event.Event{start(), budget(5, func(d *event.Destination) { d.InUse = 50 }), stop(6)}, verdict.BasisOpen, "none", []string{
			"not your client: 50 connections are open, none has ended, and nothing failed",
		}, nil},
		{"the load has given up", []event.Event{start(), budget(4, func(d *event.Destination) {
			d.PortsTotal, d.TimeWait, d.InUse, d.Rate = 500, 497, 3, 0
		}), stop(5)}, verdict.BasisTaken, "none", []string{
			"no connect() was seen, but one to 10.0.0.2:80 would fail: all 500 local ports of 10.0.0.1 are taken, 497 by sockets in TIME_WAIT",
		}, nil},
		{"all ports can be taken over", []event.Event{start(), budget(4, func(d *event.Destination) {
			d.PortsTotal, d.TimeWait, d.Reusable, d.Rate = 500, 500, 1, 0
		}), stop(5)}, verdict.BasisNothing, "none", []string{"no connection matched the selectors"}, nil},
		{"nothing of the program matched", []event.Event{ofProgram, stop(5)}, verdict.BasisNothing, "none", []string{
			"no connection matched the selectors; sockets that were in TIME_WAIT before belong to no process: --netns or --dst shows those",
		}, nil},
		{"nothing matched", []event.Event{start(), stop(5)}, verdict.BasisNothing, "none", []string{"no connection matched the selectors"}, nil},
		{"idle command", []event.Event{command, stop(5)}, verdict.BasisNothing, "none", []string{"the command made no TCP connection"}, nil},
		{"nothing at all", []event.Event{all, stop(5)}, verdict.BasisNothing, "none", []string{"no connection was seen"}, nil},
		{"not observed", []event.Event{unseen, timeWait(1, 40000), stop(5)}, verdict.BasisNotClient, "none", []string{
			"as far as was seen, not your client: 1 connection to 10.0.0.2:80 got through",
		}, []string{"not observed: whether connect() failed for want of a local port", "not observed: whether a target left SYNs unanswered or refused them"}},
		{
			"failures are lost", slices.Concat(half[:len(half)-1], []event.Event{&event.Loss{Header: at(6.5), Hop: "decode", Of: "connect_fail", Count: 12, Why: "bug"}, stop(7)}),
			verdict.BasisNotClient, "none",
			[]string{"as far as was seen, not your client"},
			[]string{"12 connect_fail events are missing (decode): bug"},
		},
		{
			"few time_waits are lost", slices.Concat(half[:len(half)-1], []event.Event{&event.Loss{Header: at(6.5), Hop: "ring", Of: "time_wait", Count: 3}, stop(7)}),
			verdict.BasisNotClient, "none",
			[]string{"not your client: 400 connections"},
			nil,
		},
		{"cut off", half[:len(half)-1], verdict.BasisNotClient, "none", []string{"as far as was seen, not your client"}, []string{"the run has not ended"}},
		{"no start", half[1:], verdict.BasisNotClient, "none", []string{"as far as was seen, not your client: 400 connections"}, []string{"the log has no start event"}},
		{"a later part", append([]event.Event{later}, half[1:]...), verdict.BasisNotClient, "none", []string{"as far as was seen, "}, []string{"part 2 of its run"}},
	}
}

func TestAnswer(t *testing.T) {
	for _, tt := range answerCases() {
		t.Run(tt.name, func(t *testing.T) {
			v := conclude(t, tt.events...)
			if v.Basis != tt.basis || v.Severity != tt.severity {
				t.Errorf("basis %s, severity %s: want %s, %s\n%s", v.Basis, v.Severity, tt.basis, tt.severity, v.Answer)
			}
			for _, want := range tt.want {
				if !strings.Contains(v.Answer, want) {
					t.Errorf("got  %s\nwant %s", v.Answer, want)
				}
			}
			if len(v.Doubts) > 0 && strings.HasPrefix(v.Answer, "not your client: ") {
				t.Errorf("%q in spite of %q", v.Answer, v.Doubts)
			}
			if len(v.Doubts) != len(tt.doubts) {
				t.Errorf("doubts %q, want %q", v.Doubts, tt.doubts)
			}
			for _, want := range tt.doubts {
				if !slices.ContainsFunc(v.Doubts, func(d string) bool { return strings.Contains(d, want) }) {
					t.Errorf("doubts %q, want %q", v.Doubts, want)
				}
			}
		})
	}
}
