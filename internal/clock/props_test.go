// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	gocmp "cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/twscope/twscope/internal/clock"
)

// mixed is an hour of hosts of all kinds, with restarts and forged SYNs.
func mixed(seed uint64) *sim {
	s := newSim(seed)
	s.add(20, draw(s.rng, 2+int(seed%12), home()...)...).add(20, hz100, openbsd)
	return s.reboot(0.2, hour).run(hour).forge(50, hour)
}

// knowledge is all that a tracker tells of a source.
type knowledge struct {
	Source clock.Source
	Fits   []clock.Fit
	Chains []clock.Chain
}

func learn(tb testing.TB, s *sim) knowledge {
	tb.Helper()
	tr := newTracker(tb, clock.Config{Sources: 64})
	var k knowledge
	for i := range s.syns {
		a := &s.syns[i]
		a.Group = tr.Group(a.print, 57)
		k.Fits = append(k.Fits, tr.SYN(&a.SYN))
	}
	at := s.syns[len(s.syns)-1].Time
	k.Source, _ = tr.Find(key, at)
	k.Chains = tr.Chains(nil, key, at)
	return k
}

// TestShiftedTSval is that the origin of TSval has no meaning, so that a clock
// that comes round is none that restarts: all is the same with a constant
// added, modulo 2^32.
func TestShiftedTSval(t *testing.T) {
	for seed := range uint64(20) {
		s := mixed(seed)
		want := learn(t, s)
		for _, by := range []uint32{1, 1 << 31, 1<<32 - 1, rand.New(rand.NewPCG(seed, 1)).Uint32()} {
			if slices.ContainsFunc(s.syns, func(a arrival) bool { return a.TSval == -by }) {
				continue // 0 has a meaning
			}
			got := learn(t, s.shift(by, 0))
			s.shift(-by, 0)
			for i := range got.Chains {
				got.Chains[i].TSval -= by
			}
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Fatalf("seed %d, shifted by %d: %s", seed, by, d)
			}
		}
	}
}

// TestShiftedTime is that the origin of time has no meaning.
func TestShiftedTime(t *testing.T) {
	for seed := range uint64(20) {
		s := mixed(seed)
		want := learn(t, s)
		for _, by := range []int64{1, -epoch, -epoch - hour/2, 1<<62 - epoch, 12_345_678_901} {
			got := learn(t, s.shift(0, by))
			s.shift(0, -by)
			for i := range got.Chains {
				got.Chains[i].First -= by
				got.Chains[i].Last -= by
			}
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Fatalf("seed %d, shifted by %d ns: %s", seed, by, d)
			}
		}
	}
}

func (s *sim) shift(tsval uint32, ns int64) *sim {
	for i := range s.syns {
		if a := &s.syns[i]; a.TSval != 0 {
			a.TSval += tsval
		}
		s.syns[i].Time += ns
	}
	return s
}

// TestOrder is that SYNs may be fed up to a second out of order, as they come
// from several CPUs: the clocks are the same.
func TestOrder(t *testing.T) {
	same := 0
	const runs = 100
	for seed := range uint64(runs) {
		s := newSim(seed).add(20, many(linux, 1+int(seed%8))...).run(hour)
		want := s.feed(t)
		due := map[uint16]int64{}
		for i := range s.syns {
			a := &s.syns[i]
			due[uint16(i)] = a.Time
			a.Time += s.rng.Int64N(second)
			a.DPort = uint16(i)
		}
		s.sort()
		for i := range s.syns {
			a := &s.syns[i]
			a.Time, a.DPort = due[a.DPort], 443
		}
		got := s.feed(t)
		if got.Clocks > want.Clocks {
			t.Errorf("seed %d: %d clocks, in order %d", seed, got.Clocks, want.Clocks)
		}
		if got.Class == want.Class && got.Clocks == want.Clocks && got.Estimate == want.Estimate {
			same++
		}
	}
	if same < runs*97/100 {
		t.Errorf("%d of %d are the same", same, runs)
	}
}

// TestCompleted is that handshakes which are told of later come to the same as
// those that are known at once. Where there is no room for all that may be
// forged, it is nearly the same.
func TestCompleted(t *testing.T) {
	for seed := range uint64(30) {
		s := newSim(seed).add(20, many(linux, 1+int(seed%10))...).run(hour)
		want, got := learn(t, s).Source, s.later(t)
		// Of SYNs within the first second, one may be told of when it has been
		// located already.
		if n := want.OnLine - got.OnLine; n < 0 || n > 2 {
			t.Errorf("seed %d: %d on a line, at once %d", seed, got.OnLine, want.OnLine)
		}
		if got.OnLine = want.OnLine; got != want {
			t.Errorf("seed %d: %+v, at once %+v", seed, got, want)
		}
		s = mixed(seed)
		want, got = learn(t, s).Source, s.later(t)
		all := want.OnLine + want.OffLine + want.Unproven
		if got.Class != want.Class || max(got.OffLine-want.OffLine, want.OffLine-got.OffLine) > 5+all/40 ||
			max(got.Unproven-want.Unproven, want.Unproven-got.Unproven) > 5 {
			t.Errorf("mixed, seed %d: %+v, at once %+v", seed, got, want)
		}
	}
}

// later feeds all SYNs as if nobody knew yet which handshakes complete, and
// tells that within 300 ms, in any order.
func (s *sim) later(tb testing.TB) clock.Source {
	tb.Helper()
	tr := newTracker(tb, clock.Config{Sources: 64})
	type told struct {
		clock.SYN
		at        int64
		completed bool
	}
	var list []told
	for i := range s.syns {
		a := s.syns[i].SYN
		if a.Validated {
			list = append(list, told{a, a.Time + 1 + s.rng.Int64N(second*3/10), true})
		}
		a.Validated = false
		list = append(list, told{a, a.Time, false})
	}
	slices.SortFunc(list, func(a, b told) int { return gocmp.Compare(a.at, b.at) })
	for i := range list {
		if a := &list[i]; a.completed {
			tr.Completed(&a.SYN)
		} else {
			tr.SYN(&a.SYN)
		}
	}
	got, _ := tr.Find(key, s.syns[len(s.syns)-1].Time)
	return got
}

// TestDoubt is that among many SYNs without handshakes a clock without one is
// to be surer than one with.
func TestDoubt(t *testing.T) {
	for _, validated := range []bool{false, true} {
		tr := newTracker(t, clock.Config{Sources: 64})
		s := newSim(1).forge(70, 60*second)
		s.syns[1].Validated = true // so that there is a record
		s.feedTo(tr, nil)
		// It stands still for half of the time, twice.
		at := epoch + 100*second
		for i := range int64(3) {
			tr.SYN(&clock.SYN{Key: key, Time: at + i*300*second, TSval: 5 + uint32(i)*150_000, SPort: uint16(i), DPort: 1, Validated: validated})
		}
		n := 0
		for _, c := range tr.Chains(nil, key, at+600*second) {
			if c.N == 3 && c.Certain == validated && c.Validated == validated {
				n++
			}
		}
		if n != 1 {
			t.Errorf("validated %v: %+v", validated, tr.Chains(nil, key, at+600*second))
		}
	}
}

// TestForgets is that what was idle for an hour is no clock of now, also when
// the ms of the records, modulo 2^32, have come round.
func TestForgets(t *testing.T) {
	const day = 24 * hour
	for _, pause := range []int64{hour + second, 25 * day, 30 * day, 49*day + 17*hour + 3*60*second, 50 * day} {
		tr := newTracker(t, clock.Config{Sources: 64})
		steady := func(at int64, port uint16) {
			tr.SYN(&clock.SYN{Key: key, Time: at, TSval: 7 + uint32((at-epoch)/1e6), SPort: port, Validated: true})
		}
		other := func(at int64, port uint16) {
			tr.SYN(&clock.SYN{Key: key, Time: at, TSval: 1e9 + uint32((at-epoch)/1e6), SPort: port, Validated: true})
		}
		for i := range int64(20) {
			steady(epoch+i*10*second, uint16(2*i))
			other(epoch+i*10*second+second, uint16(2*i+1))
		}
		end := epoch + 200*second + pause
		for at := epoch + 200*second; at < end; at += hour / 3 {
			steady(at, uint16(at/1e9))
		}
		got, ok := tr.Find(key, end)
		if !ok || got.Clocks != 1 || len(tr.Chains(nil, key, end)) != 1 {
			t.Errorf("after %d s: %d clocks, chains %+v", pause/second, got.Clocks, tr.Chains(nil, key, end))
		}
		if _, fit, ok := tr.Locate(key, end, 1e9+uint32((end-epoch)/1e6)); ok {
			t.Errorf("after %d s: located, fit %d", pause/second, fit)
		}
	}
}
