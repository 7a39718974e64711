// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Counters are the MIB counters of one network namespace, of the groups Tcp
// and TcpExt, by the kernel's name: "TW", "PAWSEstab", "ActiveOpens". A kernel
// that lacks a counter has no entry for it. Tcp also has settings, of which
// the negative one (MaxConn) is left out, and the gauge CurrEstab.
type Counters map[string]uint64

// ReadCounters reads the files netstat and snmp in dir, such as
// "proc/thread-self/net" for the network namespace of the calling thread, or
// "proc/123/net" for that of a process. (/proc/net is that of the thread group
// leader.)
func ReadCounters(root fs.FS, dir string) (Counters, error) {
	c := Counters{}
	for _, name := range []string{"netstat", "snmp"} {
		file := path.Join(dir, name)
		text, err := fs.ReadFile(root, file)
		if err != nil {
			return nil, err
		}
		if err := c.parse(file, text); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// parse adds the counters in text: pairs of lines, each with its group in
// front, the first with names, the second with values. file is the name for
// errors.
func (c Counters) parse(file string, text []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20) // TcpExt is 2 KiB long and grows
	for n := 1; lines.Scan(); n += 2 {
		names := strings.Fields(lines.Text())
		if !lines.Scan() {
			return fmt.Errorf("/%s:%d: no line of values follows", file, n)
		}
		values := strings.Fields(lines.Text())
		if len(names) == 0 || len(names) != len(values) || names[0] != values[0] {
			return fmt.Errorf("/%s:%d: the values do not match the names in the line before", file, n+1)
		}
		if names[0] != "Tcp:" && names[0] != "TcpExt:" {
			continue
		}
		for i, name := range names[1:] {
			value, err := strconv.ParseUint(values[i+1], 10, 64)
			if err != nil && strings.HasPrefix(values[i+1], "-") {
				continue
			}
			if err != nil {
				return fmt.Errorf("/%s:%d: %s: %w", file, n+1, name, errors.Unwrap(err))
			}
			c[name] = value
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("/%s: %w", file, err)
	}
	return nil
}

// Delta returns how much the counter name has grown since before; false if
// the kernel lacks it. Counters wrap at 2^64, and so does the difference.
func (c Counters) Delta(before Counters, name string) (int64, bool) {
	now, ok := c[name]
	then, had := before[name]
	return int64(now - then), ok && had
}
