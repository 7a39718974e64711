// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// compiledObjects holds the objects of both architectures, of which the
// package proper has only the one it is built for.
//
//go:embed *_bpfel.o *_bpfel_test.o
var compiledObjects embed.FS

// compiled is one object for one architecture.
type compiled struct {
	name string // such as paws_arm64
	spec *ebpf.CollectionSpec
}

func allCompiled(t *testing.T) []compiled {
	t.Helper()
	files, err := fs.Glob(compiledObjects, "*.o")
	if err != nil {
		t.Fatal(err)
	}
	// for each architecture the objects that are attached, and the self test
	if want := 2 * (len(Objects()) + 1); len(files) != want {
		t.Fatalf("found %d objects %v, want %d", len(files), files, want)
	}
	var found []compiled
	for _, file := range files {
		b, err := compiledObjects.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name, _, _ := strings.Cut(file, "_bpfel")
		found = append(found, compiled{name, spec})
	}
	return found
}

// kernelBTF is the type information of one kernel.
type kernelBTF struct {
	name string // SERIES-ARCH, or "running"
	spec *btf.Spec
}

// allKernels returns the kernels of testdata/btf and the running one. A test
// binary that was carried off to another machine has only the latter.
func allKernels(t *testing.T) []kernelBTF {
	t.Helper()
	var found []kernelBTF
	if spec, err := btf.LoadKernelSpec(); err == nil {
		found = append(found, kernelBTF{"running", spec})
	} else if runtime.GOOS == "linux" && !errors.Is(err, btf.ErrNotSupported) {
		t.Fatalf("the running kernel: %v", err)
	}
	top := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(top, "go.mod")); errors.Is(err, fs.ErrNotExist) {
		return found
	}
	files, err := filepath.Glob(filepath.Join(top, "testdata", "btf", "*.btf.gz"))
	if err != nil || len(files) < 5 {
		t.Fatalf("only %d kernels in testdata/btf (%v): make btf", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".btf.gz")
		found = append(found, kernelBTF{name, readBTF(t, file)})
	}
	return found
}

func readBTF(t *testing.T, file string) *btf.Spec {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(z); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw.Bytes()))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return spec
}
