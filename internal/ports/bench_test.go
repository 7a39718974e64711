// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"testing"

	"github.com/twscope/twscope/internal/event"
)

// steadyLoad is a book with a load that enters as many sockets as leave, over
// many destinations.
type steadyLoad struct {
	b     *Book
	e     *event.TimeWait
	at    int64
	gap   int64
	n     int
	dests int
}

func newSteadyLoad(destinations, perSecond int, ends bool) *steadyLoad {
	l := &steadyLoad{b: New(Options{HZ: 250, Ends: ends}), at: start, gap: seconds(1) / int64(perSecond), dests: destinations}
	l.b.Jiffies(start, 12345)
	f := facts(1024, 65535)
	f.TWReuse = 1
	l.b.Namespace(netns, start, f)
	l.e = timeWait(start, client, 0, server)
	l.e.Timestamps = true
	l.e.Owner = event.Owner{PID: 1, Comm: "wrk"}
	for range 65 * perSecond { // until as many leave
		l.enter()
	}
	return l
}

func (l *steadyLoad) enter() {
	l.at += l.gap
	l.n++
	l.e.Time = l.at
	l.e.Remote = remote(l.n % l.dests)
	l.e.Local = netipPort(uint16(1024 + l.n/l.dests%60_000))
	l.b.Enter(l.e)
}

func BenchmarkEnter(b *testing.B) {
	for _, bb := range []struct {
		name             string
		dests, perSecond int
	}{
		{"one destination", 1, 900},
		{"20,000 per second to 20", 20, 20_000},
		{"10,000 destinations", 10_000, 5_000},
	} {
		b.Run(bb.name, func(b *testing.B) {
			l := newSteadyLoad(bb.dests, bb.perSecond, false)
			b.ReportAllocs()
			for b.Loop() {
				l.enter()
			}
			b.ReportMetric(float64(l.b.Counters().Sockets), "sockets")
		})
	}
}

// BenchmarkEnterNew is Enter alone, before the first sockets leave; the others
// have the end of one socket in TIME_WAIT, and the end of its youth, in each.
func BenchmarkEnterNew(b *testing.B) {
	var l *steadyLoad
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%200_000 == 0 {
			b.StopTimer()
			l = newSteadyLoad(1, 1000, false)
			l.dests, l.gap = 20, 1000
			b.StartTimer()
		}
		l.enter()
	}
}

func BenchmarkBudgets(b *testing.B) {
	l := newSteadyLoad(10_000, 5_000, false)
	for b.Loop() {
		l.b.Budgets(l.at, 20)
	}
}

func BenchmarkFail(b *testing.B) {
	book := New(Options{HZ: 250})
	book.Namespace(netns, start, facts(10_000, 37_999))
	waits(book, 28_000, nil)
	e := fail(start + seconds(1))
	for b.Loop() {
		book.Fail(e)
	}
}

// BenchmarkForecasts is what all forecasts of 10,000 busy destinations cost,
// once a beat.
func BenchmarkForecasts(b *testing.B) {
	l := newSteadyLoad(10_000, 5_000, false)
	for b.Loop() {
		l.b.forecasts()
	}
}

// TestNoAllocations: events cost no memory once as many sockets leave as come.
func TestNoAllocations(t *testing.T) {
	for _, ends := range []bool{false, true} {
		l := newSteadyLoad(50, 2_000, ends)
		l.b.Opens(netns, l.at, nil)
		leave, reuse, failure := &event.TimeWaitEnd{}, &event.TWReuse{}, fail(l.at)
		step := func() {
			for range 20 {
				l.enter()
			}
			leave.Time, leave.Socket = l.at, l.e.Socket
			l.b.Leave(leave)
			l.enter()
			reuse.Time, reuse.Socket = l.at, l.e.Socket
			l.b.Reuse(reuse)
			l.enter()
			failure.Time, failure.Remote = l.at, l.e.Remote
			l.b.Fail(failure)
			l.b.Urgent(l.at)
		}
		for range 1000 {
			step()
		}
		if n := testing.AllocsPerRun(5000, step); n != 0 {
			t.Errorf("ends %t: %v allocations in 23 events", ends, n)
		}
	}
}
