// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/testutil"
)

// fakeBTF returns the BTF of a kernel that has these types.
func fakeBTF(t *testing.T, types ...btf.Type) BTF {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return NewBTF(spec)
}

func u32() btf.Type { return &btf.Int{Name: "unsigned int", Size: 4} }

func function(name string, args int) *btf.Func {
	return &btf.Func{Name: name, Type: proto(args), Linkage: btf.StaticFunc}
}

func proto(args int) *btf.FuncProto {
	p := &btf.FuncProto{Return: (*btf.Void)(nil)}
	for range args {
		p.Params = append(p.Params, btf.FuncParam{Type: u32()})
	}
	return p
}

func structure(name string, fields ...string) *btf.Struct {
	s := &btf.Struct{Name: name, Size: uint32(4 * len(fields))}
	for i, f := range fields {
		s.Members = append(s.Members, btf.Member{Name: f, Type: u32(), Offset: btf.Bits(32 * i)})
	}
	return s
}

func TestBTFFunctions(t *testing.T) {
	b := fakeBTF(t,
		function("tcp_timewait_state_process", 4),
		function("twice_alike", 2), function("twice_alike", 2),
		function("twice", 1), function("twice", 2),
		function("none", 0),
		structure("a_struct", "x"),
		&btf.Typedef{Name: "btf_trace_kfree_skb", Type: &btf.Pointer{Target: proto(5)}},
		&btf.Typedef{Name: "btf_trace_odd", Type: u32()},
	)
	tests := []struct {
		name  string
		has   bool
		arity int
		ok    bool
	}{
		{"tcp_timewait_state_process", true, 4, true},
		{"twice_alike", true, 2, true},
		{"twice", true, 0, false},
		{"none", true, 0, true},
		{"a_struct", false, 0, false},
		{"tcp_drop_reason", false, 0, false},
	}
	for _, tt := range tests {
		if got := b.HasFunc(tt.name); got != tt.has {
			t.Errorf("HasFunc(%s) = %v, want %v", tt.name, got, tt.has)
		}
		if got, ok := b.FuncArity(tt.name); got != tt.arity || ok != tt.ok {
			t.Errorf("FuncArity(%s) = %d, %v, want %d, %v", tt.name, got, ok, tt.arity, tt.ok)
		}
	}
	if n, ok := b.TracepointArgs("kfree_skb"); n != 4 || !ok {
		t.Errorf("TracepointArgs(kfree_skb) = %d, %v, want 4", n, ok)
	}
	for _, name := range []string{"odd", "absent"} {
		if n, ok := b.TracepointArgs(name); ok {
			t.Errorf("TracepointArgs(%s) = %d, want none", name, n)
		}
	}
}

func TestBTFHasField(t *testing.T) {
	inner := structure("", "deep")
	outer := structure("outer", "flat", "")
	outer.Members[1].Type = &btf.Union{Size: 4, Members: []btf.Member{{Type: inner}, {Name: "side", Type: u32()}}}
	named := structure("named", "member")
	named.Members[0].Type = structure("", "hidden")
	b := fakeBTF(t, outer, named, &btf.Typedef{Name: "alias", Type: outer})
	tests := []struct {
		structName, field string
		want              bool
	}{
		{"outer", "flat", true},
		{"outer", "side", true},
		{"outer", "deep", true},
		{"outer", "", false},
		{"outer", "absent", false},
		{"named", "member", true},
		{"named", "hidden", false},
		{"absent", "flat", false},
	}
	for _, tt := range tests {
		if got := b.HasField(tt.structName, tt.field); got != tt.want {
			t.Errorf("HasField(%s, %q) = %v, want %v", tt.structName, tt.field, got, tt.want)
		}
	}
}

func TestDropReasons(t *testing.T) {
	b := fakeBTF(t, &btf.Enum{Name: "skb_drop_reason", Size: 4, Values: []btf.EnumValue{
		{Name: "SKB_NOT_DROPPED_YET", Value: 0},
		{Name: "SKB_CONSUMED", Value: 1},
		{Name: "SKB_DROP_REASON_NOT_SPECIFIED", Value: 2},
		{Name: "SKB_DROP_REASON_TCP_RFC7323_TW_PAWS", Value: 38},
		{Name: "SKB_DROP_REASON_MAX", Value: 130},
		{Name: "SKB_DROP_REASON_SUBSYS_MASK", Value: 0xffff0000},
	}})
	want := DropReasons{
		Name:  map[uint32]string{0: "NOT_DROPPED_YET", 1: "CONSUMED", 2: "NOT_SPECIFIED", 38: "TCP_RFC7323_TW_PAWS"},
		Value: map[string]uint32{"NOT_DROPPED_YET": 0, "CONSUMED": 1, "NOT_SPECIFIED": 2, "TCP_RFC7323_TW_PAWS": 38},
	}
	if diff := cmp.Diff(want, b.DropReasons()); diff != "" {
		t.Errorf("reasons differ (-want +got):\n%s", diff)
	}
	none := fakeBTF(t, u32()).DropReasons()
	if len(none.Name) != 0 || len(none.Value) != 0 {
		t.Errorf("a kernel without the enum has %v", none)
	}
}

func TestTWCountingAndTSOffset(t *testing.T) {
	tests := []struct {
		name     string
		types    []btf.Type
		counting TWCounting
		offset   TSOffset
	}{
		{"5.10", []btf.Type{
			structure("inet_timewait_sock", "tw_substate", "tw_kill"), function("secure_tcp_ts_off", 3),
		}, TWCountedAtExpiry, TSOffsetPerAddresses},
		{"6.1", []btf.Type{
			structure("inet_timewait_sock", "tw_substate"), function("secure_tcp_ts_off", 3),
		}, TWCountedAtCreation, TSOffsetPerAddresses},
		{"6.18", []btf.Type{
			structure("inet_timewait_sock", "tw_substate"), function("secure_tcp_seq_and_ts_off", 5),
		}, TWCountedAtCreation, TSOffsetPerTuple},
		{"reduced BTF", []btf.Type{u32()}, TWCountingUnknown, TSOffsetUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := fakeBTF(t, tt.types...)
			if got := b.TWCounting(); got != tt.counting {
				t.Errorf("TWCounting = %d, want %d", got, tt.counting)
			}
			if got := b.TSOffset(); got != tt.offset {
				t.Errorf("TSOffset = %d, want %d", got, tt.offset)
			}
		})
	}
}

// TestLocalBTF checks what has been so in every kernel with BTF.
func TestLocalBTF(t *testing.T) {
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	testutil.SkipUnless(t, err == nil, "the kernel has no BTF")
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	b := NewBTF(spec)
	if n, ok := b.FuncArity("tcp_time_wait"); n != 3 || !ok {
		t.Errorf("FuncArity(tcp_time_wait) = %d, %v, want 3", n, ok)
	}
	if n, ok := b.FuncArity("tcp_timewait_state_process"); n < 3 || n > 5 || !ok {
		t.Errorf("FuncArity(tcp_timewait_state_process) = %d, %v, want 3 to 5", n, ok)
	}
	if n, ok := b.TracepointArgs("inet_sock_set_state"); n != 3 || !ok {
		t.Errorf("TracepointArgs(inet_sock_set_state) = %d, %v, want 3", n, ok)
	}
	if n, ok := b.TracepointArgs("kfree_skb"); n < 2 || n > 4 || !ok {
		t.Errorf("TracepointArgs(kfree_skb) = %d, %v, want 2 to 4", n, ok)
	}
	if !b.HasField("tcp_timewait_sock", "tw_ts_recent_stamp") {
		t.Error("no tcp_timewait_sock.tw_ts_recent_stamp")
	}
	if b.TWCounting() == TWCountingUnknown || b.TSOffset() == TSOffsetUnknown {
		t.Errorf("TWCounting = %d, TSOffset = %d, want them known", b.TWCounting(), b.TSOffset())
	}
	reasons := b.DropReasons()
	for name, value := range reasons.Value {
		if reasons.Name[value] != name {
			t.Errorf("%s is %d is %s", name, value, reasons.Name[value])
		}
	}
	if n, _ := b.TracepointArgs("kfree_skb"); n >= 3 && reasons.Value["TCP_RFC7323_PAWS"] == 0 && len(reasons.Value) > 20 {
		t.Errorf("no TCP_RFC7323_PAWS in %v", reasons.Value)
	}
}
