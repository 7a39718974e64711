// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/probe"
)

// enotsupp is ENOTSUPP of include/linux/errno.h, which the kernel returns
// although it is not meant for user space, so that libraries do not name it.
const enotsupp = syscall.Errno(524)

// memlockHint is what the loading library adds to every EPERM. It is true for
// kernels before 5.11 only, and there twscope has lifted the limit.
const memlockHint = " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"

func attempt(in Input, a probe.Attempt) Attempt {
	hook, rest := splitHook(firstLine(a.Err))
	return Attempt{
		Rung: string(a.Rung), Hook: hook,
		Reason: reason(in, a, rest), Error: firstLine(a.Err),
	}
}

// reason says in plain words why a rung does not work; text is the error
// without the hook.
func reason(in Input, a probe.Attempt, text string) string {
	_, verifier := errors.AsType[*ebpf.VerifierError](a.Err)
	switch {
	case verifier:
		return "the kernel's verifier refuses the program: " + text
	case a.Rung == probe.Kprobe && !in.BTF.HasKprobes:
		return "this kernel is built without kprobes"
	case a.Rung == probe.Kprobe && in.Kernel.TraceFS == "" && strings.Contains(text, "tracefs"):
		return "kprobes need tracefs on this kernel, and it is not mounted: mount -t tracefs tracefs /sys/kernel/tracing"
	case errors.Is(a.Err, fs.ErrPermission):
		return fmt.Sprintf("operation not permitted: this kernel refuses %s programs", a.Rung)
	case errors.Is(a.Err, btf.ErrNotFound), errors.Is(a.Err, fs.ErrNotExist):
		return "this kernel lacks the function, or does not let it be traced"
	case errors.Is(a.Err, ebpf.ErrNotSupported), errors.Is(a.Err, enotsupp):
		return fmt.Sprintf("this kernel does not support %s programs on this processor architecture", a.Rung)
	default:
		return text
	}
}

// splitHook takes the hook, such as "fentry/tcp_time_wait", off an error of
// the probe.
func splitHook(text string) (hook, rest string) {
	hook, rest, found := strings.Cut(text, ": ")
	if !found || !strings.Contains(hook, "/") || strings.Contains(hook, " ") {
		return "", text
	}
	return hook, rest
}

func firstLine(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(withoutHint(err), "\n")
	return clean(line)
}

func withoutHint(err error) string { return strings.ReplaceAll(err.Error(), memlockHint, "") }

// clean makes names and lines from files harmless for a terminal.
func clean(s string) string { return event.Clean(s) }
