// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on.
type machine struct {
	Date       string `json:"date"`
	Kernel     string `json:"kernel"`
	Arch       string `json:"arch"`
	CPUs       int    `json:"cpus"`
	Model      string `json:"cpu_model"`
	Memory     uint64 `json:"memory_bytes"`
	Go         string `json:"go"`
	System     string `json:"system"`
	FileSystem string `json:"file_system"` // that the observers write to
	Command    string `json:"command"`
	Commit     string `json:"commit"`
	Seed       uint64 `json:"seed"`
}

func describeMachine(ctx context.Context, o *options) (machine, error) {
	m := machine{
		Date: time.Now().UTC().Format(time.DateOnly), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Command: "bench " + strings.Join(os.Args[1:], " "), Seed: o.seed,
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, err
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.Memory = info.Totalram * uint64(info.Unit)
	var fs unix.Statfs_t
	if err := unix.Statfs(o.dir, &fs); err != nil {
		return m, err
	}
	m.FileSystem = fileSystem(fs.Type)
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	m.Model = valueOf(string(cpuinfo), "model name", ":")
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		m.System = strings.Trim(valueOf(string(release), "PRETTY_NAME", "="), `"`)
	}
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	return m, nil
}

// valueOf returns the first value of a name in a list of lines, or "".
func valueOf(list, name, separator string) string {
	for line := range strings.Lines(list) {
		if n, value, ok := strings.Cut(line, separator); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func fileSystem(magic int64) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	}
	if name := names[magic]; name != "" {
		return name
	}
	return "0x" + strconv.FormatInt(magic, 16)
}

func (m *machine) String() string {
	return fmt.Sprintf("%s, Linux %s %s, %d CPUs %s, %.0f GiB, logs on %s, %s\ntwscope %s, %s, seed %d\ncommand: %s\n",
		m.System, m.Kernel, m.Arch, m.CPUs, m.Model, float64(m.Memory)/(1<<30), m.FileSystem, m.Date,
		m.Commit, m.Go, m.Seed, m.Command)
}
