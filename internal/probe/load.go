// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/twscope/twscope/internal/bpf"
)

// loader loads and attaches programs. All of them share one set of maps.
type loader struct {
	specs   map[string]*ebpf.CollectionSpec
	maps    map[string]*ebpf.Map
	cache   *btf.Cache
	closers []io.Closer
	// attached are the programs that run, for their statistics.
	attached []attached
}

func newLoader(cache *btf.Cache, ringSize uint32) (*loader, error) {
	l := &loader{
		specs: map[string]*ebpf.CollectionSpec{},
		maps:  map[string]*ebpf.Map{},
		cache: cache,
	}
	for _, o := range bpf.Objects() {
		spec, err := o.Load()
		if err != nil {
			return nil, fmt.Errorf("read the BPF object %s: %w", o.Name, err)
		}
		spec.Maps["tws_events"].MaxEntries = ringSize
		l.specs[o.Name] = spec
	}
	for _, spec := range l.specs {
		for name, m := range spec.Maps {
			if l.maps[name] != nil || strings.HasPrefix(name, ".") {
				continue
			}
			created, err := ebpf.NewMap(m)
			if err != nil {
				l.Close()
				return nil, fmt.Errorf("create the BPF map %s: %w", name, err)
			}
			l.maps[name] = created
		}
	}
	return l, nil
}

// done gives back what only loading needs: types and instructions, by far the
// most of an idle daemon's memory.
func (l *loader) done() { l.specs, l.cache = nil, nil }

type attached struct {
	name string
	*ebpf.Program
}

// load loads some programs of an object, with settings of their own.
func (l *loader) load(object string, names []string, cfg bpf.Config) (map[string]*ebpf.Program, error) {
	spec := l.specs[object].Copy()
	for name := range spec.Programs {
		if !slices.Contains(names, name) {
			delete(spec.Programs, name)
		}
	}
	for _, name := range names {
		if spec.Programs[name] == nil {
			return nil, fmt.Errorf("the BPF object %s has no program %s", object, name)
		}
	}
	if err := spec.Variables["tws_cfg"].Set(cfg); err != nil {
		return nil, fmt.Errorf("set the BPF settings: %w", err)
	}
	shared := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := l.maps[name]; m != nil {
			shared[name] = m
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: shared, Cache: l.cache,
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	programs := map[string]*ebpf.Program{}
	for _, name := range names {
		programs[name] = coll.DetachProgram(name)
	}
	return programs, nil
}

// attach loads and attaches the programs of a step, all or none. Optional
// programs may be missing; what is missing is returned in words.
func (l *loader) attach(object string, programs []program, cfg bpf.Config) ([]string, error) {
	var missing []string
	var opened []io.Closer
	var running []attached
	undo := func() {
		for _, c := range opened {
			c.Close()
		}
	}
	for _, p := range programs {
		prog, lnk, err := l.attachOne(object, p.name, cfg)
		switch {
		case err == nil:
			opened = append(opened, lnk, prog)
			running = append(running, attached{p.name, prog})
		case p.optional && isMissing(err):
			missing = append(missing, l.hook(object, p.name))
		default:
			undo()
			return nil, fmt.Errorf("%s: %w", l.hook(object, p.name), err)
		}
	}
	l.closers = append(l.closers, opened...)
	l.attached = append(l.attached, running...)
	return missing, nil
}

func (l *loader) attachOne(object, name string, cfg bpf.Config) (*ebpf.Program, link.Link, error) {
	progs, err := l.load(object, []string{name}, cfg)
	if err != nil {
		return nil, nil, err
	}
	prog := progs[name]
	lnk, err := attachProgram(prog, l.specs[object].Programs[name])
	if err != nil {
		prog.Close()
		return nil, nil, err
	}
	return prog, lnk, nil
}

func attachProgram(prog *ebpf.Program, spec *ebpf.ProgramSpec) (link.Link, error) {
	if spec.Type != ebpf.Kprobe {
		return link.AttachTracing(link.TracingOptions{Program: prog})
	}
	if strings.HasPrefix(spec.SectionName, "kretprobe/") {
		return link.Kretprobe(spec.AttachTo, prog, nil)
	}
	return link.Kprobe(spec.AttachTo, prog, nil)
}

// hook names what a program hangs on, such as "fentry/tcp_time_wait".
func (l *loader) hook(object, name string) string {
	return l.specs[object].Programs[name].SectionName
}

// isMissing tells a function that the kernel does not have from one that it
// does not let us trace.
func isMissing(err error) bool {
	return errors.Is(err, btf.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

// recursionMisses sums up how often a program was not run because it was
// already running on that CPU, for all but the one named. Kernels before 5.12
// do not count it.
func (l *loader) recursionMisses(except string) uint64 {
	var sum uint64
	for _, p := range l.attached {
		stats, err := p.Stats()
		if err == nil && p.name != except {
			sum += stats.RecursionMisses
		}
	}
	return sum
}

// Close detaches and unloads everything.
func (l *loader) Close() {
	for _, c := range l.closers {
		c.Close()
	}
	for _, m := range l.maps {
		m.Close()
	}
	l.closers, l.maps, l.attached = nil, nil, nil
}
