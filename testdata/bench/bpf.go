// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// bpfFDs are the BPF objects that a process holds.
type bpfFDs struct {
	programs map[ebpf.ProgramID]bool
	links    []fdinfo
	perf     bool // holds a perf event, which a program may be attached to
}

// fdinfo is a file of /proc/PID/fdinfo.
type fdinfo map[string]string

func parseFdinfo(data string) fdinfo {
	info := fdinfo{}
	for line := range strings.Lines(data) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			info[name] = strings.TrimSpace(value)
		}
	}
	return info
}

// number returns a member that is a decimal number.
func (f fdinfo) number(name string) (uint32, bool) {
	n, err := strconv.ParseUint(f[name], 10, 32)
	return uint32(n), err == nil
}

func (p *process) fds() (bpfFDs, error) {
	fds := bpfFDs{programs: map[ebpf.ProgramID]bool{}}
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	entries, err := os.ReadDir(dir + "fd")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fds, err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, "fd", e.Name()))
		if err != nil || !strings.HasPrefix(target, "anon_inode:") {
			continue // closed meanwhile, or a file
		}
		fds.perf = fds.perf || target == "anon_inode:[perf_event]"
		data, err := os.ReadFile(filepath.Join(dir, "fdinfo", e.Name()))
		if err != nil {
			continue
		}
		info := parseFdinfo(string(data))
		if id, ok := info.number("prog_id"); ok {
			fds.programs[ebpf.ProgramID(id)] = true
		}
		if _, ok := info.number("link_id"); ok {
			fds.links = append(fds.links, info)
		}
	}
	return fds, nil
}

// hook is where a tracing program is attached in the kernel.
type hook struct {
	Name   string          `json:"name"`
	Attach ebpf.AttachType `json:"attach_type"`
}

// vmlinuxBTF is the object id of the kernel's own BTF, the first ever loaded.
const vmlinuxBTF = 1

// hooks are where the links of a process lead, those of tracing programs in
// the kernel itself. Others, such as iterators, are not called by connections.
func hooks(links []fdinfo) ([]hook, error) {
	var found []hook
	for _, l := range links {
		switch l["link_type"] {
		case "raw_tracepoint":
			found = append(found, hook{Name: l["tp_name"], Attach: ebpf.AttachTraceRawTp})
		case "tracing":
			attach, ok := l.number("attach_type")
			target, known := l.number("target_btf_id")
			object, _ := l.number("target_obj_id")
			if !ok || !known || object != vmlinuxBTF {
				continue
			}
			kernel, err := btf.LoadKernelSpec()
			if err != nil {
				return nil, err
			}
			t, err := kernel.TypeByID(btf.TypeID(target))
			if err != nil {
				return nil, err
			}
			found = append(found, hook{Name: t.TypeName(), Attach: ebpf.AttachType(attach)})
		}
	}
	slices.SortFunc(found, func(a, b hook) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Attach, b.Attach))
	})
	return found, nil
}

// closers are closed in the opposite order.
type closers []io.Closer

func (cs closers) Close() error {
	var errs []error
	for _, c := range slices.Backward(cs) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// attachEmpty attaches a program that does nothing to each of the hooks: the
// floor of what any program there can cost.
func attachEmpty(at []hook) (cs closers, programs map[ebpf.ProgramID]bool, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, cs.Close())
		}
	}()
	programs = map[ebpf.ProgramID]bool{}
	for _, h := range at {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "empty", Type: ebpf.Tracing, AttachType: h.Attach, AttachTo: h.Name, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		if err != nil {
			return cs, nil, fmt.Errorf("empty program on %s: %w", h.Name, err)
		}
		cs = append(cs, prog)
		l, err := link.AttachTracing(link.TracingOptions{Program: prog, AttachType: h.Attach})
		if err != nil {
			return cs, nil, fmt.Errorf("attach to %s: %w", h.Name, err)
		}
		cs = append(cs, l)
		info, err := prog.Info()
		if err != nil {
			return cs, nil, err
		}
		id, _ := info.ID()
		programs[id] = true
	}
	return cs, programs, nil
}

// programCost is what the kernel's statistics say of one program.
type programCost struct {
	Name string `json:"name"`
	Runs uint64 `json:"runs"`
	NS   uint64 `json:"ns"`
}

// readCosts returns the statistics of programs by id.
func readCosts(ids map[ebpf.ProgramID]bool) (map[ebpf.ProgramID]programCost, error) {
	costs := make(map[ebpf.ProgramID]programCost, len(ids))
	for id := range ids {
		c, err := readCost(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went with its process
		}
		if err != nil {
			return nil, fmt.Errorf("BPF program %d: %w", id, err)
		}
		costs[id] = c
	}
	return costs, nil
}

func readCost(id ebpf.ProgramID) (programCost, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return programCost{}, err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return programCost{}, err
	}
	stats, err := prog.Stats()
	if err != nil {
		return programCost{}, err
	}
	return programCost{Name: programName(info), Runs: stats.RunCount, NS: uint64(stats.Runtime)}, nil
}

// programName is the name of the program's function, which unlike that of the
// program is not cut at 15 bytes.
func programName(info *ebpf.ProgramInfo) string {
	if funcs, err := info.FuncInfos(); err == nil && len(funcs) > 0 {
		return funcs[0].Func.Name
	}
	return info.Name
}

// costsSince is the difference of two readings, programs of one name summed.
func costsSince(before, after map[ebpf.ProgramID]programCost) []programCost {
	byName := map[string]programCost{}
	for id, a := range after {
		b := before[id]
		sum := byName[a.Name]
		byName[a.Name] = programCost{Name: a.Name, Runs: sum.Runs + a.Runs - b.Runs, NS: sum.NS + a.NS - b.NS}
	}
	costs := slices.Collect(maps.Values(byName))
	sortCosts(costs)
	return costs
}

// sortCosts puts what costs most first.
func sortCosts(costs []programCost) {
	slices.SortFunc(costs, func(a, b programCost) int {
		return cmp.Or(cmp.Compare(b.NS, a.NS), strings.Compare(a.Name, b.Name))
	})
}
