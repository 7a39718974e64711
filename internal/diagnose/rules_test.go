// SPDX-License-Identifier: Apache-2.0

package diagnose_test

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

// growing is a budget that will be used up.
func growing(used uint32, left float64) event.Destination {
	d := full()
	d.PortsTotal, d.TimeWait, d.Refused, d.Rate, d.SustainableRate = 28232, used, event.Refused{NoTimestamps: used}, 700, 28232.0/60
	d.ExhaustedInS, d.Failed = left, 0
	return d
}

func TestSoonComesTrue(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.ip_local_port_range": "32768 60999"})
	want(t, r.after(6*time.Second).budget(growing(4200, 75)), "")
	got := r.after(2 * time.Second).budget(growing(5600, 32))
	want(t, got, "port-exhaustion-soon:open")
	const summary = "10.0.0.2:8080: the local ports of 10.0.0.1 will be used up in about 32 s, at 12:00:40 UTC: " +
		"5,600 of 28,232 are taken (python3[4123]); this budget sustains 470 conn/s, the load is 700"
	if got[0].Summary != summary || got[0].Severity != event.SeverityWarning {
		t.Errorf("got  %s\nwant %s", got[0].Summary, summary)
	}
	want(t, r.after(10*time.Second).budget(growing(12600, 22.4)), "")
	want(t, r.after(10*time.Second).budget(growing(19600, 6)), "port-exhaustion-soon:update") // sooner by 6 s
	fail := connectFail()
	fail.Refused, fail.PortsTotal, fail.PortsTimeWait = event.Refused{NoTimestamps: 28232}, 28232, 28232
	r.after(7 * time.Second).feed(fail)
	d := growing(28232, 0)
	d.Failed = 1
	got = r.budget(d)
	want(t, got, "port-exhaustion:open port-exhaustion-soon:close")
	contains(t, got[1].Summary, "used up, as foreseen 27 s ahead: see port-exhaustion/1")
	var off float64
	for _, f := range got[1].Evidence {
		if f.Name == "first_forecast_off_by_s" {
			off = f.Number
		}
	}
	if math.Abs(off+5) > 0.01 {
		t.Errorf("the first forecast was off by %v s, want -5", off)
	}
	r.check()
}

// TestMixedEndings: what the peer closes first, or ends by RST, is no burden to
// the ports. (wrk without keep-alive against nginx closes a few in 100 first.)
func TestMixedEndings(t *testing.T) {
	tests := []struct {
		name       string
		endings    [3]uint64 // here, there, by RST
		rates      string
		requests   string // for each connection
		addresses  string // in all
		closedHere float64
		knowsMixed bool
	}{
		{"all here", [3]uint64{1000, 0, 0}, "sustains 16 conn/s, the load is 900", "with 54 requests", "the load of 900 needs 54 in all: 900 / 16", 0, false},
		{"too few to tell", [3]uint64{9, 10, 0}, "sustains 16 conn/s, the load is 900", "with 54 requests", "the load of 900 needs 54 in all: 900 / 16", 0, false},
		{
			"most there",
			[3]uint64{100, 900, 0},
			"of the load of 900 conn/s this host closes 90 first; this budget sustains 16 of these", "with 6 requests",
			"the load of 90 that this host closes first needs 6 in all: 90 / 16", 90, true,
		},
		{
			"most by RST",
			[3]uint64{100, 0, 900},
			"of the load of 900 conn/s this host closes 90 first; this budget sustains 16 of these", "with 6 requests",
			"the load of 90 that this host closes first needs 6 in all: 90 / 16", 90, true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
			r.after(time.Second).feed(connectFail())
			d := full()
			d.ClosedHere, d.ClosedThere, d.ClosedReset = tt.endings[0], tt.endings[1], tt.endings[2]
			got := r.after(time.Millisecond).budget(d)
			want(t, got, "port-exhaustion:open")
			contains(t, got[0].Summary, tt.rates)
			contains(t, remedy(got[0], "keep connections alive").Buys, tt.requests)
			contains(t, remedy(got[0], "use more source addresses").Buys, tt.addresses)
			at := slices.IndexFunc(got[0].Evidence, func(f event.Fact) bool { return f.Name == "load_closed_here" })
			if (at >= 0) != tt.knowsMixed || at >= 0 && math.Abs(got[0].Evidence[at].Number-tt.closedHere) > 0.01 {
				t.Errorf("evidence %+v", got[0].Evidence)
			}
			r.check()
		})
	}
}

// TestLoadBeforeFailure: wrk gives up a connection that fails, so that the load
// afterwards does not tell why the ports have run out.
func TestLoadBeforeFailure(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	d := full()
	d.TimeWait, d.Refused, d.Failed, d.ClosedHere, d.ExhaustedInS = 500, event.Refused{NoTimestamps: 500}, 0, 500, -1
	want(t, r.after(time.Second).budget(d), "")
	r.after(500 * time.Millisecond).feed(connectFail())
	d = full()
	d.Rate = 5
	got := r.after(500 * time.Millisecond).budget(d)
	want(t, got, "port-exhaustion:open")
	contains(t, got[0].Summary, "sustains 16 conn/s, the load is 6, and was 900 until connect() failed")
	contains(t, remedy(got[0], "keep connections alive").Buys, "with 54 requests or more on each connection the load of 900")
	contains(t, remedy(got[0], "use more source addresses").Buys, "the load of 900 needs 54 in all")

	// It fails on after the load has come back: that is told.
	d.Rate, d.Failed = 600, 2
	r.after(500 * time.Millisecond).feed(connectFail())
	got = r.after(500 * time.Millisecond).budget(d)
	want(t, got, "port-exhaustion:update")
	contains(t, got[0].Summary, "the load is 601")
	if strings.Contains(got[0].Summary, "until connect() failed") {
		t.Errorf("the load before is of no interest: %s", got[0].Summary)
	}
	r.check()
}

// TestMixedLoadBeforeFailure: of a load that has subsided the peer closed most.
func TestMixedLoadBeforeFailure(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	d := full()
	d.TimeWait, d.Refused, d.Failed, d.ExhaustedInS = 500, event.Refused{NoTimestamps: 500}, 0, -1
	d.ClosedHere, d.ClosedThere = 500, 4500
	want(t, r.after(time.Second).budget(d), "")
	r.after(500 * time.Millisecond).feed(connectFail())
	d = full()
	d.Rate, d.ClosedHere, d.ClosedThere = 5, 500, 4500
	got := r.after(500 * time.Millisecond).budget(d)
	want(t, got, "port-exhaustion:open")
	contains(t, got[0].Summary, "of the load of 6 conn/s this host closes 0.6 first (90 of 900 until connect() failed); this budget sustains 16 of these")
	contains(t, remedy(got[0], "use more source addresses").Buys, "the load of 90 that this host closes first needs 6 in all: 90 / 16")
	r.check()
}

// TestFailuresBeforeBudget: a finding that is told without a budget takes
// nothing away from the load that the next one tells of.
func TestFailuresBeforeBudget(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	d := full()
	d.TimeWait, d.Refused, d.Failed, d.ExhaustedInS, d.Rate = 999, event.Refused{NoTimestamps: 999}, 0, -1, 100
	want(t, r.after(time.Second).budget(d), "")
	for range 50 {
		r.feed(connectFail())
	}
	want(t, r.after(1100*time.Millisecond).feed(connectFail()), "port-exhaustion:open")
	d = full()
	d.Rate, d.Failed = 0, 110
	got := r.after(time.Millisecond).budget(d)
	want(t, got, "port-exhaustion:update")
	contains(t, got[0].Summary, "the load is 100;")
	r.check()
}

// TestRemedyInMidCount: a remedy that comes between two reports shows, although
// most of what ended between them did so as before.
func TestRemedyInMidCount(t *testing.T) {
	tests := []struct {
		name               string
		here, there, reset uint64 // since the finding opened
		want               string
	}{
		{"RST", 71, 0, 64, "64 of 135 connections ended by RST since 12:00:01 UTC (before: 0 of 1,000)"},
		{"the server closes", 71, 64, 0, "64 of 135 connections ended by the peer's FIN first since 12:00:01 UTC (before: 0 of 1,000)"},
		{"a few by chance", 100, 0, 20, ""},
		{"hardly any", 2, 0, 2, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
			want(t, r.after(time.Second).budget(growing(5600, 50)), "port-exhaustion-soon:open")
			d := growing(5600, -1)
			d.ClosedHere, d.ClosedThere, d.ClosedReset = d.ClosedHere+tt.here, tt.there, tt.reset
			r.after(time.Second).budget(d)
			got := r.after(4 * time.Second).budget(d)
			want(t, got, "port-exhaustion-soon:close")
			if got[0].Changed != tt.want {
				t.Errorf("changed %q, want %q", got[0].Changed, tt.want)
			}
			r.check()
		})
	}
}

// TestEndingsChange: the share is that of the latest connections.
func TestEndingsChange(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	want(t, r.after(time.Second).budget(growing(5600, 50)), "port-exhaustion-soon:open")
	d := growing(5600, -1)
	d.ClosedReset = 500
	r.after(time.Second).budget(d)
	d.ClosedReset = 519 // too few to tell anew
	got := r.after(4 * time.Second).budget(d)
	want(t, got, "port-exhaustion-soon:close")
	contains(t, got[0].Summary, "of the load of 700 conn/s this host closes 0 first; this budget sustains 470 of these")
	contains(t, got[0].Changed, "connections ended by RST")
	r.check()
}

func TestSoonGoes(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	want(t, r.after(time.Second).budget(growing(5600, 50)), "port-exhaustion-soon:open")
	want(t, r.after(time.Second).budget(growing(6000, 80)), "port-exhaustion-soon:update") // out of soon, within later
	want(t, r.after(time.Second).budget(growing(6000, -1)), "")
	want(t, r.after(time.Second).budget(growing(6100, 40)), "port-exhaustion-soon:update") // back
	for range 3 {
		want(t, r.after(time.Second).budget(growing(6100, -1)), "")
	}
	got := r.after(time.Second).budget(growing(6100, -1))
	want(t, got, "port-exhaustion-soon:close")
	contains(t, got[0].Summary, "nothing foretells any more")
	r.check()
}

func TestSoonStaysSilent(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	for i := range 60 {
		d := growing(uint32(400*i), -1)
		if i%2 == 0 {
			d.ExhaustedInS = 61 + float64(i)
		}
		want(t, r.after(time.Second).budget(d), "")
		if i > 30 {
			break
		}
	}
}

// waiting is a budget with so many ports used, by TIME_WAIT of a kind.
func waiting(n uint32, ts event.TimestampUse, r event.Refused) event.Destination {
	d := full()
	d.TimeWait, d.Timestamps, d.Refused, d.Rate, d.ExhaustedInS, d.Failed = n, ts, r, 9, -1, 0
	return d
}

func TestReuseRules(t *testing.T) {
	loopback := func(d event.Destination) event.Destination {
		d.Raddr = netip.MustParseAddr("127.0.0.1")
		return d
	}
	no, yes, mixed := event.TimestampsNo, event.TimestampsYes, event.TimestampsMixed
	tests := []struct {
		name, reuse string
		budget      event.Destination
		want        string // code of the finding, none
		summary     string
	}{
		{"inert", "1", waiting(200, no, event.Refused{NoTimestamps: 200}), "tw-reuse-inert", "tcp_tw_reuse=1 does nothing here: the peer negotiates no TCP timestamps, so none of the 200 sockets"},
		{"inert in part", "1", waiting(300, mixed, event.Refused{NoTimestamps: 200, TooYoung: 1}), "tw-reuse-inert", "helps in part only: TCP timestamps are not negotiated on all connections, so 200 of the 300 sockets in TIME_WAIT cannot be re-used"},
		{"mostly timed", "1", waiting(900, mixed, event.Refused{NoTimestamps: 200}), "", ""},
		{"too few", "1", waiting(19, no, event.Refused{NoTimestamps: 19}), "", ""},
		{"few of many ports", "1", waiting(99, no, event.Refused{NoTimestamps: 99}), "", ""},
		{"inert on loopback", "2", loopback(waiting(200, no, event.Refused{NoTimestamps: 200})), "tw-reuse-inert", "tcp_tw_reuse=2 does nothing here"},
		{"2 makes no claim elsewhere", "2", waiting(200, no, event.Refused{LoopbackOnly: 200}), "", ""},
		{"off", "0", waiting(600, yes, event.Refused{Disabled: 600}), "tw-reuse-off", "tcp_tw_reuse is 0; with 1, connect() could re-use 600 of the 600 sockets in TIME_WAIT after 1,000 ms, and this budget would sustain 1,000 conn/s instead of 16"},
		{"off, half timed", "0", waiting(600, mixed, event.Refused{Disabled: 300, NoTimestamps: 300}), "tw-reuse-off", "could re-use 300 of the 600 sockets in TIME_WAIT after 1,000 ms, and this budget would sustain 32 conn/s instead of 16"},
		{"off, no timestamps", "0", waiting(600, no, event.Refused{NoTimestamps: 600}), "", ""},
		{"off, no need", "0", waiting(400, yes, event.Refused{Disabled: 400}), "", ""},
		{"loopback only", "2", waiting(600, yes, event.Refused{LoopbackOnly: 600}), "tw-reuse-loopback-only", "tcp_tw_reuse=2 is for loopback connections only, and from 10.0.0.1 to 10.0.0.2 is none; with 1, connect() could re-use 600"},
		{"loopback only, mixed", "2", waiting(600, mixed, event.Refused{LoopbackOnly: 600}), "tw-reuse-loopback-only", "how many have is unknown"},
		{"loopback only, no timestamps", "2", waiting(600, no, event.Refused{LoopbackOnly: 600}), "", ""},
		{"loopback only, on loopback", "2", loopback(waiting(600, yes, event.Refused{TooYoung: 600})), "", ""},
		{"works", "1", waiting(900, yes, event.Refused{TooYoung: 900}), "", ""},
		{"setting unknown", "", waiting(900, yes, event.Refused{Disabled: 900}), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": tt.reuse})
			got := r.after(time.Second).budget(tt.budget)
			if tt.want == "" {
				want(t, got, "")
				return
			}
			want(t, got, tt.want+":open")
			contains(t, got[0].Summary, tt.summary)
			if got[0].Severity != event.SeverityInfo {
				t.Errorf("%s, though nothing fails", got[0].Severity)
			}
			offered := remedy(got[0], "sysctl -w net.ipv4.tcp_tw_reuse=1") != nil
			if should := tt.want != "tw-reuse-inert"; offered != should {
				t.Errorf("tcp_tw_reuse=1 offered: %t", offered)
			}
			// The setting is changed to what it should be, or to nothing.
			to := map[string]string{"tw-reuse-inert": "0"}[tt.want]
			if to == "" {
				to = "1"
			}
			r.set("net.ipv4.tcp_tw_reuse", to)
			d := tt.budget
			d.TimeWait, d.Refused = 50, event.Refused{NoTimestamps: 9}
			got = r.after(time.Second).budget(d)
			want(t, got, tt.want+":close")
			contains(t, got[0].Changed, fmt.Sprintf("net.ipv4.tcp_tw_reuse: %s -> %s", tt.reuse, to))
			r.check()
		})
	}
}

func TestRecycle(t *testing.T) {
	line := []event.ConfigLine{{File: "/etc/sysctl.d/9.conf", Line: 3, Text: "net.ipv4.tcp_tw_recycle = 1"}}
	r := newRun(t, nil)
	got := r.feed(&event.Start{Kernel: "6.1.0", Recycle: line})
	want(t, got, "tw-recycle-gone:open")
	contains(t, got[0].Summary, "/etc/sysctl.d/9.conf:3 sets tcp_tw_recycle")
	if s := got[0].Subject; s.File != line[0].File || s.Line != 3 {
		t.Errorf("subject %+v", s)
	}
	got = r.feed(&event.Start{Recycle: line, Sysctls: []event.NamespaceSysctls{{Values: map[string]string{"net.ipv4.tcp_tw_recycle": "0"}}}})
	want(t, got, "")
	r.check()
}

func TestBind(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_reuse": "0"})
	r.listen = "40000-40009,22"
	bound := func(n uint32) event.Destination {
		d := waiting(n, event.TimestampsNo, event.Refused{})
		d.Bound, d.PortsBlocked = n, 10
		return d
	}
	want(t, r.after(time.Second).budget(bound(19)), "")
	want(t, r.after(time.Second).budget(bound(99)), "")
	got := r.after(time.Second).budget(bound(150))
	want(t, got, "bind-without-no-port:open")
	contains(t, got[0].Summary, "150 of the 1,000 ports of the range 40000-40999 are taken by bind() without IP_BIND_ADDRESS_NO_PORT (python3[4123])")
	if got[0].Severity != event.SeverityInfo || remedy(got[0], "set IP_BIND_ADDRESS_NO_PORT") == nil {
		t.Errorf("%s %+v", got[0].Severity, got[0].Remedies)
	}
	f := connectFail()
	f.Cause = event.CauseBoundWithoutNoPort
	r.after(time.Second).feed(f)
	d := bound(150)
	d.Failed = 1
	got = r.budget(d)
	want(t, got, "port-exhaustion:open bind-without-no-port:update")
	if got[1].Severity != event.SeverityWarning {
		t.Errorf("%s, though connect() fails", got[1].Severity)
	}
	for range 90 {
		got = r.after(time.Second).budget(bound(0))
		if len(got) > 0 && got[0].Code == diagnose.BindWithoutNoPort {
			break
		}
	}
	want(t, got, "bind-without-no-port:close")
	contains(t, got[0].Changed, "ports held by bind(): 150 -> 0")
	r.check()
}

// TestBindPassesOverListeners has ports of the range that servers listen on.
func TestBindPassesOverListeners(t *testing.T) {
	r := newRun(t, nil)
	r.listen = "40000-40499"
	d := waiting(5, event.TimestampsNo, event.Refused{})
	d.PortsBlocked = 500
	want(t, r.after(time.Second).budget(d), "")
	r.listen = "unknown"
	want(t, r.after(time.Second).budget(d), "")
}

func TestOverflow(t *testing.T) {
	r := newRun(t, nil)
	count := func(n int64) []*event.Finding {
		return r.feed(&event.Stats{Reconcile: []event.Reconciliation{
			{NetNS: netns, Counter: "TW", Kernel: 5000}, {NetNS: netns, Counter: "TCPTimeWaitOverflow", Kernel: n},
		}})
	}
	want(t, count(0), "")
	r.after(10 * time.Second)
	f := count(1)
	want(t, f, "tw-bucket-overflow:open")
	contains(t, f[0].Summary, "net.ipv4.tcp_max_tw_buckets=1,000 is reached: 1 connection has ended without TIME_WAIT")
	r.after(10 * time.Second)
	f = count(5001)
	want(t, f, "tw-bucket-overflow:update")
	contains(t, f[0].Summary, "5,001 connections have ended without TIME_WAIT, 500 per second lately")
	if m := remedy(f[0], "sysctl -w net.ipv4.tcp_max_tw_buckets=31001 or more"); m == nil || m.Buys != "516 conn/s: (1,000 + 500 * 60 s) / 60 s" {
		t.Errorf("%+v", f[0].Remedies[0])
	}
	for range 6 {
		r.after(10 * time.Second)
		want(t, count(5001), "")
	}
	r.set("net.ipv4.tcp_max_tw_buckets", "32000")
	r.after(10 * time.Second)
	f = count(5001)
	want(t, f, "tw-bucket-overflow:close")
	contains(t, f[0].Changed, "net.ipv4.tcp_max_tw_buckets: 1000 -> 32000")
	r.check()
}

func TestRemedies(t *testing.T) {
	tests := []struct {
		name    string
		sysctls map[string]string
		listen  string
		change  func(f *event.ConnectFail, d *event.Destination)
		do      string // begin of the remedy
		buys    string // part of it; empty: the remedy must not be offered
		caveat  string
	}{
		{"keep-alive", nil, "", nil, "keep connections alive", "with 54 requests or more on each connection the load of 900 needs no more than the 16 conn/s", "idle timeout"},
		{"server closes", nil, "", nil, "let the server close first", "1,000 ports / mean time that a connection is open", "TIME_WAIT moves to the server"},
		{
			"by Little's law", nil, "",
			func(_ *event.ConnectFail, d *event.Destination) { d.InUse, d.TimeWait = 90, 910 },
			"let the server close first", "10,000 conn/s: 1,000 ports / 0.1 s, the mean time that a connection is open (90 in use / 900 conn/s)", "",
		},
		{"price of RST", nil, "", nil, "close with RST", "1,000 ports", "data that is not sent yet is lost, and the peer sees ECONNRESET"},
		{"more sources", nil, "", nil, "use more source addresses", "the load of 900 needs 54 in all: 900 / 16", "IP_BIND_ADDRESS_NO_PORT"},
		{"more destinations", nil, "", nil, "spread the load", "16 conn/s more for each", ""},
		{"peer's timestamps", nil, "", nil, "turn TCP timestamps on at the peer", "1,000 conn/s with tcp_tw_reuse=1: 1,000 ports / 1 s", "NAT"},
		{"our timestamps", map[string]string{"net.ipv4.tcp_timestamps": "0"}, "", nil, "sysctl -w net.ipv4.tcp_timestamps=1", "if the peer has timestamps on too", ""},
		{"peer's timestamps, ours off", map[string]string{"net.ipv4.tcp_timestamps": "0"}, "", nil, "turn TCP timestamps on at the peer", "", ""},
		{"re-use without timestamps", map[string]string{"net.ipv4.tcp_tw_reuse": "0"}, "", nil, "sysctl -w net.ipv4.tcp_tw_reuse=1", "", ""},
		{
			"re-use for a share",
			map[string]string{"net.ipv4.tcp_tw_reuse": "0", "net.ipv4.tcp_tw_reuse_delay": "500"},
			"",
			func(_ *event.ConnectFail, d *event.Destination) {
				d.Timestamps, d.Refused = event.TimestampsMixed, event.Refused{Disabled: 750, NoTimestamps: 250}
			},
			"sysctl -w net.ipv4.tcp_tw_reuse=1", "65 conn/s, since 75 % of the sockets in TIME_WAIT could be taken over: 1,000 ports / (0.75 * 0.5 s + 0.25 * 60 s)", "outgoing",
		},
		{"wider range", nil, "22,1023,5432", nil, `sysctl -w net.ipv4.ip_local_port_range="1024 65535" (now 40000 40999)`, "1,075 conn/s: 64,511 ports / 60 s", "port 5432 is listened on and would lie in the range"},
		{"wider range, reserved", map[string]string{"net.ipv4.ip_local_reserved_ports": "5432,6000-6009,40000"}, "5432,8080-8082", nil, "sysctl -w net.ipv4.ip_local_port_range", "64,498 ports / 60 s", "port 8080-8082 are listened on"},
		{"wider range, nothing in the way", nil, "40000", nil, "sysctl -w net.ipv4.ip_local_port_range", "64,512 ports", "no port in the new part is listened on now"},
		{"wider range, listeners unknown", nil, "unknown", nil, "sysctl -w net.ipv4.ip_local_port_range", "64,512 ports", "which ports are listened on here is not known"},
		{"wide already", map[string]string{"net.ipv4.ip_local_port_range": "1024 65535"}, "", func(f *event.ConnectFail, _ *event.Destination) { f.RangeLow, f.RangeHigh = 1024, 65535 }, "sysctl -w net.ipv4.ip_local_port_range", "", ""},
		{"own range", nil, "", func(f *event.ConnectFail, _ *event.Destination) { f.RangeHigh = 40009 }, "sysctl -w net.ipv4.ip_local_port_range", "", ""},
		{"own range widened", nil, "", func(f *event.ConnectFail, _ *event.Destination) { f.RangeHigh = 40009 }, "widen the range that the program gives", "of 40000-40009", ""},
		{"reserved", nil, "", func(_ *event.ConnectFail, d *event.Destination) { d.PortsReserved = 500 }, "take ports out of", "up to 25 conn/s: 1,500 ports / 60 s", ""},
		{"hardly reserved", nil, "", func(_ *event.ConnectFail, d *event.Destination) { d.PortsReserved = 5 }, "take ports out of", "", ""},
		{"bound", nil, "40000-40009", func(_ *event.ConnectFail, d *event.Destination) { d.PortsBlocked = 510 }, "set IP_BIND_ADDRESS_NO_PORT", "for each destination, 25 conn/s: 1,500 ports / 60 s", ""},
		{"only listeners", nil, "40000-40009", func(_ *event.ConnectFail, d *event.Destination) { d.PortsBlocked = 10 }, "set IP_BIND_ADDRESS_NO_PORT", "", ""},
		{
			"nothing in TIME_WAIT", nil, "", func(f *event.ConnectFail, d *event.Destination) {
				f.Cause = event.CausePortsInUse
				d.InUse, d.TimeWait, d.Refused = 1000, 0, event.Refused{}
			}, "close with RST", "", "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, tt.sysctls)
			r.listen = tt.listen
			f, d := connectFail(), full()
			if tt.change != nil {
				tt.change(f, &d)
			}
			r.after(time.Second).feed(f)
			got := r.budget(d)[0]
			m := remedy(got, tt.do)
			switch {
			case m == nil && tt.buys == "":
			case m == nil:
				t.Errorf("not offered: %+v", got.Remedies)
			case tt.buys == "":
				t.Errorf("offered: %+v", m)
			default:
				contains(t, m.Buys, tt.buys)
				contains(t, m.Caveat, tt.caveat)
				if m.Why == "" {
					t.Error("it does not say why")
				}
			}
		})
	}
}
