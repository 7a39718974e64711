// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/cilium/ebpf/btf"
	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/testutil"
)

// The kernel matrix sets rungEnv to force a rung, and vmEnv; it acts all
// scenarios, one by one: its CPUs are slow.
const (
	rungEnv = "TWSCOPE_RUNG"
	vmEnv   = "TWSCOPE_VM"
	soakEnv = "TWSCOPE_SOAK"
)

func local(t *testing.T) Options {
	t.Helper()
	facts := testutil.Must1[kernel.Facts](t)(kernel.Local())
	spec := testutil.Must1[*btf.Spec](t)(btf.LoadKernelSpec())
	return Options{
		Version: "test", Rung: probe.Rung(os.Getenv(rungEnv)), Logger: zerolog.Nop(),
		Kernel: Kernel{Facts: facts, TSOffset: kernel.NewBTF(spec).TSOffset()},
	}
}

// quick are those that tell the most in little time.
func quick() []string {
	return []string{"exhaust-no-timestamps", "old-duplicate"}
}

// TestScenarios acts scenarios and controls. Each side passes as what it is, and
// fails as the other: the truth can be wrong.
func TestScenarios(t *testing.T) {
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	o := local(t)
	vm := os.Getenv(vmEnv) != ""
	turn := make(chan struct{}, 6)
	if vm {
		turn = make(chan struct{}, 1)
	}
	type side struct {
		*performance
		err error
	}
	acted := map[string]*[2]side{}
	var wg sync.WaitGroup
	for _, s := range All() {
		if !vm && os.Getenv(soakEnv) == "" && !slices.Contains(quick(), s.Name) {
			continue
		}
		sides := &[2]side{}
		acted[s.Name] = sides
		for i, cause := range []bool{false, true} {
			wg.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				sides[i].performance, sides[i].err = s.act(t.Context(), o, cause)
			})
		}
	}
	wg.Wait()
	for name, sides := range acted {
		for i, cause := range []bool{false, true} {
			title := name + "/control"
			if cause {
				title = name + "/cause"
			}
			t.Run(title, func(t *testing.T) {
				p := sides[i]
				if _, lacks := errors.AsType[lackError](p.err); lacks {
					testutil.SkipUnless(t, false, p.err.Error())
				}
				testutil.Must(t, p.err)
				checks := p.judge(cause)
				t.Log("\n" + table(checks))
				if out, why := outcome(checks); out != Pass {
					t.Errorf("%s: %s", out, why)
				}
				if out, _ := outcome(p.judge(!cause)); out != Fail {
					t.Errorf("%s as the other side, which it is not:\n%s", out, table(p.judge(!cause)))
				}
			})
		}
	}
}

// TestDoesNotApply: one host has one clock behind a NAT on older kernels.
func TestDoesNotApply(t *testing.T) {
	list := testutil.Must1[[]Scenario](t)(Select([]string{"nat-port-reuse-one-host"}))
	o := Options{Kernel: Kernel{Facts: kernel.Facts{Release: "6.12.93"}, TSOffset: kernel.TSOffsetPerAddresses}}
	for _, cause := range []bool{true, false} {
		r := testutil.Must1[Result](t)(list[0].Run(t.Context(), o, cause))
		if r.Outcome != Skip || !strings.Contains(r.Reason, "does not apply on this kernel (6.12.93)") {
			t.Errorf("%+v, want it skipped", r)
		}
	}
}

// TestInterrupted: the end of the context ends the run, whatever it does, and
// leaves nothing.
func TestInterrupted(t *testing.T) {
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	list := testutil.Must1[[]Scenario](t)(Select([]string{"listen-overflow"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	whole := list[0].make
	list[0].make = func(cause bool) scene { return &interrupting{whole(cause), func() { cancel(why) }} }
	if _, err := list[0].Run(ctx, local(t), true); !errors.Is(err, why) {
		t.Errorf("%v, want the cause of the end", err)
	}
	for _, name := range testutil.Must1[[]os.DirEntry](t)(os.ReadDir("/run/netns")) {
		if strings.HasPrefix(name.Name(), fmt.Sprintf("twscope-%d-listen-overflow", os.Getpid())) {
			t.Errorf("%s is left", name.Name())
		}
	}
}

// interrupting is a scene that is ended while it is acted.
type interrupting struct {
	scene
	end func()
}

func (i *interrupting) act(ctx context.Context, s *stage) error {
	i.end()
	return i.scene.act(ctx, s)
}

func TestSelect(t *testing.T) {
	all := testutil.Must1[[]Scenario](t)(Select([]string{"all"}))
	if len(all) != 11 {
		t.Errorf("%d scenarios, want 11", len(all))
	}
	two := testutil.Must1[[]Scenario](t)(Select([]string{"old-duplicate", "reuse-works"}))
	if len(two) != 2 || two[0].Name != "old-duplicate" || two[1].Name != "reuse-works" {
		t.Errorf("%+v, want two in the order asked for", two)
	}
	if _, err := Select([]string{"exhaust"}); err == nil || !strings.Contains(err.Error(), "exhaust-reuse-off") {
		t.Errorf("%v, want what is valid", err)
	}
	if _, err := Select([]string{"all", "reuse-works"}); err == nil {
		t.Error("all and one more are no error")
	}
}

// TestTable: the scenarios are whole, name codes that there are, and fit.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All() {
		if seen[s.Name] || s.About == "" || s.Load == "" || s.Cause.Setting == s.Control.Setting {
			t.Errorf("%+v: want a name of its own, words, and sides that differ", s.Name)
		}
		seen[s.Name] = true
		if slices.Equal(s.Cause.Expect, s.Control.Expect) {
			t.Errorf("%s: the control expects the same as the cause", s.Name)
		}
		for _, code := range slices.Concat(s.Cause.Expect, s.Cause.Allow, s.Control.Expect, s.Control.Allow) {
			if _, ok := diagnose.Lookup(code); !ok {
				t.Errorf("%s: no code %q", s.Name, code)
			}
		}
		for line := range strings.Lines(s.Topology) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 76 {
				t.Errorf("%s: a line of %d columns: %s", s.Name, n, line)
			}
		}
		if text, err := json.Marshal(s); err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s, %v: want no null", text, err)
		}
	}
}
