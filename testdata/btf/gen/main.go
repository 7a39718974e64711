// SPDX-License-Identifier: Apache-2.0

// Command gen makes the reduced kernel BTFs against which the CO-RE relocations of all BPF programs are tried without
// root: it takes the type information out of Debian's kernel images and keeps what the programs may ask for.
//
// Run it at the top of the repository: go run ./testdata/btf/gen. Each result, testdata/btf/SERIES-ARCH.btf.gz, is a raw BTF blob under
// gzip, whose header names the kernel release.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/twscope/twscope/testdata/vm/debkernel"
)

// wantedKernels are Debian's architectures with the series that the programs must fit.
var wantedKernels = []struct {
	arch   string
	series []string
}{
	{"amd64", []string{"5.10", "6.1", "6.12", "7"}},
	{"arm64", []string{"6.12", "7"}},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "btf/gen:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	cache := debkernel.Cache{Log: os.Stderr}
	out := flag.String("o", "testdata/btf", "write to this `directory`")
	wanted := flag.String("wanted", "testdata/btf/wanted.txt", "`file` with the names to keep")
	objects := flag.String("objects", "internal/bpf/*.o", "also keep what these objects name; a `pattern`")
	host := flag.String("host", "", "only reduce the running kernel's BTF, to `NAME`.btf.gz")
	flag.StringVar(&cache.Dir, "cache", ".cache/kernels", "keep kernels in this `directory`")
	flag.StringVar(&cache.Mirror, "mirror", "", "`address` of a Debian archive (default: that of the host's apt)")
	flag.BoolVar(&cache.Refresh, "u", false, "look for newer kernels although the cache has one of each series")
	flag.Parse()

	names, err := wantedNames(*wanted, *objects)
	if err != nil {
		return err
	}
	if *host != "" {
		return reduceHost(filepath.Join(*out, *host+".btf.gz"), names)
	}
	for _, w := range wantedKernels {
		kernels, err := cache.Get(ctx, w.arch, w.series)
		if err != nil {
			return err
		}
		for _, k := range kernels {
			blob, err := k.BTF(ctx)
			if err != nil {
				return fmt.Errorf("kernel %s: %w", k.Release, err)
			}
			if err := write(filepath.Join(*out, k.Series+"-"+w.arch+".btf.gz"), k.Release, blob, names); err != nil {
				return fmt.Errorf("kernel %s: %w", k.Release, err)
			}
		}
	}
	return nil
}

func reduceHost(name string, names map[string]bool) error {
	blob, err := os.ReadFile("/sys/kernel/btf/vmlinux")
	if err != nil {
		return err
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	// What a vendor appends to the version would only date the file.
	version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	return write(name, version, blob, names)
}

// write reduces a BTF, proves that the result can be read, and stores it so that the same input gives the same bytes.
func write(name, release string, blob []byte, names map[string]bool) error {
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(blob))
	if err != nil {
		return err
	}
	small, err := reduce(spec, names)
	if err != nil {
		return err
	}
	if _, err := btf.LoadSpecFromReader(bytes.NewReader(small)); err != nil {
		return fmt.Errorf("the reduced BTF: %w", err)
	}
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	z.Name = release
	if _, err := z.Write(small); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	fmt.Printf("%-36s %-30s %8d bytes, %6d packed\n", name, release, len(small), packed.Len())
	return os.WriteFile(name, packed.Bytes(), 0o644)
}

// wantedNames reads the list and adds what the compiled objects name: types, hooked functions, tracepoints, iterators.
func wantedNames(list, objects string) (map[string]bool, error) {
	names := map[string]bool{}
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			names[line] = true
		}
	}
	files, err := filepath.Glob(objects)
	if err != nil {
		return nil, fmt.Errorf("-objects: %w", err)
	}
	for _, f := range files {
		if err := addObject(names, f); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	return names, nil
}

func addObject(names map[string]bool, file string) error {
	coll, err := ebpf.LoadCollectionSpec(file)
	if err != nil {
		return err
	}
	for _, p := range coll.Programs {
		if p.AttachTo != "" {
			names[p.AttachTo], names["btf_trace_"+p.AttachTo], names["bpf_iter_"+p.AttachTo] = true, true, true
		}
	}
	if coll.Types == nil {
		return errors.New("the object has no BTF: compile it with -g")
	}
	for t, err := range coll.Types.All() {
		if err != nil {
			return err
		}
		switch t.(type) {
		case *btf.Struct, *btf.Union, *btf.Enum, *btf.Typedef:
			// "___" starts a flavour: another view of the same kernel type.
			if name, _, _ := strings.Cut(t.TypeName(), "___"); name != "" {
				names[name] = true
			}
		}
	}
	return nil
}
