// SPDX-License-Identifier: Apache-2.0

package diagnose_test

import (
	"bytes"
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

const netns = 7

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// run is a recorded run: it writes the log as the program that feeds the
// engine does, findings after the events that they follow from.
type run struct {
	t        *testing.T
	engine   *diagnose.Engine
	enc      *event.Encoder
	log      bytes.Buffer
	findings []*event.Finding
	sysctls  map[string]string
	listen   string
	now      time.Duration
}

func newRun(t *testing.T, sysctls map[string]string) *run {
	t.Helper()
	r := &run{t: t, engine: diagnose.New(), enc: event.NewEncoder(), sysctls: map[string]string{
		"net.ipv4.tcp_tw_reuse": "1", "net.ipv4.tcp_tw_reuse_delay": "1000", "net.ipv4.tcp_timestamps": "1",
		"net.ipv4.ip_local_port_range": "40000\t40999", "net.ipv4.ip_local_reserved_ports": "", "net.ipv4.tcp_max_tw_buckets": "1000",
	}}
	maps.Copy(r.sysctls, sysctls)
	r.feed(&event.Start{Sysctls: []event.NamespaceSysctls{{NetNS: netns, Values: r.sysctls}}})
	return r
}

func (r *run) stamp() event.Header { return event.Header{Time: epoch.Add(r.now).UnixNano()} }

// feed gives an event the present time and returns what follows from it.
func (r *run) feed(ev event.Event) []*event.Finding {
	r.t.Helper()
	switch ev := ev.(type) {
	case *event.Start:
		ev.Header = r.stamp()
	case *event.ConnectFail:
		ev.Header = r.stamp()
	case *event.Destinations:
		ev.Header = r.stamp()
	case *event.Stats:
		ev.Header = r.stamp()
	case *event.Loss:
		ev.Header = r.stamp()
	case *event.SysctlChange:
		ev.Header = r.stamp()
	case *event.Stop:
		ev.Header = r.stamp()
	case *event.TimeWait:
		ev.Header = r.stamp()
	case *event.PAWSReject:
		ev.Header = r.stamp()
	case *event.SYNReject:
		ev.Header = r.stamp()
	case *event.SYNRefused:
		ev.Header = r.stamp()
	case *event.ListenDrop:
		ev.Header = r.stamp()
	case *event.Sources:
		ev.Header = r.stamp()
	default:
		r.t.Fatalf("no time for %T", ev)
	}
	r.log.Write(r.enc.Append(nil, ev))
	out := r.engine.Feed(ev)
	for _, f := range out {
		line := r.enc.Append(nil, f)
		eventtest.Validate(r.t, line)
		if f.State != event.FindingClose && len(f.Remedies) == 0 {
			r.t.Errorf("%s has no remedy", f.ID)
		}
		if f.Time != epoch.Add(r.now).UnixNano() {
			r.t.Errorf("%s has another time than its event", f.ID)
		}
		r.log.Write(line)
	}
	r.findings = append(r.findings, out...)
	return out
}

// after lets time pass.
func (r *run) after(d time.Duration) *run { r.now += d; return r }

// budget tells the budgets of all destinations.
func (r *run) budget(list ...event.Destination) []*event.Finding {
	r.t.Helper()
	return r.feed(&event.Destinations{List: list, Namespaces: []event.NamespacePorts{
		{NetNS: netns, Sysctls: r.sysctls, Listening: r.listen, HasListening: r.listen != "unknown"},
	}})
}

// set changes a sysctl.
func (r *run) set(name, to string) {
	r.t.Helper()
	was := r.sysctls[name]
	r.sysctls = maps.Clone(r.sysctls) // the events before keep theirs
	r.sysctls[name] = to
	r.feed(&event.SysctlChange{NetNS: netns, Name: name, Old: was, New: to})
}

// check holds the log to its replay, from the whole of it and from any part
// that a run that was killed could have left.
func (r *run) check() {
	r.t.Helper()
	recorded := findingLines(r.log.Bytes())
	if got := replay(r.t, r.log.Bytes()); got != recorded {
		r.t.Errorf("the replay differs:\n%s\nrecorded:\n%s", got, recorded)
	}
	lines := bytes.SplitAfter(r.log.Bytes(), []byte("\n"))
	for n := 0; n < len(lines); n += 1 + len(lines)/40 {
		part := bytes.Join(lines[:n], nil)
		if got := replay(r.t, part); !strings.HasPrefix(recorded, got) || !strings.HasPrefix(got, findingLines(part)) {
			r.t.Fatalf("the replay of the first %d lines differs:\n%s", n, got)
		}
	}
}

func findingLines(log []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"event":"finding"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func replay(t *testing.T, log []byte) string {
	t.Helper()
	var out []byte
	engine, enc := diagnose.New(), event.NewEncoder()
	for line := range bytes.Lines(log) {
		ev, err := event.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range engine.Feed(ev) {
			out = enc.Append(out, f)
		}
	}
	return string(out)
}

// states shows findings as "code:state code:state".
func states(list []*event.Finding) string {
	var parts []string
	for _, f := range list {
		parts = append(parts, f.Code+":"+f.State.String())
	}
	return strings.Join(parts, " ")
}

// want fails unless these findings came.
func want(t *testing.T, got []*event.Finding, codes string) {
	t.Helper()
	if s := states(got); s != codes {
		for _, f := range got {
			t.Logf("%s %s: %s", f.ID, f.State, f.Summary)
		}
		t.Fatalf("got  %q\nwant %q", s, codes)
	}
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in %q", p, text)
		}
	}
}

// remedy returns the one whose do begins so, nil if it is not offered.
func remedy(f *event.Finding, do string) *event.Remedy {
	for i := range f.Remedies {
		if strings.HasPrefix(f.Remedies[i].Do, do) {
			return &f.Remedies[i]
		}
	}
	return nil
}

// connectFail is one of python3[4123] to 10.0.0.2:8080.
func connectFail() *event.ConnectFail {
	return &event.ConnectFail{
		Socket: event.Socket{
			NetNS: netns, Local: netip.MustParseAddrPort("10.0.0.1:0"), Remote: netip.MustParseAddrPort("10.0.0.2:8080"),
			Owner: event.Owner{PID: 4123, Comm: "python3"},
		},
		Errno: 99, RangeLow: 40000, RangeHigh: 40999, Cause: event.CauseTimeWaitNotReusable,
		Refused: event.Refused{NoTimestamps: 1000}, PortsTotal: 1000, PortsTimeWait: 1000, Timestamps: event.TimestampsNo,
	}
}

// full is the budget that goes with connectFail.
func full() event.Destination {
	return event.Destination{
		NetNS: netns, Laddr: netip.MustParseAddr("10.0.0.1"), Raddr: netip.MustParseAddr("10.0.0.2"), Rport: 8080,
		PortsTotal: 1000, TimeWait: 1000, Refused: event.Refused{NoTimestamps: 1000}, Timestamps: event.TimestampsNo,
		Rate: 900, SustainableRate: 1000.0 / 60, Failed: 1, ClosedHere: 1000, PID: 4123, Comm: "python3",
	}
}

// idle is full some time later, with so many in TIME_WAIT.
func idle(timeWait uint32) event.Destination {
	d := full()
	d.TimeWait, d.Refused.NoTimestamps, d.Rate, d.ExhaustedInS = timeWait, timeWait, 0, -1
	return d
}
