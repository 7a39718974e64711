// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Facts describes the kernel and what of it is mounted here.
type Facts struct {
	Release string // uname -r
	Machine string // uname -m
	Host    string // host name
	BootID  string // /proc/sys/kernel/random/boot_id
	HZ      int    // ticks per second: 100, 250, 300 or 1000; 0: not known

	// Lockdown is the lockdown mode: "none", "integrity", "confidentiality",
	// or empty if securityfs does not show it. Under "confidentiality" BPF
	// programs cannot read kernel memory.
	Lockdown string

	// Where these file systems are mounted; empty: nowhere.
	BPFFS   string
	TraceFS string
	Cgroup2 string

	// InitialPIDNS tells that our pids are those that the kernel side sees.
	InitialPIDNS bool
	// InitialCgroupNS tells that Cgroup2 is the root of all cgroups, so that
	// levels count from there.
	InitialCgroupNS bool
}

// Inodes of the initial namespaces (include/uapi/linux/nsfs.h since 6.18,
// include/linux/proc_ns.h before).
const (
	initialPIDNS    = 0xEFFFFFFC
	initialCgroupNS = 0xEFFFFFFB
)

// Local returns the facts of this host.
func Local() (Facts, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Facts{}, fmt.Errorf("uname: %w", err)
	}
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return Facts{}, fmt.Errorf("clock_getres CLOCK_MONOTONIC_COARSE: %w", err)
	}
	return ReadFacts(os.DirFS("/"), unix.ByteSliceToString(uts.Machine[:]), time.Duration(tick.Nano()))
}

// ReadFacts returns the facts of the host whose file system is root. What no
// file tells is given: machine is uname -m, and tick the resolution of
// CLOCK_MONOTONIC_COARSE, which is the length of a tick.
func ReadFacts(root fs.FS, machine string, tick time.Duration) (Facts, error) {
	f := Facts{Machine: machine, HZ: snapHZ(tick)}
	for file, to := range map[string]*string{
		"proc/sys/kernel/osrelease":      &f.Release,
		"proc/sys/kernel/hostname":       &f.Host,
		"proc/sys/kernel/random/boot_id": &f.BootID,
	} {
		text, err := fs.ReadFile(root, file)
		if err != nil {
			return Facts{}, fmt.Errorf("%w: mount proc on /proc", err)
		}
		*to = strings.TrimSpace(string(text))
	}
	if lockdown, err := fs.ReadFile(root, "sys/kernel/security/lockdown"); err == nil {
		f.Lockdown = chosen(string(lockdown))
	}

	mounts, err := readMounts(root)
	if err != nil {
		return Facts{}, err
	}
	f.BPFFS = mountPoint(mounts, "bpf")
	f.TraceFS = mountPoint(mounts, "tracefs")
	f.Cgroup2 = mountPoint(mounts, "cgroup2")
	f.InitialPIDNS = isNamespace(root, "pid", initialPIDNS)
	f.InitialCgroupNS = isNamespace(root, "cgroup", initialCgroupNS)
	return f, nil
}

// snapHZ returns the HZ that a kernel can be built with and that tick, with
// its rounding, stands for; 0 if there is none within 2 %.
func snapHZ(tick time.Duration) int {
	for _, hz := range []int{100, 250, 300, 1000} {
		want := time.Second / time.Duration(hz)
		if (tick - want).Abs() <= want/50 {
			return hz
		}
	}
	return 0
}

// chosen returns the word in brackets of "none [integrity] confidentiality".
func chosen(line string) string {
	_, rest, _ := strings.Cut(line, "[")
	word, _, found := strings.Cut(rest, "]")
	if !found {
		return ""
	}
	return word
}

func isNamespace(root fs.FS, kind string, inode uint32) bool {
	link, err := fs.ReadLink(root, "proc/self/ns/"+kind)
	if err != nil {
		return false
	}
	got, ok := parseNSLink(link, kind)
	return ok && got == inode
}
