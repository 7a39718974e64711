// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// reduce returns the BTF of only the named types and functions, complete by value, with pointers to anything else turned
// into pointers to forward declarations. Names that the kernel lacks are left out.
func reduce(spec *btf.Spec, names map[string]bool) ([]byte, error) {
	r := &reducer{names: names, done: map[btf.Type]btf.Type{}, fwds: map[btf.Fwd]*btf.Fwd{}}
	var keep []btf.Type
	for _, name := range slices.Sorted(maps.Keys(names)) {
		types, err := spec.AnyTypesByName(name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, t := range types {
			switch t.(type) {
			case *btf.Struct, *btf.Union, *btf.Enum, *btf.Typedef, *btf.Func, *btf.Int:
				keep = append(keep, r.whole(t))
			}
		}
	}
	b, err := btf.NewBuilder(keep, nil)
	if err != nil {
		return nil, err
	}
	return b.Marshal(nil, nil)
}

// reducer copies a graph of types and cuts it at pointers.
type reducer struct {
	names map[string]bool
	done  map[btf.Type]btf.Type
	fwds  map[btf.Fwd]*btf.Fwd
}

// whole copies a type with all it holds by value.
func (r *reducer) whole(t btf.Type) btf.Type {
	if c, ok := r.done[t]; ok {
		return c
	}
	switch t := t.(type) {
	case *btf.Pointer:
		c := &btf.Pointer{}
		r.done[t] = c
		c.Target = r.pointed(t.Target)
		return c
	case *btf.Struct:
		c := &btf.Struct{Name: t.Name, Size: t.Size}
		r.done[t] = c
		c.Members = r.members(t.Members)
		return c
	case *btf.Union:
		c := &btf.Union{Name: t.Name, Size: t.Size}
		r.done[t] = c
		c.Members = r.members(t.Members)
		return c
	case *btf.Typedef:
		c := &btf.Typedef{Name: t.Name}
		r.done[t] = c
		if p, ok := t.Type.(*btf.Pointer); ok && strings.HasPrefix(t.Name, "btf_trace_") {
			// The one function pointer that counts: the arguments of a tracepoint.
			c.Type = &btf.Pointer{Target: r.whole(p.Target)}
		} else {
			c.Type = r.whole(t.Type)
		}
		return c
	case *btf.Array:
		c := &btf.Array{Nelems: t.Nelems}
		r.done[t] = c
		c.Index, c.Type = r.whole(t.Index), r.whole(t.Type)
		return c
	case *btf.Func:
		c := &btf.Func{Name: t.Name, Linkage: t.Linkage}
		r.done[t] = c
		c.Type = r.whole(t.Type)
		return c
	case *btf.FuncProto:
		c := &btf.FuncProto{}
		r.done[t] = c
		c.Return = r.whole(t.Return)
		for _, p := range t.Params {
			c.Params = append(c.Params, btf.FuncParam{Name: p.Name, Type: r.whole(p.Type)})
		}
		return c
	}
	return r.qualified(t)
}

// qualified copies qualifiers; a type without references needs no copy. Tags say nothing to a relocation.
func (r *reducer) qualified(t btf.Type) btf.Type {
	switch t := t.(type) {
	case *btf.Const:
		c := &btf.Const{}
		r.done[t] = c
		c.Type = r.whole(t.Type)
		return c
	case *btf.Volatile:
		c := &btf.Volatile{}
		r.done[t] = c
		c.Type = r.whole(t.Type)
		return c
	case *btf.Restrict:
		c := &btf.Restrict{}
		r.done[t] = c
		c.Type = r.whole(t.Type)
		return c
	case *btf.TypeTag:
		return r.whole(t.Type)
	}
	return t
}

func (r *reducer) members(in []btf.Member) []btf.Member {
	out := make([]btf.Member, len(in))
	for i, m := range in {
		out[i] = btf.Member{Name: m.Name, Offset: m.Offset, BitfieldSize: m.BitfieldSize, Type: r.whole(m.Type)}
	}
	return out
}

// pointed copies what a pointer points to, if it is wanted for its own sake.
func (r *reducer) pointed(t btf.Type) btf.Type {
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return r.orForward(t, u.Name, btf.FwdStruct)
	case *btf.Union:
		return r.orForward(t, u.Name, btf.FwdUnion)
	case *btf.FuncProto:
		return &btf.Void{}
	}
	return r.whole(t)
}

func (r *reducer) orForward(t btf.Type, name string, kind btf.FwdKind) btf.Type {
	switch {
	case r.names[name]:
		return r.whole(t)
	case name == "":
		// Behind a typedef, or nothing that a program could name.
		return &btf.Void{}
	}
	f := btf.Fwd{Name: name, Kind: kind}
	if r.fwds[f] == nil {
		r.fwds[f] = &f
	}
	return r.fwds[f]
}
