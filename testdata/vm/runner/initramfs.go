// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"
)

// archive writes an initramfs in the format "newc" of Documentation/driver-api/early-userspace/buffer-format.rst.
// Directories are made as files need them.
type archive struct {
	w     *bufio.Writer
	inode uint32
	dirs  map[string]bool
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{"/": true}}
}

func (a *archive) dir(name string) error {
	if a.dirs[name] {
		return nil
	}
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.entry(name, syscall.S_IFDIR|0o755, nil)
}

// file adds a regular file under an absolute name.
func (a *archive) file(name string, mode fs.FileMode, data []byte) error {
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, syscall.S_IFREG|uint32(mode.Perm()), data)
}

// close writes the end mark.
func (a *archive) close() error {
	if err := a.entry("/TRAILER!!!", 0, nil); err != nil {
		return err
	}
	return a.w.Flush()
}

func (a *archive) entry(name string, mode uint32, data []byte) error {
	a.inode++
	name = name[1:]
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	for _, part := range []string{header + name + "\x00", string(data)} {
		if _, err := a.w.WriteString(part); err != nil {
			return err
		}
		// The header with the name, and the data, each end at a multiple of four bytes.
		if _, err := a.w.Write(make([]byte, -len(part)&3)); err != nil {
			return err
		}
	}
	return nil
}

// writeInitramfs packs the load and what depends on the kernel.
func writeInitramfs(w io.Writer, load *guestLoad, extra map[string][]byte) error {
	a := newArchive(w)
	for _, name := range slices.Sorted(maps.Keys(load.files)) {
		f := load.files[name]
		data, err := os.ReadFile(f.host)
		if err != nil {
			return err
		}
		if err := a.file(name, f.mode, data); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := a.file(name, 0o644, extra[name]); err != nil {
			return err
		}
	}
	for _, r := range load.runs {
		if err := a.dir(r.Dir); err != nil {
			return err
		}
	}
	return a.close()
}
