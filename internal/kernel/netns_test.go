// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func netnsRoot() fstest.MapFS {
	return fstest.MapFS{
		"proc/self/mountinfo": file(`22 27 0:21 / /proc rw,relatime - proc proc rw
98 27 0:4 net:[4026532170] /run/netns/blue rw shared:3 - nsfs nsfs rw
98 27 0:4 net:[4026532170] /run/netns/blue rw shared:4 - nsfs nsfs rw
99 27 0:4 net:[4026532300] /run/docker/netns/3f2a rw - nsfs nsfs rw
99 27 0:4 mnt:[4026532400] /run/snapd/ns/lxd.mnt rw - nsfs nsfs rw
`),
		"proc/1/ns/net":      link("net:[4026531840]"),
		"proc/912/ns/net":    link("net:[4026532170]"),
		"proc/77/ns/net":     link("net:[4026532170]"),
		"proc/500/ns/net":    link("net:[4026532500]"),
		"proc/501/ns/net":    link("net:[4026532500]"),
		"proc/502/comm":      file("zombie\n"),
		"proc/503/ns/net":    link("garbage"),
		"run/netns/blue":     file(""),
		"run/netns/stale":    file(""),
		"run/netns/web":      link("/proc/501/ns/net"),
		"run/netns/broken":   link("/proc/9999/ns/net"),
		"run/netns/relative": link("blue"),
	}
}

func TestFindNamespaces(t *testing.T) {
	got, err := FindNamespaces(netnsRoot())
	if err != nil {
		t.Fatal(err)
	}
	want := Namespaces{List: []Namespace{
		{Inode: 4026531840, Path: "/proc/1/ns/net", PID: 1, Processes: 1},
		{Inode: 4026532170, Names: []string{"blue"}, Path: "/run/netns/blue", PID: 77, Processes: 2},
		{Inode: 4026532300, Names: []string{"/run/docker/netns/3f2a"}, Path: "/run/docker/netns/3f2a"},
		{Inode: 4026532500, Names: []string{"web"}, Path: "/proc/500/ns/net", PID: 500, Processes: 2},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("namespaces differ (-want +got):\n%s", diff)
	}
}

// deniedFS refuses to read the links of one process.
type deniedFS struct {
	fstest.MapFS
	prefix string
}

func (d deniedFS) ReadLink(name string) (string, error) {
	if strings.HasPrefix(name, d.prefix) {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrPermission}
	}
	return d.MapFS.ReadLink(name)
}

func TestFindNamespacesCountsWhatItMayNotSee(t *testing.T) {
	got, err := FindNamespaces(deniedFS{netnsRoot(), "proc/500/"})
	if err != nil || got.Unreadable != 1 {
		t.Errorf("Unreadable = %d, %v, want 1", got.Unreadable, err)
	}
	if ns, ok := got.Find(4026532500); !ok || ns.PID != 501 {
		t.Errorf("Find = %+v, %v, want it by process 501", ns, ok)
	}
}

func TestResolve(t *testing.T) {
	all, err := FindNamespaces(netnsRoot())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		value string
		want  uint32
		err   string // what the error must name
	}{
		{"blue", 4026532170, ""},
		{"web", 4026532500, ""},
		{"/run/docker/netns/3f2a", 4026532300, ""},
		{"4026531840", 4026531840, ""},
		{"4026531841", 0, "lsns"},
		{"99999999999", 0, "ip netns list"},
		{"green", 0, "ip netns list"},
		{"", 0, "ip netns list"},
		{"/nowhere/ns", 0, "/nowhere/ns"},
		{"/dev/null", 0, "not a network namespace"},
		{"/proc/self/ns/mnt", 0, "not a network namespace"},
	}
	for _, tt := range tests {
		t.Run(tt.value, func(t *testing.T) {
			got, err := all.Resolve(tt.value)
			if got != tt.want || (err != nil) != (tt.err != "") {
				t.Fatalf("Resolve = %d, %v, want %d", got, err, tt.want)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), tt.value)) {
				t.Errorf("error = %v, want one that names %q and %q", err, tt.value, tt.err)
			}
		})
	}
}

func FuzzParseNSLink(f *testing.F) {
	f.Add("net:[4026531840]")
	f.Add("net:[]")
	f.Fuzz(func(t *testing.T, link string) {
		inode, ok := parseNSLink(link, "net")
		if ok && strings.TrimLeft(link[len("net:["):], "0") != strings.TrimLeft(fmt.Sprintf("%d]", inode), "0") {
			t.Errorf("%q read as %d", link, inode)
		}
	})
}
