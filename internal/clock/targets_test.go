// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

// TestOneHost is that one host is never taken for several, whatever its
// system.
func TestOneHost(t *testing.T) {
	for _, m := range []model{linux, hz100, hz250, android, linux7, apple, openbsd, windows, usec} {
		t.Run(m.name, func(t *testing.T) {
			for seed := range uint64(20) {
				if got := newSim(seed).add(20, m).run(hour).first(100).feed(t); got.Class == clock.Shared || got.Clocks > 1 {
					t.Errorf("seed %d: %v, %d clocks", seed, got.Class, got.Clocks)
				}
			}
		})
	}
}

// TestForgedSYNs is that what nobody completes makes no clocks.
func TestForgedSYNs(t *testing.T) {
	for seed := range uint64(5) {
		if got := newSim(seed).add(20, linux).run(hour).forge(10_000, hour).feed(t); got.Class == clock.Shared || got.Clocks > 1 {
			t.Errorf("seed %d: %v, %d clocks", seed, got.Class, got.Clocks)
		}
	}
}

// TestSeveralHosts is that clocks are counted.
func TestSeveralHosts(t *testing.T) {
	for seed := range uint64(20) {
		s := newSim(seed).add(20, linux, linux, linux, linux).run(hour)
		if got := s.feed(t); got.Class != clock.Shared || got.Clocks > s.stable(1) {
			t.Errorf("seed %d: %v, %d clocks of %d", seed, got.Class, got.Clocks, s.stable(1))
		}
	}
}
