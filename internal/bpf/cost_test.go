// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/kernel"
)

// cost is what a program costs the kernel, in numbers that no noise moves.
type cost struct {
	verified   uint32 // instructions that the verifier looked at; 0: not told
	translated uint32 // instructions that are left to run
}

// A program may grow by this much before it has to be looked at: `make cost`
// then writes the new numbers, which the change explains.
const (
	verifiedTolerance   = 1.25
	translatedTolerance = 1.10
)

//go:embed testdata/cost.txt
var costTable string

// costGuard compares the programs with what they have cost so far on this
// kernel.
type costGuard struct {
	kernel string // such as 6.12
	known  map[string]cost
}

func newCostGuard(t *testing.T) costGuard {
	t.Helper()
	facts, err := kernel.Local()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(facts.Release, ".", 3)
	g := costGuard{parts[0] + "." + parts[1], map[string]cost{}}
	for i, line := range strings.Split(costTable, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var release, program string
		var c cost
		if _, err := fmt.Sscan(line, &release, &program, &c.verified, &c.translated); err != nil {
			t.Fatalf("testdata/cost.txt:%d: %v", i+1, err)
		}
		if release == g.kernel {
			g.known[program] = c
		}
	}
	return g
}

func (g costGuard) compare(t *testing.T, program string, now cost) {
	t.Helper()
	t.Logf("cost: %s %s %d %d", g.kernel, program, now.verified, now.translated)
	if len(g.known) == 0 {
		return // a kernel that no figures are kept of
	}
	was, ok := g.known[program]
	if !ok {
		t.Errorf("testdata/cost.txt has no figures of %s on Linux %s: run make cost", program, g.kernel)
		return
	}
	exceeds := func(what string, now, was uint32, tolerance float64) {
		if float64(now) > float64(was)*tolerance {
			t.Errorf("%s on Linux %s: %d instructions %s, %d so far; if they are worth it, run make cost",
				program, g.kernel, now, what, was)
		}
	}
	exceeds("verified", now.verified, was.verified, verifiedTolerance)
	exceeds("to run", now.translated, was.translated, translatedTolerance)
}
