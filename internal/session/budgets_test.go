// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// narrow is a client with few ports and a server.
type narrow struct {
	link
	target netip.AddrPort
}

const narrowPorts = 200

func newNarrow(t *testing.T, clientReuse, serverTimestamps string, s lab.Server) *narrow {
	t.Helper()
	n := &narrow{link: newLink(t, "narrow")}
	testutil.Must(t, n.client.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("20000 %d", 20000+narrowPorts-1)))
	testutil.Must(t, n.client.Sysctl("net.ipv4.tcp_tw_reuse", clientReuse))
	testutil.Must(t, n.server.Sysctl("net.ipv4.tcp_timestamps", serverTimestamps))
	s.Network = "tcp4"
	n.target = serve(t, n.server, s).Targets(families(n.a, n.b)[0].dial)[0]
	return n
}

// watch starts a session that sees both hosts and tells budgets every second.
func (n *narrow) watch(t *testing.T) *watcher {
	t.Helper()
	return watch(t, func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		o.StatsInterval = time.Second
		o.Filters.NetNS = []uint32{uint32(n.client.Inode()), uint32(n.server.Inode())}
	})
}

func (n *narrow) run(t *testing.T, l lab.Load) *lab.Result {
	t.Helper()
	l.Targets = []netip.AddrPort{n.target}
	return testutil.Must1[*lab.Result](t)(n.client.Run(t.Context(), l))
}

// findings returns the findings of a log by code, in order.
func findings(l log, code string) []*event.Finding {
	return of(l, func(f *event.Finding) bool { return f.Code == code })
}

// budget returns what the last destinations event tells of the client's only
// destination.
func (n *narrow) budget(l log) *event.Destination {
	events := of[*event.Destinations](l, nil)
	for _, e := range slices.Backward(events) {
		for i := range e.List {
			if d := &e.List[i]; uint64(d.NetNS) == n.client.Inode() {
				return d
			}
		}
	}
	return &event.Destination{}
}

// replays fails the test unless the log without its findings leads to the same
// findings in the same places.
func (l log) replays(t *testing.T) {
	t.Helper()
	var got, want []string
	enc := event.NewEncoder()
	engine := diagnose.New()
	for i, ev := range l {
		if ev.Kind() == event.KindFinding {
			want = append(want, string(enc.Append(nil, ev)))
			continue
		}
		for _, f := range engine.Feed(ev) {
			got = append(got, string(enc.Append(nil, f)))
		}
		// they follow the event in the log
		if next := i + 1; next < len(l) && l[next].Kind() != event.KindFinding && len(got) != len(want) {
			t.Fatalf("line %d: %d findings by the replay, %d in the log", i+1, len(got), len(want))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the replay finds\n%s\nthe log has\n%s", got, want)
	}
}

// TestExhaustionIsExplained: the client has tcp_tw_reuse on, which is of no use
// because the server negotiates no timestamps.
func TestExhaustionIsExplained(t *testing.T) {
	n := newNarrow(t, "1", "0", lab.Server{})
	w := n.watch(t)
	res := n.run(t, lab.Load{Connections: narrowPorts + 100, ClosesFirst: true})
	if res.Connected != narrowPorts || res.Failed["EADDRNOTAVAIL"] != 100 {
		t.Fatalf("%d connected, failed %v", res.Connected, res.Failed)
	}
	w.eventually(func(l log) bool {
		return len(findings(l, "tw-reuse-inert")) > 0 && n.budget(l).TimeWait == narrowPorts
	}, "a finding tw-reuse-inert, and a budget with all sockets")
	l := w.stop()

	for _, f := range of[*event.ConnectFail](l, nil) {
		if f.Cause != event.CauseTimeWaitNotReusable || f.PortsTotal != narrowPorts || !l.near(f.PortsTimeWait, narrowPorts) ||
			f.Refused.NoTimestamps != f.PortsTimeWait || f.PortsInUse != 0 || f.Timestamps != event.TimestampsNo {
			t.Fatalf("%+v, want all ports in TIME_WAIT without timestamps", *f)
		}
	}
	first := of[*event.ConnectFail](l, nil)[0]
	opened := findings(l, "port-exhaustion")
	if len(opened) == 0 || opened[0].State != event.FindingOpen {
		t.Fatalf("findings %+v", opened)
	}
	if late := time.Duration(opened[0].Time - first.Time); late > 2*time.Second {
		t.Errorf("port-exhaustion opened %s after the first failure", late)
	}
	t.Log(opened[0].Summary)
	if d := n.budget(l); d.TimeWait != narrowPorts || d.Refused.NoTimestamps != narrowPorts || d.Reusable != 0 ||
		d.PortsTotal != narrowPorts || d.InUse != 0 || d.Failed != 100 || d.PID != uint32(os.Getpid()) {
		t.Errorf("%+v", *d)
	}
	l.replays(t)
}

// TestNoExhaustionWithReuse is the control: with timestamps the same client
// takes over its TIME_WAIT sockets, as often as the kernel counts.
func TestNoExhaustionWithReuse(t *testing.T) {
	n := newNarrow(t, "1", "1", lab.Server{})
	w := n.watch(t)
	before := testutil.Must1[lab.Counters](t)(n.client.Netstat())
	// half of the ports a second: a TIME_WAIT socket can be taken over after one
	res := n.run(t, lab.Load{Connections: 2 * narrowPorts, Rate: narrowPorts / 3, ClosesFirst: true})
	if res.Connected != 2*narrowPorts {
		t.Fatalf("%d connected, failed %v", res.Connected, res.Failed)
	}
	recycled := testutil.Must1[lab.Counters](t)(n.client.Netstat()).Since(before)["TWRecycled"]
	l := w.stop()
	if f := of[*event.Finding](l, nil); len(f) != 0 {
		t.Errorf("finding %s: %s", f[0].Code, f[0].Summary)
	}
	if got := len(of[*event.TWReuse](l, nil)); recycled == 0 || uint64(got) != recycled || n.budget(l).Reused != recycled {
		t.Errorf("%d tw_reuse, %d in the budget, TWRecycled %d", got, n.budget(l).Reused, recycled)
	}
	l.replays(t)
}

// TestReuseForLoopbackOnly: the kernel's default of tcp_tw_reuse is 2.
func TestReuseForLoopbackOnly(t *testing.T) {
	n := newNarrow(t, "2", "1", lab.Server{})
	w := n.watch(t)
	n.run(t, lab.Load{Connections: narrowPorts + 20, ClosesFirst: true})
	w.eventually(func(l log) bool { return len(findings(l, "tw-reuse-loopback-only")) > 0 }, "a finding tw-reuse-loopback-only")
	l := w.stop()
	if d := n.budget(l); d.Refused.LoopbackOnly != narrowPorts {
		t.Errorf("%+v", *d)
	}
	l.replays(t)
}

// TestBudgetOfOpenConnections: ports are held by connections too.
func TestBudgetOfOpenConnections(t *testing.T) {
	n := newNarrow(t, "0", "1", lab.Server{})
	early := testutil.Must1[*lab.Conn](t)(n.client.Connect(lab.Dial{}, n.target)) // before the start
	defer early.Close()
	w := n.watch(t)
	var open []*lab.Conn
	for range narrowPorts - 1 {
		c := testutil.Must1[*lab.Conn](t)(n.client.Connect(lab.Dial{}, n.target))
		defer c.Close()
		open = append(open, c)
	}
	w.eventually(func(l log) bool { return n.budget(l).InUse == narrowPorts }, "the budget to count the connections")
	if c, err := n.client.Connect(lab.Dial{}, n.target); err == nil {
		c.Close()
		t.Fatal("there was one more port")
	}
	// the connections are listed when the record of the failure is read
	w.eventually(func(l log) bool { return len(of[*event.ConnectFail](l, nil)) == 1 }, "the failure")
	testutil.Must(t, open[0].Close())
	w.eventually(func(l log) bool {
		d := n.budget(l)
		return d.InUse == narrowPorts-1 && d.TimeWait == 1
	}, "the budget to count one in TIME_WAIT")
	l := w.stop()
	fails := of[*event.ConnectFail](l, nil)
	if len(fails) != 1 || fails[0].Cause != event.CausePortsInUse || fails[0].PortsInUse != narrowPorts {
		t.Errorf("want one failure because of open connections, not %d:", len(fails))
		for _, f := range fails {
			t.Errorf("%+v", *f)
		}
	}
	l.replays(t)
}

// TestRemediesShow: connections that the server closes first, or that end by
// RST, need no port afterwards; the budget counts them.
func TestRemediesShow(t *testing.T) {
	zero := 0
	for _, test := range []struct {
		name   string
		server lab.Server
		load   lab.Load
		count  func(*event.Destination) uint64
	}{
		{"server closes", lab.Server{ClosesFirst: true}, lab.Load{}, func(d *event.Destination) uint64 { return d.ClosedThere }},
		{"RST", lab.Server{}, lab.Load{ClosesFirst: true, Dial: lab.Dial{Linger: &zero}}, func(d *event.Destination) uint64 { return d.ClosedReset }},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNarrow(t, "0", "0", test.server)
			w := n.watch(t)
			test.load.Connections = 2 * narrowPorts
			if res := n.run(t, test.load); res.Connected != 2*narrowPorts {
				t.Fatalf("%d connected, failed %v", res.Connected, res.Failed)
			}
			w.eventually(func(l log) bool { return test.count(n.budget(l)) == 2*narrowPorts }, "the budget to count them")
			l := w.stop()
			if d := n.budget(l); d.TimeWait != 0 || d.ClosedHere != 0 {
				t.Errorf("%+v", *d)
			}
			if f := of[*event.Finding](l, nil); len(f) != 0 {
				t.Errorf("finding %s: %s", f[0].Code, f[0].Summary)
			}
		})
	}
}

// TestKilledAreCountedAnew: ss -K ends TIME_WAIT sockets behind the back of the
// tracepoint rung, be it all of them or one in a hundred.
func TestKilledAreCountedAnew(t *testing.T) {
	const opened = narrowPorts / 2
	n := newNarrow(t, "0", "0", lab.Server{})
	w := n.watch(t)
	n.run(t, lab.Load{Connections: opened, ClosesFirst: true})
	w.eventually(func(l log) bool { return n.budget(l).TimeWait == opened }, "the budget to count them")
	one := testutil.Must1[[]lab.Socket](t)(n.client.TimeWaits())[0]
	testutil.Must(t, n.client.Destroy(one))
	w.eventually(func(l log) bool { return n.budget(l).TimeWait == opened-1 }, "the budget to notice that one is gone")
	if killed := testutil.Must1[int](t)(n.client.KillTimeWaits()); killed != opened-1 {
		t.Fatalf("%d killed", killed)
	}
	w.eventually(func(l log) bool { return n.budget(l).TimeWait == 0 }, "the budget to notice that all are gone")
	w.stop()
}

// TestBudgetFromBeforeTheStart: what was in TIME_WAIT already counts.
func TestBudgetFromBeforeTheStart(t *testing.T) {
	n := newNarrow(t, "0", "0", lab.Server{})
	n.run(t, lab.Load{Connections: narrowPorts, ClosesFirst: true})
	w := n.watch(t)
	n.run(t, lab.Load{Connections: 1, ClosesFirst: true})
	l := w.stop()
	if d := n.budget(l); d.TimeWait != narrowPorts {
		t.Errorf("%+v", *d)
	}
	fails := of[*event.ConnectFail](l, nil)
	if len(fails) != 1 || fails[0].Cause != event.CauseTimeWaitNotReusable || fails[0].PortsTimeWait != narrowPorts {
		t.Errorf("%+v", fails)
	}
	l.replays(t)
}

// TestBucketsOverflow: tcp_max_tw_buckets cuts TIME_WAIT short.
func TestBucketsOverflow(t *testing.T) {
	n := newNarrow(t, "0", "0", lab.Server{})
	testutil.Must(t, n.client.Sysctl("net.ipv4.tcp_max_tw_buckets", "20"))
	w := n.watch(t)
	before := testutil.Must1[lab.Counters](t)(n.client.Netstat())
	n.run(t, lab.Load{Connections: 100, ClosesFirst: true})
	overflow := testutil.Must1[lab.Counters](t)(n.client.Netstat()).Since(before)["TCPTimeWaitOverflow"]
	w.eventually(func(l log) bool { return len(findings(l, "tw-bucket-overflow")) > 0 }, "a finding tw-bucket-overflow")
	l := w.stop()
	r := l.reconciled(t, n.client.Inode(), "TCPTimeWaitOverflow")
	if overflow == 0 || r.Kernel != int64(overflow) || r.Difference != 0 {
		t.Errorf("%+v, the kernel counted %d", r, overflow)
	}
	t.Log(findings(l, "tw-bucket-overflow")[0].Summary)
	l.replays(t)
}
