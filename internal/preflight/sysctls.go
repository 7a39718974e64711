// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"cmp"
	"maps"
	"slices"

	"github.com/twscope/twscope/internal/kernel"
)

// sysctlGroups explains the sysctls of all namespaces, those with the same
// values together: that of process 1 first, then our own, then by inode.
func sysctlGroups(all []Namespace, offset kernel.TSOffset) ([]SysctlGroup, []UnreadNamespace) {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b Namespace) int {
		return cmp.Or(cmp.Compare(weight(a), weight(b)), cmp.Compare(a.Inode, b.Inode))
	})
	groups, unread := []SysctlGroup{}, []UnreadNamespace{}
	var values []map[string]string // of each group
	for _, ns := range sorted {
		if ns.Err != nil {
			unread = append(unread, UnreadNamespace{nameOf(ns), firstLine(ns.Err)})
			continue
		}
		at := slices.IndexFunc(values, func(v map[string]string) bool { return maps.Equal(v, ns.Sysctls) })
		if at < 0 {
			at = len(groups)
			values = append(values, ns.Sysctls)
			groups = append(groups, SysctlGroup{Effects: effects(ns.Sysctls, offset)})
		}
		groups[at].Namespaces = append(groups[at].Namespaces, nameOf(ns))
	}
	return groups, unread
}

func weight(ns Namespace) int {
	switch {
	case isInit(ns):
		return 0
	case ns.Own:
		return 1
	default:
		return 2
	}
}

// initialNetNS is NET_NS_INIT_INO of include/uapi/linux/nsfs.h, since 6.18. No
// other namespace of an older kernel has this inode: theirs begin above it.
const initialNetNS = 0xEFFFFFF9

// isInit: process 1 of our pid namespace is the host's init, unless twscope
// itself is in a container, and then it is the best that can be told.
func isInit(ns Namespace) bool { return ns.PID == 1 || ns.Inode == initialNetNS }

func nameOf(ns Namespace) NamespaceName {
	n := NamespaceName{
		Inode: ns.Inode, Names: []string{}, Init: isInit(ns), Own: ns.Own, Processes: ns.Processes,
	}
	for _, name := range ns.Names {
		n.Names = append(n.Names, clean(name))
	}
	return n
}

func effects(values map[string]string, offset kernel.TSOffset) []Effect {
	list := []Effect{}
	for _, e := range kernel.Explain(values, offset) {
		list = append(list, Effect{e.Name, clean(e.Value), clean(e.Effect), e.Severity.String()})
	}
	return list
}
