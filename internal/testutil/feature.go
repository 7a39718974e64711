// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Feature is a way of hooking the kernel that hardened kernels leave out.
type Feature string

// The features. Tracepoints and iterators are none: without them twscope does
// not work at all, so no test may skip for want of them.
const (
	Fentry Feature = "fentry" // fentry and fexit
	Kprobe Feature = "kprobe" // kprobe and kretprobe
)

// target is global and never inlined in every kernel with IPv4.
const target = "tcp_v4_connect"

// Require skips the test if this machine has no f, proven by a program of two
// instructions on a function that every kernel has. Call it after [Root].
func Require(tb testing.TB, f Feature) {
	tb.Helper()
	skipWithout(tb, f, f.probe())
}

// SkipMissing judges err, the outcome of loading or attaching a program that
// needs f. It returns if err is nil, skips if this machine has no f at all
// (see [Require]), and fails the test if it has: then the program is at fault.
func SkipMissing(tb testing.TB, f Feature, err error) {
	tb.Helper()
	if err == nil {
		return
	}
	skipWithout(tb, f, f.probe())
	tb.Fatalf("this machine has %s, so this is a bug: %+v", f, err)
}

// skipWithout skips the test if probed says that the machine has no f, fails it
// if probed is an error that says nothing about the machine, and returns if
// probed is nil.
func skipWithout(tb testing.TB, f Feature, probed error) {
	tb.Helper()
	switch {
	case probed == nil:
	case isLimit(probed):
		tb.Skipf("%sno %s: %v", MachineLimit, f, probed)
	default:
		tb.Fatalf("cannot tell whether this machine has %s: %v", f, probed)
	}
}

// isLimit tells whether root gets err only from a kernel that lacks a feature.
// One without kprobes has no such PMU (ENOENT); one that forbids fentry refuses
// the program type (EPERM). EACCES is none: so the verifier rejects a program.
func isLimit(err error) bool {
	return errors.Is(err, ebpf.ErrNotSupported) ||
		errors.Is(err, syscall.EPERM) ||
		errors.Is(err, syscall.ENOENT)
}

// checkPMU returns ENOENT if this kernel has no kprobes for perf. Every kernel
// with CONFIG_KPROBE_EVENTS has had them since 4.17, and unlike tracefs this
// needs no mount but sysfs.
func checkPMU() error {
	const pmus = "/sys/bus/event_source/devices"
	if _, err := os.Stat(pmus); err != nil {
		return fmt.Errorf("sysfs is not mounted: %v", err) //nolint:errorlint // An ENOENT here is no proof.
	}
	_, err := os.Stat(pmus + "/kprobe")
	return err
}

// probe returns nil if a minimal program attaches by way of f.
func (f Feature) probe() error {
	spec := &ebpf.ProgramSpec{
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		License:      "Dual BSD/GPL",
	}
	switch f {
	case Fentry:
		spec.Type, spec.AttachType, spec.AttachTo = ebpf.Tracing, ebpf.AttachTraceFEntry, target
	case Kprobe:
		if err := checkPMU(); err != nil {
			return err
		}
		spec.Type = ebpf.Kprobe
	default:
		return fmt.Errorf("unknown feature %q", string(f))
	}
	prog, err := ebpf.NewProgram(spec)
	if err != nil {
		return err
	}
	defer prog.Close()

	var l link.Link
	if f == Fentry {
		l, err = link.AttachTracing(link.TracingOptions{Program: prog})
	} else {
		l, err = link.Kprobe(target, prog, nil)
	}
	if err != nil {
		return err
	}
	return l.Close()
}
