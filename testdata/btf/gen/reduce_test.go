// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// bigStruct embeds one struct, points to three others and to a function.
func bigStruct() []btf.Type {
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	embedded := &btf.Struct{Name: "embedded", Size: 4, Members: []btf.Member{{Name: "flag", Type: u32, Offset: 3, BitfieldSize: 2}}}
	wanted := &btf.Struct{Name: "wanted", Size: 4, Members: []btf.Member{{Name: "x", Type: u32}}}
	other := &btf.Struct{Name: "other", Size: 4, Members: []btf.Member{{Name: "y", Type: u32}}}
	big := &btf.Struct{Name: "big", Size: 40}
	big.Members = []btf.Member{
		{Name: "e", Type: embedded},
		{Name: "w", Type: &btf.Pointer{Target: &btf.Const{Type: wanted}}, Offset: 64},
		{Name: "o", Type: &btf.Pointer{Target: other}, Offset: 128},
		{Name: "self", Type: &btf.Pointer{Target: big}, Offset: 192},
		{Name: "f", Type: &btf.Pointer{Target: &btf.FuncProto{Return: u32}}, Offset: 256},
	}
	hook := &btf.Func{Name: "hook", Linkage: btf.StaticFunc, Type: &btf.FuncProto{
		Return: u32, Params: []btf.FuncParam{{Name: "b", Type: &btf.Pointer{Target: big}}, {Name: "o", Type: &btf.Pointer{Target: other}}},
	}}
	trace := &btf.Typedef{Name: "btf_trace_event", Type: &btf.Pointer{Target: &btf.FuncProto{
		Return: &btf.Void{}, Params: []btf.FuncParam{{Type: &btf.Pointer{Target: &btf.Void{}}}, {Name: "n", Type: u32}},
	}}}
	return []btf.Type{big, hook, trace}
}

func reduced(t *testing.T, types []btf.Type, names ...string) *btf.Spec {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	blob, err := reduce(spec, set)
	if err != nil {
		t.Fatal(err)
	}
	out, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReduceKeepsLayoutAndCutsPointers(t *testing.T) {
	spec := reduced(t, bigStruct(), "big", "wanted", "absent")
	var big *btf.Struct
	if err := spec.TypeByName("big", &big); err != nil {
		t.Fatal(err)
	}
	type layout struct {
		Name, Type string
		Offset     btf.Bits
	}
	describe := func(t btf.Type) string {
		p, ok := t.(*btf.Pointer)
		if !ok {
			return t.TypeName()
		}
		switch u := btf.UnderlyingType(p.Target).(type) {
		case *btf.Fwd:
			return "forward " + u.Name
		case *btf.Void:
			return "void"
		default:
			return "whole " + u.TypeName()
		}
	}
	var got []layout
	for _, m := range big.Members {
		got = append(got, layout{m.Name, describe(m.Type), m.Offset})
	}
	want := []layout{
		{"e", "embedded", 0}, {"w", "whole wanted", 64}, {"o", "forward other", 128}, {"self", "whole big", 192}, {"f", "void", 256},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("members of big (-want +got):\n%s", d)
	}
	inner := big.Members[0].Type.(*btf.Struct).Members[0]
	if inner.Offset != 3 || inner.BitfieldSize != 2 {
		t.Errorf("bit-field at %d of %d bits, want at 3 of 2", inner.Offset, inner.BitfieldSize)
	}
	for _, name := range []string{"hook", "btf_trace_event", "other"} {
		if types, err := spec.AnyTypesByName(name); err == nil {
			if _, fwd := types[0].(*btf.Fwd); !fwd {
				t.Errorf("%s was not asked for and is there: %v", name, types)
			}
		}
	}
}

func TestReduceKeepsSignatures(t *testing.T) {
	spec := reduced(t, bigStruct(), "hook", "btf_trace_event")
	var fn *btf.Func
	if err := spec.TypeByName("hook", &fn); err != nil {
		t.Fatal(err)
	}
	if n := len(fn.Type.(*btf.FuncProto).Params); n != 2 {
		t.Errorf("hook has %d parameters, want 2", n)
	}
	var trace *btf.Typedef
	if err := spec.TypeByName("btf_trace_event", &trace); err != nil {
		t.Fatal(err)
	}
	if proto, ok := trace.Type.(*btf.Pointer).Target.(*btf.FuncProto); !ok || len(proto.Params) != 2 {
		t.Errorf("tracepoint is %v, want a pointer to a function of 2 parameters", trace.Type)
	}
}

// stored reads one of the committed results.
func stored(t *testing.T, name string) (*btf.Spec, string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	return spec, z.Name
}

// TestStored checks the committed BTFs by what is known of these kernels' sources.
func TestStored(t *testing.T) {
	for name, want := range map[string]struct {
		arity   int  // of tcp_timewait_state_process: 6.10 added tw_isn, 6.16 the drop reason
		reasons bool // enum skb_drop_reason came with 5.17
	}{
		"5.10-amd64": {3, false}, "6.1-amd64": {3, true}, "6.12-amd64": {4, true}, "6.12-arm64": {4, true},
		"6.18-hardened-amd64": {5, true}, "7-amd64": {5, true}, "7-arm64": {5, true},
	} {
		t.Run(name, func(t *testing.T) {
			spec, release := stored(t, filepath.Join("..", name+".btf.gz"))
			if release == "" {
				t.Error("the gzip header does not name the kernel release")
			}
			var fn *btf.Func
			if err := spec.TypeByName("tcp_timewait_state_process", &fn); err != nil {
				t.Fatal(err)
			}
			if got := len(fn.Type.(*btf.FuncProto).Params); got != want.arity {
				t.Errorf("tcp_timewait_state_process has %d parameters, want %d", got, want.arity)
			}
			var reasons *btf.Enum
			if err := spec.TypeByName("skb_drop_reason", &reasons); (err == nil) != want.reasons {
				t.Errorf("enum skb_drop_reason: %v, want present = %t", err, want.reasons)
			}
			for _, s := range []string{"tcp_timewait_sock", "tcp_sock", "sk_buff", "netns_ipv4", "task_struct", "css_set", "bpf_iter__tcp"} {
				var st *btf.Struct
				if err := spec.TypeByName(s, &st); err != nil || len(st.Members) == 0 {
					t.Errorf("struct %s: %v", s, err)
				}
			}
		})
	}
}
