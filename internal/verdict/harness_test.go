// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"bytes"
	"flag"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/verdict"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const netns = 4026532000

var (
	epoch  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	local  = netip.MustParseAddr("10.0.0.1")
	remote = netip.MustParseAddr("10.0.0.2")
)

func at(s float64) event.Header {
	return event.Header{Time: epoch.UnixNano() + int64(s*1e9)}
}

func socket(port uint16) event.Socket {
	return event.Socket{
		NetNS: netns, Local: netip.AddrPortFrom(local, port), Remote: netip.AddrPortFrom(remote, 80),
		Owner: event.Owner{PID: 4123, Comm: "wrk"},
	}
}

// start is that of a run which sees everything.
func start() *event.Start {
	return &event.Start{
		Header: at(0), Version: "1.0", Host: "client1", Kernel: "6.18.44",
		Coverage: map[string]string{
			"time_wait": "fentry", "connect_fail": "fentry", "syn_refused": "fentry", "paws_time_wait": "fentry", "syn_reject": "tracepoint",
		},
		Lost:    []string{"the errno of a failed connect() (connect_fail)"},
		Filters: map[string][]string{"dst": {"10.0.0.2:80"}},
		Sysctls: []event.NamespaceSysctls{{NetNS: netns, Values: sysctls()}},
	}
}

func sysctls() map[string]string {
	return map[string]string{
		"net.ipv4.tcp_tw_reuse": "1", "net.ipv4.tcp_timestamps": "1", "net.ipv4.ip_local_port_range": "40000 40999", "net.ipv4.ip_local_reserved_ports": "",
	}
}

func timeWait(s float64, port uint16) *event.TimeWait {
	return &event.TimeWait{Header: at(s), Socket: socket(port), Role: event.RoleClient, TimeoutMS: 60000}
}

// steady are n connections from a second on, so many in each.
func steady(from, perS float64, n int) []event.Event {
	var list []event.Event
	for i := range n {
		list = append(list, timeWait(from+float64(i)/perS, uint16(40000+i%1000)))
	}
	return list
}

// budget is that of the destination.
func budget(s float64, change func(*event.Destination)) *event.Destinations {
	d := event.Destination{
		NetNS: netns, Laddr: local, Raddr: remote, Rport: 80, PortsTotal: 1000, SustainableRate: 1000.0 / 60,
		Timestamps: event.TimestampsNo, ExhaustedInS: -1, PID: 4123, Comm: "wrk",
	}
	change(&d)
	return &event.Destinations{
		Header: at(s), List: []event.Destination{d},
		Namespaces: []event.NamespacePorts{{NetNS: netns, Sysctls: sysctls(), Listening: "22", HasListening: true}},
	}
}

func fail(s float64, cause event.Cause) *event.ConnectFail {
	return &event.ConnectFail{
		Header: at(s), Socket: socket(0), Errno: 99, RangeLow: 40000, RangeHigh: 40999, Cause: cause,
		PortsTotal: 1000, PortsTimeWait: 1000, Refused: event.Refused{NoTimestamps: 1000}, Timestamps: event.TimestampsNo,
	}
}

func refused(s float64, sig event.Signature, port uint16) *event.SYNRefused {
	return &event.SYNRefused{Header: at(s), Socket: socket(port), Signature: sig, Attempts: 1, DelayMS: 1000}
}

func stop(s float64) *event.Stop {
	return &event.Stop{Reason: "SIGINT", Stats: event.Stats{
		Header: at(s), UptimeMS: uint64(s * 1000), Seen: map[string]uint64{}, Lost: map[string]uint64{},
		Reconcile: []event.Reconciliation{{NetNS: netns, Counter: "TW"}},
	}}
}

// record writes a log as a run does: the findings follow the events that they
// are drawn from, and the stop event holds the verdict.
func record(t *testing.T, events ...event.Event) (log []byte, c *verdict.Collector) {
	t.Helper()
	engine, enc, c := diagnose.New(), event.NewEncoder(), verdict.New()
	for _, ev := range events {
		if s, ok := ev.(*event.Stop); ok {
			ev = c.Stop(s)
		} else {
			c.Feed(ev)
		}
		line := enc.Append(nil, ev)
		eventtest.Validate(t, line)
		log = append(log, line...)
		for _, f := range engine.Feed(ev) {
			c.Feed(f)
			log = enc.Append(log, f)
		}
	}
	return log, c
}

// conclude records a run, and holds to each other what it says at its end,
// what a replay of its log says, and what stands in its stop event.
func conclude(t *testing.T, events ...event.Event) verdict.Verdict {
	t.Helper()
	log, c := record(t, events...)
	live := c.Verdict()
	r := verdict.NewReplay()
	var inLog []byte
	for line := range bytes.Lines(log) {
		ev, err := event.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := ev.(*event.Stop); ok {
			inLog = s.Conclusion
		}
		r.Feed(ev)
	}
	again := r.Verdict()
	want := live.Encode()
	if got := again.Encode(); !bytes.Equal(got, want) {
		t.Errorf("the replay tells\n%s\nthe run told\n%s", got, want)
	}
	if inLog != nil && !bytes.Equal(inLog, want) {
		t.Errorf("the stop event holds\n%s\nthe run told\n%s", inLog, want)
	}
	parsed, err := verdict.Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(live, parsed, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("read back it differs (-want +got):\n%s", diff)
	}
	return live
}
