// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"debug/buildinfo"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// IsGo tells whether a process runs a program that was built by Go, by what the
// linker leaves in each; false if that cannot be told.
func IsGo(root fs.FS, pid uint32) bool {
	f, err := root.Open(exeOf(pid))
	if err != nil {
		return false
	}
	defer f.Close()
	exe, ok := f.(io.ReaderAt)
	if !ok {
		return false
	}
	_, err = buildinfo.Read(exe)
	return err == nil
}

// SameProgram tells whether two processes run the same file; false if that
// cannot be told.
func SameProgram(root fs.FS, a, b uint32) bool {
	x, errX := fs.Stat(root, exeOf(a))
	y, errY := fs.Stat(root, exeOf(b))
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func exeOf(pid uint32) string { return "proc/" + strconv.FormatUint(uint64(pid), 10) + "/exe" }
