// SPDX-License-Identifier: Apache-2.0

// Package selfcheck tells a machine that is unfit from a twscope that fails: it runs first in each boot and tries, without
// any of twscope's own code, everything that the other tests build on.
package selfcheck

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// requireVM keeps the checks off hosts: they are about the machine that the runner builds.
func requireVM(t *testing.T) {
	t.Helper()
	if os.Getenv("TWSCOPE_VM") == "" {
		t.Skip("not in a machine started by testdata/vm/run.sh")
	}
}

func TestKernelIsTheOneMeant(t *testing.T) {
	requireVM(t)
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	if got, want := unix.ByteSliceToString(uts.Release[:]), os.Getenv("TWSCOPE_VM_KERNEL"); got != want {
		t.Errorf("running kernel %q, want %q", got, want)
	}
}

func TestFileSystems(t *testing.T) {
	requireVM(t)
	for dir, magic := range map[string]int64{
		"/proc": unix.PROC_SUPER_MAGIC, "/sys": unix.SYSFS_MAGIC, "/sys/fs/bpf": unix.BPF_FS_MAGIC,
		"/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC, "/sys/kernel/tracing": unix.TRACEFS_MAGIC, "/run": unix.TMPFS_MAGIC, "/tmp": unix.TMPFS_MAGIC,
	} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Errorf("statfs %s: %v", dir, err)
		} else if st.Type != magic {
			t.Errorf("%s is of type %#x, want %#x", dir, st.Type, magic)
		}
	}
}

func TestBTF(t *testing.T) {
	requireVM(t)
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var tw *btf.Struct
	if err := spec.TypeByName("tcp_timewait_sock", &tw); err != nil {
		t.Error(err)
	}
	var fn *btf.Func
	if err := spec.TypeByName("tcp_time_wait", &fn); err != nil {
		t.Error(err)
	}
}

// counter is an array of one element and a program that counts its calls in it.
type counter struct{ calls *ebpf.Map }

func newCounter(t *testing.T) *counter {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &counter{m}
}

func (c *counter) program(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	spec.License = "GPL"
	spec.Instructions = asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, c.calls.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func (c *counter) value(t *testing.T) uint64 {
	t.Helper()
	var n uint64
	if err := c.calls.Lookup(uint32(0), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHooksFire attaches one program of each kind that a rung of twscope uses and lets a socket enter TIME_WAIT.
func TestHooksFire(t *testing.T) {
	requireVM(t)
	tracing := func(to string, at ebpf.AttachType) func(*testing.T, *counter) (link.Link, error) {
		return func(t *testing.T, c *counter) (link.Link, error) {
			t.Helper()
			return link.AttachTracing(link.TracingOptions{
				Program: c.program(t, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: at, AttachTo: to}),
			})
		}
	}
	for name, attach := range map[string]func(*testing.T, *counter) (link.Link, error){
		"fentry": tracing("tcp_time_wait", ebpf.AttachTraceFEntry),
		"fexit":  tracing("tcp_time_wait", ebpf.AttachTraceFExit),
		"tp_btf": tracing("inet_sock_set_state", ebpf.AttachTraceRawTp),
		"kprobe": func(t *testing.T, c *counter) (link.Link, error) {
			return link.Kprobe("tcp_time_wait", c.program(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe}), nil)
		},
		"kretprobe": func(t *testing.T, c *counter) (link.Link, error) {
			return link.Kretprobe("tcp_time_wait", c.program(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe}), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			l, err := attach(t, c)
			if err != nil {
				t.Fatalf("attach: %v", err)
			}
			defer l.Close()
			enterTimeWait(t)
			if c.value(t) == 0 {
				t.Error("attached, but it did not fire for a socket that entered TIME_WAIT")
			}
		})
	}
}

func TestIteratorSeesTimeWait(t *testing.T) {
	requireVM(t)
	c := newCounter(t)
	it, err := link.AttachIter(link.IterOptions{
		Program: c.program(t, &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "tcp"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	enterTimeWait(t)
	rd, err := it.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if n, err := rd.Read(make([]byte, 1)); n != 0 {
		t.Errorf("the iterator printed %d bytes (%v), though its program prints none", n, err)
	}
	if c.value(t) == 0 {
		t.Error("no socket seen")
	}
}

func TestRingBuffer(t *testing.T) {
	requireVM(t)
	newCounter(t)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

// enterTimeWait makes a loopback connection whose client closes first, and returns once it is in TIME_WAIT.
func enterTimeWait(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	closeFirst(t, ln, ln.Addr().String(), func() (net.Conn, error) { return net.Dial("tcp4", ln.Addr().String()) })
}

// closeFirst dials, closes the client's end first, and returns the client's address as the server saw it.
func closeFirst(t *testing.T, ln net.Listener, to string, dial func() (net.Conn, error)) net.Addr {
	t.Helper()
	client, err := dial()
	if err != nil {
		t.Fatalf("dial %s: %v", to, err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The server has seen our FIN; its own FIN then moves the client from FIN_WAIT2 to TIME_WAIT.
	if n, err := server.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d bytes, %v; want end of stream", n, err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := client.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Fatalf("read %d bytes, %v; want end of stream", n, err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	return server.RemoteAddr()
}

// TestFacts records what tests may find in this kernel and what not. None of it is a failure.
func TestFacts(t *testing.T) {
	requireVM(t)
	fact := func(name string, have bool) {
		word := "no"
		if have {
			word = "yes"
		}
		fmt.Printf("FACT %s %s\n", name, word)
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	fact("io_uring", haveIOUring())
	fact("mptcp", exists("/proc/sys/net/mptcp/enabled"))
	fact("kprobe_multi", kprobeMulti() == nil)
	fact("get_func_ret", getFuncRet() == nil)
	for _, sysctl := range []string{"tcp_tw_reuse_delay", "tcp_rfc1337", "tcp_tw_recycle"} {
		fact(sysctl, exists(filepath.Join("/proc/sys/net/ipv4", sysctl)))
	}
	snmp, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	for _, mib := range []string{"PAWSPassive", "PAWSOldAck", "PAWSTimewait", "TCPTimeWaitOverflow"} {
		fact(mib, strings.Contains(string(snmp), " "+mib+" "))
	}
}

func haveIOUring() bool {
	// Struct io_uring_params is 120 bytes (include/uapi/linux/io_uring.h).
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return false
	}
	_ = unix.Close(int(fd))
	return true
}

// getFuncRet loads a program with the helper; a probe of the helper by program type alone does not tell.
func getFuncRet() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "inet_hash_connect", License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.Mov.Imm(asm.R3, 0),
			asm.StoreMem(asm.RFP, -8, asm.R3, asm.DWord),
			asm.FnGetFuncRet.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	return p.Close()
}

func kprobeMulti() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	l, err := link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{"tcp_time_wait"}})
	if err != nil {
		return err
	}
	return l.Close()
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
