// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capabilities is a set of capabilities, one bit each (capabilities(7)).
type Capabilities uint64

// Need is a capability that twscope uses.
type Need struct {
	Name     string // such as "CAP_BPF"
	For      string // what it is used for
	Required bool   // without it nothing can be observed

	bits Capabilities // any one of these satisfies it
}

// Needs returns the capabilities that twscope uses, the required ones first.
func Needs() []Need {
	const admin = Capabilities(1 << unix.CAP_SYS_ADMIN)
	return []Need{
		{"CAP_BPF", "loads BPF programs", true, 1<<unix.CAP_BPF | admin},
		{"CAP_PERFMON", "attaches tracing programs that read kernel memory", true, 1<<unix.CAP_PERFMON | admin},
		{"CAP_SYS_ADMIN", "enters other network namespaces to read their sysctls and sockets", false, admin},
		{"CAP_SYS_PTRACE", "sees the network namespaces of processes of other users", false, 1 << unix.CAP_SYS_PTRACE},
		{"CAP_DAC_READ_SEARCH", "finds the path of a cgroup by its id", false, 1 << unix.CAP_DAC_READ_SEARCH},
		{"CAP_SYSLOG", "reads symbol addresses for kprobes in modules", false, 1 << unix.CAP_SYSLOG},
	}
}

// Missing returns those needs that the set does not satisfy.
func (c Capabilities) Missing(needs []Need) []Need {
	var missing []Need
	for _, n := range needs {
		if c&n.bits == 0 {
			missing = append(missing, n)
		}
	}
	return missing
}

// EffectiveCapabilities returns our effective set, from /proc/self/status.
func EffectiveCapabilities(root fs.FS) (Capabilities, error) {
	const file = "proc/self/status"
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, fmt.Errorf("%w: mount proc on /proc", err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		value, found := strings.CutPrefix(line, "CapEff:")
		if !found {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("/%s:%d: CapEff is not a hexadecimal set: %q", file, n, strings.TrimSpace(line))
		}
		return Capabilities(set), nil
	}
	return 0, fmt.Errorf("/%s: has no CapEff line", file)
}
