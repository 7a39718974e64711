// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/testutil"
)

// serverAddr is that of the server of every pair.
var serverAddr = netip.MustParseAddr("10.0.0.2")

// owned is a time_wait event that must be there, and whose it must be.
type owned struct {
	netns uint64
	lport uint16 // 0: any
	rport uint16 // 0: any
	count int
	role  event.Role
	pid   int
	comm  string
}

func (o owned) check(t *testing.T, l log) {
	t.Helper()
	waits := of(l, func(e *event.TimeWait) bool {
		return uint64(e.NetNS) == o.netns &&
			(o.lport == 0 || e.Local.Port() == o.lport) && (o.rport == 0 || e.Remote.Port() == o.rport)
	})
	if len(waits) != o.count {
		t.Errorf("%d sockets entered TIME_WAIT, want %d", len(waits), o.count)
	}
	for _, e := range waits {
		if e.Owner.PID != uint32(o.pid) || e.Owner.Comm != o.comm || e.Role != o.role {
			t.Errorf("%s to %s: pid %d comm %q role %d, want pid %d comm %q role %d",
				e.Local, e.Remote, e.Owner.PID, e.Owner.Comm, e.Role, o.pid, o.comm, o.role)
		}
	}
}

// ownComm is the name of this process.
func ownComm(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/comm")
	testutil.Must(t, err)
	return strings.TrimSuffix(string(b), "\n")
}

// sinkhole is a server that closes last, for clients that close first.
func sinkhole(t testing.TB, h *lab.Host) netip.AddrPort {
	t.Helper()
	srv, err := h.Serve(lab.Server{Network: "tcp4"})
	testutil.Must(t, err)
	t.Cleanup(srv.Stop)
	return netip.AddrPortFrom(serverAddr, srv.Addr().Port())
}

// program runs a load in a process of its own and returns its id.
func program(t testing.TB, h *lab.Host, comm string, l lab.Load) int {
	t.Helper()
	p, err := h.Spawn(t.Context(), lab.Program{Comm: comm, Load: &l})
	testutil.Must(t, err)
	r, err := p.Go(t.Context())
	testutil.Must(t, err)
	if r.Result.Connected != l.Connections {
		t.Fatalf("%s: %+v", comm, r.Result)
	}
	return p.PID()
}

// spawnServer runs a server in a process of its own.
func spawnServer(t testing.TB, h *lab.Host, comm string, s lab.Server) (*lab.Process, netip.AddrPort) {
	t.Helper()
	p, err := h.Spawn(t.Context(), lab.Program{Comm: comm, Server: &s})
	testutil.Must(t, err)
	return p, netip.AddrPortFrom(serverAddr, p.Addrs[0].Port())
}

// load makes connections from this process.
func load(t testing.TB, h *lab.Host, l lab.Load) {
	t.Helper()
	r, err := h.Run(t.Context(), l)
	testutil.Must(t, err)
	if r.Connected != l.Connections {
		t.Fatalf("%d of %d connected: %v", r.Connected, l.Connections, r.Failed)
	}
}

// to is a load of n connections that the client closes last.
func to(target netip.AddrPort, n int) lab.Load {
	return lab.Load{Targets: []netip.AddrPort{target}, Connections: n}
}

// closedBy is the same, closed by the client first.
func closedBy(target netip.AddrPort, n int) lab.Load {
	l := to(target, n)
	l.ClosesFirst = true
	return l
}

// kernelHas tells whether the running kernel has a function.
func kernelHas(t testing.TB, function string) bool {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	testutil.Must(t, err)
	return kernel.NewBTF(spec).HasFunc(function)
}

func TestOwnerOfConnect(t *testing.T) {
	client, server := pair(t)
	w := watch(t, only(client, server))
	w.matrix(probe.Owner)
	cases := map[string]owned{}
	mine := func(target netip.AddrPort, n, pid int, comm string) owned {
		return owned{netns: client.Inode(), rport: target.Port(), count: n, role: event.RoleClient, pid: pid, comm: comm}
	}

	target := sinkhole(t, server)
	cases["process"] = mine(target, 3, program(t, client, "caller", closedBy(target, 3)), "caller")

	target = sinkhole(t, server)
	p, err := client.Spawn(t.Context(), lab.Program{
		Comm: "opener", HandOver: &lab.HandOver{Target: target, ChildComm: "closer"},
	})
	testutil.Must(t, err)
	_, err = p.Go(t.Context())
	testutil.Must(t, err)
	cases["passed over fork, closed by the child"] = mine(target, 1, p.PID(), "opener")

	target = sinkhole(t, server)
	testutil.Must(t, client.Do(func() error {
		if err := os.WriteFile("/proc/thread-self/comm", []byte("a thread"), 0); err != nil {
			return err
		}
		return closeFirst(target)
	}))
	cases["thread of another name"] = mine(target, 1, os.Getpid(), ownComm(t))

	target = sinkhole(t, server)
	s := hire(t, client, "obey")
	odd := "\x1b[31m\"\\\n\xff\x00"
	s.order("name", hex.EncodeToString([]byte(odd)))
	pid := s.connect(target)
	cases["name of odd bytes"] = mine(target, 1, pid, event.Clean("\x1b[31m\"\\\n\xff"))

	l := w.stop()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.check(t, l) })
	}
}

// closeFirst connects in the calling thread and closes first.
func closeFirst(target netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())}); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}

func TestOwnerOfURingConnect(t *testing.T) {
	client, server := pair(t)
	target := sinkhole(t, server)
	if c, err := client.Connect(lab.Dial{Via: lab.ViaURing}, target); err == nil {
		testutil.Must(t, c.Close())
	} else {
		testutil.SkipUnless(t, !lab.URingUnavailable(err), err.Error())
		t.Fatal(err)
	}
	w := watch(t, only(client, server))
	w.matrix(probe.Owner)
	plain, polled := sinkhole(t, server), sinkhole(t, server)
	viaRing, viaPoll := closedBy(plain, 2), closedBy(polled, 2)
	viaRing.Via, viaPoll.Via = lab.ViaURing, lab.ViaSQPoll
	ringPID, pollPID := program(t, client, "ring", viaRing), program(t, client, "sqpoll", viaPoll)
	// up to 5.11 a kernel thread polls the queue: it is nobody's
	pollComm := "sqpoll"
	if !kernelHas(t, "create_io_thread") {
		pollPID, pollComm = 0, ""
	}
	l := w.stop()
	owned{
		netns: client.Inode(), rport: plain.Port(), count: 2, role: event.RoleClient, pid: ringPID, comm: "ring",
	}.check(t, l)
	owned{
		netns: client.Inode(), rport: polled.Port(), count: 2, role: event.RoleClient, pid: pollPID, comm: pollComm,
	}.check(t, l)
}

func TestOwnerOfAccept(t *testing.T) {
	client, server := pair(t)
	w := watch(t, only(client, server))
	w.matrix(probe.Owner)
	cases := map[string]owned{}
	theirs := func(lport uint16, n, pid int, comm string) owned {
		return owned{netns: server.Inode(), lport: lport, count: n, role: event.RoleServer, pid: pid, comm: comm}
	}

	p, target := spawnServer(t, server, "acceptor", lab.Server{Network: "tcp4", ClosesFirst: true})
	load(t, client, to(target, 3))
	cases["listening process"] = theirs(target.Port(), 3, p.PID(), "acceptor")

	if _, err := os.Stat("/proc/sys/net/mptcp"); err == nil {
		p, target = spawnServer(t, server, "mptcp", lab.Server{Network: "tcp4", ClosesFirst: true, MPTCP: true})
		load(t, client, to(target, 3))
		cases["MPTCP"] = theirs(target.Port(), 3, p.PID(), "mptcp")
	}

	target = prefork(t, server, func(target netip.AddrPort) { load(t, client, to(target, 4)) })
	cases["accepted by a child"] = theirs(target.Port(), 4, os.Getpid(), ownComm(t))

	target = outliveListener(t, client, server)
	cases["listener closed before"] = theirs(target.Port(), 1, os.Getpid(), ownComm(t))

	l := w.stop()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.check(t, l) })
	}
}

// prefork listens in this process and has a child accept 4 connections.
func prefork(t *testing.T, server *lab.Host, connect func(netip.AddrPort)) netip.AddrPort {
	t.Helper()
	ln, err := server.Listen(t.Context(), netip.AddrPortFrom(serverAddr, 0))
	testutil.Must(t, err)
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	testutil.Must(t, err)
	defer f.Close()
	testutil.Must(t, unix.SetNonblock(int(f.Fd()), false))
	cmd := actor("accept", "4")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{f}, os.Stderr
	child, err := server.Exec(t.Context(), cmd)
	testutil.Must(t, err)
	target := ln.Addr().(*net.TCPAddr).AddrPort()
	connect(target)
	testutil.Must(t, child.Wait())
	return target
}

// outliveListener accepts a connection, closes the listener, and then the
// connection, first.
func outliveListener(t *testing.T, client, server *lab.Host) netip.AddrPort {
	t.Helper()
	ln, err := server.Listen(t.Context(), netip.AddrPortFrom(serverAddr, 0))
	testutil.Must(t, err)
	target := ln.Addr().(*net.TCPAddr).AddrPort()
	far, err := client.Connect(lab.Dial{}, target)
	testutil.Must(t, err)
	near, err := ln.Accept()
	testutil.Must(t, err)
	testutil.Must(t, ln.Close())
	testutil.Must(t, near.(*net.TCPConn).CloseWrite())
	testutil.Must(t, far.WaitEOF(deadline))
	testutil.Must(t, far.Close())
	_, err = io.Copy(io.Discard, near)
	testutil.Must(t, err)
	testutil.Must(t, near.Close())
	return target
}

func TestOwnerOfReusePort(t *testing.T) {
	client, server := pair(t)
	w := watch(t, only(client, server))
	w.matrix(probe.Owner)
	s := lab.Server{Network: "tcp4", ClosesFirst: true, ReusePort: true}
	one, target := spawnServer(t, server, "one", s)
	s.Port = target.Port()
	two, _ := spawnServer(t, server, "two", s)
	const n = 40
	load(t, client, to(target, n))
	accepted := map[uint32]int64{}
	for _, p := range []*lab.Process{one, two} {
		r, err := p.Stop(t.Context())
		testutil.Must(t, err)
		accepted[uint32(p.PID())] = r.Stats.Accepted
	}
	if !w.knowsListener() {
		accepted = map[uint32]int64{0: n}
	}
	waits := of(w.stop(), func(e *event.TimeWait) bool {
		return uint64(e.NetNS) == server.Inode() && e.Local.Port() == target.Port()
	})
	for _, e := range waits {
		accepted[e.Owner.PID]--
		want := map[uint32]string{uint32(one.PID()): "one", uint32(two.PID()): "two"}[e.Owner.PID]
		if e.Owner.Comm != want || e.Role != event.RoleServer {
			t.Errorf("pid %d comm %q role %d", e.Owner.PID, e.Owner.Comm, e.Role)
		}
	}
	for pid, n := range accepted {
		if n != 0 {
			t.Errorf("pid %d accepted %d connections more than the log says", pid, n)
		}
	}
}

// knowsListener tells whether the children of several listeners on one port
// are told apart (kernels from 5.11).
func (w *watcher) knowsListener() bool {
	for _, c := range w.report.Choices {
		if c.Observation == probe.Owner {
			return c.Lost == ""
		}
	}
	return false
}

func TestOwnerFromBeforeTheStart(t *testing.T) {
	client, server := pair(t)
	target := sinkhole(t, server)
	open, err := client.Connect(lab.Dial{}, target)
	testutil.Must(t, err)
	p, old := spawnServer(t, server, "veteran", lab.Server{Network: "tcp4", ClosesFirst: true})
	testutil.Eventually(t, deadline, func() bool {
		s, err := server.Sockets(lab.Established)
		return err == nil && len(s) == 1
	}, "the connection to be accepted")
	w := watch(t, only(client, server))
	w.matrix(probe.Census)
	testutil.Must(t, open.CloseWrite())
	testutil.Must(t, open.WaitEOF(deadline))
	testutil.Must(t, open.Close())
	load(t, client, to(old, 3))
	l := w.stop()
	owned{
		netns: client.Inode(), rport: target.Port(), count: 1, role: event.RoleUnknown, pid: os.Getpid(), comm: ownComm(t),
	}.check(t, l)
	owned{
		netns: server.Inode(), lport: old.Port(), count: 3, role: event.RoleServer, pid: p.PID(), comm: "veteran",
	}.check(t, l)
}
