// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
)

// ProcessTree returns pid and all its descendants, as thread group ids in the
// pid namespace of /proc, ascending but for pid, which is first. A descendant
// whose parent has died belongs to init and is not found.
func ProcessTree(root fs.FS, pid uint32) ([]uint32, error) {
	pids, err := processes(root)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(pids, pid) {
		return nil, fmt.Errorf("no process has the pid %d: `ps -e` lists those that run", pid)
	}
	children := make(map[uint32][]uint32)
	for _, p := range pids {
		file := fmt.Sprintf("proc/%d/stat", p)
		stat, err := fs.ReadFile(root, file)
		if err != nil {
			continue // it has exited
		}
		parent, err := parseParent(stat)
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", file, err)
		}
		children[parent] = append(children[parent], p)
	}
	tree := []uint32{pid}
	seen := map[uint32]bool{pid: true}
	for i := 0; i < len(tree); i++ {
		for _, child := range children[tree[i]] {
			// A pid that is re-used during the scan can make a circle.
			if !seen[child] {
				seen[child] = true
				tree = append(tree, child)
			}
		}
	}
	slices.Sort(tree[1:])
	return tree, nil
}

// Runs tells whether a process has a thread that runs: one that awaits its
// parent's wait() has none.
func Runs(root fs.FS, pid uint32) bool {
	threads, err := fs.ReadDir(root, fmt.Sprintf("proc/%d/task", pid))
	if err != nil {
		return false
	}
	if len(threads) > 1 {
		return true
	}
	stat, err := fs.ReadFile(root, fmt.Sprintf("proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(state) > 0 && !bytes.ContainsAny(state[0], "ZX")
}

// processes returns the thread group ids in /proc, in no particular order.
func processes(root fs.FS) ([]uint32, error) {
	entries, err := fs.ReadDir(root, "proc")
	if err != nil {
		return nil, fmt.Errorf("%w: mount proc on /proc", err)
	}
	pids := make([]uint32, 0, len(entries))
	for _, e := range entries {
		name := e.Name()
		if name[0] < '1' || name[0] > '9' {
			continue
		}
		if pid, err := strconv.ParseUint(name, 10, 32); err == nil {
			pids = append(pids, uint32(pid))
		}
	}
	return pids, nil
}

// parseParent returns the parent's pid from /proc/pid/stat: "pid (comm) state
// ppid ...". The comm may itself hold blanks and parentheses, so the fields
// begin after the last ")".
func parseParent(stat []byte) (uint32, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errors.New("no comm in parentheses")
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 2 {
		return 0, errors.New("no parent pid after the comm")
	}
	parent, err := strconv.ParseUint(string(fields[1]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the parent pid is not a number: %q", fields[1])
	}
	return uint32(parent), nil
}
