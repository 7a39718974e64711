// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const mountInfoFile = "proc/self/mountinfo"

// mount is one line of /proc/self/mountinfo.
type mount struct {
	root   string // what of the file system is mounted: "/", or "net:[4026531840]" of nsfs
	point  string // where, an absolute path
	fstype string
}

func readMounts(root fs.FS) ([]mount, error) {
	text, err := fs.ReadFile(root, mountInfoFile)
	if err != nil {
		return nil, fmt.Errorf("%w: mount proc on /proc", err)
	}
	return parseMounts(mountInfoFile, string(text))
}

// parseMounts reads the format of /proc/pid/mountinfo (proc(5)); file is the
// name for errors.
func parseMounts(file, text string) ([]mount, error) {
	var mounts []mount
	n := 0
	for line := range strings.Lines(text) {
		n++
		head, tail, found := strings.Cut(line, " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if !found || len(fields) < 5 || len(rest) < 1 {
			return nil, fmt.Errorf("/%s:%d: not a line of mountinfo: %q", file, n, line)
		}
		mounts = append(mounts, mount{
			root:   unescapeOctal(fields[3]),
			point:  unescapeOctal(fields[4]),
			fstype: rest[0],
		})
	}
	return mounts, nil
}

// mountPoint returns where all of a file system of this type is mounted, or
// else a part of it; empty: nowhere. The first mount is the system's own,
// later ones are mostly those of containers.
func mountPoint(mounts []mount, fstype string) string {
	part := ""
	for _, m := range mounts {
		switch {
		case m.fstype != fstype:
		case m.root == "/":
			return m.point
		case part == "":
			part = m.point
		}
	}
	return part
}

// unescapeOctal undoes the kernel's mangle(): blanks and backslashes in paths
// are written as a backslash and three octal digits.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
