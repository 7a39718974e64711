// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/twscope/twscope/internal/probe"
)

func TestAttempt(t *testing.T) {
	bare := Input{} // no kprobes, no tracefs
	kprobes := Input{BTF: BTF{HasKprobes: true}}
	mounted := kprobes
	mounted.Kernel.TraceFS = "/sys/kernel/tracing"
	noTracefs := errors.New("kprobe/tcp_time_wait: creating tracefs event: neither debugfs nor tracefs are mounted")
	tests := []struct {
		name         string
		in           Input
		rung         probe.Rung
		err          error
		hook, reason string
	}{
		{"fentry refused", bare, probe.Fentry, refused("fentry/tcp_time_wait"), "fentry/tcp_time_wait", "operation not permitted: this kernel refuses fentry programs"},
		{"no kprobes", bare, probe.Kprobe, noTracefs, "kprobe/tcp_time_wait", "this kernel is built without kprobes"},
		{"no tracefs", kprobes, probe.Kprobe, noTracefs, "kprobe/tcp_time_wait", "kprobes need tracefs on this kernel, and it is not mounted: mount -t tracefs tracefs /sys/kernel/tracing"},
		{"kprobe refused", mounted, probe.Kprobe, refused("kretprobe/inet_twsk_alloc"), "kretprobe/inet_twsk_alloc", "operation not permitted: this kernel refuses kprobe programs"},
		{"no function to probe", mounted, probe.Kprobe, fmt.Errorf("kprobe/f: %w", fs.ErrNotExist), "kprobe/f", "this kernel lacks the function, or does not let it be traced"},
		{"no function in BTF", bare, probe.Fentry, fmt.Errorf("fentry/f: %w", btf.ErrNotFound), "fentry/f", "this kernel lacks the function, or does not let it be traced"},
		{"not supported", bare, probe.Fentry, fmt.Errorf("fentry/f: %w", ebpf.ErrNotSupported), "fentry/f", "this kernel does not support fentry programs on this processor architecture"},
		{"ENOTSUPP", bare, probe.Fentry, fmt.Errorf("fentry/f: %w", enotsupp), "fentry/f", "this kernel does not support fentry programs on this processor architecture"},
		{
			"verifier", bare, probe.Fentry,
			fmt.Errorf("fentry/f: load program: %w", &ebpf.VerifierError{Cause: fs.ErrPermission, Log: []string{"0: r0 = 1", "invalid access"}}),
			"fentry/f", "the kernel's verifier refuses the program: load program: : permission denied: invalid access",
		},
		{"reason unknown", bare, probe.Tracepoint, errors.New("not in this kernel: it tells no reason\nmore"), "", "not in this kernel: it tells no reason"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := attempt(tt.in, probe.Attempt{Rung: tt.rung, Err: tt.err})
			if a.Rung != string(tt.rung) || a.Hook != tt.hook || !strings.HasPrefix(a.Reason, tt.reason) {
				t.Errorf("got %+v\nwant %s, %s", a, tt.hook, tt.reason)
			}
			if strings.Contains(a.Error+a.Reason, "MEMLOCK") || strings.Contains(a.Error, "\n") {
				t.Errorf("error: %s", a.Error)
			}
		})
	}
}

func FuzzSplitHook(f *testing.F) {
	f.Add("fentry/tcp_time_wait: not permitted")
	f.Add("read a/b: x")
	f.Add(": ")
	f.Fuzz(func(t *testing.T, s string) {
		hook, rest := splitHook(s)
		if hook == "" && rest != s || hook != "" && hook+": "+rest != s {
			t.Errorf("%q became %q and %q", s, hook, rest)
		}
		if strings.Contains(hook, " ") {
			t.Errorf("%q is not a hook", hook)
		}
	})
}
