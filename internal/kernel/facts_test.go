// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func link(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

// with returns a root that has the files of both.
func with(a, b fstest.MapFS) fstest.MapFS {
	both := fstest.MapFS{}
	for _, m := range []fstest.MapFS{a, b} {
		maps.Copy(both, m)
	}
	return both
}

func fakeRoot() fstest.MapFS {
	return fstest.MapFS{
		"proc/sys/kernel/osrelease":      file("6.1.0-50-cloud-amd64\n"),
		"proc/sys/kernel/hostname":       file("egress-7\n"),
		"proc/sys/kernel/random/boot_id": file("0f6a1c52-6f5a-4d62-9a0a-2f9c3a3a1b11\n"),
		"proc/self/mountinfo": file(`22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 23 0:11 / /sys/kernel/debug/tracing rw shared:9 master:2 - tracefs tracefs rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 27 0:38 /box /srv/box/cgroup rw,relatime - cgroup2 cgroup2 rw
`),
		"proc/self/ns/pid":    link("pid:[4026531836]"),
		"proc/self/ns/cgroup": link("cgroup:[4026532301]"),
	}
}

func TestReadFacts(t *testing.T) {
	full := Facts{
		Release: "6.1.0-50-cloud-amd64", Machine: "aarch64", Host: "egress-7",
		BootID: "0f6a1c52-6f5a-4d62-9a0a-2f9c3a3a1b11", HZ: 250,
		TraceFS: "/sys/kernel/debug/tracing", Cgroup2: "/sys/fs/cgroup/unified",
		InitialPIDNS: true,
	}
	locked := full
	locked.Lockdown = "integrity"
	tests := []struct {
		name string
		root fs.FS
		want Facts
	}{
		{"no securityfs, hybrid cgroups, own cgroup namespace", fakeRoot(), full},
		{"lockdown", with(fakeRoot(), fstest.MapFS{
			"sys/kernel/security/lockdown": file("none [integrity] confidentiality\n"),
		}), locked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadFacts(tt.root, "aarch64", 4*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("facts differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadFactsWithoutProc(t *testing.T) {
	_, err := ReadFacts(fstest.MapFS{}, "x86_64", 0)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount proc") {
		t.Errorf("error = %v, want one that says to mount proc", err)
	}
}

func TestSnapHZ(t *testing.T) {
	tests := []struct {
		tick time.Duration
		want int
	}{
		{10 * time.Millisecond, 100},
		{4 * time.Millisecond, 250},
		{3333333, 300},
		{time.Millisecond, 1000},
		{999848, 1000},
		{1, 0},
		{0, 0},
		{2 * time.Millisecond, 0},
	}
	for _, tt := range tests {
		if got := snapHZ(tt.tick); got != tt.want {
			t.Errorf("snapHZ(%v) = %d, want %d", tt.tick, got, tt.want)
		}
	}
}

func TestLocal(t *testing.T) {
	f, err := Local()
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if f.Host != host {
		t.Errorf("Host = %q, want %q", f.Host, host)
	}
	if machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; f.Machine != machine {
		t.Errorf("Machine = %q, want %q", f.Machine, machine)
	}
	if f.HZ == 0 || f.Release == "" || len(f.BootID) != 36 {
		t.Errorf("incomplete: %+v", f)
	}
	if f.Cgroup2 != "" {
		if _, err := os.Stat(f.Cgroup2 + "/cgroup.controllers"); err != nil {
			t.Errorf("Cgroup2 = %s: %v", f.Cgroup2, err)
		}
	}
}

func TestParseMounts(t *testing.T) {
	text := "98 27 0:4 net:[4026532170] /run/netns/a\\040b\\134 rw shared:3 - nsfs nsfs rw\n"
	got, err := parseMounts(mountInfoFile, text)
	if err != nil {
		t.Fatal(err)
	}
	want := mount{root: "net:[4026532170]", point: `/run/netns/a b\`, fstype: "nsfs"}
	if len(got) != 1 || got[0] != want {
		t.Errorf("parseMounts = %+v, want %+v", got, want)
	}
	_, err = parseMounts(mountInfoFile, text+"garbage\n")
	if err == nil || !strings.Contains(err.Error(), "/proc/self/mountinfo:2:") {
		t.Errorf("error = %v, want one that names the file and line 2", err)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add("98 27 0:4 net:[4026532170] /run/netns/a\\040b rw shared:3 - nsfs nsfs rw\n")
	f.Add("1 2 3 \\ \\777 - x")
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(mountInfoFile, text)
		if err != nil && mounts != nil {
			t.Error("both mounts and an error")
		}
		for _, m := range mounts {
			if m.fstype == "" || m.point == "" {
				t.Errorf("incomplete: %+v", m)
			}
		}
	})
}
