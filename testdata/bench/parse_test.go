// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

func TestTells(t *testing.T) {
	isTarget := isOneOf([]netip.AddrPort{netip.MustParseAddrPort("127.77.1.5:7707")})
	tests := []struct {
		name  string
		tells tellsOf
		line  string
		want  bool
	}{
		{"tcpstates, client", tellsTCPStates, "ffff9fc42e3b8000 812 bench-client 127.0.0.1 40312 127.77.1.5 7707 FIN_WAIT2 -> CLOSE 0.020", true},
		{"tcpstates, both closed at once", tellsTCPStates, "ffff9fc42e3b8000 0 swapper/0 127.0.0.1 40312 127.77.1.5 7707 CLOSING -> CLOSE 0.020", true},
		{"tcpstates, comm of two words", tellsTCPStates, "ffff9fc42e3b8000 812 a b 127.0.0.1 40312 127.77.1.5 7707 FIN_WAIT2 -> CLOSE 0.020", true},
		{"tcpstates, before", tellsTCPStates, "ffff9fc42e3b8000 812 bench-client 127.0.0.1 40312 127.77.1.5 7707 FIN_WAIT1 -> FIN_WAIT2 0.020", false},
		{"tcpstates, server", tellsTCPStates, "ffff9fc42e3b8000 812 bench-server 127.77.1.5 7707 127.0.0.1 40312 LAST_ACK -> CLOSE 0.020", false},
		{"tcpstates, another port", tellsTCPStates, "ffff9fc42e3b8000 812 curl 127.0.0.1 40312 127.77.1.5 80 FIN_WAIT2 -> CLOSE 0.020", false},
		{"tcpstates, heading", tellsTCPStates, "SKADDR PID COMM LADDR LPORT RADDR RPORT OLDSTATE -> NEWSTATE MS", false},
		{"tcplife, client", tellsTCPLife, "812 bench-client 127.0.0.1 40312 127.77.1.5 7707 0 0 0.11", true},
		{"tcplife, server", tellsTCPLife, "812 bench-server 127.77.1.5 7707 127.0.0.1 40312 0 0 0.11", false},
		{"tcplife, empty", tellsTCPLife, "", false},
		{"bpftrace, client", tellsBpftrace, "127.0.0.1 40312 127.77.1.5 7707 5", true},
		{"bpftrace, server", tellsBpftrace, "127.77.1.5 7707 127.0.0.1 40312 9", false},
		{"bpftrace, failed connect", tellsBpftrace, "127.0.0.1 40312 127.77.1.5 7707 2", false},
		{"bpftrace, heading", tellsBpftrace, "Attaching 1 probe...", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.tells(strings.Fields(tt.line), isTarget); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestLostIn(t *testing.T) {
	for line, want := range map[string]uint64{
		"lost 12 events on CPU #1!":        12,
		"Lost 3 events":                    3,
		"Possibly lost 7 samples":          7,
		"127.0.0.1 1 127.0.0.1 2 5":        0,
		"lost events":                      0,
		"lost 99999999999999999999 events": 0,
	} {
		if got := lostIn(line); got != want {
			t.Errorf("%q: got %d, want %d", line, got, want)
		}
	}
}

func TestComplaint(t *testing.T) {
	tests := []struct{ name, said, want string }{
		{"bcc", "modprobe: not found\nUnable to find kernel headers. Try x\nTraceback\nException: Failed to compile\n", "Unable to find kernel headers. Try x"},
		{"libbpf", "hello\nlibbpf: failed to find a\nfailed to attach\n", "libbpf: failed to find a"},
		{"last line", "one\ntwo\n", "two"},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := complaint(tt.said); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseProc(t *testing.T) {
	user, system, err := parseStat([]byte("812 (a) b) S 1 812 812 0 -1 4194560 100 0 0 0 21 34 0 0 20 0 7 0 100\n"))
	if err != nil || user != 21 || system != 34 {
		t.Errorf("stat: got %d, %d, %v", user, system, err)
	}
	rss, err := parseHWM([]byte("Name:\tx\nVmPeak:\t   99 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"))
	if err != nil || rss != 2<<20 {
		t.Errorf("status: got %d, %v", rss, err)
	}
	tw, err := parseSockstat("sockets: used 5\nTCP: inuse 5 orphan 0 tw 12345 alloc 7 mem 1\nUDP: inuse 0 mem 0\n")
	if err != nil || tw != 12345 {
		t.Errorf("sockstat: got %d, %v", tw, err)
	}
	times, err := parseCPUTimes("cpu  100 1 50 1000 40 3 4 2 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if want := (cpuTimes{busy: 1600 * time.Millisecond, total: 12 * time.Second}); err != nil || times != want {
		t.Errorf("/proc/stat: got %v, %v, want %v", times, err, want)
	}
}

func TestForeign(t *testing.T) {
	tests := []struct {
		name  string
		times cpuTimes
		ours  time.Duration
		want  float64
	}{
		{"half", cpuTimes{busy: 4 * time.Second, total: 4 * time.Second}, 2 * time.Second, 0.5},
		{"all is ours", cpuTimes{busy: 2 * time.Second, total: 4 * time.Second}, 2 * time.Second, 0},
		{"ticks are coarser than ours", cpuTimes{busy: time.Second, total: 4 * time.Second}, 2 * time.Second, 0},
		{"no time has passed", cpuTimes{}, time.Second, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.times.foreign(tt.ours); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestHooks(t *testing.T) {
	got, err := hooks([]fdinfo{
		parseFdinfo("link_type:\traw_tracepoint\nlink_id:\t1024\nprog_id:\t2738\ntp_name:\tkfree_skb\n"),
		parseFdinfo("link_type:\titer\nlink_id:\t1025\nprog_id:\t2739\ntarget_name:\ttcp\n"),
		parseFdinfo("link_type:\traw_tracepoint\nlink_id:\t1023\nprog_id:\t2737\ntp_name:\tinet_sock_set_state\n"),
		parseFdinfo("link_type:\ttracing\nattach_type:\t24\ntarget_obj_id:\t77\ntarget_btf_id:\t5\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []hook{{"inet_sock_set_state", ebpf.AttachTraceRawTp}, {"kfree_skb", ebpf.AttachTraceRawTp}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCostsSince(t *testing.T) {
	before := map[ebpf.ProgramID]programCost{1: {"a", 10, 1000}, 2: {"b", 5, 50}}
	after := map[ebpf.ProgramID]programCost{1: {"a", 12, 1300}, 2: {"b", 15, 950}, 3: {"a", 1, 100}}
	want := []programCost{{"b", 10, 900}, {"a", 3, 400}}
	if diff := cmp.Diff(want, costsSince(before, after)); diff != "" {
		t.Error(diff)
	}
}

// FuzzParsers holds what reads foreign text to: no panic.
func FuzzParsers(f *testing.F) {
	f.Add("812 (a) b) S 1 812\n")
	f.Add("TCP: inuse 5 orphan 0 tw 12345\n")
	f.Add("cpu  1 2 3 4 5 6 7 8\nVmHWM:\t1 kB\n")
	f.Add("link_type:\traw_tracepoint\n::\n")
	isTarget := func(string, string) bool { return true }
	f.Fuzz(func(t *testing.T, s string) {
		_, _, _ = parseStat([]byte(s))
		_, _ = parseHWM([]byte(s))
		_, _ = parseSockstat(s)
		_, _ = parseFdinfo(s).number("prog_id")
		if times, err := parseCPUTimes(s); err == nil && (times.busy > times.total || times.total < 0) {
			t.Errorf("busy for %v of %v", times.busy, times.total)
		}
		_, _ = complaint(s), lostIn(s)
		for _, tells := range []tellsOf{tellsTCPStates, tellsTCPLife, tellsBpftrace} {
			tells(strings.Fields(s), isTarget)
		}
	})
}
