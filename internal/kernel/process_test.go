// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func stat(pid, parent uint32, comm string) *fstest.MapFile {
	return file(fmt.Sprintf("%d (%s) S %d %d 1 0 -1 4194560 1 2 3\n", pid, comm, parent, pid))
}

func TestProcessTree(t *testing.T) {
	root := fstest.MapFS{
		"proc/1/stat":  stat(1, 0, "init"),
		"proc/50/stat": stat(50, 1, "wrk) S 1 (x"),
		"proc/20/stat": stat(20, 50, "a b"),
		"proc/70/stat": stat(70, 20, ""),
		"proc/60/stat": stat(60, 50, "curl"),
		"proc/61/stat": stat(61, 1, "other"),
		// 80 and 81 are each other's parent: a pid was re-used in mid-scan.
		"proc/80/stat":    stat(80, 81, "x"),
		"proc/81/stat":    stat(81, 80, "y"),
		"proc/90/comm":    file("gone\n"),
		"proc/self/stat":  stat(50, 1, "me"),
		"proc/uptime":     file("1 1\n"),
		"proc/1x/stat":    file("no process"),
		"proc/0/whatever": file(""),
	}
	tests := []struct {
		pid  uint32
		want []uint32
	}{
		{50, []uint32{50, 20, 60, 70}},
		{61, []uint32{61}},
		{80, []uint32{80, 81}},
		{90, []uint32{90}},
	}
	for _, tt := range tests {
		got, err := ProcessTree(root, tt.pid)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("ProcessTree(%d) = %v, %v, want %v", tt.pid, got, err, tt.want)
		}
	}
	if _, err := ProcessTree(root, 4711); err == nil || !strings.Contains(err.Error(), "4711") {
		t.Errorf("error = %v, want one that names the pid", err)
	}
	broken := with(root, fstest.MapFS{"proc/60/stat": file("60 (x) S\n")})
	if _, err := ProcessTree(broken, 50); err == nil || !strings.HasPrefix(err.Error(), "/proc/60/stat:") {
		t.Errorf("error = %v, want one that names /proc/60/stat", err)
	}
}

func TestRuns(t *testing.T) {
	root := fstest.MapFS{
		"proc/1/stat": stat(1, 0, "init"), "proc/1/task/1/stat": stat(1, 0, "init"),
		"proc/2/stat": file("2 (a) b) Z 1 2\n"), "proc/2/task/2/stat": file(""),
		"proc/3/stat": file("3 (x) Z 1 3\n"), "proc/3/task/3/stat": file(""), "proc/3/task/30/stat": file(""), // its leader has ended
		"proc/4/stat": file("4 (x) X 1 4\n"), "proc/4/task/4/stat": file(""),
		"proc/5/stat": file("nonsense"), "proc/5/task/5/stat": file(""),
	}
	for pid, want := range map[uint32]bool{1: true, 2: false, 3: true, 4: false, 6: false} {
		if got := Runs(root, pid); got != want {
			t.Errorf("Runs(%d) = %t", pid, got)
		}
	}
	_ = Runs(root, 5) // whatever it is, no panic
	if !Runs(os.DirFS("/"), uint32(os.Getpid())) {
		t.Error("we run")
	}
}

func TestLocalProcessTree(t *testing.T) {
	got, err := ProcessTree(os.DirFS("/"), uint32(os.Getppid()))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got, uint32(os.Getpid())) {
		t.Errorf("the tree of our parent %d is %v, without us, %d", os.Getppid(), got, os.Getpid())
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add("curl", uint32(17))
	f.Add("a) S 1 (b", uint32(0))
	f.Add("\n) R 9", uint32(4194304))
	f.Fuzz(func(t *testing.T, comm string, parent uint32) {
		got, err := parseParent(fmt.Appendf(nil, "7 (%s) S %d 7 7", comm, parent))
		if err != nil || got != parent {
			t.Errorf("comm %q: parent = %d, %v, want %d", comm, got, err, parent)
		}
		if _, err := parseParent([]byte(comm)); err == nil && !strings.Contains(comm, ")") {
			t.Errorf("%q has no comm, yet a parent", comm)
		}
	})
}
