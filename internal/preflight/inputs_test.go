// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

var errPerm error = syscall.EPERM

// refused is what the loader says where a kernel refuses a program type.
func refused(hook string) error {
	return fmt.Errorf("%s: program p: load program: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", hook, errPerm)
}

func defaults() map[string]string {
	return map[string]string{
		kernel.SysctlTWReuse:       "2",
		kernel.SysctlTWReuseDelay:  "1000",
		kernel.SysctlTimestamps:    "1",
		kernel.SysctlPortRange:     "32768 60999",
		kernel.SysctlReservedPorts: "",
		kernel.SysctlMaxTWBuckets:  "131072",
		kernel.SysctlRFC1337:       "0",
		kernel.SysctlFinTimeout:    "60",
		kernel.SysctlRateLimit:     "500",
	}
}

// with returns the default sysctls with others, given as name, value, ...;
// an empty value removes one.
func with(pairs ...string) map[string]string {
	values := defaults()
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
		if pairs[i+1] == "" {
			delete(values, pairs[i])
		}
	}
	return values
}

func choose(rung probe.Rung, observations ...probe.Observation) []probe.Choice {
	var list []probe.Choice
	for _, o := range observations {
		list = append(list, probe.Choice{Observation: o, Rung: rung})
	}
	return list
}

// modern is a host on which all is well: every rung is the best.
func modern() Input {
	in := Input{
		Kernel: kernel.Facts{
			Release: "6.12.94", Machine: "aarch64", HZ: 1000, Lockdown: "integrity",
			BPFFS: "/sys/fs/bpf", TraceFS: "/sys/kernel/tracing", Cgroup2: "/sys/fs/cgroup",
			InitialPIDNS: true, InitialCgroupNS: true,
		},
		BTF: BTF{
			Bytes: 6 << 20, HasKprobes: true,
			TSOffset: kernel.TSOffsetPerAddresses, TWCounting: kernel.TWCountedAtCreation,
		},
		Namespaces: []Namespace{
			{Namespace: kernel.Namespace{Inode: 4026531840, PID: 1, Processes: 99}, Own: true, Sysctls: defaults()},
		},
	}
	in.Choices = append(in.Choices, choose(probe.Fentry, probe.TimeWait, probe.Overflow, probe.TimeWaitEnd,
		probe.TWReuse, probe.ConnectFail, probe.SYN)...)
	in.Choices = append(in.Choices, choose(probe.Tracepoint, probe.SYNRefused, probe.PAWSSYNSent,
		probe.PAWSTimeWait, probe.SYNReject, probe.PAWSEstablished, probe.PAWSSYNRecv, probe.Owner)...)
	in.Choices = append(in.Choices, choose(probe.Iterator, probe.Census)...)
	return in
}

// hardened has tracepoints alone, and settings that do harm.
func hardened() Input {
	in := modern()
	in.Kernel.Release, in.Kernel.Machine, in.Kernel.HZ, in.Kernel.Lockdown = "6.18.44", "x86_64", 250, ""
	in.Kernel.BPFFS, in.Kernel.TraceFS = "", ""
	in.BTF.HasKprobes, in.BTF.TSOffset = false, kernel.TSOffsetPerTuple
	in.Choices = append(in.Choices[:0:0], in.Choices...)
	for i := range in.Choices {
		c := &in.Choices[i]
		switch {
		case c.Observation == probe.Overflow:
			c.Rung, c.Lost = probe.Counter, "which sockets: only their number is known"
		case c.Rung == probe.Fentry:
			c.Rung, c.Lost = probe.Tracepoint, "something that only a hook in the function would show, told in words that need more than one line"
			c.Tried = []probe.Attempt{
				{Rung: probe.Fentry, Err: refused("fentry/tcp_" + string(c.Observation))},
				{Rung: probe.Fentry, Err: refused("fentry/tcp_" + string(c.Observation))},
				{Rung: probe.Kprobe, Err: errors.New("kprobe/tcp_" + string(c.Observation) + ": ebpf_4b2b: neither debugfs nor tracefs are mounted")},
				{Rung: probe.Kprobe, Err: errors.New("kprobe/tcp_" + string(c.Observation) + ": ebpf_91c3: neither debugfs nor tracefs are mounted")},
			}
		case c.Observation == probe.SYNRefused:
			c.Missing = []string{"fentry/tcp_v6_conn_request"}
		}
	}
	in.Namespaces = []Namespace{
		{
			Namespace: kernel.Namespace{Inode: 4026532101, Names: []string{"blue"}, PID: 300, Processes: 2},
			Sysctls:   with(kernel.SysctlTimestamps, "0", kernel.SysctlTWReuse, "1", kernel.SysctlTWReuseDelay, ""),
		},
		{Namespace: kernel.Namespace{Inode: 4026532300, Names: []string{"green"}}, Sysctls: defaults()},
		{Namespace: kernel.Namespace{Inode: 4026531833, PID: 1, Processes: 80}, Own: true, Sysctls: defaults()},
		{
			Namespace: kernel.Namespace{Inode: 4026532200, PID: 400, Processes: 1},
			Sysctls:   with(kernel.SysctlReservedPorts, "8080,9090-9099,40000-40100,50000", kernel.SysctlRFC1337, "1"),
		},
	}
	in.RecycleLines = []kernel.Line{{File: "/etc/sysctl.d/99-tuning.conf", No: 12, Text: "net.ipv4.tcp_tw_recycle = 1"}}
	return in
}

// notRoot is a user without any capability.
func notRoot() Input {
	in := hardened()
	in.UID = 1000
	in.Missing = kernel.Capabilities(0).Missing(kernel.Needs())
	in.Choices = nil
	in.ProbeErr = fmt.Errorf("create the BPF map tws_counts: map create: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", errPerm)
	in.Unreadable = 80
	for i := range in.Namespaces {
		if !in.Namespaces[i].Own {
			in.Namespaces[i].Sysctls, in.Namespaces[i].Err = nil, errors.New("open /run/netns/blue: permission denied")
		}
	}
	in.Problems = []error{errors.New("open /etc/sysctl.d/10-secret.conf: permission denied")}
	return in
}

// noBTF is an old kernel, seen from a container.
func noBTF() Input {
	in := modern()
	in.Kernel = kernel.Facts{Release: "5.4.0", Machine: "x86_64", Lockdown: "none"}
	in.BTF, in.Choices = BTF{}, nil
	in.ProbeErr = errors.New("this kernel shows no type information (BTF): not found")
	in.Missing = kernel.Needs()[3:4]
	in.Namespaces[0].Sysctls = map[string]string{}
	return in
}

func forced() Input {
	in := hardened()
	in.Rung = probe.Tracepoint
	for i := range in.Choices {
		in.Choices[i].Tried = nil
	}
	return in
}

func forcedInVain() Input {
	in := hardened()
	in.Rung, in.Choices = probe.Kprobe, nil
	in.ProbeErr = fmt.Errorf("%w: --rung kprobe for time_wait: %w", probe.ErrForcedRung, errPerm)
	return in
}
