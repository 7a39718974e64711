// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: ([^ /]+) `)

// failed names the tests of a run that failed, if that is all that was wrong with
// it: nil if it passed, or did not get to its end.
func (r *runResult) failed() []string {
	const testsFailed = 1 // the exit code; 2 is a panic
	if !r.exited || r.code != testsFailed {
		return nil
	}
	var names []string
	for _, m := range failedTest.FindAllSubmatch(r.output, -1) {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// again is the load for a second boot: what did not pass in the first, and what
// is vital. Of tests only those that failed, where they are known.
func (g *guestLoad) again(first *bootResult) *guestLoad {
	second := &guestLoad{files: g.files}
	for i, r := range first.runs {
		run := g.runs[i]
		if r.passed() && !run.Vital {
			continue
		}
		if names := r.failed(); len(names) > 0 {
			// the last of several flags of one name counts
			run.Argv = append(slices.Clip(run.Argv), "-test.run=^("+strings.Join(names, "|")+")$")
		}
		second.runs = append(second.runs, run)
		second.rungs = append(second.rungs, g.rungs[i])
	}
	return second
}

// writeFailures lists what did not pass, and what of it did in the second boot:
// the end of a long output is what people read.
func writeFailures(out io.Writer, boots []*bootResult) {
	title := "\nfailed\n"
	tell := func(b *bootResult, what string, passed bool) {
		fmt.Fprint(out, title)
		title = ""
		if passed {
			what += " (passed the second time)"
		}
		fmt.Fprintf(out, "%s  %s\n", b.kernel.Release, what)
	}
	for _, b := range boots {
		if b.failure != "" {
			tell(b, b.failure, b.passed())
		}
		for _, r := range b.runs {
			if r.passed() || !r.exited && b.failure != "" {
				continue
			}
			what := strings.Join(r.failed(), " ")
			if what == "" {
				what = r.verdict()
			}
			tell(b, strings.TrimSpace(r.name+" "+r.rung)+": "+what, b.secondPassed(r))
		}
	}
}

// secondPassed tells whether a run that failed passed in the second boot.
func (b *bootResult) secondPassed(r *runResult) bool {
	return b.second != nil && slices.ContainsFunc(b.second.runs, func(s *runResult) bool {
		return s.name == r.name && s.rung == r.rung && s.passed()
	})
}
