// SPDX-License-Identifier: Apache-2.0

package diagnose_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

// TestFirstIssue is the story that twscope is for: timestamps off at the
// server, tcp_tw_reuse on at the client.
func TestFirstIssue(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second)
	want(t, r.feed(connectFail()), "")
	got := r.after(time.Millisecond).budget(full())
	want(t, got, "port-exhaustion:open tw-reuse-inert:open")
	const summary = "10.0.0.2:8080: all 1,000 local ports of 10.0.0.1 are in TIME_WAIT (python3[4123]); " +
		"the peer negotiates no TCP timestamps, so tcp_tw_reuse=1 cannot re-use them; this budget sustains 16 conn/s, the load is 900"
	f := got[0]
	if f.Summary != summary || f.Severity != event.SeverityCritical || f.ID != "port-exhaustion/1" {
		t.Errorf("got  %s\nwant %s", f.Summary, summary)
	}
	if f.Confidence != 0.97 {
		t.Errorf("confidence %v", f.Confidence)
	}
	if remedy(f, "sysctl -w net.ipv4.tcp_tw_reuse") != nil {
		t.Error("tcp_tw_reuse=1 is offered towards a peer without timestamps")
	}
	contains(t, got[1].Summary, "tcp_tw_reuse=1 does nothing here", "none of the 1,000 sockets")
	if got[1].Severity != event.SeverityWarning || !strings.HasPrefix(got[1].Remedies[0].Do, "turn TCP timestamps on at the peer") {
		t.Errorf("%s: %+v", got[1].Severity, got[1].Remedies[0])
	}

	// The load goes on failing: counts, and nothing else.
	d := full()
	d.Rate, d.Failed, d.FailedCalls = 0, 901, 300
	fail := connectFail()
	fail.PerCall = 3
	r.after(500 * time.Millisecond).feed(fail)
	got = r.after(500 * time.Millisecond).budget(d)
	want(t, got, "port-exhaustion:update")
	contains(t, got[0].Changed, "300 more connect() calls failed (900 in the kernel)")
	contains(t, got[0].Summary, "the load is 300", "300 connect() calls have failed so far, 901 in the kernel")

	// Programs give up for now; then nothing is new.
	got = r.after(time.Second).budget(d)
	want(t, got, "port-exhaustion:update")
	contains(t, got[0].Summary, "the load is 0")
	contains(t, got[0].Changed, "no connection is begun any more (before: 300 per second)")
	want(t, r.after(time.Second).budget(d), "")
	r.check()
}

func TestCloses(t *testing.T) {
	tests := []struct {
		name string
		cure func(r *run, d *event.Destination)
		want []string
	}{
		{"by RST", func(_ *run, d *event.Destination) { d.Rate, d.ClosedReset = 900, 4512 }, []string{"4,512 of 4,512 connections ended by RST", "(before: 0 of 1,000)"}},
		{"server closes", func(_ *run, d *event.Destination) { d.Rate, d.ClosedThere = 900, 300 }, []string{"300 of 300 connections ended by the peer's FIN first"}},
		{"load gone", func(*run, *event.Destination) {}, []string{"no connection is begun any more (before: 900 per second)"}},
		{
			"wider range", func(r *run, d *event.Destination) {
				r.set("net.ipv4.ip_local_port_range", "1024 65535")
				d.PortsTotal, d.TimeWait, d.SustainableRate, d.Rate = 64512, 1000, 1075, 900
			},
			[]string{"net.ipv4.ip_local_port_range: 40000 40999 -> 1024 65535", "usable ports: 1,000 -> 64,512"},
		},
		{
			"re-use", func(_ *run, d *event.Destination) {
				d.Timestamps, d.Reused, d.TimeWait, d.Reusable, d.Rate = event.TimestampsYes, 5000, 1000, 990, 900
				d.Refused = event.Refused{TooYoung: 10}
			},
			[]string{"TCP timestamps: no -> yes", "5,000 sockets in TIME_WAIT were taken over by connect()"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, nil)
			r.after(time.Second).feed(connectFail())
			r.budget(full())
			d := idle(0)
			r.after(7 * time.Second)
			tt.cure(r, &d)
			for range 30 {
				r.after(time.Second).budget(d)
			}
			var last *event.Finding
			for _, f := range r.findings {
				if f.Code == diagnose.PortExhaustion {
					last = f
				}
			}
			if last.State != event.FindingClose {
				t.Fatalf("it has not closed: %s", last.Summary)
			}
			if took := time.Duration(last.Time - epoch.Add(time.Second).UnixNano()); took < 15*time.Second || took > 17*time.Second {
				t.Errorf("it closed %s after the last failure", took)
			}
			contains(t, last.Changed, tt.want...)
			contains(t, last.Summary, "finds local ports again", "has not failed since 12:00:01 UTC")
			r.check()
		})
	}
}

// TestFlapping has the same trouble come and go: each finding stays for
// longer, and none is open twice.
func TestFlapping(t *testing.T) {
	r := newRun(t, nil)
	var lives []time.Duration
	var since time.Duration
	for round := range 12 {
		r.after(time.Second).feed(connectFail())
		since = max(since, r.now)
		for range 40 {
			d := idle(0)
			d.Failed = uint64(round + 1)
			for _, f := range r.after(time.Second).budget(d) {
				if f.Code == diagnose.PortExhaustion && f.State == event.FindingClose {
					lives = append(lives, r.now)
				}
			}
		}
	}
	if n := len(lives); n < 2 || n > 3 {
		t.Errorf("closed %d times in 12 rounds of 40 s, want 2 or 3: %v", n, lives)
	}
	open := map[string]bool{}
	for _, f := range r.findings {
		if was := open[f.ID]; was == (f.State == event.FindingOpen) {
			t.Fatalf("%s: %s, open: %t", f.ID, f.State, was)
		}
		open[f.ID] = f.State != event.FindingClose
	}
	r.check()
}

func TestWithoutBudget(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second).feed(connectFail())
	want(t, r.after(900*time.Millisecond).feed(&event.TimeWait{}), "")
	got := r.after(200 * time.Millisecond).feed(&event.TimeWait{})
	want(t, got, "port-exhaustion:open")
	contains(t, got[0].Summary, "all 1,000 local ports of 10.0.0.1 are in TIME_WAIT", "the load is unknown")
	if got[0].Confidence >= 0.9 {
		t.Errorf("confidence %v though the rate is not known", got[0].Confidence)
	}
	want(t, r.feed(&event.Stop{}), "")
	r.check()
}

// TestLateWord has no event for a minute after the failure, and then a budget
// of another time: the finding speaks of the failure.
func TestLateWord(t *testing.T) {
	r := newRun(t, nil)
	r.budget(idle(10))
	r.after(10 * time.Second).feed(connectFail())
	got := r.after(40 * time.Second).budget(idle(10))
	want(t, got, "port-exhaustion:open port-exhaustion:close")
	contains(t, got[0].Summary, "all 1,000 local ports of 10.0.0.1 are in TIME_WAIT", "the load is unknown")
	r.check()
}

func TestStopTellsNothing(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second).feed(connectFail())
	want(t, r.after(5*time.Second).feed(&event.Stop{}), "")
	r.check()
}

func TestSilence(t *testing.T) {
	for _, c := range []event.Cause{event.CauseUnknown, event.CauseOther, event.CauseExplicitBindConflict, event.CauseNoRouteOrAddress} {
		t.Run(c.String(), func(t *testing.T) {
			r := newRun(t, nil)
			f := connectFail()
			f.Cause = c
			r.after(time.Second).feed(f)
			d := full()
			d.TimeWait, d.Refused.NoTimestamps, d.ExhaustedInS = 5, 5, -1
			want(t, r.after(2*time.Second).budget(d), "")
		})
	}
}

func TestCauses(t *testing.T) {
	tests := []struct {
		name    string
		sysctls map[string]string
		change  func(f *event.ConnectFail, d *event.Destination)
		want    string
	}{
		{
			"in use", nil, func(f *event.ConnectFail, d *event.Destination) {
				f.Cause = event.CausePortsInUse
				d.InUse, d.TimeWait, d.Refused = 990, 10, event.Refused{NoTimestamps: 10}
			},
			"990 of 1,000 local ports of 10.0.0.1 are in use by open connections (python3[4123])",
		},
		{
			"tiny",
			map[string]string{"net.ipv4.ip_local_port_range": "40000 40000"},
			func(f *event.ConnectFail, d *event.Destination) {
				f.Cause, f.RangeHigh = event.CauseRangeTiny, 40000
				d.PortsTotal, d.TimeWait, d.SustainableRate = 1, 1, 1.0/60
			},
			"ip_local_port_range 40000 has no more than 1 port, and the only usable one is taken (python3[4123]); this budget sustains 0.017 conn/s",
		},
		{
			"own range", nil, func(f *event.ConnectFail, d *event.Destination) {
				f.Cause, f.RangeLow, f.RangeHigh = event.CauseRangeTiny, 40010, 40011
				d.PortsTotal, d.TimeWait = 2, 2
			},
			"the program's own range 40010-40011 has no more than 2 ports, and all 2 usable ones are taken",
		},
		{
			"reserved", nil, func(f *event.ConnectFail, d *event.Destination) {
				f.Cause = event.CauseReserved
				d.PortsReserved, d.PortsTotal, d.TimeWait = 999, 1, 1
			},
			"of ip_local_port_range 40000-40999, 999 ports are reserved (ip_local_reserved_ports), and the one that is left is taken too",
		},
		{
			"bound", nil, func(f *event.ConnectFail, d *event.Destination) {
				f.Cause = event.CauseBoundWithoutNoPort
				d.PortsBlocked, d.PortsTotal, d.TimeWait = 900, 100, 100
			},
			"of ip_local_port_range 40000-40999, 900 ports are taken by bind() without IP_BIND_ADDRESS_NO_PORT or by listen(), and the 100 that are left are taken too",
		},
		{
			"off",
			map[string]string{"net.ipv4.tcp_tw_reuse": "0"},
			func(_ *event.ConnectFail, d *event.Destination) {
				d.Timestamps, d.Refused = event.TimestampsYes, event.Refused{Disabled: 1000}
			},
			"tcp_tw_reuse=0 does not allow connect() to re-use them",
		},
		{
			"neither",
			map[string]string{"net.ipv4.tcp_tw_reuse": "0"},
			func(*event.ConnectFail, *event.Destination) {},
			"the peer negotiates no TCP timestamps, so tcp_tw_reuse=1 could not re-use them either",
		},
		{
			"our own fault",
			map[string]string{"net.ipv4.tcp_timestamps": "0"},
			func(*event.ConnectFail, *event.Destination) {},
			"this host negotiates no TCP timestamps (net.ipv4.tcp_timestamps=0), so tcp_tw_reuse=1 cannot re-use them",
		},
		{
			"loopback only",
			map[string]string{"net.ipv4.tcp_tw_reuse": "2"},
			func(_ *event.ConnectFail, d *event.Destination) {
				d.Timestamps, d.Refused = event.TimestampsYes, event.Refused{LoopbackOnly: 1000}
			},
			"tcp_tw_reuse=2 re-uses those of loopback connections only",
		},
		{
			"loopback only, no timestamps",
			map[string]string{"net.ipv4.tcp_tw_reuse": "2"},
			func(_ *event.ConnectFail, d *event.Destination) {
				d.Refused = event.Refused{LoopbackOnly: 1000}
			},
			"so tcp_tw_reuse could not re-use them whatever it is set to",
		},
		{
			"young", nil, func(_ *event.ConnectFail, d *event.Destination) {
				d.Timestamps, d.Refused = event.TimestampsYes, event.Refused{TooYoung: 1000}
			},
			"tcp_tw_reuse takes over only those that are older than 1,000 ms",
		},
		{
			"owner unknown", nil, func(f *event.ConnectFail, d *event.Destination) {
				f.Owner, d.PID, d.Comm = event.Owner{}, 0, ""
			},
			"are in TIME_WAIT (program unknown)",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, tt.sysctls)
			f, d := connectFail(), full()
			tt.change(f, &d)
			r.after(time.Second).feed(f)
			got := r.budget(d)
			if len(got) == 0 || got[0].Code != diagnose.PortExhaustion {
				t.Fatalf("got %s", states(got))
			}
			contains(t, got[0].Summary, tt.want)
			r.check()
		})
	}
}

func TestLossesLowerConfidence(t *testing.T) {
	r := newRun(t, nil)
	r.feed(&event.Loss{Hop: "ring", Of: "time_wait", Count: 1000})
	r.feed(&event.Loss{Hop: "ring", Of: "paws_reject", Count: 1e9})
	r.feed(&event.Loss{Hop: "rate", Of: "connect_fail", Count: 1e9}) // behind the engine
	r.after(time.Second).feed(connectFail())
	f := r.budget(full())[0]
	if f.Confidence > 0.5 || f.Confidence < 0.45 {
		t.Errorf("confidence %v with as much lost as seen", f.Confidence)
	}
	if last := f.Evidence[len(f.Evidence)-1]; last != (event.Fact{Name: "events_lost", Number: 1000}) {
		t.Errorf("evidence ends in %v", last)
	}
	r.check()
}

// TestNewRun has a second run in one log: nothing of the first is left.
func TestNewRun(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second).feed(connectFail())
	r.budget(full())
	r.feed(&event.Start{Part: 1})
	want(t, r.after(time.Second).budget(full()), "")
	r.feed(&event.Start{})
	want(t, r.budget(full()), "tw-reuse-inert:open") // as if it were the first
	if id := r.findings[len(r.findings)-1].ID; id != "tw-reuse-inert/1" {
		t.Errorf("%s in a new run", id)
	}
	r.check()
}

// TestOmitted has a destination that is not among the busiest for a while.
func TestOmitted(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second).feed(connectFail())
	r.budget(full())
	for range 11 {
		want(t, r.after(10*time.Second).feed(&event.Destinations{Omitted: 1}), "")
	}
	var got []*event.Finding
	for range 4 {
		got = append(got, r.after(10*time.Second).feed(&event.Destinations{Omitted: 1})...)
	}
	want(t, got, "port-exhaustion:close tw-reuse-inert:close")
	r.check()
}

// TestBounded floods the engine with destinations.
func TestBounded(t *testing.T) {
	e := diagnose.New()
	f := connectFail()
	n := 0
	for i := range 20000 {
		f.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 80)
		f.NetNS = uint32(i)
		f.Time = epoch.UnixNano() + int64(i)
		n += len(e.Feed(f))
	}
	n += len(e.Feed(&event.TimeWait{Header: event.Header{Time: epoch.Add(2 * time.Second).UnixNano()}}))
	if n != 4096 {
		t.Errorf("%d findings, want those of the 4096 destinations that there is room for", n)
	}
}

func TestFeedAllocatesNothing(t *testing.T) {
	e := diagnose.New()
	e.Feed(connectFail())
	f, w, u := connectFail(), &event.TimeWait{}, &event.TWReuse{}
	if n := testing.AllocsPerRun(100, func() { e.Feed(f); e.Feed(w); e.Feed(u) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFeed replays a log of random events of any size, in any order.
func FuzzFeed(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint16(50))
	f.Add(uint64(3), uint64(4), uint16(300))
	f.Fuzz(func(t *testing.T, a, b uint64, n uint16) {
		rnd := rand.New(rand.NewPCG(a, b))
		kinds := []event.Kind{
			event.KindStart, event.KindConnectFail, event.KindConnectFail, event.KindDestinations, event.KindDestinations,
			event.KindDestinations, event.KindStats, event.KindLoss, event.KindSysctlChange, event.KindStop, event.KindTimeWait, event.KindFinding,
			event.KindPAWSReject, event.KindPAWSReject, event.KindSYNReject, event.KindSYNRefused, event.KindListenDrop, event.KindSources,
		}
		engine, enc := diagnose.New(), event.NewEncoder()
		var log, findings []byte
		for i := range min(int(n), 300) {
			ev := eventtest.Random(rnd, kinds[rnd.IntN(len(kinds))])
			tame(rnd, ev, epoch.Add(time.Duration(i)*time.Second).UnixNano())
			line := enc.Append(nil, ev)
			log = append(log, line...)
			for _, f := range engine.Feed(ev) {
				line := enc.Append(nil, f)
				if err := eventtest.Check(line); err != nil {
					t.Fatalf("%v\n%s", err, line)
				}
				findings = append(findings, line...)
				log = append(log, line...)
			}
		}
		if got := replay(t, log); got != string(findings) {
			t.Fatalf("the replay differs:\n%s\nrecorded:\n%s", got, findings)
		}
	})
}

// tame makes random events speak of few destinations, in the order of time.
func tame(rnd *rand.Rand, ev event.Event, at int64) {
	few := func() (uint32, netip.Addr) {
		return uint32(rnd.IntN(2)), netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(2))})
	}
	values := func(m map[string]string) {
		for _, name := range []string{"tcp_tw_reuse", "tcp_timestamps", "tcp_max_tw_buckets", "tcp_tw_recycle"} {
			m["net.ipv4."+name] = strconv.Itoa(rnd.IntN(4))
		}
		m["net.ipv4.ip_local_port_range"] = fmt.Sprintf("%d %d", rnd.IntN(60000), rnd.IntN(70000))
		m["net.ipv4.ip_local_reserved_ports"] = fmt.Sprintf("%d-%d,7", rnd.IntN(60000), rnd.IntN(70000))
	}
	switch ev := ev.(type) {
	case *event.Start:
		ev.Time, ev.Part = at, rnd.IntN(3)
		for i := range ev.Sysctls {
			ev.Sysctls[i].NetNS, _ = few()
			values(ev.Sysctls[i].Values)
		}
	case *event.ConnectFail:
		ev.Time = at - int64(rnd.IntN(1e9))
		var a netip.Addr
		ev.NetNS, a = few()
		ev.Remote, ev.Local = netip.AddrPortFrom(a, 80), netip.AddrPort{}
	case *event.Destinations:
		ev.Time = at
		for i := range ev.List {
			d := &ev.List[i]
			d.NetNS, d.Raddr = few()
			d.Laddr, d.Rport = netip.Addr{}, 80
			if rnd.IntN(2) == 0 {
				d.PortsTotal, d.TimeWait, d.InUse, d.Bound = uint32(rnd.IntN(3)*500), uint32(rnd.IntN(1000)), uint32(rnd.IntN(9)), uint32(rnd.IntN(200))
				d.Refused = event.Refused{NoTimestamps: uint32(rnd.IntN(1000)), Disabled: uint32(rnd.IntN(1000))}
				d.ExhaustedInS = float64(rnd.IntN(120) - 20)
			}
		}
		for i := range ev.Namespaces {
			ev.Namespaces[i].NetNS, _ = few()
			values(ev.Namespaces[i].Sysctls)
			if ev.Namespaces[i].HasListening {
				ev.Namespaces[i].Listening = fmt.Sprintf("22,%d,x-%d", rnd.IntN(65536), rnd.IntN(65536))
			}
		}
	case *event.Stats:
		ev.Time = at
		ev.Reconcile = append(ev.Reconcile, event.Reconciliation{NetNS: uint32(rnd.IntN(2)), Counter: "TCPTimeWaitOverflow", Kernel: int64(rnd.IntN(9))})
	case *event.Loss:
		ev.Time, ev.Count = at, uint64(rnd.IntN(9))
	case *event.SysctlChange:
		ev.Time = at
		ev.NetNS, _ = few()
	default:
		tameSYN(rnd, ev, at)
	}
}

func TestReplayPassesOverStrangers(t *testing.T) {
	r := newRun(t, nil)
	r.after(time.Second).feed(connectFail())
	r.budget(full())
	log := bytes.ReplaceAll(r.log.Bytes(), []byte(`"event":"destinations"`), []byte(`"novel":{"a":1},"event":"destinations"`))
	if got := replay(t, log); got != findingLines(r.log.Bytes()) {
		t.Errorf("unknown members change the findings:\n%s", got)
	}
}
