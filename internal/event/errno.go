// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxErrno is MAX_ERRNO of the kernel's include/linux/err.h: no kernel function
// returns a greater one.
const maxErrno = 4095

// ErrnoName returns the name of an errno, such as "EADDRNOTAVAIL", and "E" with
// the number for one without a name.
func ErrnoName(n int32) string {
	if s := unix.ErrnoName(syscall.Errno(uint32(n))); s != "" {
		return s
	}
	return "E" + strconv.FormatInt(int64(n), 10)
}

// parseErrno is the inverse of ErrnoName.
func parseErrno(s string) (int32, error) {
	digits, ok := strings.CutPrefix(s, "E")
	if !ok {
		return 0, fmt.Errorf("%q is no errno name", s)
	}
	if n, err := strconv.ParseInt(digits, 10, 32); err == nil {
		return int32(n), nil
	}
	for n := range int32(maxErrno) {
		if unix.ErrnoName(syscall.Errno(uint32(n))) == s {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%q is no errno name", s)
}
