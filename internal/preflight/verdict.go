// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

func describeKernel(in Input) Kernel {
	k := Kernel{
		Release: clean(in.Kernel.Release), Arch: clean(in.Kernel.Machine), HZ: in.Kernel.HZ,
		BTFBytes: in.BTF.Bytes, Lockdown: clean(in.Kernel.Lockdown),
		InitialPIDNS: in.Kernel.InitialPIDNS, InitialCgroupNS: in.Kernel.InitialCgroupNS,
		Cgroup2: clean(in.Kernel.Cgroup2), BPFFS: clean(in.Kernel.BPFFS), TraceFS: clean(in.Kernel.TraceFS),
	}
	switch in.BTF.TSOffset {
	case kernel.TSOffsetPerAddresses:
		k.TSOffset = "addresses"
		k.TSOffsetMeans = "the timestamps that this host sends (TSval) start at one offset per pair of addresses, " +
			"so that a server sees one clock, also behind a NAT that re-uses ports"
	case kernel.TSOffsetPerTuple:
		k.TSOffset = "tuple"
		k.TSOffsetMeans = "the timestamps that this host sends (TSval) start at another offset for each pair of addresses and ports, " +
			"so that behind a NAT that re-uses ports a server can take its SYNs for old ones and refuse them (PAWS)"
	default:
		k.TSOffset = "unknown"
		k.TSOffsetMeans = "not known: the kernel's type information does not show where its timestamps (TSval) start"
	}
	switch in.BTF.TWCounting {
	case kernel.TWCountedAtCreation:
		k.TWCounting = "creation"
		k.TWCountingMeans = "when a socket enters TIME_WAIT: the counter TW can be compared with time_wait events at once"
	case kernel.TWCountedAtExpiry:
		k.TWCounting = "expiry"
		k.TWCountingMeans = "when a socket leaves TIME_WAIT: the counter TW is up to 60 s behind the time_wait events"
	default:
		k.TWCounting = "unknown"
		k.TWCountingMeans = "not known: the kernel's type information does not show when the counter TW grows"
	}
	return k
}

// capabilityRemedy says how to get the capabilities that are missing.
func capabilityRemedy(in Input) string {
	if len(in.Missing) == 0 {
		return ""
	}
	var names []string
	for _, n := range in.Missing {
		names = append(names, n.Name)
	}
	if in.UID != 0 {
		return "run as root, or in a systemd unit set AmbientCapabilities=" + strings.Join(names, " ")
	}
	return "root has lost them: in a systemd unit add them to CapabilityBoundingSet=, start a container with --cap-add " +
		strings.ReplaceAll(strings.Join(names, " --cap-add "), "CAP_", "")
}

// warnings collects what --strict minds, in the order of the report.
func warnings(r Report) []Warning {
	var list []Warning
	for _, o := range r.Observations {
		if o.Rung == string(probe.None) {
			list = append(list, Warning{"observation", o.Name + " cannot be observed here: " + o.Sees})
		}
	}
	for _, g := range r.Sysctls {
		for _, e := range g.Effects {
			if e.Severity == kernel.Warning.String() {
				list = append(list, Warning{"sysctl", fmt.Sprintf("%s = %s in %s: %s",
					e.Name, e.Value, namespaceList(g.Namespaces), e.Effect)})
			}
		}
	}
	for _, l := range r.RecycleLines {
		list = append(list, Warning{"config", fmt.Sprintf(
			"%s:%d still sets tcp_tw_recycle, which kernels since 4.12 do not have: remove the line", l.File, l.Line)})
	}
	return list
}

// judge fills in the verdict.
func (r *Report) judge(in Input) {
	r.Coverage.Total = len(known())
	var without []string
	for _, o := range r.Observations {
		switch {
		case o.Rung == string(probe.None):
			without = append(without, o.Name)
			continue
		case o.Best:
			r.Coverage.Best++
		}
		r.Coverage.Observed++
	}
	if in.ProbeErr != nil {
		r.Summary, r.Remedy = blocked(in)
		r.Error = clean(strings.ReplaceAll(withoutHint(in.ProbeErr), "\n", "; "))
		return
	}
	r.Ready = true
	if in.Rung != "" {
		r.Summary = fmt.Sprintf("%d of %d observations work with --rung %s", r.Coverage.Observed, r.Coverage.Total, in.Rung)
	} else {
		r.Summary = fmt.Sprintf("%d of %d observations on their best rung", r.Coverage.Best, r.Coverage.Total)
		if lower := r.Coverage.Observed - r.Coverage.Best; lower > 0 {
			r.Summary += fmt.Sprintf(", %d on a lower one", lower)
		}
	}
	if len(without) > 0 {
		r.Summary += "; not to be seen here: " + strings.Join(without, ", ")
	}
}

// blocked says why nothing can be observed, and what to do.
func blocked(in Input) (why, remedy string) {
	var required []string
	for _, n := range in.Missing {
		if n.Required {
			required = append(required, fmt.Sprintf("%s (%s)", n.Name, n.For))
		}
	}
	switch err := in.ProbeErr; {
	case len(required) > 0:
		return "twscope lacks " + strings.Join(required, " and "), capabilityRemedy(in)
	case in.BTF.Bytes == 0:
		return "this kernel has no type information (BTF), without which its structures cannot be read",
			"use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions have since 2021; /sys/kernel/btf/vmlinux exists there"
	case in.Kernel.Lockdown == "confidentiality":
		return "kernel lockdown is in mode confidentiality, in which BPF programs cannot read kernel memory",
			"boot with lockdown=integrity or without lockdown="
	case errors.Is(err, probe.ErrForcedRung):
		a := probe.Attempt{Rung: in.Rung, Err: err}
		return fmt.Sprintf("--rung %s does not work: %s", in.Rung, reason(in, a, firstLine(err))), "leave out --rung, so that the best rung that works is chosen"
	case errors.Is(err, probe.ErrNothingToSee):
		return probe.ErrNothingToSee.Error(), "use a kernel of 5.8 or later that allows BPF tracepoint programs"
	case errors.Is(err, fs.ErrPermission):
		return "the kernel refuses BPF although twscope has the capabilities",
			"if this is a container, start it on the host or with --privileged; else a security module forbids it, see the kernel log"
	default:
		return firstLine(err), "twscope needs kernel 5.8 or later, with BTF and the BPF ring buffer"
	}
}

// Err is nil, or says why `twscope check` fails: because nothing can be
// observed, or if strict because there are warnings.
func (r Report) Err(strict bool) error {
	switch {
	case !r.Ready:
		return fmt.Errorf("%s: %s", r.Summary, r.Remedy)
	case strict && len(r.Warnings) > 0:
		return fmt.Errorf("--strict: %s, first: %s", count(len(r.Warnings), "warning"), r.Warnings[0].Text)
	default:
		return nil
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}
