// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/verdict"
)

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestNumbers(t *testing.T) {
	v := conclude(t, exhausted()...)
	for name, tt := range map[string]struct{ got, want any }{
		"connections": {v.Connections, verdict.Connections{
			Made: 21000, ClosedHere: 1000, Reset: 20000, ActiveS: 52, MeanPerS: 403.846, PeakPerS: 500,
		}},
		"time_wait": {v.TimeWait, verdict.TimeWait{Entered: 1000, Peak: 1000}},
		"ports": {v.Ports, &verdict.PortUse{
			Target: verdict.Target{NetNS: netns, Laddr: local, Raddr: remote, Rport: 80}, Used: 1000, Total: 1000, Share: 1, Looks: 5,
		}},
		"failures": {v.Failures, verdict.Failures{Kernel: 500, NoPort: 1, ByCause: []verdict.CauseFailure{{Cause: "time_wait_not_reusable", Kernel: 1}}}},
		"lost":     {v.Lost, []verdict.Loss{{Hop: "ring", Of: "time_wait", Count: 3, Why: "the ring buffer was full"}}},
		"codes": {v.Codes, []verdict.Code{
			{Code: "port-exhaustion", Severity: "critical", Findings: 1}, {Code: "tw-reuse-inert", Severity: "warning", Findings: 1},
		}},
		"remedies for": {v.Remedies[0].Codes, []string{"port-exhaustion", "tw-reuse-inert"}},
		"open":         {conclude(t, lagging()...).Destinations[0].OpenS, 2.0},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.got, sameAddr); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestTimeWaitPeak follows the timers, re-uses and ends.
func TestTimeWaitPeak(t *testing.T) {
	s := start()
	s.Census = []event.NamespaceCensus{{NetNS: netns, TimeWait: 2}}
	list := []event.Event{
		s,
		&event.Census{Header: at(0), Socket: socket(1), RemainingMS: 5000}, &event.Census{Header: at(0), Socket: socket(2), RemainingMS: 30000},
	}
	list = append(list, steady(1, 1, 100)...) // each second one, so that 60 are there at a time, and one of before until 30 s
	list = append(list, &event.TWReuse{Header: at(101), Socket: socket(40099), AgeMS: 2000}, stop(102))
	v := conclude(t, list...)
	if got := v.TimeWait; got.Before != 2 || got.Entered != 100 || got.Reused != 1 || got.Peak < 60 || got.Peak > 61 {
		t.Errorf("%+v", got)
	}
	c := verdict.New()
	for _, ev := range list[:len(list)-2] {
		c.Feed(ev)
	}
	now := epoch.UnixNano()
	const second = 1_000_000_000
	for _, tt := range []struct{ at, least, most uint64 }{{100, 59, 61}, {130, 29, 31}, {170, 0, 0}, {9999, 0, 0}} {
		if n := c.Live(now + int64(tt.at)*second).TimeWait; n < tt.least || n > tt.most {
			t.Errorf("%d s: %d in TIME_WAIT, want %d to %d", tt.at, n, tt.least, tt.most)
		}
	}
	before := c.Live(0).TimeWait
	c.Feed(list[len(list)-2])
	if after := c.Live(0).TimeWait; after+2 < before || after >= before {
		t.Errorf("%d in TIME_WAIT, %d after a re-use", before, after)
	}
}

// TestTimeWaitTakenOver: a SYN takes the place of a server's socket in TIME_WAIT
// and no event tells of it; the kernel's own number does.
func TestTimeWaitTakenOver(t *testing.T) {
	kernel := func(s float64, n uint64) *event.Stats { return &event.Stats{Header: at(s), TimeWait: &n} }
	end := func(s float64, n uint64) *event.Stop {
		e := stop(s)
		e.TimeWait = &n
		return e
	}
	for name, c := range map[string]struct {
		events     []event.Event
		peak, live uint64
	}{
		"as we count":                  {append(steady(1, 10, 10), kernel(3, 10), end(4, 10)), 10, 10},
		"more, of others or before us": {append(steady(1, 10, 10), kernel(3, 500), end(4, 500)), 10, 10},
		"six were taken over":          {append(steady(1, 10, 10), kernel(3, 4), end(4, 4)), 4, 4},
		"six after the peak": {
			append(append(steady(1, 10, 10), kernel(3, 10), kernel(4, 4)), end(5, 4)), 10, 4,
		},
		"three more since": {
			append(append(append(steady(1, 10, 10), kernel(3, 4)), steady(3, 10, 3)...), end(5, 7)), 7, 7,
		},
		"all are gone": {
			append(append(steady(1, 10, 10), kernel(3, 0)), end(300, 0)), 0, 0,
		},
		"the log does not tell": {append(steady(1, 10, 10), stop(4)), 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			v := conclude(t, append([]event.Event{start()}, c.events...)...)
			_, collector := record(t, append([]event.Event{start()}, c.events...)...)
			if live := collector.Live(0).TimeWait; v.TimeWait.Peak != c.peak || live != c.live {
				t.Errorf("%d at most, %d now, want %d and %d", v.TimeWait.Peak, live, c.peak, c.live)
			}
		})
	}
}

// TestCountsBehindLosses takes what the kernel side has counted where lines
// are missing.
func TestCountsBehindLosses(t *testing.T) {
	end := stop(9)
	end.Seen = map[string]uint64{"time_wait": 1000, "connect_fail": 7, "tw_reuse": 3}
	end.Lost = map[string]uint64{"rate": 996}
	v := conclude(t, append(append([]event.Event{start()}, steady(1, 4, 4)...), end)...)
	if v.Connections.Made != 1000 || v.TimeWait.Entered != 1000 || v.TimeWait.Reused != 3 || v.Failures.Kernel != 7 {
		t.Errorf("%+v, %+v, %+v", v.Connections, v.TimeWait, v.Failures)
	}
	if len(v.Lost) != 1 || v.Lost[0].Hop != "rate" || v.Lost[0].Count != 996 || len(v.Doubts) != 1 {
		t.Errorf("lost %+v, doubts %q", v.Lost, v.Doubts)
	}
}

// TestWithheldLines has a log tell of lines that it withheld itself, which the
// run that wrote it did not see.
func TestWithheldLines(t *testing.T) {
	events := healthy()
	end := stop(7)
	end.Lost = map[string]uint64{"rate": 5}
	events[len(events)-1] = end
	log, c := record(t, events...)
	told := event.NewEncoder().Append(nil, &event.Loss{Header: at(6.9), Hop: "rate", Of: "time_wait", Count: 5})
	r := verdict.NewReplay()
	for line := range bytes.Lines(append(told, log...)) {
		ev, err := event.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := ev.(*event.Stop); ok {
			r.Feed(&event.Loss{Header: at(6.9), Hop: "rate", Of: "time_wait", Count: 5})
			r.Feed(&event.Start{Header: at(6.9), Part: 1}) // and of the file that it went on in
			ev = s
		}
		r.Feed(ev)
	}
	live, again := c.Verdict(), r.Verdict()
	live.Run.Earlier, again.Run.Earlier = 0, 0
	if diff := cmp.Diff(live, again, sameAddr); diff != "" {
		t.Errorf("-live +replay:\n%s", diff)
	}
}

// TestCalmAndInfo offers no remedies where nothing is to be remedied.
func TestCalmAndInfo(t *testing.T) {
	list := append([]event.Event{start()}, steady(1, 100, 300)...)
	list = append(list, budget(6, func(d *event.Destination) { d.TimeWait, d.Refused.NoTimestamps, d.ClosedHere = 300, 300, 300 }), stop(7))
	v := conclude(t, list...)
	if v.Basis != verdict.BasisNotClient || v.Severity != "info" || len(v.Findings) != 1 || len(v.Remedies) != 0 {
		t.Errorf("%s, %s, %d findings, remedies %+v", v.Basis, v.Severity, len(v.Findings), v.Remedies)
	}
}

// TestNamesOfDestinations has destinations that differ in what is not shown.
func TestNamesOfDestinations(t *testing.T) {
	list := []event.Event{start()}
	for i := range 3 {
		ev := timeWait(1, 40000)
		ev.NetNS = netns + uint32(i/2)
		ev.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i%2)}), 40000)
		list = append(list, ev)
	}
	other := timeWait(1, 40000)
	other.Remote = netip.AddrPortFrom(remote, 81)
	v := conclude(t, append(list, other, stop(2))...)
	text := v.Text(verdict.Style{Width: 200})
	for _, want := range []string{
		"  10.0.0.10 -> 10.0.0.2:80 in netns 4026532000 ", "  10.0.0.10 -> 10.0.0.2:80 in netns 4026532001 ", "  10.0.0.11 -> 10.0.0.2:80 ", "\n  10.0.0.2:81 ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestCallsByCause divides failures of the kernel by what one call makes.
func TestCallsByCause(t *testing.T) {
	list := []event.Event{start()}
	for range 7 {
		f := fail(1, event.CausePortsInUse)
		f.PerCall = 3
		list = append(list, f)
	}
	list = append(list, fail(1, event.CauseReserved), stop(2))
	got := conclude(t, list...).Failures.ByCause
	want := []verdict.CauseFailure{{Cause: "ports_in_use", Kernel: 7, Calls: 2}, {Cause: "reserved", Kernel: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestForgottenBudgets has the totals of a budget begin anew.
func TestForgottenBudgets(t *testing.T) {
	v := conclude(t, start(),
		budget(1, func(d *event.Destination) { d.ClosedThere, d.ClosedReset, d.Failed = 100, 10, 4 }),
		budget(2, func(d *event.Destination) { d.ClosedThere, d.ClosedReset, d.Failed = 30, 10, 1 }),
		budget(3, func(d *event.Destination) { d.ClosedThere, d.ClosedReset, d.Failed = 40, 11, 1 }), stop(4))
	d := v.Destinations[0]
	if d.ClosedThere != 140 || d.Reset != 11 || d.Failed != 5 || v.Connections.Made != 151 {
		t.Errorf("%+v", d)
	}
}

func TestSecondRun(t *testing.T) {
	v := conclude(t, append(exhausted(), healthy()...)...)
	if v.Run.Earlier != 1 || v.Basis != verdict.BasisNotClient || len(v.Findings) != 0 || v.Connections.Made != 400 {
		t.Errorf("%+v", v)
	}
}

// TestCrowd has more destinations than there is room for: the busiest are
// known, and all connections are counted.
func TestCrowd(t *testing.T) {
	c := verdict.New()
	c.Feed(start())
	const many = 6000
	for i := range uint32(many) {
		ev := timeWait(1, 40000)
		ev.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0b000000+i))), 80)
		c.Feed(ev)
	}
	for i := range 200 {
		c.Feed(budget(2, func(d *event.Destination) { d.Rport, d.ClosedThere = uint16(81+i), uint64(1000+i) }))
	}
	c.Feed(stop(3))
	v := c.Verdict()
	if v.Connections.ClosedHere != many || v.Connections.ClosedThere != 200*1000+200*199/2 {
		t.Errorf("%+v", v.Connections)
	}
	if d := v.Destinations[0]; d.Rport != 280 || d.Made != 1199 {
		t.Errorf("the busiest is %+v", d)
	}
	if len(v.Doubts) != 1 {
		t.Errorf("doubts %q", v.Doubts)
	}
}

func TestLive(t *testing.T) {
	list := exhausted()
	i := slices.IndexFunc(list, func(ev event.Event) bool { return ev.Kind() == event.KindLoss })
	_, c := record(t, list[:i+1]...)
	l := c.Live(at(14.5).Time)
	if l.UptimeS != 14.5 || l.TimeWait != 1000 || l.Made != 1000 || l.Lost != 3 || l.Failures.Kernel != 500 {
		t.Errorf("%+v", l)
	}
	if len(l.Findings) != 2 || l.Findings[0].Code != "port-exhaustion" {
		t.Errorf("findings %+v", l.Findings)
	}
	want := []verdict.LiveDestination{{
		Target: verdict.Target{NetNS: netns, Laddr: local, Raddr: remote, Rport: 80}, PortsTotal: 1000, TimeWait: 1000, Failed: 500,
	}}
	if diff := cmp.Diff(want, l.Destinations, sameAddr); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	_, c = record(t, list...)
	if l := c.Live(at(54).Time); len(l.Findings) != 0 || l.PerS != 500 || l.Destinations[0].PortsLeft != 1000 || l.Destinations[0].SecondsLeft != -1 {
		t.Errorf("after the cure: %+v", l)
	}
	c = verdict.New()
	c.Feed(start())
	for _, ev := range steady(1, 50, 500) {
		c.Feed(ev)
	}
	for s, want := range map[float64]float64{11: 50, 12: 40, 13.5: 30, 20: 0} {
		if got := c.Live(at(s).Time).PerS; got != want {
			t.Errorf("%v s: %v/s, want %v", s, got, want)
		}
	}
	c.Feed(budget(20, func(d *event.Destination) { d.ExhaustedInS = 12 }))
	if got := c.Live(at(25).Time).Destinations[0].SecondsLeft; got != 7 {
		t.Errorf("%v s left", got)
	}
	if l := verdict.New().Live(at(1).Time); l.UptimeS != 0 || l.Made != 0 {
		t.Errorf("of nothing: %+v", l)
	}
}

// TestFeedAllocatesNothing holds for the events that come by the thousand.
func TestFeedAllocatesNothing(t *testing.T) {
	c := verdict.New()
	c.Feed(start())
	tw, reuse, rej := timeWait(1, 40000), &event.TWReuse{Header: at(1), Socket: socket(1)}, paws(1, event.VerdictRestart)
	f, syn := fail(1, event.CausePortsInUse), refused(1, event.SignatureSilence, 1)
	if n := testing.AllocsPerRun(100, func() {
		for _, ev := range []event.Event{tw, reuse, rej, f, syn} {
			c.Feed(ev)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzFeed holds that no log makes a Collector panic, that its memory has a
// bound, and that the same log gives the same verdict.
func FuzzFeed(f *testing.F) {
	f.Add(uint64(1), uint16(500))
	f.Add(uint64(2), uint16(900))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16) {
		a, b := verdict.New(), verdict.NewReplay()
		c := verdict.NewReplay()
		r := rand.New(rand.NewPCG(seed, 1))
		enc := event.NewEncoder()
		kinds := event.Kinds()
		for range n % 1000 {
			k := kinds[r.IntN(len(kinds))]
			if k == event.KindStart && r.IntN(50) > 0 {
				k = event.KindFinding
			}
			ev := eventtest.Random(r, k)
			a.Feed(ev)
			b.Feed(ev)
			canonical, err := enc.Canonical(ev)
			if err != nil {
				t.Fatal(err)
			}
			c.Feed(canonical)
		}
		for _, v := range []verdict.Verdict{a.Verdict(), b.Verdict()} {
			raw := v.Encode()
			if len(raw) > event.MaxConclusion {
				t.Errorf("%d bytes", len(raw))
			}
			eventtest.Validate(t, enc.Append(nil, &event.Stop{Stats: event.Stats{Seen: map[string]uint64{}}, Conclusion: raw}))
			again, err := verdict.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if twice := again.Encode(); !bytes.Equal(raw, twice) {
				t.Errorf("read back it is\n%s\nit was\n%s", twice, raw)
			}
			change := verdict.Compare(v, again)
			if change.Change != verdict.ChangeSame {
				t.Errorf("it differs from itself: %+v", change)
			}
			_ = v.Text(verdict.Style{Width: int(seed % 100)}) + v.Markdown() + change.Text(verdict.Style{}) + change.Markdown()
		}
		v, w := b.Verdict(), c.Verdict()
		if x, y := v.Encode(), w.Encode(); !bytes.Equal(x, y) {
			t.Errorf("the run tells\n%s\na reader of its log\n%s", x, y)
		}
		_ = a.Live(int64(seed))
	})
}

// TestMemory feeds what keeps most of memory, without end.
func TestMemory(t *testing.T) {
	c := verdict.New()
	r := rand.New(rand.NewPCG(5, 5))
	c.Feed(start())
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	kinds := []event.Kind{event.KindTimeWait, event.KindConnectFail, event.KindSYNRefused, event.KindFinding, event.KindDestinations, event.KindLoss}
	feed := func() {
		for i := range 6000 {
			c.Feed(eventtest.Random(r, kinds[i%len(kinds)]))
		}
	}
	feed()
	full := heap()
	feed()
	if now := heap(); now > full+full/2+1<<20 {
		t.Errorf("%d bytes after %d", now, full)
	}
	runtime.KeepAlive(c)
}
