// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
)

// contract maps the structs of bpf/abi.h to their Go types.
var contract = map[string]reflect.Type{
	"tws_census":        reflect.TypeFor[Census](),
	"tws_config":        reflect.TypeFor[Config](),
	"tws_open":          reflect.TypeFor[Open](),
	"tws_closes":        reflect.TypeFor[Closes](),
	"tws_orders":        reflect.TypeFor[Orders](),
	"tws_netns_place":   reflect.TypeFor[NetnsPlace](),
	"tws_connect_fail":  reflect.TypeFor[ConnectFail](),
	"tws_header":        reflect.TypeFor[Header](),
	"tws_listener":      reflect.TypeFor[Listener](),
	"tws_listener_key":  reflect.TypeFor[ListenerKey](),
	"tws_owner":         reflect.TypeFor[Owner](),
	"tws_paws_reject":   reflect.TypeFor[PawsReject](),
	"tws_syn_reject":    reflect.TypeFor[SynReject](),
	"tws_turns":         reflect.TypeFor[Turns](),
	"tws_syn_header":    reflect.TypeFor[SynHeader](),
	"tws_prefix_key":    reflect.TypeFor[PrefixKey](),
	"tws_reuse":         reflect.TypeFor[Reuse](),
	"tws_sock":          reflect.TypeFor[Sock](),
	"tws_syn":           reflect.TypeFor[Syn](),
	"tws_syn_refused":   reflect.TypeFor[SynRefused](),
	"tws_tally":         reflect.TypeFor[Tally](),
	"tws_tcpopt":        reflect.TypeFor[Tcpopt](),
	"tws_time_wait":     reflect.TypeFor[TimeWait](),
	"tws_time_wait_end": reflect.TypeFor[TimeWaitEnd](),
	"tws_tuple":         reflect.TypeFor[Tuple](),
}

// records go through the ring buffer, which tells a reader nothing but a
// length: the header must say what they are.
var records = []string{
	"tws_connect_fail", "tws_paws_reject", "tws_reuse", "tws_syn", "tws_syn_refused", "tws_syn_reject", "tws_time_wait", "tws_time_wait_end",
}

func structNamed(t *testing.T, types *btf.Spec, name string) *btf.Struct {
	t.Helper()
	found := typesNamed[*btf.Struct](t, types, name)
	if len(found) != 1 {
		t.Fatalf("%d structs are named %s, want 1", len(found), name)
	}
	return found[0]
}

func TestContract(t *testing.T) {
	for _, o := range allCompiled(t) {
		if !strings.HasPrefix(o.name, "connect_") {
			continue // this object has all of the contract; TestObjectsAgree does the rest
		}
		t.Run(o.name, func(t *testing.T) {
			for _, m := range structNamed(t, o.spec.Types, "tws_abi").Members {
				if s, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok && contract[s.Name] == nil {
					t.Errorf("%s has no Go type in this test", s.Name)
				}
			}
			for name, typ := range contract {
				s := structNamed(t, o.spec.Types, name)
				checkStruct(t, s, typ)
				header := s.Members[0].Type.TypeName() == "tws_header"
				if want := slices.Contains(records, name); header != want {
					t.Errorf("%s begins with a header: %v, want %v", name, header, want)
				}
			}
		})
	}
}

// checkStruct compares a struct in C with one in Go, member by member.
func checkStruct(t *testing.T, s *btf.Struct, typ reflect.Type) {
	t.Helper()
	if int(s.Size) != int(typ.Size()) {
		t.Errorf("%s has %d bytes, %s has %d", s.Name, s.Size, typ, typ.Size())
	}
	var fields []reflect.StructField
	for f := range typ.Fields() {
		if f.Name != "_" {
			fields = append(fields, f)
		}
	}
	if len(fields) != len(s.Members) {
		t.Fatalf("%s has %d members, %s has %d", s.Name, len(s.Members), typ, len(fields))
	}
	end := 0
	for i, m := range s.Members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatal(err)
		}
		at, f := int(m.Offset.Bytes()), fields[i]
		if !strings.EqualFold(strings.ReplaceAll(m.Name, "_", ""), f.Name) {
			t.Errorf("%s.%s is called %s in Go", s.Name, m.Name, f.Name)
		}
		if at != int(f.Offset) || size != int(f.Type.Size()) {
			t.Errorf("%s.%s is bytes %d+%d, in Go %d+%d", s.Name, m.Name, at, size, f.Offset, f.Type.Size())
		}
		if at != end || m.BitfieldSize != 0 {
			t.Errorf("%s.%s: at %d, but what is before it ends at %d: pad by hand", s.Name, m.Name, at, end)
		}
		end = at + size
		if inner, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok {
			checkStruct(t, inner, f.Type)
		}
	}
	if end != int(s.Size) {
		t.Errorf("%s: %d bytes behind the last member: pad by hand", s.Name, int(s.Size)-end)
	}
}

// TestEnums: internal/probe converts by cast, so the values must be the same.
func TestEnums(t *testing.T) {
	// a value in C is named after the name of the event's value in JSON
	names := map[string]func(uint64) string{
		"tws_role":      func(v uint64) string { return event.Role(v).String() },
		"tws_substate":  func(v uint64) string { return event.Substate(v).String() },
		"tws_end":       func(v uint64) string { return event.EndReason(v).String() },
		"tws_signature": func(v uint64) string { return event.Signature(v).String() },
		"tws_where":     func(v uint64) string { return event.Where(v).String() },
		"tws_segment":   func(v uint64) string { return event.Segment(v).String() },
		"tws_reply":     func(v uint64) string { return event.Reply(v).String() },
		"tws_kind": func(v uint64) string {
			return map[Kind]string{
				KindNone: "none", KindTimeWait: "time_wait", KindTimeWaitEnd: "time_wait_end", KindTWReuse: "tw_reuse",
				KindConnectFail: "connect_fail", KindSYN: "syn", KindSYNRefused: "syn_refused",
				KindPAWSReject: "paws_reject", KindSYNReject: "syn_reject", KindConnected: "connected", KindMax: "max",
			}[Kind(v)]
		},
		"tws_counter": func(v uint64) string {
			return map[Counter]string{
				CounterNone: "none", CounterPAWSEstab: "paws_estab", CounterPAWSTimewait: "paws_timewait",
				CounterPAWSActive: "paws_active", CounterPAWSOldAck: "paws_old_ack", CounterTSEcrRejected: "tsecr_rejected",
			}[Counter(v)]
		},
	}
	for _, o := range allCompiled(t) {
		if !strings.HasPrefix(o.name, "connect_") {
			continue
		}
		for name, text := range names {
			t.Run(o.name+"/"+name, func(t *testing.T) {
				enums := typesNamed[*btf.Enum](t, o.spec.Types, name)
				if len(enums) != 1 || enums[0].Size != 1 {
					t.Fatalf("want one enum of one byte, got %v", enums)
				}
				for _, v := range enums[0].Values {
					want := strings.ToLower(strings.TrimPrefix(v.Name, strings.ToUpper(name)+"_"))
					if got := text(v.Value); got != want {
						t.Errorf("%s is %d, which is %q in Go", v.Name, v.Value, got)
					}
				}
			})
		}
	}
}

// TestObjectsAgree: all objects share one set of maps, and the types in them
// are compiled into each.
func TestObjectsAgree(t *testing.T) {
	firstMap, firstType := map[string]string{}, map[string]string{}
	agree := func(object string, first map[string]string, name, got string) {
		if first[name] == "" {
			first[name] = got
		}
		if diff := cmp.Diff(first[name], got); diff != "" {
			t.Errorf("%s: %s differs from that of another object (-other +this):\n%s", object, name, diff)
		}
	}
	for _, o := range allCompiled(t) {
		for name, m := range o.spec.Maps {
			if strings.HasPrefix(name, ".") {
				continue // constants are an object's own
			}
			agree(o.name, firstMap, name, describeMap(m))
		}
		for typ, err := range o.spec.Types.All() {
			if err != nil {
				t.Fatal(err)
			}
			if name := typ.TypeName(); strings.HasPrefix(name, "tws_") {
				agree(o.name, firstType, fmt.Sprintf("%T %s", typ, name), describeType(typ))
			}
		}
	}
	for name := range contract {
		if firstType["*btf.Struct "+name] == "" {
			t.Errorf("no object has %s", name)
		}
	}
}

func describeMap(m *ebpf.MapSpec) string {
	text := fmt.Sprintf("%s key %d value %d entries %d flags %#x", m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags)
	for _, typ := range []btf.Type{m.Key, m.Value} {
		if typ != nil {
			text += " " + typ.TypeName()
		}
	}
	return text
}

func describeType(typ btf.Type) string {
	var text strings.Builder
	switch typ := typ.(type) {
	case *btf.Struct:
		fmt.Fprintf(&text, "size %d\n", typ.Size)
		for _, m := range typ.Members {
			size, err := btf.Sizeof(m.Type)
			fmt.Fprintf(&text, "%s %s %d+%d %v\n", m.Name, m.Type.TypeName(), m.Offset, size, err)
		}
	case *btf.Enum:
		fmt.Fprintf(&text, "size %d %v\n", typ.Size, typ.Values)
	}
	return text.String()
}
