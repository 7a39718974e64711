// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twscope/twscope/internal/testutil"
)

// testCgroups returns the cgroup v2 hierarchy of this host.
func testCgroups(t *testing.T) (*Cgroups, string) {
	t.Helper()
	f, err := Local()
	if err != nil {
		t.Fatal(err)
	}
	testutil.SkipUnless(t, f.Cgroup2 != "", "no cgroup v2 hierarchy is mounted")
	return NewCgroups(f.Cgroup2), f.Cgroup2
}

// makeCgroup makes an empty cgroup that goes away with the test.
func makeCgroup(t *testing.T, mount, path string) string {
	t.Helper()
	dir := filepath.Join(mount, path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

func TestCgroupsThereAndBack(t *testing.T) {
	c, mount := testCgroups(t)
	testutil.Root(t)
	top := fmt.Sprintf("/twscope-test-%d", os.Getpid())
	makeCgroup(t, mount, top)
	dir := makeCgroup(t, mount, top+"/a b")

	for _, path := range []string{top + "/a b", top[1:] + "/a b/", dir} {
		id, level, err := c.ID(path)
		if err != nil || level != 2 {
			t.Fatalf("ID(%q) = %d, level %d, %v, want level 2", path, id, level, err)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if inode := info.Sys().(*syscall.Stat_t).Ino; id != inode {
			t.Errorf("ID(%q) = %d, want the inode %d", path, id, inode)
		}
		if got := c.Path(id); got != top+"/a b" {
			t.Errorf("Path(%d) = %q, want %q", id, got, top+"/a b")
		}
	}
}

func TestCgroupsRoot(t *testing.T) {
	c, mount := testCgroups(t)
	for _, path := range []string{"/", "", mount, mount + "/"} {
		id, level, err := c.ID(path)
		if err != nil || level != 0 {
			t.Errorf("ID(%q): level %d, %v, want level 0", path, level, err)
		}
		if got := c.Path(id); got != "/" && os.Geteuid() == 0 {
			t.Errorf("Path(%d) = %q, want /", id, got)
		}
	}
}

func TestCgroupsPathOfTheDead(t *testing.T) {
	c, mount := testCgroups(t)
	testutil.Root(t)
	known := fmt.Sprintf("/twscope-test-%d-known", os.Getpid())
	unknown := fmt.Sprintf("/twscope-test-%d-unknown", os.Getpid())
	knownDir, unknownDir := makeCgroup(t, mount, known), makeCgroup(t, mount, unknown)
	knownID, _, err := c.ID(known)
	if err != nil {
		t.Fatal(err)
	}
	unknownID, _, err := c.ID(unknown)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Path(knownID); got != known {
		t.Errorf("alive, Path = %q, want %q", got, known)
	}
	for _, dir := range []string{knownDir, unknownDir} {
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Path(knownID); got != known {
		t.Errorf("dead but once seen, Path = %q, want %q", got, known)
	}
	if got := c.Path(unknownID); got != "" {
		t.Errorf("dead and never seen, Path = %q, want none", got)
	}
}

func TestCgroupsCacheIsBounded(t *testing.T) {
	c, _ := testCgroups(t)
	testutil.Root(t)
	for id := range uint64(maxCgroupPaths) {
		c.paths[1<<40+id] = "/x"
	}
	root, _, err := c.ID("/")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Path(root); got != "/" || len(c.paths) > maxCgroupPaths {
		t.Errorf("Path = %q with %d paths kept, want / and at most %d", got, len(c.paths), maxCgroupPaths)
	}
}

func TestCgroupsErrors(t *testing.T) {
	c, mount := testCgroups(t)
	tests := []struct {
		name    string
		cgroups *Cgroups
		path    string
		want    string
	}{
		{"absent", c, "/no/such/group", `no cgroup "/no/such/group" below ` + mount},
		{"outside", c, "../../etc", `no cgroup "../../etc"`},
		{"below a file", c, "cgroup.procs/x", `no cgroup "cgroup.procs/x"`},
		{"a file", c, "cgroup.procs", `cgroup "cgroup.procs" is not a directory`},
		{"another file system", NewCgroups(t.TempDir()), "/", "not in a cgroup v2 hierarchy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := tt.cgroups.ID(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}
