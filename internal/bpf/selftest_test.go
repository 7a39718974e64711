// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"github.com/twscope/twscope/internal/testutil"
)

// loadCFunctions loads the C helpers as programs to be called.
func loadCFunctions(tb testing.TB, config Config) *selftestObjects {
	tb.Helper()
	testutil.Root(tb)
	unlockMemory(tb)
	err := features.HaveProgramType(ebpf.Syscall)
	if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		tb.Fatal(err)
	}
	testutil.SkipUnless(tb, err == nil, "no BPF programs of type syscall, which came with 5.14")

	spec, err := loadSelftest()
	if err != nil {
		tb.Fatal(err)
	}
	if err := spec.Variables["tws_cfg"].Set(config); err != nil {
		tb.Fatal(err)
	}
	objects := &selftestObjects{}
	if err := spec.LoadAndAssign(objects, nil); err != nil {
		tb.Fatalf("load the self test: %+v", err)
	}
	tb.Cleanup(func() {
		if err := objects.Close(); err != nil {
			tb.Error(err)
		}
	})
	return objects
}

// call runs a C function, which reads its arguments from *c and writes its
// results there. As bytes, because encoding a struct takes longer than the
// call.
func call[T any](tb testing.TB, function *ebpf.Program, c *T) {
	tb.Helper()
	raw := unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
	code, err := function.Run(&ebpf.RunOptions{Context: raw, ContextOut: raw})
	if err != nil || code != 0 {
		tb.Fatalf("%v returned %d: %v", function, code, err)
	}
}
