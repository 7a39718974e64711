// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twscope/twscope/internal/event"
)

// load plays a client that closes first against a book and a kernel of the
// same range: connect() fails when every port is in TIME_WAIT.
type load struct {
	ports int
	hz    int
	phase bool // the phase of jiffies is told
	rate  func(s float64) float64
	// spread is the jitter of the gap between two connects, relative to it;
	// negative: as a Poisson process.
	spread     float64
	timestamps bool
	facts      Facts
	length     float64 // seconds
}

type told struct{ at, in float64 } // a forecast, and when it was made, in seconds

type outcome struct {
	dry       float64 // when the first connect() failed, -1: never
	forecasts []told  // of every 100 ms that there was one
	urgent    []float64
	last      event.Destination
}

func (l load) run(seed uint64) outcome {
	r := rand.New(rand.NewPCG(seed, 7))
	b := New(Options{HZ: l.hz})
	kernel := newTimer(l.hz)
	kernel.observe(start-int64(seed*777_777_777), 1000)
	if l.phase {
		b.Jiffies(start-int64(seed*777_777_777), 1000)
	}
	if l.facts.RangeHigh == 0 {
		l.facts = facts(10_000, uint16(9_999+l.ports))
	}
	b.Namespace(netns, start, l.facts)
	type port struct{ free, ripe int64 }
	held := make([]port, l.ports)
	out := outcome{dry: -1}
	at, look, hand := start, start, 0
	for end := start + seconds(l.length); at < end; {
		gap := 1 / l.rate(float64(at-start)/1e9)
		switch {
		case l.spread < 0:
			gap *= r.ExpFloat64()
		default:
			gap *= 1 + l.spread*(2*r.Float64()-1)
		}
		next := at + seconds(min(gap, 1))
		for ; look < min(next, end); look += seconds(0.1) {
			s := float64(look-start) / 1e9
			list := b.Budgets(look, 1).List
			if len(list) == 0 {
				continue
			}
			if out.last = list[0]; out.last.ExhaustedInS >= 0 {
				out.forecasts = append(out.forecasts, told{s, out.last.ExhaustedInS})
			}
			if b.Urgent(look) {
				out.urgent = append(out.urgent, s)
			}
		}
		if at = next; gap > 1 {
			continue // the load rests: nothing connects
		}
		found := false
		for range held {
			hand = (hand + 1) % len(held)
			if p := held[hand]; p.free <= at || l.timestamps && l.facts.TWReuse == 1 && p.ripe < at {
				found = true
				break
			}
		}
		if !found {
			if out.dry < 0 {
				out.dry = float64(at-start) / 1e9
			}
			f := &event.ConnectFail{Header: event.Header{Time: at}, Errno: eADDRNOTAVAIL}
			f.NetNS, f.Local, f.Remote = netns, netipPort(0), server
			b.Fail(f)
			continue
		}
		lport := l.facts.RangeLow + uint16(hand)
		if held[hand].free > at {
			u := &event.TWReuse{Header: event.Header{Time: at}}
			u.NetNS, u.Local, u.Remote = netns, netipPort(lport), server
			b.Reuse(u)
		}
		held[hand] = port{kernel.end(at, timeWaitLen, timeWaitLen), at + seconds(1)}
		e := timeWait(at, client, lport, server)
		e.Timestamps = l.timestamps
		b.Enter(e)
	}
	return out
}

func constant(rate float64) func(float64) float64 {
	return func(float64) float64 { return rate }
}

// never is a pace that no connect() is ever made at.
const never = 1e-9

// TestForecastAhead: what will run out is known 20 s ahead, within 20 %.
func TestForecastAhead(t *testing.T) {
	for _, k := range []struct{ hz, ports int }{{250, 1000}, {1000, 2000}, {100, 5000}} {
		for i, in := range []float64{32, 36, 40, 45, 50} {
			for _, spread := range []float64{0, 0.3, -1} {
				l := load{ports: k.ports, hz: k.hz, phase: i%2 == 0, rate: constant(float64(k.ports) / in), spread: spread, length: in + 5}
				t.Run(fmt.Sprintf("%d ports in %.0f s/%.1f", k.ports, in, spread), func(t *testing.T) {
					l.check(t, uint64(i+1))
				})
			}
		}
	}
}

func (l load) check(t *testing.T, seed uint64) {
	t.Helper()
	o := l.run(seed)
	if o.dry < 0 {
		t.Fatal("the ports did not run out")
	}
	first := -1.0
	for _, f := range o.forecasts {
		if f.at >= o.dry {
			break
		}
		if first < 0 {
			first = f.at
		}
		left := o.dry - f.at
		// the second of exhaustion, as seen from the start of the load
		if off := f.at + f.in - o.dry; off > 0.2*o.dry || off < -0.2*o.dry {
			t.Errorf("%.1f s ahead: forecast is %.1f s", left, f.in)
		}
	}
	if first < 0 || o.dry-first < 20 {
		t.Errorf("first forecast at %.1f s, exhausted at %.1f s", first, o.dry)
	}
	if len(o.urgent) == 0 || o.urgent[0] > o.dry-20 {
		t.Errorf("urgent at %.1f, exhausted at %.1f s", o.urgent, o.dry)
	}
}

// TestForecastNever: where nothing runs out, nothing is forecast.
func TestForecastNever(t *testing.T) {
	reuse := facts(10_000, 10_999)
	reuse.TWReuse = 1
	for _, tt := range []struct {
		name string
		load load
	}{
		{"95 % of the pace", load{ports: 1000, hz: 250, phase: true, rate: constant(0.95 * 1000 / 60.)}},
		{"95 % of the pace, many ports", load{ports: 28_232, hz: 250, phase: true, rate: constant(0.95 * 28_232 / 60.)}},
		{"95 %, jitter", load{ports: 1000, hz: 250, phase: true, spread: 0.2, rate: constant(0.95 * 1000 / 60.)}},
		{"95 %, jitter, no phase", load{ports: 1000, hz: 250, spread: 0.2, rate: constant(0.95 * 1000 / 60.)}},
		{"90 %, HZ 1000, no phase", load{ports: 1000, hz: 1000, spread: 0.9, rate: constant(0.9 * 1000 / 60.)}},
		{"85 %, Poisson", load{ports: 1000, hz: 250, phase: true, spread: -1, rate: constant(0.85 * 1000 / 60.)}},
		{"half the pace", load{ports: 1000, hz: 250, phase: true, rate: constant(8)}},
		{"re-use", load{ports: 1000, hz: 250, phase: true, rate: constant(300), timestamps: true, facts: reuse}},
		{"a burst", load{ports: 1000, hz: 250, rate: func(s float64) float64 {
			if s < 5 {
				return 150
			}
			return never
		}}},
		{"bursts", load{ports: 2000, hz: 250, rate: func(s float64) float64 {
			if int(s)%20 < 3 {
				return 150
			}
			return never
		}}},
		{"falling", load{ports: 3000, hz: 250, spread: 0.2, rate: func(s float64) float64 { return 100 / (1 + s*s/100) }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.load.length = 300
			for seed := range uint64(3) {
				if o := tt.load.run(seed); o.dry >= 0 {
					t.Errorf("seed %d: exhausted at %.1f s", seed, o.dry)
				} else if len(o.forecasts) > 0 {
					t.Errorf("seed %d: %d forecasts, the first %.1f", seed, len(o.forecasts), o.forecasts[0])
				} else if len(o.urgent) > 0 {
					t.Errorf("seed %d: urgent at %.1f", seed, o.urgent)
				}
			}
		})
	}
}

// TestForecastStops: the forecast of a load that stops is gone within 2 s.
func TestForecastStops(t *testing.T) {
	l := load{ports: 1000, hz: 250, phase: true, length: 60, rate: func(s float64) float64 {
		if s < 20 {
			return 25
		}
		return never
	}}
	o := l.run(1)
	if len(o.forecasts) == 0 {
		t.Fatal("no forecast while it ran")
	}
	if last := o.forecasts[len(o.forecasts)-1]; last.at < 19 || last.at > 22 {
		t.Errorf("last forecast at %.1f s, the load stopped at 20 s", last.at)
	}
}

// TestForecastDoubles: a load that doubles has a forecast that is as right as
// if it had begun so, 12 s later.
func TestForecastDoubles(t *testing.T) {
	l := load{ports: 2000, hz: 250, phase: true, length: 80, spread: 0.1, rate: func(s float64) float64 {
		if s < 25 {
			return 20
		}
		return 40
	}}
	o := l.run(1)
	if o.dry < 0 {
		t.Fatal("the ports did not run out")
	}
	seen := false
	for _, f := range o.forecasts {
		if f.at < 37 || f.at > o.dry {
			continue
		}
		seen = true
		if off := f.at + f.in - o.dry; off > 4 || off < -4 {
			t.Errorf("at %.1f s: in %.1f s, but it was at %.1f s", f.at, f.in, o.dry)
		}
	}
	if !seen {
		t.Error("no forecast")
	}
}

// TestForecastFailing: while connect() fails, the ports are exhausted now; and
// the first failure is urgent.
func TestForecastFailing(t *testing.T) {
	l := load{ports: 100, hz: 250, phase: true, length: 20, rate: constant(50)}
	o := l.run(1)
	if o.last.ExhaustedInS != 0 || o.last.Failed == 0 {
		t.Errorf("exhausted in %.1f s after %d failures", o.last.ExhaustedInS, o.last.Failed)
	}
	if len(o.urgent) == 0 || o.urgent[0] < o.dry || o.urgent[0] > o.dry+0.2 {
		t.Errorf("urgent at %.1f, first failure at %.1f s", o.urgent, o.dry)
	}
	if len(o.urgent) > 1 {
		t.Errorf("urgent again and again: %.1f", o.urgent)
	}
}

// TestForecastCapped: with tcp_max_tw_buckets below the ports there is no
// TIME_WAIT beyond it, and ports never run out.
func TestForecastCapped(t *testing.T) {
	for limit, want := range map[uint32]bool{0: true, 5000: true, 500: false} {
		f := facts(10_000, 10_999)
		f.MaxTWBuckets = limit
		b := New(Options{HZ: 250})
		b.Namespace(netns, start, f)
		at := start
		for i := range 400 { // 25 per second for 16 s
			at = start + int64(i)*40*msPerNS
			b.Enter(timeWait(at, client, uint16(10_000+i), server))
		}
		if d := only(t, b, at); (d.ExhaustedInS >= 0) != want {
			t.Errorf("limit %d: exhausted in %.1f s", limit, d.ExhaustedInS)
		}
	}
}

// TestForecastOpen: connections that stay open use ports up as well.
func TestForecastOpen(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_999))
	var list []Open
	for s := range 8 {
		at := start + seconds(float64(2*s))
		for range 50 { // 25 per second
			list = append(list, Open{Local: netipPort(uint16(10_000 + len(list))), Remote: server, Role: event.RoleClient})
		}
		b.Opens(netns, at, list)
		got := only(t, b, at+seconds(1.5))
		if got.InUse != uint32(len(list)) {
			t.Fatalf("%d in use, want %d", got.InUse, len(list))
		}
		want := float64(1000-len(list))/25 - 1.5
		if off := got.ExhaustedInS - want; s >= 5 && (off > 3 || off < -3) {
			t.Errorf("after %d s: %.1f, want %.1f", 2*s, got.ExhaustedInS, want)
		}
		if s > 1 && (got.Rate < 24 || got.Rate > 26) {
			t.Errorf("rate is %.1f, want 25", got.Rate)
		}
	}
	b.Opens(netns, start+seconds(16), list)
	b.Opens(netns, start+seconds(18), list)
	if got := only(t, b, start+seconds(19)); got.ExhaustedInS >= 0 {
		t.Errorf("no growth, but exhausted in %.1f s", got.ExhaustedInS)
	}
}
