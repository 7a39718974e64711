// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"strings"
)

// The sysctls that decide about TIME_WAIT, PAWS and the queues of listeners,
// each per network namespace.
const (
	SysctlTWReuse       = "net.ipv4.tcp_tw_reuse"
	SysctlTWReuseDelay  = "net.ipv4.tcp_tw_reuse_delay" // since 6.14
	SysctlTimestamps    = "net.ipv4.tcp_timestamps"
	SysctlPortRange     = "net.ipv4.ip_local_port_range"
	SysctlReservedPorts = "net.ipv4.ip_local_reserved_ports"
	SysctlMaxTWBuckets  = "net.ipv4.tcp_max_tw_buckets"
	SysctlRFC1337       = "net.ipv4.tcp_rfc1337"
	SysctlFinTimeout    = "net.ipv4.tcp_fin_timeout"
	SysctlRateLimit     = "net.ipv4.tcp_invalid_ratelimit"
	SysctlTWRecycle     = "net.ipv4.tcp_tw_recycle" // up to 4.11
	SysctlSomaxconn     = "net.core.somaxconn"
	SysctlMaxSYNBacklog = "net.ipv4.tcp_max_syn_backlog"
	SysctlSYNCookies    = "net.ipv4.tcp_syncookies"
)

// sysctls lists them in the order in which they are explained.
func sysctls() []string {
	return []string{
		SysctlTWReuse, SysctlTWReuseDelay, SysctlTimestamps, SysctlPortRange, SysctlReservedPorts,
		SysctlMaxTWBuckets, SysctlRFC1337, SysctlFinTimeout, SysctlRateLimit, SysctlTWRecycle,
		SysctlSomaxconn, SysctlMaxSYNBacklog, SysctlSYNCookies,
	}
}

// ReadSysctls returns the sysctls above that exist, by full name, with blanks
// in their values made single spaces. /proc/sys/net is that of the calling
// thread's network namespace: see [Namespace.Do]. On error, what could be read
// is returned too.
func ReadSysctls(root fs.FS) (map[string]string, error) {
	values := make(map[string]string)
	var errs []error
	for _, name := range sysctls() {
		text, err := fs.ReadFile(root, "proc/sys/"+strings.ReplaceAll(name, ".", "/"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			values[name] = strings.Join(strings.Fields(string(text)), " ")
		}
	}
	return values, errors.Join(errs...)
}
