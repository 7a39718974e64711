// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Namespace is a network namespace that something on this host refers to.
type Namespace struct {
	Inode     uint32   // as in `ls -i /run/netns` and `lsns -t net`
	Names     []string // below /run/netns; elsewhere the full path of the mount
	Path      string   // by which it can be opened
	PID       uint32   // the lowest pid of those in it; 0: no process is
	Processes int
}

// Namespaces is one scan for network namespaces.
type Namespaces struct {
	List []Namespace // by inode
	// Unreadable counts the processes whose namespace we may not see, because
	// we lack CAP_SYS_PTRACE or a security module forbids it.
	Unreadable int
}

// FindNamespaces lists the network namespaces that have a process (its main
// thread) or a mount. Others, kept alive by an open file or socket alone,
// cannot be found. It opens none of them, as that would keep them alive.
func FindNamespaces(root fs.FS) (Namespaces, error) {
	found := make(map[uint32]*Namespace)
	at := func(inode uint32) *Namespace {
		ns := found[inode]
		if ns == nil {
			ns = &Namespace{Inode: inode}
			found[inode] = ns
		}
		return ns
	}
	mounts, err := readMounts(root)
	if err != nil {
		return Namespaces{}, err
	}
	for _, m := range mounts {
		if inode, ok := parseNSLink(m.root, "net"); ok && m.fstype == "nsfs" {
			at(inode).addName(m.point)
		}
	}
	unreadable, err := scanProcesses(root, at)
	if err != nil {
		return Namespaces{}, err
	}
	scanLinks(root, at)

	result := Namespaces{Unreadable: unreadable}
	for _, inode := range slices.Sorted(maps.Keys(found)) {
		ns := found[inode]
		if ns.Path == "" {
			ns.Path = fmt.Sprintf("/proc/%d/ns/net", ns.PID)
		}
		slices.Sort(ns.Names)
		ns.Names = slices.Compact(ns.Names)
		result.List = append(result.List, *ns)
	}
	return result, nil
}

// scanProcesses adds the namespaces of all processes.
func scanProcesses(root fs.FS, at func(uint32) *Namespace) (unreadable int, err error) {
	pids, err := processes(root)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		link, err := fs.ReadLink(root, "proc/"+strconv.FormatUint(uint64(pid), 10)+"/ns/net")
		if errors.Is(err, fs.ErrPermission) {
			unreadable++
		}
		inode, ok := parseNSLink(link, "net")
		if err != nil || !ok {
			continue // it has exited, or is a zombie
		}
		ns := at(inode)
		ns.Processes++
		if ns.PID == 0 || pid < ns.PID {
			ns.PID = pid
		}
	}
	return unreadable, nil
}

// scanLinks adds the names of those namespaces that are not mounts below
// /run/netns but links to /proc/pid/ns/net, as people make them for
// containers. Such a link is a name only: it breaks when its process exits.
func scanLinks(root fs.FS, at func(uint32) *Namespace) {
	entries, err := fs.ReadDir(root, "run/netns")
	if err != nil {
		return // nobody has used ip-netns(8) yet
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := fs.ReadLink(root, "run/netns/"+e.Name())
		if err != nil || !path.IsAbs(target) {
			continue
		}
		link, err := fs.ReadLink(root, path.Clean(target)[1:])
		if err != nil {
			continue
		}
		if inode, ok := parseNSLink(link, "net"); ok {
			ns := at(inode)
			ns.Names = append(ns.Names, e.Name())
			if ns.PID == 0 && ns.Path == "" {
				ns.Path = path.Clean(target)
			}
		}
	}
}

// addName adds a mount point, which is also the best path to open: other than
// a pid it is not used again for something else.
func (n *Namespace) addName(point string) {
	name := point
	for _, dir := range []string{"/run/netns/", "/var/run/netns/"} {
		if rest, ok := strings.CutPrefix(point, dir); ok {
			name = rest
		}
	}
	n.Names = append(n.Names, name)
	if n.Path == "" {
		n.Path = point
	}
}

// Find returns the namespace with this inode.
func (n Namespaces) Find(inode uint32) (Namespace, bool) {
	i, ok := slices.BinarySearchFunc(n.List, inode, func(ns Namespace, inode uint32) int {
		return cmp.Compare(ns.Inode, inode)
	})
	if !ok {
		return Namespace{}, false
	}
	return n.List[i], true
}

// Resolve returns the inode of the namespace that a user means by a name
// below /run/netns, a path such as /proc/123/ns/net, or an inode number.
func (n Namespaces) Resolve(value string) (uint32, error) {
	for _, ns := range n.List {
		if slices.Contains(ns.Names, value) {
			return ns.Inode, nil
		}
	}
	if strings.Contains(value, "/") {
		return inodeOf(value)
	}
	if inode, err := strconv.ParseUint(value, 10, 32); err == nil {
		if _, ok := n.Find(uint32(inode)); !ok {
			return 0, fmt.Errorf("no network namespace has the inode %s: `lsns -t net` lists them", value)
		}
		return uint32(inode), nil
	}
	return 0, fmt.Errorf("no network namespace is named %q: `ip netns list` lists the names; a path or an inode number will do too", value)
}

// parseNSLink reads "net:[4026531840]", the target of /proc/pid/ns/net.
func parseNSLink(link, kind string) (uint32, bool) {
	rest, ok := strings.CutPrefix(link, kind+":[")
	if !ok {
		return 0, false
	}
	digits, ok := strings.CutSuffix(rest, "]")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(digits, 10, 32)
	return uint32(inode), err == nil
}
