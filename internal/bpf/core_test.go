// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// drift is what each kernel has of the fields that programs ask for before
// they read them (bpf/compat.h). An accessor that asks for another field needs
// a row here, and a kernel that answers otherwise than we believe fails.
//
// cgroup.ancestors came with 6.1, the u32 ranges with 6.8, tw_entry_stamp with
// 6.14. IP_LOCAL_PORT_RANGE came with 6.3 and was ported back to 6.1; MPTCP is
// a build option.
var drift = map[string][]string{
	"5.10-amd64": {
		"local_ports___pair.range",
		"net.ipv4.tcp_death_row.hashinfo",
	},
	"6.1-amd64": {
		"local_ports___pair.range",
		"inet_sock___pair.local_port_range",
		"net.ipv4.tcp_death_row.hashinfo",
		"cgroup.ancestors",
		"mptcp_sock.first",
	},
	"6.12-amd64":          since68,
	"6.12-arm64":          since68,
	"6.18-hardened-amd64": since614,
	"7-amd64":             since614,
	"7-arm64":             since614,
}

var since68 = []string{
	"local_ports.range",
	"inet_sock.local_port_range",
	"net.ipv4.tcp_death_row.hashinfo",
	"cgroup.ancestors",
	"mptcp_sock.first",
}

var since614 = append(slices.Clone(since68), "inet_timewait_sock.tw_entry_stamp")

// TestCORE relocates every program of every object against every kernel we
// know. An instruction that CO-RE poisons, because the kernel has no such
// field, must be out of reach.
func TestCORE(t *testing.T) {
	objects := allCompiled(t)
	for _, k := range allKernels(t) {
		t.Run(k.name, func(t *testing.T) {
			exists := map[string]bool{}
			for _, o := range objects {
				for _, name := range slices.Sorted(maps.Keys(o.spec.Programs)) {
					where := o.name + "/" + name
					insns, missing := relocate(t, where, o.spec, name, k.spec, exists)
					reached := reachable(t, insns)
					for at, what := range missing {
						if reached[at] {
							t.Errorf("%s: instruction %d can be reached, but this kernel lacks %s", where, at, what)
						}
					}
				}
			}
			checkDrift(t, k, exists)
		})
	}
}

// checkDrift compares the answers to bpf_core_field_exists() with the table.
func checkDrift(t *testing.T, k kernelBTF, exists map[string]bool) {
	t.Helper()
	if a, b := exists["local_ports.range"], exists["local_ports___pair.range"]; a == b {
		t.Errorf("the port range must have one of two forms: u32 %v, int[2] %v", a, b)
	}
	if k.name == "running" {
		return
	}
	want, ok := drift[k.name]
	if !ok {
		t.Fatalf("no row in the table for this kernel; it has %v", exists)
	}
	var has []string
	for field, yes := range exists {
		if yes {
			has = append(has, field)
		}
	}
	slices.Sort(has)
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), has); diff != "" {
		t.Errorf("fields that exist (-want +got):\n%s", diff)
	}
}

// relocate returns a program's instructions as they are for a kernel, and what
// the kernel lacks by the instructions that CO-RE poisons. It notes in exists
// which fields the program asked for and whether they are there.
func relocate(
	t *testing.T, where string, object *ebpf.CollectionSpec, name string, kernel *btf.Spec, exists map[string]bool,
) (asm.Instructions, map[int]string) {
	t.Helper()
	insns := object.Copy().Programs[name].Instructions
	if calls := insns.FunctionReferences(); len(calls) > 0 {
		t.Fatalf("%s: calls %v, which this test does not follow", where, calls)
	}
	var relos []*btf.CORERelocation
	var at []int
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, at = append(relos, r), append(at, i)
		}
	}
	noLocal := func(typ btf.Type) (btf.TypeID, error) { return 0, fmt.Errorf("local type id of %s", typ) }
	fixups, err := btf.CORERelocate(relos, []*btf.Spec{kernel}, binary.LittleEndian, noLocal)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	missing := map[int]string{}
	for i, fixup := range fixups {
		text := fixup.String()
		if strings.HasPrefix(text, "field_exists=") {
			exists[fieldOf(t, object.Types, relos[i])] = strings.HasSuffix(text, "->1")
		}
		if strings.HasSuffix(text, "=poison") {
			missing[at[i]] = relos[i].String()
		}
		if err := fixup.Apply(&insns[at[i]]); err != nil {
			t.Errorf("%s: %s: %v", where, relos[i], err)
		}
	}
	return insns, missing
}

var relocation = regexp.MustCompile(`^CORERelocation\(\w+, Struct:"(\w+)".*\[(0(?::\d+)+)\], local_id=\d+\)$`)

// fieldOf names the field that a relocation is about, such as sock.sk_err.
func fieldOf(t *testing.T, types *btf.Spec, r *btf.CORERelocation) string {
	t.Helper()
	found := relocation.FindStringSubmatch(r.String())
	if found == nil {
		t.Fatalf("cannot read %s", r)
	}
	var s *btf.Struct
	if err := types.TypeByName(found[1], &s); err != nil {
		t.Fatal(err)
	}
	name, members := found[1], s.Members
	for _, step := range strings.Split(found[2], ":")[1:] {
		i, err := strconv.Atoi(step)
		if err != nil || i >= len(members) {
			t.Fatalf("%s: no member %s", r, step)
		}
		if members[i].Name != "" {
			name += "." + members[i].Name
		}
		members = membersOf(members[i].Type)
	}
	return name
}

func membersOf(typ btf.Type) []btf.Member {
	switch t := btf.UnderlyingType(typ).(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	default:
		return nil
	}
}
