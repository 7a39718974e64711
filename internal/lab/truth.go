// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
)

// Counters are a namespace's TCP counters by the kernel's names: those of
// TcpExt bare ("PAWSEstab", "TW"), the older ones with a prefix ("Tcp.ActiveOpens").
type Counters map[string]uint64

// Since is how much each counter has grown since an earlier reading. Counters
// that did not move are left out.
func (c Counters) Since(before Counters) Counters {
	grown := Counters{}
	for name, v := range c {
		if d := v - before[name]; d != 0 {
			grown[name] = d
		}
	}
	return grown
}

// Netstat reads the counters of the host's namespace.
func (h *Host) Netstat() (Counters, error) {
	all := Counters{}
	err := h.Do(func() error {
		for _, f := range []struct{ path, row, prefix string }{
			{"/proc/thread-self/net/netstat", "TcpExt:", ""},
			{"/proc/thread-self/net/snmp", "Tcp:", "Tcp."},
		} {
			data, err := os.ReadFile(f.path)
			if err != nil {
				return err
			}
			c, err := parseNetstat(string(data), f.row, f.prefix)
			if err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
			maps.Copy(all, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: counters: %w", h.name, err)
	}
	return all, nil
}

// parseNetstat reads the pair of lines, names and values, that begin with row.
// Values may be negative (Tcp MaxConn is -1); they wrap.
func parseNetstat(data, row, prefix string) (Counters, error) {
	var names []string
	for line := range strings.Lines(data) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != row {
			continue
		}
		if names == nil {
			names = fields[1:]
			continue
		}
		values := fields[1:]
		if len(values) != len(names) {
			return nil, fmt.Errorf("%s %d names but %d values", row, len(names), len(values))
		}
		c := make(Counters, len(names))
		for i, v := range values {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				signed, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", row, names[i], err)
				}
				n = uint64(signed)
			}
			c[prefix+names[i]] = n
		}
		return c, nil
	}
	return nil, fmt.Errorf("no line of values for %s", row)
}
