// SPDX-License-Identifier: Apache-2.0

// Package preflight tells what twscope can see on a host and what the host's
// settings do, before anything is observed. It is pure: it is given what was
// found and writes a report, for people or as JSON.
package preflight

import (
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

// Input is what was found on a host.
type Input struct {
	UID        int // effective
	Kernel     kernel.Facts
	BTF        BTF
	Missing    []kernel.Need // capabilities we lack, of those that we use
	Rung       probe.Rung    // forced; empty: none is
	Choices    []probe.Choice
	ProbeErr   error // nil: the observations work as Choices tells
	Namespaces []Namespace
	// Unreadable counts the processes whose network namespace we may not see.
	Unreadable   int
	RecycleLines []kernel.Line
	Problems     []error // what could not be read, and is missing above
}

// BTF is what the kernel's type information tells. The zero BTF is that of a
// kernel without.
type BTF struct {
	Bytes      int64 // size; 0: there is none
	HasKprobes bool  // the kernel is built with kprobes
	TSOffset   kernel.TSOffset
	TWCounting kernel.TWCounting
}

// Namespace is a network namespace and its sysctls.
type Namespace struct {
	kernel.Namespace
	Own     bool              // twscope runs in it
	Sysctls map[string]string // by full name
	Err     error             // why there are none
}

// Report is the answer of `twscope check`; with --json it is one object of
// this form. Within a major version of twscope members are only added.
type Report struct {
	// Ready: TIME_WAIT or PAWS rejects can be observed.
	Ready bool `json:"ready"`
	// Summary is the verdict in one sentence.
	Summary string `json:"summary"`
	// Remedy says what to do about it; empty if Ready.
	Remedy string `json:"remedy"`
	// Error is what the kernel or the loader said; empty if Ready.
	Error string `json:"error"`

	Coverage Coverage `json:"coverage"`
	// ForcedRung is the value of --rung; empty: none was forced.
	ForcedRung string `json:"forced_rung"`
	Kernel     Kernel `json:"kernel"`
	// Missing are the capabilities that twscope would use but does not have.
	Missing []Capability `json:"capabilities_missing"`
	// MissingRemedy says how to get them; empty: none is missing.
	MissingRemedy string `json:"capabilities_remedy"`
	// Observations are all that twscope knows; none if they could not be tried.
	Observations []Observation `json:"observations"`
	// Sysctls are those that matter, by groups of network namespaces in which
	// they are the same, the group of the init process first.
	Sysctls []SysctlGroup `json:"sysctls"`
	// UnreadNamespaces are those whose sysctls could not be read.
	UnreadNamespaces []UnreadNamespace `json:"namespaces_unread"`
	// HiddenProcesses counts the processes whose network namespace we may not
	// see; they may be in namespaces that are not listed.
	HiddenProcesses int `json:"processes_hidden"`
	// RecycleLines are the lines that still set tcp_tw_recycle.
	RecycleLines []ConfigLine `json:"tw_recycle_lines"`
	// Warnings sum up what --strict minds.
	Warnings []Warning `json:"warnings"`
	// Problems tell what could not be read and is missing in this report.
	Problems []string `json:"problems"`
}

// Coverage counts observations.
type Coverage struct {
	Total    int `json:"total"`    // that twscope knows
	Observed int `json:"observed"` // that have a rung here
	Best     int `json:"best"`     // that have their best rung here; 0 with --rung
}

// Kernel describes the kernel and what of it is visible to us.
type Kernel struct {
	Release string `json:"release"` // uname -r
	Arch    string `json:"arch"`    // uname -m
	HZ      int    `json:"hz"`      // ticks per second; 0: not known
	// BTFBytes is the size of the kernel's type information, 0: there is none.
	BTFBytes int64 `json:"btf_bytes"`
	// Lockdown is none, integrity, confidentiality, or empty: not shown.
	Lockdown        string `json:"lockdown"`
	InitialPIDNS    bool   `json:"initial_pid_namespace"`
	InitialCgroupNS bool   `json:"initial_cgroup_namespace"`
	// Mount points; empty: not mounted.
	Cgroup2 string `json:"cgroup2"`
	BPFFS   string `json:"bpffs"`
	TraceFS string `json:"tracefs"`
	// TSOffset tells what the offset of this host's own timestamps depends
	// on: addresses, tuple (addresses and ports) or unknown.
	TSOffset      string `json:"ts_offset"`
	TSOffsetMeans string `json:"ts_offset_means"`
	// TWCounting tells when the counter TW grows: creation, expiry or unknown.
	TWCounting      string `json:"tw_counting"`
	TWCountingMeans string `json:"tw_counting_means"`
}

// Capability is a capability that is missing.
type Capability struct {
	Name     string `json:"name"`
	For      string `json:"for"`
	Required bool   `json:"required"` // without it nothing can be observed
}

// Observation is one thing that twscope can see, and how it would see it here.
type Observation struct {
	Name string `json:"name"`
	Sees string `json:"sees"`
	Rung string `json:"rung"` // see probe.Rung; none: it cannot be made
	// Best: no better rung exists. It is not told with --rung, which leaves
	// better ones untried.
	Best bool   `json:"best"`
	Lost string `json:"lost"` // what this rung cannot see; empty: nothing
	// Tried are the better rungs that do not work here.
	Tried []Attempt `json:"tried"`
	// MissingHooks are optional hooks that this kernel does not have.
	MissingHooks []string `json:"missing_hooks"`
}

// Attempt is a rung that does not work here.
type Attempt struct {
	Rung   string `json:"rung"`
	Hook   string `json:"hook"`   // such as fentry/tcp_time_wait; empty: not one alone
	Reason string `json:"reason"` // in plain words
	Error  string `json:"error"`  // the first line of what the kernel or loader said
}

// SysctlGroup is a set of namespaces with the same sysctls.
type SysctlGroup struct {
	Namespaces []NamespaceName `json:"namespaces"`
	Effects    []Effect        `json:"effects"`
}

// NamespaceName names a network namespace.
type NamespaceName struct {
	Inode     uint32   `json:"inode"`
	Names     []string `json:"names"` // below /run/netns, or the path of a mount
	Init      bool     `json:"init"`  // the initial one, in which process 1 is
	Own       bool     `json:"own"`   // twscope is in it
	Processes int      `json:"processes"`
}

// UnreadNamespace is a namespace whose sysctls could not be read.
type UnreadNamespace struct {
	NamespaceName
	Reason string `json:"reason"`
}

// Effect is what one sysctl does in a namespace.
type Effect struct {
	Name     string `json:"name"` // full name
	Value    string `json:"value"`
	Effect   string `json:"effect"`   // one plain sentence
	Severity string `json:"severity"` // ok, info or warning
}

// ConfigLine is a line of a configuration file.
type ConfigLine struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	Text string `json:"text"`
}

// Warning is something that --strict minds.
type Warning struct {
	Kind string `json:"kind"` // observation, sysctl or config
	Text string `json:"text"`
}

// Build draws up the report.
func Build(in Input) Report {
	r := Report{
		ForcedRung:       string(in.Rung),
		Kernel:           describeKernel(in),
		Missing:          []Capability{},
		MissingRemedy:    capabilityRemedy(in),
		Observations:     observations(in),
		UnreadNamespaces: []UnreadNamespace{},
		HiddenProcesses:  in.Unreadable,
		RecycleLines:     []ConfigLine{},
		Warnings:         []Warning{},
		Problems:         []string{},
	}
	r.Sysctls, r.UnreadNamespaces = sysctlGroups(in.Namespaces, in.BTF.TSOffset)
	for _, n := range in.Missing {
		r.Missing = append(r.Missing, Capability{n.Name, n.For, n.Required})
	}
	for _, l := range in.RecycleLines {
		r.RecycleLines = append(r.RecycleLines, ConfigLine{clean(l.File), l.No, clean(l.Text)})
	}
	for _, err := range in.Problems {
		r.Problems = append(r.Problems, firstLine(err))
	}
	r.Warnings = append(r.Warnings, warnings(r)...)
	r.judge(in)
	return r
}
