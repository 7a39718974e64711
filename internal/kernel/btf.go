// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"strings"

	"github.com/cilium/ebpf/btf"
)

// BTF answers what a kernel has from its type information, of this kernel or
// of a stored one. A kernel's own version number does not tell: distributions
// backport.
type BTF struct {
	spec *btf.Spec
}

// NewBTF returns the answers of spec, the BTF of vmlinux.
func NewBTF(spec *btf.Spec) BTF { return BTF{spec} }

// HasFunc reports whether the kernel has a function of this name that was not
// inlined away. A function that is there may still refuse to be traced.
func (b BTF) HasFunc(name string) bool {
	return len(typesOf[*btf.Func](b, name)) > 0
}

// FuncArity returns the number of parameters of a function; false if there is
// none of this name, or several that differ.
func (b BTF) FuncArity(name string) (int, bool) {
	arity := -1
	for _, f := range typesOf[*btf.Func](b, name) {
		proto, ok := f.Type.(*btf.FuncProto)
		if !ok || arity >= 0 && arity != len(proto.Params) {
			return 0, false
		}
		arity = len(proto.Params)
	}
	return max(arity, 0), arity >= 0
}

// TracepointArgs returns the number of arguments of a tracepoint as a tp_btf
// program sees them; false if the kernel has none of this name.
func (b BTF) TracepointArgs(name string) (int, bool) {
	for _, def := range typesOf[*btf.Typedef](b, "btf_trace_"+name) {
		ptr, ok := btf.UnderlyingType(def).(*btf.Pointer)
		if !ok {
			continue
		}
		// The first parameter is the void * of whoever registered the probe.
		if proto, ok := ptr.Target.(*btf.FuncProto); ok && len(proto.Params) > 0 {
			return len(proto.Params) - 1, true
		}
	}
	return 0, false
}

// HasField reports whether a struct has a member of this name, be it in an
// anonymous struct or union within.
func (b BTF) HasField(structName, field string) bool {
	for _, s := range typesOf[*btf.Struct](b, structName) {
		if hasMember(s.Members, field) {
			return true
		}
	}
	return false
}

func hasMember(members []btf.Member, field string) bool {
	for _, m := range members {
		if m.Name != "" {
			if m.Name == field {
				return true
			}
			continue
		}
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			if hasMember(t.Members, field) {
				return true
			}
		case *btf.Union:
			if hasMember(t.Members, field) {
				return true
			}
		}
	}
	return false
}

// DropReasons names the values of enum skb_drop_reason, which differ from
// release to release. Names have no prefix: "TCP_RFC7323_TW_PAWS". Both maps
// are empty where the kernel has no such enum, which is before 5.17.
type DropReasons struct {
	Name  map[uint32]string
	Value map[string]uint32
}

// DropReasons returns the drop reasons of the kernel's core; those that
// subsystems register at run time have no names in BTF.
func (b BTF) DropReasons() DropReasons {
	r := DropReasons{Name: map[uint32]string{}, Value: map[string]uint32{}}
	for _, enum := range typesOf[*btf.Enum](b, "skb_drop_reason") {
		for _, v := range enum.Values {
			name := strings.TrimPrefix(v.Name, "SKB_")
			name = strings.TrimPrefix(name, "DROP_REASON_")
			if name == "MAX" || name == "SUBSYS_MASK" {
				continue // bounds, not reasons
			}
			r.Name[uint32(v.Value)] = name
			r.Value[name] = uint32(v.Value)
		}
	}
	return r
}

// TWCounting tells when the kernel counts a TIME_WAIT socket in the counters
// TW and TWKilled.
type TWCounting uint8

// The answers.
const (
	TWCountingUnknown   TWCounting = iota
	TWCountedAtExpiry              // tw_timer_handler counts, up to 5.17: the growth of TW is deaths
	TWCountedAtCreation            // __inet_twsk_schedule counts, since 5.18: the growth of TW is births
)

// TWCounting returns when TIME_WAIT sockets are counted.
//
// The commit that moved the counting (27dd35e02235, 5.18) took with it
// inet_timewait_sock.tw_kill, the bit that told the timer which of the two
// counters to use, so a struct without it proves the new semantics wherever
// the commit was backported to.
func (b BTF) TWCounting() TWCounting {
	switch {
	case !b.HasField("inet_timewait_sock", "tw_substate"):
		return TWCountingUnknown
	case b.HasField("inet_timewait_sock", "tw_kill"):
		return TWCountedAtExpiry
	default:
		return TWCountedAtCreation
	}
}

// TSOffset tells what the offset of this kernel's own TSvals depends on.
type TSOffset uint8

// The answers.
const (
	TSOffsetUnknown      TSOffset = iota
	TSOffsetPerAddresses          // the two addresses: monotonic even behind a NAT that rewrites ports
	TSOffsetPerTuple              // addresses and ports: monotonic per 4-tuple before NAT only
)

// TSOffset returns what the TSval offset of this kernel depends on. It tells
// nothing about the kernel of a peer. The ports came in with 165573e41f2f
// (7.0, 6.18.17, 6.12.94), which replaced secure_tcp_ts_off by
// secure_tcp_seq_and_ts_off.
func (b BTF) TSOffset() TSOffset {
	switch {
	case b.HasFunc("secure_tcp_seq_and_ts_off"):
		return TSOffsetPerTuple
	case b.HasFunc("secure_tcp_ts_off"):
		return TSOffsetPerAddresses
	default:
		return TSOffsetUnknown
	}
}

// typesOf returns the types of this name and kind; a name may stand for
// several, such as static functions of different files.
func typesOf[T btf.Type](b BTF, name string) []T {
	types, err := b.spec.AnyTypesByName(name)
	if err != nil {
		return nil // not found; a decoded spec has no other error
	}
	var found []T
	for _, t := range types {
		if t, ok := t.(T); ok {
			found = append(found, t)
		}
	}
	return found
}
