// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/testutil"
)

// instructionBudget is how many instructions the verifier may look at in one
// program. The kernel's own limit is 1,000,000; another kernel's verifier may
// well need several times what this one needs.
const instructionBudget = 150_000

// TestVerifier loads every program into the running kernel, once with all
// settings off and once with all of them on, so that no branch is spared.
func TestVerifier(t *testing.T) {
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	unlockMemory(t)
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	host := kernel.NewBTF(spec)
	shared := sharedMaps(t)
	guard := newCostGuard(t)
	most, largest := uint32(0), ""
	for _, o := range Objects() {
		spec := loadSpec(t, o)
		for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
			for _, c := range verifierSettings(t, host, name) {
				t.Run(fmt.Sprintf("%s/%s/%s", o.Name, name, c.name), func(t *testing.T) {
					n := verifyProgram(t, spec, name, host, c.config, shared)
					if n.verified > most {
						most, largest = n.verified, name
					}
					guard.compare(t, o.Name+"/"+name+"/"+strings.ReplaceAll(c.name, " ", "_"), n)
				})
			}
		}
	}
	if most > 0 {
		fmt.Printf("FACT verified_instructions_max %d_in_%s\n", most, largest)
	}
}

// verifyProgram loads one program and returns what it costs.
func verifyProgram(
	t *testing.T, from *ebpf.CollectionSpec, name string, host kernel.BTF, config Config, shared map[string]*ebpf.Map,
) cost {
	t.Helper()
	spec := from.Copy()
	p := spec.Programs[name]
	maps.DeleteFunc(spec.Programs, func(other string, _ *ebpf.ProgramSpec) bool { return other != name })
	if isFentry(p) {
		testutil.SkipUnless(t, host.HasFunc(p.AttachTo), "this kernel was built without "+p.AttachTo)
	}
	if err := spec.Variables["tws_cfg"].Set(config); err != nil {
		t.Fatal(err)
	}
	used := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := shared[name]; m != nil {
			used[name] = m
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: used})
	if isFentry(p) {
		testutil.SkipMissing(t, testutil.Fentry, err)
	}
	if err != nil {
		t.Fatalf("%s: %s", p.SectionName, tail(err))
	}
	defer coll.Close()
	info, err := coll.Programs[name].Info()
	if err != nil {
		t.Fatal(err)
	}
	var c cost
	// 0 before 5.16, which does not tell
	c.verified, _ = info.VerifiedInstructions()
	size, err := info.TranslatedSize()
	if err != nil {
		t.Fatal(err)
	}
	c.translated = uint32(size / asm.InstructionSize)
	if c.verified > instructionBudget {
		t.Errorf("the verifier looked at %d instructions, more than the %d we allow", c.verified, instructionBudget)
	}
	return c
}

func isFentry(p *ebpf.ProgramSpec) bool {
	return p.AttachType == ebpf.AttachTraceFEntry || p.AttachType == ebpf.AttachTraceFExit
}

// tail returns the end of a verifier's log, where the reason is.
func tail(err error) string {
	var refused *ebpf.VerifierError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	const lines = 40
	log := refused.Log
	return fmt.Sprintf("%v\n%s", err, strings.Join(log[max(0, len(log)-lines):], "\n"))
}

type namedConfig struct {
	name   string
	config Config
}

// verifierSettings returns the settings under which a program must load here.
func verifierSettings(t *testing.T, host kernel.BTF, program string) []namedConfig {
	t.Helper()
	args, ok := host.TracepointArgs("kfree_skb")
	if !ok {
		t.Fatal("this kernel has no tracepoint kfree_skb")
	}
	off := Config{Hz: 250, KfreeSkbArgs: uint32(args)}
	on := Config{
		CgroupCount: uint32(len(Config{}.CgroupIds)),
		Kinds:       1<<KindMax - 1,
		Hz:          250, WakeupBytes: 1 << 19, PawsWrapS: 2147,
		ReasonTwPaws: 1, ReasonPaws: 2, ReasonPawsAck: 3, ReasonTsecr: 4, ReasonNone: 5, SynQuota: 1000,
		KfreeSkbArgs: uint32(args),
		FilterNetns:  1, FilterDst: 1, FilterSrc: 1, FilterPid: 1, FilterComm: 1,
		TimewaitOnState: 1, ConnectFailOnState: 1, ReuseOnState: 1, SynOnState: 1,
		TimewaitAtAlloc: 1, TwskEnds: 1,
		DropsTimewait: 1, DropsEstablished: 1, DropsSynRecv: 1,
	}
	configs := []namedConfig{{"off", off}, {"on", on}}
	// For tracing programs since 5.11; Probe tries without it next.
	if program == "tws_set_state" && host.HasFunc("bpf_sk_storage_get_tracing") {
		on.SkStorage = 1
		configs = append(configs, namedConfig{"on with sk_storage", on})
	}
	return configs
}

// sharedMaps creates the maps that all objects share, small.
func sharedMaps(t *testing.T) map[string]*ebpf.Map {
	t.Helper()
	shared := map[string]*ebpf.Map{}
	for _, o := range Objects() {
		for name, m := range loadSpec(t, o).Maps {
			if name[0] == '.' || shared[name] != nil {
				continue
			}
			created, err := ebpf.NewMap(m)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Cleanup(func() {
				if err := created.Close(); err != nil {
					t.Error(err)
				}
			})
			shared[name] = created
		}
	}
	return shared
}

func loadSpec(t *testing.T, o Object) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := o.Load()
	if err != nil {
		t.Fatalf("%s: %v", o.Name, err)
	}
	return spec
}

// unlockMemory lifts the limit that kernels before 5.11 put on maps.
func unlockMemory(tb testing.TB) {
	tb.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		tb.Fatal(err)
	}
}
