// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/testdata/vm/debkernel"
	"github.com/twscope/twscope/testdata/vm/wire"
)

// boot plays a boot whose runs all ended with the given code and output.
func boot(g *guestLoad, codes map[string]int, output map[string]string) *bootResult {
	b := &bootResult{kernel: &debkernel.Kernel{Release: "6.1.0"}, ended: true}
	for i, r := range g.runs {
		b.runs = append(b.runs, &runResult{
			name: r.Name, rung: g.rungs[i], exited: true, code: codes[r.Name], output: []byte(output[r.Name]),
		})
	}
	return b
}

func TestAgain(t *testing.T) {
	g := &guestLoad{
		runs: []wire.Run{
			{Name: "check", Vital: true},
			{Name: "good", Argv: []string{"/bin/good.test", "-test.v"}},
			{Name: "bad", Argv: []string{"/bin/bad.test", "-test.run=^Test"}},
			{Name: "panics", Argv: []string{"/bin/panics.test"}},
		},
		rungs: []string{"", "free", "kprobe", "free"},
	}
	first := boot(g, map[string]int{"bad": 1, "panics": 2}, map[string]string{
		"bad": "=== RUN   TestB\n    b_test.go:7: x\n    --- FAIL: TestB/sub (0.00s)\n--- FAIL: TestB (0.01s)\n" +
			"--- PASS: TestC (0.00s)\n--- FAIL: TestA (0.01s)\nFAIL\n",
		"panics": "--- FAIL: TestA (0.01s)\npanic: no\n",
	})
	if first.passed() {
		t.Fatal("the first boot passes")
	}

	second := g.again(first)
	want := &guestLoad{
		runs: []wire.Run{
			{Name: "check", Vital: true},
			{Name: "bad", Argv: []string{"/bin/bad.test", "-test.run=^Test", "-test.run=^(TestA|TestB)$"}},
			{Name: "panics", Argv: []string{"/bin/panics.test"}},
		},
		rungs: []string{"", "kprobe", "free"},
	}
	if d := cmp.Diff(want, second, cmp.AllowUnexported(guestLoad{})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if len(g.runs[2].Argv) != 2 {
		t.Errorf("the load of other kernels has changed: %q", g.runs[2].Argv)
	}

	for name, c := range map[string]struct {
		codes  map[string]int
		passed bool
		want   []string
	}{
		"all pass": {nil, true, []string{
			"ok, the second time", "bad kprobe: TestA TestB (passed the second time)",
			"panics free: FAIL exit code 2 (passed the second time)",
		}},
		"one fails again": {map[string]int{"bad": 1}, false, []string{
			"FAIL\n", "bad kprobe: TestA TestB\n", "panics free: FAIL exit code 2 (passed the second time)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			first.second = boot(second, c.codes, nil)
			if first.passed() != c.passed {
				t.Errorf("passed = %t, want %t", first.passed(), c.passed)
			}
			var out strings.Builder
			if err := writeTables(&out, []*bootResult{first}); err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, out.String())
				}
			}
		})
	}
}

// TestAgainAfterLoss: a machine that went down runs again what it had not done.
func TestAgainAfterLoss(t *testing.T) {
	g := &guestLoad{runs: []wire.Run{{Name: "check", Vital: true}, {Name: "a"}, {Name: "b"}}, rungs: []string{"", "", ""}}
	first := boot(g, nil, nil)
	first.ended, first.runs[2].exited, first.failure = false, false, "the machine went down"
	second := g.again(first)
	if names := []string{second.runs[0].Name, second.runs[1].Name}; len(second.runs) != 2 || !slices.Equal(names, []string{"check", "b"}) {
		t.Fatalf("runs %+v", second.runs)
	}
	first.second = boot(second, nil, nil)
	var out strings.Builder
	if err := writeTables(&out, []*bootResult{first}); err != nil {
		t.Fatal(err)
	}
	if w := "6.1.0  the machine went down (passed the second time)"; !first.passed() || !strings.Contains(out.String(), w) {
		t.Errorf("passed = %t, want %q in:\n%s", first.passed(), w, out.String())
	}
}
