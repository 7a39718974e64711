// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestReadSysctls(t *testing.T) {
	root := fstest.MapFS{
		"proc/sys/net/ipv4/tcp_tw_reuse":            file("2\n"),
		"proc/sys/net/ipv4/ip_local_port_range":     file("32768\t60999\n"),
		"proc/sys/net/ipv4/ip_local_reserved_ports": file("\n"),
		"proc/sys/net/ipv4/tcp_congestion_control":  file("1\n"),
	}
	got, err := ReadSysctls(root)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{SysctlTWReuse: "2", SysctlPortRange: "32768 60999", SysctlReservedPorts: ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sysctls differ (-want +got):\n%s", diff)
	}
}

func TestReadSysctlsKeepsWhatItCouldRead(t *testing.T) {
	root := fstest.MapFS{
		"proc/sys/net/ipv4/tcp_tw_reuse":    {Mode: fs.ModeDir}, // cannot be read
		"proc/sys/net/ipv4/tcp_timestamps":  file("1\n"),
		"proc/sys/net/ipv4/tcp_tw_reuse/no": file(""),
	}
	got, err := ReadSysctls(root)
	if err == nil || errors.Is(err, fs.ErrNotExist) || got[SysctlTimestamps] != "1" {
		t.Errorf("ReadSysctls = %v, %v, want tcp_timestamps and an error", got, err)
	}
}

func TestLocalSysctls(t *testing.T) {
	got, err := ReadSysctls(os.DirFS("/"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{SysctlTWReuse, SysctlTimestamps, SysctlPortRange, SysctlReservedPorts, SysctlMaxTWBuckets, SysctlRFC1337, SysctlFinTimeout, SysctlRateLimit} {
		if _, ok := got[name]; !ok {
			t.Errorf("this kernel has no %s", name)
		}
	}
	if _, ok := got[SysctlTWRecycle]; ok {
		t.Errorf("this kernel still has %s", SysctlTWRecycle)
	}
}
