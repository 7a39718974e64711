// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxCgroupPaths bounds the cache of paths: at 200 bytes each, under 2 MiB.
const maxCgroupPaths = 8192

// fileIDKernfs is FILEID_KERNFS of include/linux/exportfs.h: a file handle
// that is the 64-bit id of a kernfs node, in host byte order.
const fileIDKernfs = 0xfe

// Cgroups translates between paths and ids of the cgroup v2 hierarchy. It is
// safe for concurrent use.
type Cgroups struct {
	mount string

	mu    sync.Mutex
	paths map[uint64]string
}

// NewCgroups returns the hierarchy that is mounted at mount, see
// [Facts].Cgroup2.
func NewCgroups(mount string) *Cgroups {
	return &Cgroups{mount: filepath.Clean(mount), paths: make(map[uint64]string)}
}

// ID returns the id of a cgroup, as bpf_get_current_cgroup_id() gives it, and
// its level, as bpf_get_current_ancestor_cgroup_id() takes it: 0 is the root.
// The path may begin at the mount point or below it: with the usual mount,
// /sys/fs/cgroup/system.slice and /system.slice are the same.
func (c *Cgroups) ID(path string) (id uint64, level int, err error) {
	below := filepath.Clean("/" + path)
	if rest, ok := strings.CutPrefix(below, c.mount); ok && (rest == "" || rest[0] == '/') {
		below = filepath.Clean("/" + rest)
	}
	dir := filepath.Join(c.mount, below)
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return 0, 0, fmt.Errorf("no cgroup %q below %s: `systemd-cgls` or `find %s -type d` lists them", path, c.mount, c.mount)
	case err != nil:
		return 0, 0, fmt.Errorf("cgroup %s: name_to_handle_at: %w", dir, err)
	case handle.Type() != fileIDKernfs || handle.Size() != 8:
		return 0, 0, fmt.Errorf("%s is not in a cgroup v2 hierarchy: mount one with `mount -t cgroup2 none DIR`", dir)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return 0, 0, fmt.Errorf("cgroup %q is not a directory: give the cgroup that contains it", path)
	}
	if below != "/" {
		level = strings.Count(below, "/")
	}
	return binary.NativeEndian.Uint64(handle.Bytes()), level, nil
}

// Path returns the path of a cgroup below the mount point, "/" for the root.
// It is empty if the cgroup is gone, or not visible here, or without
// CAP_DAC_READ_SEARCH. A path once found is kept, because ids are not used
// again and cgroups cannot be renamed.
func (c *Cgroups) Path(id uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path, ok := c.paths[id]; ok {
		return path
	}
	path, err := c.lookUp(id)
	if err != nil {
		return ""
	}
	if len(c.paths) >= maxCgroupPaths {
		clear(c.paths)
	}
	c.paths[id] = path
	return path
}

// lookUp asks the kernel for the directory with this id; a walk of the tree
// would cost a system call for each cgroup there is.
func (c *Cgroups) lookUp(id uint64) (string, error) {
	mount, err := unix.Open(c.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(mount)
	handle := unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id))
	dir, err := unix.OpenByHandleAt(mount, handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	full, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(dir))
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(full, c.mount)
	if !ok {
		return "", fmt.Errorf("%s is outside of %s", full, c.mount)
	}
	return filepath.Clean("/" + path), nil
}
