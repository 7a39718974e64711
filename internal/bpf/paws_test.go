// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/rand/v2"
	"testing"

	"github.com/twscope/twscope/internal/paws"
)

// pawsCase is one question to PAWS. Times are in seconds.
type pawsCase struct {
	recent, tsval, stamp, now, wrap uint32
	window                          int32
	rst                             bool
}

func FuzzPAWS(f *testing.F) {
	f.Add(uint32(5000), uint32(4999), uint32(1000), uint32(1059), true, true, true)
	f.Add(uint32(0), uint32(1<<31), uint32(0), uint32(1<<31), false, false, false)
	c := loadCFunctions(f, Config{Hz: 1000})
	f.Fuzz(func(t *testing.T, recent, tsval, stamp, now uint32, old, window, rst bool) {
		q := pawsCase{recent: recent, tsval: tsval, stamp: stamp, now: now, wrap: paws.WrapMicroseconds, rst: rst}
		if old {
			q.wrap = paws.Wrap24Days
		}
		if window {
			q.window = paws.Window
		}
		checkPAWS(t, c, q)
	})
}

// TestPAWSBoundaries combines all values at which an answer may change.
func TestPAWSBoundaries(t *testing.T) {
	c := loadCFunctions(t, Config{Hz: 1000})
	clock := []uint32{0, 1, 5000, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1}
	ahead := []uint32{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 2, 1<<32 - 1}
	for _, wrap := range []uint32{paws.WrapMicroseconds, paws.Wrap24Days} {
		ages := []uint32{
			0, 1, paws.MSL - 1, paws.MSL, paws.MSL + 1, wrap - 1, wrap, wrap + 1,
			1<<31 - 1, 1 << 31, 1<<31 + paws.MSL - 1, 1<<31 + paws.MSL, 1<<31 + wrap - 1, 1<<31 + wrap,
			1<<32 - 1, 1<<32 - 1 - paws.MSL, -wrap,
		}
		for _, recent := range clock {
			for _, d := range ahead {
				for _, stamp := range clock {
					for _, age := range ages {
						q := pawsCase{recent: recent, tsval: recent + d, stamp: stamp, now: stamp + age, wrap: wrap}
						for i := range 4 {
							q.rst, q.window = i&1 != 0, int32(i>>1)
							checkPAWS(t, c, q)
						}
					}
				}
			}
		}
	}
}

func TestPAWSRandom(t *testing.T) {
	c := loadCFunctions(t, Config{Hz: 1000})
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	// half of them close together, where the answers differ
	near := func(to uint32) uint32 {
		if r.IntN(2) == 0 {
			return to + r.Uint32N(128) - 64
		}
		return r.Uint32()
	}
	n := forASecond(func() {
		q := pawsCase{recent: r.Uint32(), stamp: r.Uint32(), wrap: paws.WrapMicroseconds, rst: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			q.wrap = paws.Wrap24Days
		}
		q.tsval, q.window = near(q.recent), r.Int32N(2)
		q.now = near(q.stamp + [...]uint32{0, paws.MSL, q.wrap, 1 << 31}[r.IntN(4)])
		checkPAWS(t, c, q)
	})
	t.Logf("%d cases from seed %d", n, seed)
}

func checkPAWS(t *testing.T, c *selftestObjects, q pawsCase) {
	t.Helper()
	in := selftestTwsPawsCase{
		TsRecent: q.recent, Tsval: q.tsval, Window: q.window, StampS: int32(q.stamp), NowS: int32(q.now), WrapS: q.wrap,
	}
	if q.rst {
		in.Rst = 1
	}
	call(t, c.TwsTestPaws, &in)
	r := paws.Recent{TSval: q.recent, Stamp: q.stamp}
	if want := paws.Check(r, q.tsval, q.window, q.now, q.wrap); want != (in.Check != 0) {
		t.Fatalf("%+v: Check is %v in Go, %d in C", q, want, in.Check)
	}
	if want := paws.Reject(r, q.tsval, q.rst, q.now, q.wrap); want != (in.Reject != 0) {
		t.Fatalf("%+v: Reject is %v in Go, %d in C", q, want, in.Reject)
	}
}
