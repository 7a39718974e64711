// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf/btf"
	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/preflight"
	"github.com/twscope/twscope/internal/probe"
)

// checkOptions are the flags of check.
type checkOptions struct {
	json, strict, verbose bool
	rung                  string
}

func newCheckCmd() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell what can be observed on this host, and what its settings do",
		Long: "Tell what this kernel offers, by which rung (kind of hook) each observation can be made\n" +
			"and what it would miss, and what the sysctls about TIME_WAIT do in each network\n" +
			"namespace. Every hook is tried: loaded, attached and at once detached. Nothing is changed.\n\n" +
			"Without root it tells what can be told without. It fails if nothing can be observed,\n" +
			"and with --strict if there is any warning.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheck(cmd, o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "write one JSON object, with every try")
	f.BoolVar(&o.strict, "strict", false, "fail on any warning too")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell of every rung that was tried")
	f.StringVar(&o.rung, "rung", "", "try this `RUNG` and lower ones only: fentry, kprobe or tracepoint")
	return cmd
}

func runCheck(cmd *cobra.Command, o checkOptions) error {
	rung, err := checkRung(o.rung)
	if err != nil {
		return err
	}
	in, err := inspect(os.DirFS("/"), rung)
	if err != nil {
		return err
	}
	report := preflight.Build(in)
	if o.json {
		err = report.WriteJSON(cmd.OutOrStdout())
	} else {
		err = report.WriteText(cmd.OutOrStdout(), o.verbose)
	}
	return errors.Join(err, report.Err(o.strict))
}

func checkRung(name string) (probe.Rung, error) {
	switch rung := probe.Rung(name); rung {
	case "", probe.Fentry, probe.Kprobe, probe.Tracepoint:
		return rung, nil
	default:
		return "", usageError{fmt.Errorf("--rung %q: want fentry, kprobe or tracepoint", event.Clean(name))}
	}
}

// inspect finds out all that the report is about. It is an error only if not
// even the kernel can be told.
func inspect(root fs.FS, rung probe.Rung) (preflight.Input, error) {
	facts, err := kernel.Local()
	if err != nil {
		return preflight.Input{}, err
	}
	in := preflight.Input{UID: os.Geteuid(), Kernel: facts, Rung: rung}
	problem := func(err error) {
		if err != nil {
			in.Problems = append(in.Problems, err)
		}
	}
	in.BTF, err = inspectBTF(root)
	problem(err)
	caps, err := kernel.EffectiveCapabilities(root)
	problem(err)
	in.Missing = caps.Missing(kernel.Needs())
	in.RecycleLines, err = kernel.RecycleLines(root)
	problem(err)
	in.Namespaces, in.Unreadable, err = inspectNamespaces(root)
	problem(err)
	in.Choices, in.ProbeErr = tryProbe(facts, rung)
	return in, nil
}

// inspectBTF returns the zero BTF, and no error, for a kernel without.
func inspectBTF(root fs.FS) (preflight.BTF, error) {
	info, err := fs.Stat(root, "sys/kernel/btf/vmlinux")
	if errors.Is(err, fs.ErrNotExist) {
		return preflight.BTF{}, nil
	}
	if err != nil {
		return preflight.BTF{}, err
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return preflight.BTF{}, fmt.Errorf("read /sys/kernel/btf/vmlinux: %w", err)
	}
	b := kernel.NewBTF(spec)
	return preflight.BTF{
		Bytes:      info.Size(),
		HasKprobes: b.HasFunc("register_kprobe"),
		TSOffset:   b.TSOffset(),
		TWCounting: b.TWCounting(),
	}, nil
}

// inspectNamespaces reads the sysctls of every network namespace.
func inspectNamespaces(root fs.FS) ([]preflight.Namespace, int, error) {
	found, err := kernel.FindNamespaces(root)
	if err != nil {
		return nil, 0, err
	}
	own, err := found.Resolve("/proc/thread-self/ns/net")
	if err != nil {
		return nil, 0, err
	}
	var list []preflight.Namespace
	for _, ns := range found.List {
		n := preflight.Namespace{Namespace: ns, Own: ns.Inode == own}
		n.Err = ns.Do(func() (err error) {
			n.Sysctls, err = kernel.ReadSysctls(root)
			return err
		})
		if errors.Is(n.Err, kernel.ErrNamespaceGone) {
			continue
		}
		list = append(list, n)
	}
	return list, found.Unreadable, nil
}

// tryProbe attaches everything that can be observed, and detaches it.
func tryProbe(facts kernel.Facts, rung probe.Rung) ([]probe.Choice, error) {
	// Before 5.11 BPF memory counts as locked memory of this process. If the
	// limit cannot be lifted, the error that matters is that of the load.
	var kinds []bpf.Kind
	for k := bpf.KindNone + 1; k < bpf.KindMax; k++ {
		kinds = append(kinds, k)
	}
	p, err := probe.Open(probe.Config{Kinds: kinds, Rung: rung, Facts: facts})
	if err != nil {
		return nil, err
	}
	return p.Choices(), p.Close()
}
