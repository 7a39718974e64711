// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxConfigSize bounds what is read of one configuration file, in bytes.
const maxConfigSize = 1 << 20

// Line is one line of a configuration file.
type Line struct {
	File string // absolute path
	No   int    // from 1
	Text string // without surrounding blanks
}

// RecycleLines returns every line that sets tcp_tw_recycle in the files from
// which sysctl(8) and systemd-sysctl(8) configure the kernel at boot, also in
// files that another of the same name masks. A file that is reached by several
// paths counts once. On error, what could be read is returned too.
func RecycleLines(root fs.FS) ([]Line, error) {
	var lines []Line
	var errs []error
	var seen []fs.FileInfo
	for _, file := range configFiles(root) {
		info, err := fs.Stat(root, file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		case !info.Mode().IsRegular() || sameAsAny(seen, info):
			continue
		}
		seen = append(seen, info)
		text, err := readAtMost(root, file, maxConfigSize)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, recycleLines("/"+file, text)...)
	}
	return lines, errors.Join(errs...)
}

// configFiles lists them, those first that are applied last.
func configFiles(root fs.FS) []string {
	files := []string{"etc/sysctl.conf"}
	for _, dir := range []string{
		"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d",
	} {
		entries, err := fs.ReadDir(root, dir)
		if err != nil {
			continue // most systems lack some of them
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") {
				files = append(files, dir+"/"+e.Name())
			}
		}
	}
	return files
}

func sameAsAny(seen []fs.FileInfo, info fs.FileInfo) bool {
	for _, s := range seen {
		if os.SameFile(s, info) {
			return true
		}
	}
	return false
}

func readAtMost(root fs.FS, file string, limit int64) ([]byte, error) {
	f, err := root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("/%s: larger than %d bytes: not searched for tcp_tw_recycle", file, limit)
	}
	return text, nil
}

// recycleLines returns the lines of text that set tcp_tw_recycle, by the
// syntax of sysctl.d(5).
func recycleLines(file string, text []byte) []Line {
	var lines []Line
	in := bufio.NewScanner(bytes.NewReader(text))
	in.Buffer(nil, maxConfigSize+1)
	for no := 1; in.Scan(); no++ {
		line := strings.TrimSpace(in.Text())
		key, _, found := strings.Cut(line, "=")
		if !found || line[0] == '#' || line[0] == ';' {
			continue
		}
		key = strings.TrimSpace(strings.TrimPrefix(key, "-")) // "-": ignore errors
		if key == SysctlTWRecycle || key == "net/ipv4/tcp_tw_recycle" {
			lines = append(lines, Line{File: file, No: no, Text: line})
		}
	}
	return lines
}
