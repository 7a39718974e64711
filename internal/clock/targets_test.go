// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

var (
	runsFlag  = flag.Int("sim.runs", 30, "simulated source addresses for each case of TestTargets")
	writeFlag = flag.Bool("sim.write", false, "write "+targetsFile+", which is to be done with -sim.runs=2000")
)

const targetsFile = "testdata/targets.md"

// outcome is what came of the runs of one case.
type outcome struct {
	runs           int
	classes        [clock.Restarted + 1]int
	right, wrong   int // verdicts of several hosts
	recall, twice  int // of those with two clocks that can be told, two SYNs each
	inTurns, turns int // of those whose two clocks came in turns
	countable      int // with a clock that can be counted
	exact, covered int
	open, over     int
	off, truth     float64
}

func (o *outcome) take(got clock.Source, is truth) {
	o.runs++
	o.classes[got.Class]++
	one := 0
	if got.Class == clock.Shared {
		one = 1
		if is.seen >= 2 {
			o.right++
		} else {
			o.wrong++
		}
	}
	if is.twice >= 2 {
		o.twice++
		o.recall += one
	}
	if is.turns {
		o.turns++
		o.inTurns += one
	}
	if got.Open {
		o.open++
	}
	if got.Clocks > is.stable {
		o.over++
	}
	if is.stable == 0 {
		return
	}
	o.countable++
	if got.Estimate == is.stable {
		o.exact++
	}
	if got.Low <= is.stable && is.stable <= got.High {
		o.covered++
	}
	o.off += math.Abs(float64(got.Estimate - is.stable))
	o.truth += float64(is.stable)
}

func ratio(a, b int) (float64, int) { return float64(a) / float64(max(1, b)), b }

// metric is a figure of an outcome, and of how many runs it is.
type metric struct {
	name string
	of   func(*outcome) (float64, int)
}

var (
	precision = metric{"precision", func(o *outcome) (float64, int) { return ratio(o.right, o.right+o.wrong) }}
	recall    = metric{"recall", func(o *outcome) (float64, int) { return ratio(o.recall, o.twice) }}
	inTurns   = metric{"in turns", func(o *outcome) (float64, int) { return ratio(o.inTurns, o.turns) }}
	alarms    = classMetric("shared", clock.Shared)
	random    = classMetric("random", clock.Randomised)
	restarts  = classMetric("restarted", clock.Restarted)
	exact     = metric{"exact", func(o *outcome) (float64, int) { return ratio(o.exact, o.countable) }}
	meanError = metric{"error", func(o *outcome) (float64, int) { return o.off / max(1, o.truth), o.countable }}
	interval  = metric{"interval", func(o *outcome) (float64, int) { return ratio(o.covered, o.countable) }}
	open      = metric{"open", func(o *outcome) (float64, int) { return ratio(o.open, o.runs) }}
	over      = metric{"over", func(o *outcome) (float64, int) { return ratio(o.over, o.runs) }}
)

func columns() []metric {
	return []metric{
		alarms, classMetric("one clock", clock.OneClock), random, restarts, classMetric("not enough", clock.NotEnough),
		precision, recall, inTurns, exact, meanError, interval, open, over,
	}
}

func classMetric(name string, c clock.Class) metric {
	return metric{name, func(o *outcome) (float64, int) { return ratio(o.classes[c], o.runs) }}
}

// target is what a figure should be. Where it is missed, held is what it is
// held to, so that it gets no worse.
type target struct {
	metric
	most bool
	is   float64
	held float64
}

func atLeast(m metric, is float64) target { return target{m, false, is, is} }
func atMost(m metric, is float64) target  { return target{m, true, is, is} }

// missed holds a figure to less than its target.
func (t target) missed(to float64) target {
	t.held = to
	return t
}

func (t target) met(got, limit float64) bool {
	if t.most {
		return got <= limit
	}
	return got >= limit
}

// allowed tells whether a figure of some runs may be that of one that keeps
// its limit: it is within three standard errors of it.
func (t target) allowed(got float64, runs int) bool {
	leeway := 3 * math.Sqrt(t.held*(1-min(1, t.held))/float64(max(1, runs)))
	if t.most {
		leeway = -leeway
	}
	return t.met(got, t.held-leeway)
}

func (t target) String() string {
	sign := ">="
	if t.most {
		sign = "<="
	}
	return fmt.Sprintf("%s %s %g", t.name, sign, t.is)
}

// try is one case: a kind of address.
type try struct {
	name    string
	config  clock.Config
	sim     func(seed uint64) *sim
	targets []target
}

func (c *try) play(tb testing.TB, runs int) *outcome {
	tb.Helper()
	o := new(outcome)
	c.config.Sources = 64
	for seed := uint64(0); o.runs < runs; seed++ {
		s := c.sim(seed)
		if s == nil {
			continue
		}
		is := s.truth()
		o.take(s.feedTo(newTracker(tb, c.config), func(got clock.Source) { o.take(got, is) }), is)
	}
	return o
}

func tableHead() string {
	head, line := "| case |", "|---|"
	for _, m := range columns() {
		head += " " + m.name + " |"
		line += "---|"
	}
	return head + " target | |\n" + line + "---|---|\n"
}

func (o *outcome) row(c *try) string {
	cells := []string{c.name}
	for _, m := range columns() {
		cell := ""
		if x, n := m.of(o); n > 0 {
			cell = strconv.FormatFloat(math.Round(x*1e4)/1e4, 'f', -1, 64)
		}
		cells = append(cells, cell)
	}
	var want []string
	met := "met"
	for _, t := range c.targets {
		want = append(want, t.String())
		if x, n := t.of(o); n > 0 && !t.met(x, t.is) {
			met = "**missed**"
		}
	}
	if len(want) == 0 {
		met = ""
	}
	cells = append(cells, strings.Join(want, ", "), met)
	return "| " + strings.Join(cells, " | ") + " |\n"
}

// TestTargets holds the tracker to what it is to reach, case by case. With
// -sim.write it makes the table of them.
func TestTargets(t *testing.T) {
	if *writeFlag && *runsFlag < 1000 {
		t.Fatal("-sim.write: too few runs for the table, add -sim.runs=2000")
	}
	var out strings.Builder
	for _, part := range parts() {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n%s", part.title, part.text, tableHead())
		for _, c := range part.cases {
			t.Run(part.title+"/"+c.name, func(t *testing.T) {
				o := c.play(t, *runsFlag)
				out.WriteString(o.row(&c))
				for _, want := range c.targets {
					if got, n := want.of(o); n == 0 || !want.allowed(got, n) {
						t.Errorf("%s is %.4f in %d runs, want %v", want.name, got, n, want)
					}
				}
			})
		}
	}
	t.Log(out.String())
	if *writeFlag {
		head := fmt.Sprintf(targetsHead, *runsFlag)
		if err := os.WriteFile(targetsFile, []byte(head+out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
