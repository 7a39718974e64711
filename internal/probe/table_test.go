// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/twscope/twscope/internal/bpf"
)

const ms = uint64(1e6)

// tupleOf makes different tuples of different numbers.
func tupleOf(n int) bpf.Tuple {
	t := bpf.Tuple{Lport: uint16(n), Rport: uint16(n >> 16), Netns: 1}
	t.Laddr[15], t.Raddr[15] = 1, 2
	return t
}

// model is what the table should do, done simply: a list, oldest first.
type model []modelEntry

type modelEntry struct {
	n                int
	entered, expires uint64
	sndNxt           uint32
}

func (m *model) index(n int) int {
	return slices.IndexFunc(*m, func(e modelEntry) bool { return e.n == n })
}

func (m *model) drop(n int) {
	if i := m.index(n); i >= 0 {
		*m = slices.Delete(*m, i, i+1)
	}
}

func (m *model) enter(e modelEntry) {
	m.drop(e.n)
	*m = append(*m, e)
}

func (m *model) take(n int) (uint64, uint32, bool) {
	i := m.index(n)
	if i < 0 {
		return 0, 0, false
	}
	e := (*m)[i]
	m.drop(n)
	return e.entered, e.sndNxt, true
}

func (m *model) expire(now uint64) (told []modelEntry) {
	*m = slices.DeleteFunc(*m, func(e modelEntry) bool {
		if e.expires <= now {
			told = append(told, modelEntry{n: e.n, entered: e.entered, expires: e.expires})
		}
		return e.expires <= now
	})
	return told
}

func byNumber(a, b modelEntry) int { return a.n - b.n }

func TestTableAgainstModel(t *testing.T) {
	for _, tt := range []struct {
		name           string
		tuples, rounds int
		timeout        uint64
	}{
		{"few tuples, much re-use", 50, 30_000, 200},
		{"no growth", 800, 30_000, 500},
		{"growth", 20_000, 60_000, 6000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(tt.tuples)))
			tab := newTable(true)
			var m model
			now := 1000 * ms
			for round := range tt.rounds {
				now += r.Uint64N(3) * ms
				n := r.IntN(tt.tuples)
				switch r.IntN(10) {
				default:
					lasts := tt.timeout - r.Uint64N(tt.timeout/2)
					e := modelEntry{n, now, now + lasts*ms, r.Uint32()}
					tab.enter(new(tupleOf(n)), e.sndNxt, e.entered, uint32(lasts))
					m.enter(e)
				case 0:
					e, ok := tab.take(new(tupleOf(n)))
					since, seq, ok2 := m.take(n)
					if e.entered != since || e.sndNxt != seq || ok != ok2 {
						t.Fatalf("round %d: take %d gives %d %d %t, want %d %d %t", round, n, e.entered, e.sndNxt, ok, since, seq, ok2)
					}
				case 2:
					var told []modelEntry
					tab.expire(now, func(tuple bpf.Tuple, entered, expires uint64) {
						told = append(told, modelEntry{n: int(tuple.Lport) | int(tuple.Rport)<<16, entered: entered, expires: expires})
					})
					want := m.expire(now)
					slices.SortFunc(told, byNumber)
					slices.SortFunc(want, byNumber)
					if !slices.Equal(told, want) {
						t.Fatalf("round %d: told %v, want %v", round, told, want)
					}
				}
				if tab.live != len(m) {
					t.Fatalf("round %d: %d live, want %d", round, tab.live, len(m))
				}
			}
			for n := range tt.tuples {
				if found := tab.find(new(tupleOf(n))) != nil; found != (m.index(n) >= 0) {
					t.Fatalf("tuple %d: found %t", n, found)
				}
			}
		})
	}
}

func TestTableRearm(t *testing.T) {
	tab := newTable(true)
	tab.enter(new(tupleOf(1)), 7, 100*ms, 50)
	tab.rearm(tupleOf(1), 120*ms)
	tab.rearm(tupleOf(2), 120*ms) // is not there
	tab.expire(1000*ms, func(bpf.Tuple, uint64, uint64) { t.Error("it has ended although the timer was restarted") })
	var ended uint64
	tab.expire(60_120*ms, func(_ bpf.Tuple, entered, expires uint64) { ended = expires - entered })
	if ended != 60_020*ms {
		t.Errorf("it lasted %d ns", ended)
	}
}

func TestTableTellsShortOnesBehindLongOnes(t *testing.T) {
	tab := newTable(true)
	tab.enter(new(tupleOf(1)), 0, 100*ms, 1000)
	tab.enter(new(tupleOf(2)), 0, 110*ms, 20) // a FIN_WAIT2 with a small tcp_fin_timeout
	var told []uint16
	tell := func(tuple bpf.Tuple, _, _ uint64) { told = append(told, tuple.Lport) }
	tab.expire(200*ms, tell)
	if !slices.Equal(told, []uint16{2}) {
		t.Errorf("told %v, want 2", told)
	}
	tab.expire(2000*ms, tell)
	if !slices.Equal(told, []uint16{2, 1}) {
		t.Errorf("told %v, want 2 and 1", told)
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := newTable(false)
	for n := range tableMax + tableMax/4 {
		tab.enter(new(tupleOf(n)), 0, uint64(n), 1<<31)
	}
	if tab.live != tableMax-chunkLen {
		t.Fatalf("%d live", tab.live)
	}
	if tab.find(new(tupleOf(0))) != nil {
		t.Error("the oldest is still there")
	}
	for _, n := range []int{tableMax / 2, tableMax, tableMax + tableMax/4 - 1} {
		if tab.find(new(tupleOf(n))) == nil {
			t.Errorf("number %d is gone", n)
		}
	}
}

// TestTableMemory: the budget is 100 bytes for a socket in TIME_WAIT.
func TestTableMemory(t *testing.T) {
	const sockets = 1 << 20
	before := heap()
	tab := newTable(false)
	for n := range sockets {
		tab.enter(new(tupleOf(n)), 0, uint64(n), timeWaitMS)
	}
	each := float64(heap()-before) / sockets
	t.Logf("%.1f bytes for each of %d sockets", each, tab.live)
	if each > 36 {
		t.Errorf("%.1f bytes for a socket", each)
	}
	tab.expire(1<<62, func(bpf.Tuple, uint64, uint64) {})
	if after := heap() - before; after > sockets*9 {
		t.Errorf("%d bytes are kept for no socket", after)
	}
	runtime.KeepAlive(tab)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTableAllocates(t *testing.T) {
	tab := newTable(true)
	n := 0
	allocs := testing.AllocsPerRun(100_000, func() {
		n++
		tuple := tupleOf(n % 5000)
		tab.enter(&tuple, 0, uint64(n)*ms, 1000)
		tab.expire(uint64(n)*ms, func(bpf.Tuple, uint64, uint64) {})
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each socket", allocs)
	}
}

// The ends of the queue go round its chunks many times.
func TestTableGoesRound(t *testing.T) {
	tab := newTable(true)
	ended := 0
	const sockets = 3*tableMax + 5
	for n := range sockets {
		tuple := tupleOf(n % (tableMax / 2))
		tab.enter(&tuple, uint32(n), uint64(n)*ms, tableMax/4)
		tab.expire(uint64(n)*ms, func(bpf.Tuple, uint64, uint64) { ended++ })
	}
	if ended != sockets-tableMax/4 || tab.live != tableMax/4 {
		t.Errorf("%d have ended, %d live", ended, tab.live)
	}
}
