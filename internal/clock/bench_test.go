// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

// lines returns SYNs that walk over so many clocks of one source in turns.
func lines(n int) func(i int) *clock.SYN {
	rng := rand.New(rand.NewPCG(7, uint64(n)))
	offsets := make([]uint32, n)
	for i := range offsets {
		offsets[i] = rng.Uint32()
	}
	s := &clock.SYN{Key: key, DPort: 443, Validated: true, Group: 3}
	return func(i int) *clock.SYN {
		ms := int64(i) * 20
		s.Time = epoch + ms*1e6
		s.TSval = offsets[i%n] + uint32(ms)
		s.SPort = uint16(i)
		return s
	}
}

func BenchmarkSYN(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("lines=%d", n), func(b *testing.B) {
			tr := newTracker(b, clock.Config{})
			next := lines(n)
			i := 0
			for ; i < 400*n; i++ {
				tr.SYN(next(i))
			}
			if got, _ := tr.Find(key, next(i).Time); got.Clocks != n {
				b.Fatalf("%d clocks, want %d", got.Clocks, n)
			}
			b.ReportAllocs()
			for b.Loop() {
				tr.SYN(next(i))
				i++
			}
		})
	}
}

// BenchmarkSYNRandomised is a source of which each SYN is on no line.
func BenchmarkSYNRandomised(b *testing.B) {
	tr := newTracker(b, clock.Config{})
	rng := rand.New(rand.NewPCG(7, 7))
	s := &clock.SYN{Key: key, Validated: true, Time: epoch}
	b.ReportAllocs()
	for b.Loop() {
		s.Time += 1e6
		s.TSval, s.SPort = rng.Uint32()|1, uint16(rng.Uint32())
		tr.SYN(s)
	}
}

// BenchmarkSYNSources is a million sources with a SYN in any order, so that
// each comes with cache misses.
func BenchmarkSYNSources(b *testing.B) {
	tr := newTracker(b, clock.Config{})
	rng := rand.New(rand.NewPCG(7, 8))
	s := &clock.SYN{Key: key, Validated: true, Time: epoch}
	next := func(i uint32) {
		s.Source = address(i)
		s.Time += 1e5
		s.TSval, s.SPort = 1+i+uint32((s.Time-epoch)/1e6), uint16(s.Time>>20)
		tr.SYN(s)
	}
	for i := range uint32(1_000_000) {
		next(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		next(rng.Uint32N(1_000_000))
	}
	b.ReportMetric(float64(tr.Stats().Bytes)/1e6, "B/source")
}

func BenchmarkLocate(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("lines=%d", n), func(b *testing.B) {
			tr := newTracker(b, clock.Config{})
			next := lines(n)
			i := 0
			for ; i < 400*n; i++ {
				tr.SYN(next(i))
			}
			was := *next(i - n)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := tr.Locate(key, was.Time, was.TSval); !ok {
					b.Fatal("not located")
				}
			}
		})
	}
}

func address(i uint32) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], i)
	return netip.AddrFrom4(a)
}

// BenchmarkFlood is a flood of forged sources that meets a full table.
func BenchmarkFlood(b *testing.B) {
	tr := newTracker(b, clock.Config{})
	s := &clock.SYN{Key: key, Time: epoch, TSval: 1}
	i := uint32(0)
	forge := func() {
		i++
		s.Source, s.TSval = address(i*2654435761), i|1
		s.Time += 1000
		tr.SYN(s)
	}
	for range 1_000_000 {
		forge()
	}
	b.ReportAllocs()
	for b.Loop() {
		forge()
	}
	b.ReportMetric(float64(tr.Stats().Bytes)/1e6, "B/source")
}
