// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

// mebibyte per million sources is what the tracker may use.
const mebibyte = 1 << 20

// crowd is so many true sources, each with two clocks in turns.
func crowd(tr *clock.Tracker, n, rounds int, at func(round, i int) int64) {
	for round := range rounds {
		for i := range n {
			s := clock.SYN{Key: crowdKey(i), SPort: uint16(round), DPort: 443, Validated: true, Time: at(round, i)}
			s.TSval = uint32(i+1)*77_777 + uint32(round%2)<<31 + uint32((s.Time-epoch)/1e6)
			tr.SYN(&s)
		}
	}
}

func crowdKey(i int) clock.Key {
	return clock.Key{NetNS: 1, Source: address(0x0a000000 + uint32(i)), Local: key.Local}
}

// TestFlood is a flood of 1,000,000 forged sources upon a tracker for a tenth
// of that: memory stays at its cap, the true sources stay known, the loss is
// counted.
func TestFlood(t *testing.T) {
	const sources, trueOnes, forgedOnes = 100_000, 2000, 1_000_000
	tr := newTracker(t, clock.Config{Sources: sources})
	crowd(tr, trueOnes, 8, func(round, i int) int64 { return epoch + int64(round)*5*second + int64(i)*1e6 })
	rng := rand.New(rand.NewPCG(1, 2))
	start := epoch + 60*second
	for i := range uint32(forgedOnes) {
		tr.SYN(&clock.SYN{
			Key:   clock.Key{NetNS: 1, Source: address(0x80000000 + i*2003), Local: key.Local},
			TSval: rng.Uint32() | 1, Time: start + int64(i)*1000, SPort: uint16(i), DPort: 443,
		})
		if i%100_000 == 0 && tr.Stats().Bytes > sources*64*mebibyte/1_000_000 {
			t.Fatalf("%d bytes after %d", tr.Stats().Bytes, i)
		}
	}
	now := start + 2*second
	for i := range trueOnes {
		if got, ok := tr.Find(crowdKey(i), now); !ok || got.Class != clock.Shared || got.Clocks != 2 {
			t.Fatalf("source %d: %v, %+v", i, ok, got)
		}
	}
	st := tr.Stats()
	lost := st.Evicted + st.Dropped
	if st.EvictedKept != 0 || st.Sources != sources || lost != forgedOnes+trueOnes-sources {
		t.Errorf("%+v, want %d evicted or dropped", st, forgedOnes+trueOnes-sources)
	}
	// And new true ones are still let in.
	in := 0
	for i := range 1000 {
		k := crowdKey(trueOnes + i)
		for n := range int64(4) {
			at := now + n*2*second
			tr.SYN(&clock.SYN{Key: k, TSval: 5 + uint32((at-epoch)/1e6), Time: at, SPort: uint16(n), DPort: 443, Validated: true})
		}
		if got, ok := tr.Find(k, now+10*second); ok && got.OnLine == 4 {
			in++
		}
	}
	if in != 1000 {
		t.Errorf("%d of 1000 new sources are known", in)
	}
}

// TestFullOfTrueSources is that the cap holds when no source is forged, all
// kinds of records are in use, and more sources come than are kept.
func TestFullOfTrueSources(t *testing.T) {
	const sources = 125_000 // an eighth of a million, because the index grows by doubling
	tr := newTracker(t, clock.Config{Sources: sources})
	at, port := epoch, uint16(0)
	for i := range sources * 5 / 4 {
		clocks := 1
		switch {
		case i < 150:
			clocks = 70
		case i < 3000:
			clocks = 8
		case i < 20_000:
			clocks = 2
		}
		for c := range clocks {
			for range min(2, clocks) {
				at, port = at+1e6, port+1
				s := clock.SYN{Key: crowdKey(i), SPort: port, DPort: 443, Validated: true, Time: at}
				s.TSval = uint32(c+1)*60_000_000 + uint32((at-epoch)/1e6)
				tr.SYN(&s)
			}
		}
	}
	st := tr.Stats()
	each := float64(st.Bytes) / sources
	t.Logf("%.1f bytes for each of %d sources, tiers %v", each, sources, st.Tiers)
	if each > 64*float64(mebibyte)/1e6 {
		t.Errorf("%.1f bytes for each source", each)
	}
	if st.Tiers[1] < 10_000 || st.Tiers[2] < 2300 || st.Tiers[3] < 120 || st.Evicted == 0 || st.Sources < sources*99/100 {
		t.Errorf("not full: %+v", st)
	}
}

// TestNoAllocations is that a SYN costs none, once the tables have grown.
func TestNoAllocations(t *testing.T) {
	tr := newTracker(t, clock.Config{Sources: 1000})
	rng := rand.New(rand.NewPCG(1, 3))
	at := epoch
	one := func() {
		at += int64(rng.IntN(int(second)))
		i := rng.IntN(3000)
		s := clock.SYN{Key: crowdKey(i), SPort: uint16(rng.IntN(9)), DPort: 443, Validated: i%2 == 0, Time: at}
		s.TSval = uint32(i) + uint32(rng.IntN(12))<<28 + uint32((at-epoch)/1e6)
		tr.SYN(&s)
		s.Validated = false
		tr.Completed(&s)
	}
	for range 100_000 {
		one()
	}
	if n := testing.AllocsPerRun(20_000, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHashKey is that IPv4 addresses are the same in both forms, and that each
// part of the key counts.
func TestHashKey(t *testing.T) {
	tr := newTracker(t, clock.Config{Sources: 1000})
	keys := []clock.Key{
		key,
		{NetNS: key.NetNS + 1, Source: key.Source, Local: key.Local},
		{NetNS: key.NetNS, Source: key.Local, Local: key.Source},
		{NetNS: key.NetNS, Source: netip.MustParseAddr("2001:db8::1"), Local: netip.MustParseAddr("2001:db8::2")},
		{NetNS: key.NetNS, Source: netip.MustParseAddr("2001:db8::2"), Local: netip.MustParseAddr("2001:db8::1")},
	}
	for i, k := range keys {
		for n := range i + 2 {
			at := epoch + int64(n)*2*second
			tr.SYN(&clock.SYN{Key: k, TSval: 9 + uint32(n)*2000, Time: at, SPort: uint16(n), Validated: true})
		}
	}
	mapped := clock.Key{NetNS: key.NetNS, Source: netip.AddrFrom16(key.Source.As16()), Local: netip.AddrFrom16(key.Local.As16())}
	for i, k := range append(keys, mapped) {
		got, ok := tr.Find(k, epoch+20*second)
		if want := i%len(keys) + 2; !ok || got.OnLine != want {
			t.Errorf("%v: %+v, want %d connections", k, got, want)
		}
		if ok && got.Key != keys[i%len(keys)] {
			t.Errorf("%v: key %v", k, got.Key)
		}
	}
}
