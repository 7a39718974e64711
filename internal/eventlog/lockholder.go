// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/twscope/twscope/internal/event"
)

// lockHolder names the process that holds a flock on f, as well as it can be
// told from /proc/locks.
func lockHolder(f handle) string {
	const unnamed = "another process"
	info, err := f.Stat()
	if err != nil {
		return unnamed
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return unnamed
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return unnamed
	}
	defer func() { _ = locks.Close() }() // only read
	pid := flockPID(locks, st.Ino)
	if pid <= 0 {
		return unnamed
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("%s (pid %d)", event.Clean(string(bytes.TrimSpace(comm))), pid)
}

// flockPID returns the process that holds a flock on an inode, or 0. The form
// is that of fs/locks.c, lock_get_status:
//
//	1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
//
// The device is not compared: some file systems show another one by stat(2).
func flockPID(locks io.Reader, inode uint64) int {
	for s := bufio.NewScanner(locks); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+strconv.FormatUint(inode, 10)) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil {
			return pid
		}
	}
	return 0
}
