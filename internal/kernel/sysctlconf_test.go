// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestRecycleLines(t *testing.T) {
	root := fstest.MapFS{
		"etc/sysctl.conf": file("# net.ipv4.tcp_tw_recycle = 1\n" +
			"; net.ipv4.tcp_tw_recycle=1\n" +
			"net.ipv4.tcp_tw_reuse = 1\n\n" +
			"  net.ipv4.tcp_tw_recycle = 1  \r\n"),
		"etc/sysctl.d/10-lb.conf":          file("-net/ipv4/tcp_tw_recycle=1"),
		"etc/sysctl.d/README":              file("net.ipv4.tcp_tw_recycle=1\n"),
		"etc/sysctl.d/dir.conf/x":          file("net.ipv4.tcp_tw_recycle=1\n"),
		"run/sysctl.d/a.conf":              file("net.ipv4.tcp_tw_recycle\nnet.ipv4.tcp_tw_recycle_not=1\nx = net.ipv4.tcp_tw_recycle\n"),
		"usr/local/lib/sysctl.d/old.conf":  file("- net.ipv4.tcp_tw_recycle = 0\n"),
		"usr/lib/sysctl.d/50-default.conf": file("net/ipv4.tcp_tw_recycle=1\n"), // "." is literal after a first "/"
		"lib/sysctl.d/z.conf":              file("\nnet.ipv4.tcp_tw_recycle=1=2\n"),
	}
	got, err := RecycleLines(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []Line{
		{"/etc/sysctl.conf", 5, "net.ipv4.tcp_tw_recycle = 1"},
		{"/etc/sysctl.d/10-lb.conf", 1, "-net/ipv4/tcp_tw_recycle=1"},
		{"/usr/local/lib/sysctl.d/old.conf", 1, "- net.ipv4.tcp_tw_recycle = 0"},
		{"/lib/sysctl.d/z.conf", 2, "net.ipv4.tcp_tw_recycle=1=2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines differ (-want +got):\n%s", diff)
	}
}

func TestRecycleLinesOneFileByTwoPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/sysctl.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etc/sysctl.conf"), []byte("net.ipv4.tcp_tw_recycle=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../sysctl.conf", filepath.Join(dir, "etc/sysctl.d/99-sysctl.conf")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "etc/sysctl.d/broken.conf")); err != nil {
		t.Fatal(err)
	}
	got, err := RecycleLines(os.DirFS(dir))
	if err != nil || len(got) != 1 || got[0].File != "/etc/sysctl.conf" {
		t.Errorf("RecycleLines = %v, %v, want the one line of /etc/sysctl.conf", got, err)
	}
}

func TestRecycleLinesOfAHugeFile(t *testing.T) {
	root := fstest.MapFS{
		"etc/sysctl.conf":     {Data: bytes.Repeat([]byte("x"), maxConfigSize+1)},
		"etc/sysctl.d/a.conf": file("net.ipv4.tcp_tw_recycle=1\n"),
	}
	got, err := RecycleLines(root)
	if err == nil || !strings.HasPrefix(err.Error(), "/etc/sysctl.conf:") || len(got) != 1 {
		t.Errorf("RecycleLines = %v, %v, want an error for /etc/sysctl.conf and the line of a.conf", got, err)
	}
}

func FuzzRecycleLines(f *testing.F) {
	f.Add("x\n", " - net.ipv4.tcp_tw_recycle =1")
	f.Add("# net.ipv4.tcp_tw_recycle=1", "")
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before) > 1000 || len(after) > 1000 {
			return
		}
		const line = "net.ipv4.tcp_tw_recycle=1"
		text := before + "\n" + line + "\n" + after
		found := false
		for _, l := range recycleLines("f", []byte(text)) {
			if !strings.Contains(l.Text, "tcp_tw_recycle") || l.Text[0] == '#' || l.Text[0] == ';' {
				t.Errorf("%q sets no tcp_tw_recycle", l.Text)
			}
			found = found || l.No == strings.Count(before, "\n")+2 && l.Text == line
		}
		if !found {
			t.Errorf("the line after %q was not found", before)
		}
	})
}
