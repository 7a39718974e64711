// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"flag"
	"fmt"
	"math"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

var (
	runsFlag  = flag.Int("sim.runs", 200, "simulated source addresses for each row of the targets")
	tableFlag = flag.Bool("sim.table", false, "print the simulator's table even if all targets are met")
)

// outcome is what came of the runs of one row.
type outcome struct {
	runs, shared, random, abstain, restarted int
	exact, covered, open                     int
	absError, truth                          float64
	falseLow                                 int // Clocks above the number of hosts
}

func (o *outcome) take(got clock.Source, stable, active int) {
	o.runs++
	switch got.Class {
	case clock.Shared:
		o.shared++
	case clock.Randomised:
		o.random++
	case clock.Restarted:
		o.restarted++
	case clock.NotEnough:
		o.abstain++
	}
	if got.Estimate == stable {
		o.exact++
	}
	if got.Clocks > active {
		o.falseLow++
	}
	if got.Open {
		o.open++
	}
	if got.Low <= max(1, active) && active <= got.High {
		o.covered++
	}
	o.absError += math.Abs(float64(got.Estimate - stable))
	o.truth += float64(stable)
}

func (o *outcome) share(n int) float64 { return float64(n) / float64(max(1, o.runs)) }

func play(t *testing.T, build func(seed uint64) *sim) *outcome {
	t.Helper()
	o := new(outcome)
	for seed := range uint64(*runsFlag) {
		s := build(seed)
		o.take(s.feed(t), s.stable(2), s.stable(1))
	}
	return o
}

func (o *outcome) log(t *testing.T, name string) {
	t.Helper()
	t.Logf("%-34s shared %.3f random %.3f restarted %.3f abstain %.3f | exact %.3f MAE %.2f (%.1f%%) CI %.3f open %.3f over %d", name,
		o.share(o.shared), o.share(o.random), o.share(o.restarted), o.share(o.abstain),
		o.share(o.exact), o.absError/float64(o.runs), 100*o.absError/max(1, o.truth), o.share(o.covered), o.share(o.open), o.falseLow)
}

func many(m model, n int) []model {
	list := make([]model, n)
	for i := range list {
		list[i] = m
	}
	return list
}

func TestExplore(t *testing.T) {
	for _, ports := range []int{200, 2000} {
		for _, rate := range []float64{20, 200, 2000} {
			play(t, func(seed uint64) *sim {
				s := newSim(seed).add(rate, linux7)
				s.hosts[0].ports = ports
				return s.run(hour)
			}).log(t, fmt.Sprint("one, ports ", ports, " visits ", rate))
			play(t, func(seed uint64) *sim {
				s := newSim(seed).add(rate, linux7)
				s.hosts[0].ports = ports
				s.nat = false
				return s.run(hour)
			}).log(t, fmt.Sprint("one, no NAT, ports ", ports, " visits ", rate))
		}
	}
	for _, n := range []int{100, 1000, 10000, 100000} {
		play(t, func(seed uint64) *sim { return newSim(seed).add(20, linux).run(hour).forge(n, hour) }).log(t, fmt.Sprint("forged ", n))
		play(t, func(seed uint64) *sim {
			s := newSim(seed).add(20, linux, linux)
			s.valid = 0
			return s.run(hour).forge(n, hour)
		}).log(t, fmt.Sprint("two, none validated, forged ", n))
	}
}
