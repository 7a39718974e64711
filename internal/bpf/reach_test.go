// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/bits"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// reachable tells which instructions a program can get to, as far as constants
// tell. That is how verifiers see bpf_core_field_exists(): a constant, and a
// branch on it whose other side is dead. What comes from memory or from a
// helper may have any value.
func reachable(t *testing.T, insns asm.Instructions) []bool {
	t.Helper()
	index := map[asm.RawInstructionOffset]int{}
	offset := make([]asm.RawInstructionOffset, len(insns))
	for it := insns.Iterate(); it.Next(); {
		index[it.Offset] = it.Index
		offset[it.Index] = it.Offset
	}
	states := make([]*registers, len(insns))
	work := []int{0}
	states[0] = &registers{}
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		next, taken, falls := states[at].step(insns[at])
		follow := func(to int) {
			if to >= len(insns) {
				t.Fatalf("instruction %d leaves the program", at)
			}
			if merged := next.merge(states[to]); states[to] == nil || merged != *states[to] {
				states[to] = &merged
				work = append(work, to)
			}
		}
		if falls {
			follow(at + 1)
		}
		if taken {
			to, ok := index[asm.RawInstructionOffset(int64(offset[at])+1+int64(insns[at].Offset))]
			if !ok {
				t.Fatalf("instruction %d jumps into nothing", at)
			}
			follow(to)
		}
	}
	reached := make([]bool, len(insns))
	for i, s := range states {
		reached[i] = s != nil
	}
	return reached
}

// constant is what is known of a register.
type constant struct {
	known bool
	value uint64
}

type registers [asm.R10 + 1]constant

// merge keeps what is known on both ways to an instruction.
func (r *registers) merge(other *registers) registers {
	merged := *r
	for i := range merged {
		if other != nil && merged[i] != other[i] {
			merged[i] = constant{}
		}
	}
	return merged
}

// step returns the registers after an instruction, and whether it may jump to
// its target and go on to the next instruction.
func (r *registers) step(ins asm.Instruction) (next registers, taken, falls bool) {
	next = *r
	op := ins.OpCode
	switch class := op.Class(); {
	case class.IsALU():
		next[ins.Dst] = r.alu(ins)
	case class == asm.LdClass || class == asm.LdXClass:
		next[ins.Dst] = constant{}
		if ins.IsConstantLoad(asm.DWord) {
			next[ins.Dst] = constant{true, uint64(ins.Constant)}
		}
	case class == asm.StXClass && op.Mode() == asm.AtomicMode:
		next[ins.Src] = constant{} // a fetch
		next[asm.R0] = constant{}  // a compare and exchange
	case !class.IsJump():
	case op.JumpOp() == asm.Exit:
		return next, false, false
	case op.JumpOp() == asm.Call:
		for reg := asm.R0; reg <= asm.R5; reg++ {
			next[reg] = constant{}
		}
	case op.JumpOp() == asm.Ja:
		return next, true, false
	default:
		jumps, known := r.jumps(ins)
		return next, jumps || !known, !jumps || !known
	}
	return next, false, true
}

// operands returns both sides of an instruction, cut to its width.
func (r *registers) operands(ins asm.Instruction, wide bool) (a, b uint64, known bool) {
	src := constant{true, uint64(ins.Constant)}
	if ins.OpCode.Source() == asm.RegSource {
		src = r[ins.Src]
	}
	a, b = r[ins.Dst].value, src.value
	if !wide {
		a, b = uint64(uint32(a)), uint64(uint32(b))
	}
	return a, b, r[ins.Dst].known && src.known
}

func (r *registers) alu(ins asm.Instruction) constant {
	wide := ins.OpCode.Class() == asm.ALU64Class
	a, b, known := r.operands(ins, wide)
	var v uint64
	switch ins.OpCode.ALUOp() {
	case asm.Mov:
		if ins.OpCode.Source() == asm.ImmSource || r[ins.Src].known {
			known = true
		}
		v = b
	case asm.Add:
		v = a + b
	case asm.Sub:
		v = a - b
	case asm.And:
		v = a & b
	case asm.Or:
		v = a | b
	case asm.Xor:
		v = a ^ b
	case asm.LSh:
		v = a << (b & 63)
	case asm.RSh:
		v = a >> (b & 63)
	default:
		known = false
	}
	if !known {
		return constant{}
	}
	if !wide {
		v = uint64(uint32(v))
	}
	return constant{true, v}
}

func (r *registers) jumps(ins asm.Instruction) (jumps, known bool) {
	wide := ins.OpCode.Class() == asm.JumpClass
	a, b, known := r.operands(ins, wide)
	if !known {
		return false, false
	}
	x, y := int64(a), int64(b)
	if !wide {
		x, y = int64(int32(a)), int64(int32(b))
	}
	switch ins.OpCode.JumpOp() {
	case asm.JEq:
		return a == b, true
	case asm.JNE:
		return a != b, true
	case asm.JSet:
		return bits.OnesCount64(a&b) > 0, true
	case asm.JGT:
		return a > b, true
	case asm.JGE:
		return a >= b, true
	case asm.JLT:
		return a < b, true
	case asm.JLE:
		return a <= b, true
	case asm.JSGT:
		return x > y, true
	case asm.JSGE:
		return x >= y, true
	case asm.JSLT:
		return x < y, true
	case asm.JSLE:
		return x <= y, true
	default:
		return false, false
	}
}

func TestReachable(t *testing.T) {
	guarded := func(exists int32) asm.Instructions {
		return asm.Instructions{
			asm.Mov.Imm(asm.R1, exists),
			asm.LoadMapPtr(asm.R2, 0), // two slots wide: jumps count both
			asm.JEq.Imm(asm.R1, 0, ""),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		}
	}
	tests := []struct {
		name  string
		insns func() asm.Instructions
		want  []bool
	}{
		{"the field exists", func() asm.Instructions { return guarded(1) }, []bool{true, true, true, true, true, false, false}},
		{"the field does not exist", func() asm.Instructions { return guarded(0) }, []bool{true, true, true, false, false, true, true}},
		{"nobody knows", func() asm.Instructions {
			insns := guarded(0)
			insns[0] = asm.LoadMem(asm.R1, asm.R10, -8, asm.Word)
			return insns
		}, []bool{true, true, true, true, true, true, true}},
		{"a call forgets", func() asm.Instructions {
			insns := guarded(0)
			insns[1] = asm.FnKtimeGetNs.Call()
			return insns
		}, []bool{true, true, true, true, true, true, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			insns := tt.insns()
			insns[2].Offset = 2
			got := reachable(t, insns)
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("instruction %d: reachable %v, want %v", i, got[i], tt.want[i])
				}
			}
		})
	}
}
