// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestRoundTrip(t *testing.T) {
	enc := event.NewEncoder()
	for _, k := range event.Kinds() {
		t.Run(k.String(), func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, uint64(k)))
			for range 500 {
				want := eventtest.Random(r, k)
				line := enc.Append(nil, want)
				eventtest.Validate(t, line)
				got, err := event.Decode(line)
				if err != nil {
					t.Fatalf("%v\n%s", err, line)
				}
				if diff := cmp.Diff(want, got, compare); diff != "" {
					t.Fatalf("decoded event differs (-want +got):\n%s%s", diff, line)
				}
			}
		})
	}
}

// TestSchemaIsExact holds the schema to what the encoder writes: a member that
// is always there must be required, and one that never is must not be in it.
func TestSchemaIsExact(t *testing.T) {
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct{ Description, Const string }
			Required   []string
		} `json:"$defs"`
	}
	if err := json.Unmarshal(event.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	enc := event.NewEncoder()
	for _, k := range event.Kinds() {
		const rounds = 500
		seen := map[string]int{}
		r := rand.New(rand.NewPCG(8, uint64(k)))
		for range rounds {
			var line map[string]any
			if err := json.Unmarshal(enc.Append(nil, eventtest.Random(r, k)), &line); err != nil {
				t.Fatal(err)
			}
			for name := range line {
				seen[name]++
			}
		}
		def := schema.Defs[k.String()]
		required := map[string]bool{}
		for _, name := range def.Required {
			required[name] = true
		}
		for name, p := range def.Properties {
			if p.Description == "" && p.Const == "" {
				t.Errorf("%s: %s has no description", k, name)
			}
			if always := seen[name] == rounds; always != required[name] {
				t.Errorf("%s: %s is in %d of %d lines, required: %t", k, name, seen[name], rounds, required[name])
			}
			if seen[name] == 0 {
				t.Errorf("%s: %s is never written", k, name)
			}
		}
	}
}

func TestSchemaAcceptsLaterMinorVersions(t *testing.T) {
	later := []string{
		`{"time":"2026-01-02T03:04:05.000000006Z","event":"comet","tail":1}`,
		`{"time":"2026-01-02T03:04:05.000000006Z","event":"loss","hop":"ring","count":1,"novel":{"a":[]}}`,
	}
	public, err := eventtest.Compile(event.Schema())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range later {
		var doc any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		if err := public.Validate(doc); err != nil {
			t.Errorf("public schema: %v", err)
		}
		if eventtest.Check([]byte(line)) == nil {
			t.Errorf("the strict schema accepts %s", line)
		}
	}
	if err := public.Validate(map[string]any{"time": "2026-01-02T03:04:05.000000006Z", "event": "loss"}); err == nil {
		t.Error("the public schema accepts a loss without hop and count")
	}
}

var connection = event.Socket{
	NetNS:  4026531840,
	Local:  netip.MustParseAddrPort("10.0.0.1:40000"),
	Remote: netip.MustParseAddrPort("[2001:db8::1]:443"),
	Owner:  event.Owner{PID: 4711, Comm: "curl", Cgroup: "/user.slice"},
}

func at(text string) event.Header {
	tm, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return event.Header{Time: tm.UnixNano()}
}

func TestLines(t *testing.T) {
	noon := at("2026-11-22T12:00:00.000000001Z")
	const on = `"netns":4026531840,"laddr":"10.0.0.1","lport":40000,"raddr":"2001:db8::1","rport":443,"pid":4711,"comm":"curl","cgroup":"/user.slice"`
	tests := []struct {
		name string
		ev   event.Event
		want string
	}{
		{
			"time_wait", &event.TimeWait{Header: noon, Socket: connection, Role: event.RoleClient, Timestamps: true, TSRecent: 9, TimeoutMS: 60000},
			`"time_wait",` + on + `,"role":"client","substate":"time_wait","timestamps":true,"ts_recent":9,"timeout_ms":60000`,
		},
		{
			"no timestamps", &event.TimeWait{Header: noon, Socket: connection, Substate: event.SubstateFinWait2, TSRecent: 9},
			`"time_wait",` + on + `,"role":"unknown","substate":"fin_wait2","timestamps":false,"timeout_ms":0`,
		},
		{"nothing known", &event.TWReuse{Header: noon, AgeMS: 7}, `"tw_reuse","age_ms":7`},
		{"no port, mapped address", &event.ConnectFail{
			Header: noon, Errno: 99, RangeLow: 1, RangeHigh: 2,
			Socket: event.Socket{NetNS: 1, Local: netip.MustParseAddrPort("[::ffff:10.0.0.1]:0"), Remote: netip.MustParseAddrPort("[fe80::1%eth0]:80")},
		}, `"connect_fail","netns":1,"laddr":"10.0.0.1","raddr":"fe80::1","rport":80,"errno":"EADDRNOTAVAIL","inferred":false,"range_low":1,"range_high":2`},
		{"errno without name", &event.ConnectFail{Header: noon, Errno: 999}, `"connect_fail","errno":"E999","inferred":false,"range_low":0,"range_high":0`},
		{
			"explained", &event.ConnectFail{Header: noon, Errno: 99, Cause: event.CauseRangeTiny, Refused: event.Refused{TooYoung: 1}, PortsTotal: 1, PortsTimeWait: 1, Timestamps: event.TimestampsYes, PerCall: 3},
			`"connect_fail","errno":"EADDRNOTAVAIL","inferred":false,"range_low":0,"range_high":0,"cause":"range_tiny",` +
				`"refused":{"disabled":0,"loopback_only":0,"no_timestamps":0,"too_young":1,"fin_wait2":0},` +
				`"ports_total":1,"ports_time_wait":1,"ports_in_use":0,"timestamps":"yes","per_call":3`,
		},
		{
			"bound", &event.TimeWait{Header: noon, Bound: true},
			`"time_wait","role":"unknown","substate":"time_wait","timestamps":false,"timeout_ms":0,"bound":true`,
		},
		{
			"finding", &event.Finding{
				Header: noon, ID: "port-exhaustion/1", Code: "port-exhaustion", State: event.FindingClose, Severity: event.SeverityCritical,
				Subject: event.Subject{NetNS: 7, Raddr: netip.MustParseAddr("::ffff:10.0.0.2"), Rport: 80, Comm: "a\nb"}, Summary: "all is lost",
				Evidence:   []event.Fact{{Name: "z", Number: 1.0 / 3}, {Name: "a", Text: "b"}, {Name: "n", Number: math.Inf(1)}},
				Confidence: 7, WrongIf: "it works", Remedies: []event.Remedy{{Do: "this", Why: "that"}},
			},
			`"finding","id":"port-exhaustion/1","code":"port-exhaustion","state":"close","severity":"critical",` +
				`"subject":{"netns":7,"raddr":"10.0.0.2","rport":80,"comm":"a\\x0ab"},"summary":"all is lost",` +
				`"evidence":{"z":0.333,"a":"b","n":0},"confidence":1,"wrong_if":"it works","remedies":[{"do":"this","why":"that"}]`,
		},
		{
			"destinations", &event.Destinations{
				Header: noon, Omitted: 3, List: []event.Destination{{NetNS: 7, Rport: 80, Rate: math.NaN(), RateOut: -1, SustainableRate: 50.0 / 3, ExhaustedInS: -1}},
				Namespaces: []event.NamespacePorts{{NetNS: 7, Sysctls: map[string]string{"r": "1\t2"}, Listening: "22", HasListening: true}},
			},
			`"destinations","destinations":[{"netns":7,"rport":80,"ports_total":0,"ports_reserved":0,"ports_blocked":0,"in_use":0,"time_wait":0,"reusable":0,` +
				`"refused":{"disabled":0,"loopback_only":0,"no_timestamps":0,"too_young":0,"fin_wait2":0},"timestamps":"unknown",` +
				`"rate":0,"rate_out":0,"sustainable_rate":16.667,"reused":0,"failed":0,"failed_calls":0,` +
				`"closed_here":0,"closed_there":0,"closed_reset":0,"bound":0}],` +
				`"namespaces":[{"netns":7,"sysctls":{"r":"1 2"},"listening":"22"}],"omitted":3,"evicted":0`,
		},
		{"reusable", &event.Census{Header: noon}, `"census","role":"unknown","substate":"time_wait","timestamps":false,"remaining_ms":0,"reusable":true`},
		{
			"too young", &event.Census{Header: noon, Reuse: event.ReuseRefusedTooYoung, ReuseInMS: 3},
			`"census","role":"unknown","substate":"time_wait","timestamps":false,"remaining_ms":0,"reusable":false,"refused":"too_young","reuse_in_ms":3`,
		},
		{"counter rung", &event.PAWSReject{Header: noon, Counter: "PAWSEstab", Count: 3}, `"paws_reject","where":"unknown","counter":"PAWSEstab","count":3`},
		{
			"paws", &event.PAWSReject{Header: noon, Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSRecent: 5, Delta: -5, HasAge: true, Reply: event.ReplyACK, Reason: "TCP_RFC7323_TW_PAWS"},
			`"paws_reject","where":"time_wait","segment":"syn","tsval":0,"ts_recent":5,"delta":-5,"age_ms":0,"reply":"ack","reason":"TCP_RFC7323_TW_PAWS","seq":0`,
		},
		{
			"judged", &event.SYNReject{
				Header: noon, Rule: event.RuleSequence, Seq: 9, RcvNxt: 10, TTL: 63,
				Judgement: event.Judgement{Verdict: event.VerdictSeqReject, Odds: 1.5, HasOffset: true, OffsetS: -0.25, Because: "no timestamps"},
			},
			`"syn_reject","rule":"sequence","timestamps":false,"seq":9,"rcv_nxt":10,"ttl":63,"verdict":"seq-reject","log10_odds":1.5,"offset_s":-0.25,"because":"no timestamps"`,
		},
		{
			"foreign bytes", &event.TWReuse{Header: noon, Socket: event.Socket{Owner: event.Owner{PID: 1, Comm: "a\n\"\x1b[2J\xff\u202e"}}},
			`"tw_reuse","pid":1,"comm":"a\\x0a\"\\x1b[2J\\xff\\u{202e}","age_ms":0`,
		},
		{
			"sysctl with tabs", &event.SysctlChange{Header: noon, NetNS: 1, Name: "net.ipv4.ip_local_port_range", Old: "32768\t60999\n"},
			`"sysctl_change","netns":1,"name":"net.ipv4.ip_local_port_range","old":"32768 60999"`,
		},
	}
	enc := event.NewEncoder()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line := enc.Append([]byte("before|"), tt.ev)
			want := `before|{"time":"2026-11-22T12:00:00.000000001Z","event":` + tt.want + "}\n"
			if string(line) != want {
				t.Errorf("got  %swant %s", line, want)
			}
			eventtest.Validate(t, bytes.TrimPrefix(line, []byte("before|")))
		})
	}
}

func TestTime(t *testing.T) {
	enc := event.NewEncoder()
	r := rand.New(rand.NewPCG(1, 2))
	times := []int64{0, -1, 1, 999999999, 1e9, -1e9, math.MinInt64, math.MaxInt64}
	for range 1000 {
		times = append(times, int64(r.Uint64()))
	}
	for _, ns := range times {
		line := enc.Append(nil, &event.Loss{Header: event.Header{Time: ns}})
		want := `{"time":"` + time.Unix(0, ns).UTC().Format("2006-01-02T15:04:05.000000000Z") + `"`
		if !strings.HasPrefix(string(line), want) {
			t.Fatalf("%d: got %s, want %s", ns, line, want)
		}
		ev, err := event.Decode(line)
		if err != nil || ev.UnixNano() != ns {
			t.Fatalf("%d: decoded as %v, %v", ns, ev, err)
		}
	}
}

func TestMarshalZerologObjectAgreesWithEncoder(t *testing.T) {
	// foreign hides the events' type, so that the Encoder takes the way of
	// events from other packages.
	type foreign struct{ event.Event }
	enc := event.NewEncoder()
	for _, k := range event.Kinds() {
		ev := eventtest.Random(rand.New(rand.NewPCG(3, uint64(k))), k)
		if got, want := enc.Append(nil, foreign{ev}), enc.Append(nil, ev); !bytes.Equal(got, want) {
			t.Errorf("got %swant %s", got, want)
		}
	}
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("\"", 1<<20)
	many := &event.Start{Header: at("2026-11-22T12:00:00Z"), Version: long, Filters: map[string][]string{"pid": {}}}
	stats := event.Stats{Seen: map[string]uint64{}}
	for i := range 1000 {
		key := fmt.Sprintf("net.ipv4.key%d", i)
		many.Sysctls = append(many.Sysctls, event.NamespaceSysctls{
			NetNS: uint32(i), Names: []string{"name"}, Values: map[string]string{key: long, "net.ipv4.tcp_tw_reuse": "2"},
		})
		many.Census = append(many.Census, event.NamespaceCensus{Refused: map[string]uint64{key: 1}})
		many.Lost = append(many.Lost, long)
		many.Filters["pid"] = append(many.Filters["pid"], long)
		stats.Reconcile = append(stats.Reconcile, event.Reconciliation{Counter: "TW", Why: long})
		stats.Seen[key] = 1
	}
	plain := &event.Start{Sysctls: make([]event.NamespaceSysctls, 1000)}
	for i := range plain.Sysctls {
		plain.Sysctls[i].Values = map[string]string{"net.ipv4.tcp_tw_reuse": "2", "net.ipv4.ip_local_port_range": "32768 60999"}
	}
	finding := &event.Finding{Summary: long, Evidence: make([]event.Fact, 10)}
	for range 20 {
		finding.Remedies = append(finding.Remedies, event.Remedy{Do: long, Why: long, Buys: long, Caveat: long})
	}
	enc := event.NewEncoder()
	for _, ev := range []event.Event{many, plain, &stats, &event.Stop{Stats: stats, Reason: long}, finding} {
		line := enc.Append(nil, ev)
		if len(line) > event.MaxLine || !bytes.Contains(line, []byte(`"truncated":true`)) {
			t.Errorf("%s: %d bytes, truncated is not said", ev.Kind(), len(line))
		}
		eventtest.Validate(t, line)
	}
	if n := len(enc.Append(nil, plain)); n < event.MaxLine/3 {
		t.Errorf("1000 namespaces were cut down to %d bytes", n)
	}
	if n := len(many.Sysctls[0].Values); n != 2 || many.Truncated {
		t.Error("Append changed its argument")
	}
	socket := connection
	socket.Owner = event.Owner{Comm: long, Cgroup: long}
	line := enc.Append(nil, &event.PAWSReject{Socket: socket, Reason: long, Counter: strings.Repeat("\u202e", 9999)})
	eventtest.Validate(t, line)
}

// TestConclusionFits has a conclusion added to a stop event that was cut before
// it was drawn: nothing more is cut then, so a reader draws the same one.
func TestConclusionFits(t *testing.T) {
	stop := &event.Stop{Stats: event.Stats{Header: at("2026-11-22T12:00:00Z")}, Reason: "SIGINT"}
	for i := range 1000 {
		stop.Reconcile = append(stop.Reconcile, event.Reconciliation{NetNS: uint32(i), Counter: "TW", Why: strings.Repeat("w", 50)})
	}
	enc := event.NewEncoder()
	bare, err := enc.Canonical(stop)
	if err != nil {
		t.Fatal(err)
	}
	full := *bare.(*event.Stop)
	head := `{"answer":"`
	full.Conclusion = json.RawMessage(head + strings.Repeat("x", event.MaxConclusion-len(head)-len(`"}`)) + `"}`)
	line := enc.Append(nil, &full)
	if len(line) > event.MaxLine {
		t.Errorf("%d bytes", len(line))
	}
	got, err := event.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&full, got, compare); diff != "" {
		t.Errorf("decoded event differs (-want +got):\n%s", diff)
	}
	if n := len(full.Reconcile); n < 100 || n == 1000 {
		t.Errorf("%d counters are left", n)
	}
}

func TestBadConclusions(t *testing.T) {
	for name, raw := range map[string]string{
		"none": "", "no JSON": "{", "no object": "[1]", "two lines": "{\n}", "too long": `{"a":"` + strings.Repeat("x", event.MaxConclusion) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			line := event.NewEncoder().Append(nil, &event.Stop{Reason: "SIGINT", Conclusion: json.RawMessage(raw)})
			eventtest.Validate(t, line)
			if bytes.Contains(line, []byte("verdict")) {
				t.Errorf("got %s", line)
			}
		})
	}
	line := `{"time":"2026-01-02T03:04:05.000000006Z","event":"stop","reason":"x","uptime_ms":1,"seen":{},"written":{},"lost":{},"reconcile":[],"clock_step_ms":0,"verdict":[]}`
	if _, err := event.Decode([]byte(line)); err == nil || !strings.Contains(err.Error(), `member "verdict"`) {
		t.Errorf("a verdict that is no object: %v", err)
	}
}

func TestLongDestinations(t *testing.T) {
	d := &event.Destinations{Header: at("2026-11-22T12:00:00Z"), List: make([]event.Destination, 1000), Omitted: 7}
	for i := range d.List {
		d.List[i].NetNS = uint32(i)
	}
	enc := event.NewEncoder()
	line := enc.Append(nil, d)
	eventtest.Validate(t, line)
	got, err := enc.Canonical(d)
	if err != nil {
		t.Fatal(err)
	}
	c := got.(*event.Destinations)
	if n := len(c.List); n < 50 || uint64(n)+c.Omitted != 1007 || c.List[n-1].NetNS != uint32(n-1) {
		t.Errorf("%d destinations and %d omitted of 1007", n, c.Omitted)
	}
	if again := enc.Append(nil, c); !bytes.Equal(line, again) {
		t.Errorf("got  %swant %s", again, line)
	}
}

func TestTooLongForeignEvent(t *testing.T) {
	u := &wide{Unknown: event.Unknown{Header: at("2026-11-22T12:00:00Z")}}
	ev, err := event.Decode(event.NewEncoder().Append(nil, u))
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := ev.(*event.Loss); !ok || l.Hop != "encode" || l.Count != 1 || l.Time != u.Time {
		t.Errorf("got %+v, want a loss", ev)
	}
}

func TestEncodeAllocatesNothing(t *testing.T) {
	enc := event.NewEncoder()
	buf := make([]byte, 0, 1<<12)
	for _, ev := range hot() {
		if n := testing.AllocsPerRun(100, func() { buf = enc.Append(buf[:0], ev) }); n != 0 {
			t.Errorf("%s: %v allocations", ev.Kind(), n)
		}
	}
}

// hot returns one event of each kind that can come often, with all members.
func hot() []event.Event {
	h := at("2026-11-22T12:00:00.123456789Z")
	return []event.Event{
		&event.TimeWait{Header: h, Socket: connection, Role: event.RoleClient, Timestamps: true, TSRecent: 1234567890, TimeoutMS: 60000},
		&event.Census{Header: h, Socket: connection, Timestamps: true, Reuse: event.ReuseRefusedTooYoung},
		&event.TimeWaitEnd{Header: h, Socket: connection, AgeMS: 60000},
		&event.TWReuse{Header: h, Socket: connection, AgeMS: 1500},
		&event.ConnectFail{
			Header: h, Socket: connection, Errno: 99, RangeLow: 32768, RangeHigh: 60999, Cause: event.CauseTimeWaitNotReusable,
			Refused: event.Refused{NoTimestamps: 28000}, PortsTotal: 28232, PortsTimeWait: 28000, PortsInUse: 232, Timestamps: event.TimestampsNo, PerCall: 3,
		},
		&event.SYN{Header: h, Socket: connection, Timestamps: true, TSval: 1234567890, TTL: 64, Fingerprint: "64:1460:mss,sok,ts,nop,ws"},
		&event.SYNRefused{Header: h, Socket: connection, Attempts: 1, DelayMS: 1000},
		&event.PAWSReject{
			Header: h, Socket: connection, Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSval: 1234567890,
			TSRecent: 1234569999, Delta: -2109, AgeMS: 3000, HasAge: true, Reply: event.ReplyACK, Reason: "TCP_RFC7323_TW_PAWS", Counter: "PAWSTimewait", Count: 1,
		},
		&event.Loss{Header: h, Hop: "rate", Of: "time_wait", Count: 12, Why: "more lines than --rate allows"},
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, ev := range hot() {
		b.Run(ev.Kind().String(), func(b *testing.B) {
			enc := event.NewEncoder()
			const batch = 256 << 10
			buf := make([]byte, 0, batch+event.MaxLine)
			b.ReportAllocs()
			b.SetBytes(int64(len(enc.Append(nil, ev))))
			for b.Loop() {
				if len(buf) >= batch {
					buf = buf[:0]
				}
				buf = enc.Append(buf, ev)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	line := event.NewEncoder().Append(nil, hot()[0])
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := event.Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
