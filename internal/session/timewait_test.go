// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// link is a client and a server with IPv4 and IPv6 between them.
type link struct {
	client, server *lab.Host
	a, b           *lab.End // their ends
}

// newLink builds a link; name is unique in the test.
func newLink(t testing.TB, name string) link {
	t.Helper()
	l, err := lab.New(t.Context(), name, lab.Named())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts, err := l.Hosts("client", "server")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Link(t.Context(), hosts[0], hosts[1], "10.0.0.0/24", "fd00::/64")
	if err != nil {
		t.Fatal(err)
	}
	return link{client: hosts[0], server: hosts[1], a: &ln.A, b: &ln.B}
}

// pair is a client and a server with IPv4 and IPv6 between them.
func pair(t *testing.T) (client, server *lab.Host) {
	t.Helper()
	l := newLink(t, "pair")
	return l.client, l.server
}

// family is how a client reaches the server of a link.
type family struct {
	name string
	v6   bool
	dial netip.Addr // what the client passes to connect()
	// the addresses as the log shows them
	client, server netip.Addr
}

func families(a, b *lab.End) []family {
	return []family{
		{"IPv4", false, b.Addr4(), a.Addr4(), b.Addr4()},
		{"IPv6", true, b.Addr6(), a.Addr6(), b.Addr6()},
		{"mapped", false, netip.AddrFrom16(b.Addr4().As16()), a.Addr4(), b.Addr4()},
	}
}

// serve starts a server. It returns nil if the server is to be MPTCP and the
// kernel has none.
func serve(t testing.TB, h *lab.Host, s lab.Server) *lab.Serving {
	t.Helper()
	sv, err := h.Serve(s)
	if s.MPTCP && err != nil && !hasMPTCP() {
		t.Log("this kernel has no MPTCP")
		return nil
	}
	testutil.Must(t, err)
	return sv
}

func hasMPTCP() bool {
	_, err := os.Stat("/proc/sys/net/mptcp/enabled")
	return err == nil
}

// timeWaitsOf is the time_wait events of a host.
func timeWaitsOf(l log, h *lab.Host) []*event.TimeWait {
	return of(l, func(e *event.TimeWait) bool { return uint64(e.NetNS) == h.Inode() })
}

// eventuallyTW waits until a host has so many sockets in TIME_WAIT.
func eventuallyTW(t testing.TB, h *lab.Host, n int) []lab.Socket {
	t.Helper()
	var list []lab.Socket
	testutil.Eventually(t, deadline, func() bool {
		list = testutil.Must1[[]lab.Socket](t)(h.TimeWaits())
		return len(list) == n
	}, "%d sockets of %s in TIME_WAIT", n, h.Name())
	return list
}

// closeCase is one way to end a connection.
type closeCase struct {
	name string
	run  func(t *testing.T, c *closing)
	// how many sockets must enter TIME_WAIT, and what is said of each
	client, server int
	substate       event.Substate
	timeoutMS      uint32
	overflow       uint64 // TIME_WAIT sockets that the client was denied
	// orphan: when the socket was looked at, the peer's FIN may have come or
	// not, which decides the substate
	orphan bool
}

// closing is a case in its own network.
type closing struct {
	closeCase
	link
	all *testing.T // of all cases: what it cleans up stays until the log is read
}

func (c *closing) load(t *testing.T, s lab.Server, l lab.Load) {
	t.Helper()
	sv := serve(t, c.link.server, s)
	if len(l.Targets) == 0 {
		l.Targets = sv.Targets(c.b.Addr4())
	}
	res := testutil.Must1[*lab.Result](t)(c.link.client.Run(t.Context(), l))
	if res.Connected != l.Connections {
		t.Fatalf("connected %d of %d: %v", res.Connected, l.Connections, res.Failed)
	}
	testutil.Eventually(t, deadline, func() bool { return sv.Stats().Closed == int64(l.Connections) },
		"the server has closed all")
}

// accepted makes one connection and returns both of its ends.
func (c *closing) accepted(t *testing.T) (*lab.Conn, *net.TCPConn) {
	t.Helper()
	ln := testutil.Must1[net.Listener](t)(c.link.server.Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:0")))
	c.all.Cleanup(func() { ln.Close() })
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	conn := testutil.Must1[*lab.Conn](t)(c.link.client.Connect(lab.Dial{}, netip.AddrPortFrom(c.b.Addr4(), port)))
	peer := testutil.Must1[net.Conn](t)(ln.Accept())
	c.all.Cleanup(func() { peer.Close() })
	return conn, peer.(*net.TCPConn)
}

// finWait2 closes the client's end while the server keeps its own.
func (c *closing) finWait2(t *testing.T, timeout string) *net.TCPConn {
	t.Helper()
	testutil.Must(t, c.link.client.Sysctl("net.ipv4.tcp_fin_timeout", timeout))
	conn, peer := c.accepted(t)
	testutil.Must(t, conn.Close())
	eventuallyTW(t, c.link.client, 1)
	return peer
}

func closeCases(n int) []closeCase {
	zero := 0
	const minute = 60_000
	tw, fw2 := event.SubstateTimeWait, event.SubstateFinWait2
	return []closeCase{
		{"client-first", func(t *testing.T, c *closing) {
			c.load(t, lab.Server{}, lab.Load{ClosesFirst: true, Connections: n})
		}, n, 0, tw, minute, 0, false},
		{"server-first", func(t *testing.T, c *closing) {
			c.load(t, lab.Server{ClosesFirst: true}, lab.Load{Connections: n})
		}, 0, n, tw, minute, 0, true},
		{"server-first6", func(t *testing.T, c *closing) {
			sv := lab.Server{ClosesFirst: true, Port: 8080}
			c.load(t, sv, lab.Load{Connections: n, Targets: []netip.AddrPort{netip.AddrPortFrom(c.b.Addr6(), 8080)}})
		}, 0, n, tw, minute, 0, true},
		{"fin-wait2", func(t *testing.T, c *closing) { c.finWait2(t, "30") }, 1, 0, fw2, 30_000, 0, false},
		{"fin-wait2-short", func(t *testing.T, c *closing) { c.finWait2(t, "3") }, 1, 0, fw2, 3_000, 0, false},
		{"fin-wait2-then-fin", func(t *testing.T, c *closing) {
			testutil.Must(t, c.finWait2(t, "30").Close())
			testutil.Eventually(t, deadline, func() bool {
				return eventuallyTW(t, c.link.client, 1)[0].State == lab.TimeWait
			}, "true TIME_WAIT after the peer's FIN")
		}, 1, 0, fw2, 30_000, 0, true},
		{"simultaneous", simultaneousClose, 1, 0, tw, minute, 0, false},
		{"linger-0", func(t *testing.T, c *closing) {
			c.load(t, lab.Server{}, lab.Load{ClosesFirst: true, Connections: n, Dial: lab.Dial{Linger: &zero}})
		}, 0, 0, tw, minute, 0, false},
		{"reset-in-fin-wait2", func(t *testing.T, c *closing) {
			conn, peer := c.accepted(t)
			testutil.Must(t, conn.CloseWrite())
			eventuallyState(t, c.link.client, lab.FinWait2)
			testutil.Must(t, peer.SetLinger(0))
			testutil.Must(t, peer.Close())
			_ = conn.WaitEOF(deadline) // ECONNRESET
			testutil.Must(t, conn.Close())
		}, 0, 0, tw, minute, 0, false},
		{"unread-data", func(t *testing.T, c *closing) {
			conn, peer := c.accepted(t)
			testutil.Must(t, conn.CloseWrite())
			testutil.Must1[int](t)(peer.Write([]byte("unread")))
			eventuallyState(t, c.link.client, lab.FinWait2)
			before := testutil.Must1[lab.Counters](t)(c.link.client.Netstat())
			testutil.Must(t, conn.Close())
			if got := testutil.Must1[lab.Counters](t)(c.link.client.Netstat()).Since(before)["TCPAbortOnClose"]; got != 1 {
				t.Errorf("%d aborts on close, want 1: the data was not there yet", got)
			}
		}, 0, 0, tw, minute, 0, false},
		{"buckets", func(t *testing.T, c *closing) {
			testutil.Must(t, c.link.client.Sysctl("net.ipv4.tcp_max_tw_buckets", "10"))
			c.load(t, lab.Server{}, lab.Load{ClosesFirst: true, Connections: 30})
		}, 10, 0, tw, minute, 20, false},
	}
}

// eventuallyState waits until a host has one socket in a state.
func eventuallyState(t *testing.T, h *lab.Host, s lab.State) {
	t.Helper()
	testutil.Eventually(t, deadline, func() bool {
		return len(testutil.Must1[[]lab.Socket](t)(h.Sockets(s))) == 1
	}, "one socket in state %d", s)
}

// simultaneousClose takes the client through CLOSING: its FIN is lost, and the
// server's, forged, does not acknowledge it.
func simultaneousClose(t *testing.T, c *closing) {
	capture := testutil.Must1[*lab.Capture](t)(c.a.Capture())
	conn, _ := c.accepted(t)
	testutil.Must1[*lab.Rule](t)(c.link.server.Drop(lab.Match{Hook: lab.Input, FlagMask: lab.FIN, Flags: lab.FIN}))
	testutil.Must(t, conn.Close())
	wait := func(match func(*lab.Segment) bool) lab.Segment {
		t.Helper()
		return testutil.Must1[lab.Segment](t)(capture.Wait(deadline, match))
	}
	synAck := wait(func(s *lab.Segment) bool { return !s.Outgoing && s.Has(lab.SYN|lab.ACK) })
	fin := wait(func(s *lab.Segment) bool { return s.Outgoing && s.Has(lab.FIN) })
	forged := lab.RawSegment{
		Src: synAck.Src, Dst: synAck.Dst, Flags: lab.FIN | lab.ACK, Seq: synAck.Seq + 1, Ack: fin.Seq,
		Options: lab.TimestampOption(synAck.TSval+1, fin.TSval),
	}
	testutil.Must(t, c.link.server.SendSegment(forged))
	const closingState lab.State = 11
	eventuallyState(t, c.link.client, closingState)
	forged.Flags, forged.Seq, forged.Ack = lab.ACK, forged.Seq+1, fin.Seq+1
	testutil.Must(t, c.link.server.SendSegment(forged))
	testutil.Must(t, capture.Stop())
}

func TestCloseOrders(t *testing.T) {
	var cases []*closing
	for _, tc := range closeCases(few(20, 20)) {
		cases = append(cases, &closing{closeCase: tc, link: newLink(t, tc.name), all: t})
	}
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	w.matrix(probe.TimeWait)
	w.matrix(probe.Overflow)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, c)
			eventuallyTW(t, c.link.client, c.closeCase.client)
			eventuallyTW(t, c.link.server, c.closeCase.server)
		})
	}
	l := w.stop()
	deaths := countsDeaths(t)
	for _, c := range cases {
		t.Run(c.name+"/log", func(t *testing.T) { c.check(t, w, l, deaths) })
	}
}

// check holds the log of a case against what was to happen.
func (c *closing) check(t *testing.T, w *watcher, l log, deaths bool) {
	for role, side := range map[event.Role]struct {
		host *lab.Host
		want int
	}{
		event.RoleClient: {c.link.client, c.closeCase.client},
		event.RoleServer: {c.link.server, c.closeCase.server},
	} {
		events := timeWaitsOf(l, side.host)
		if len(events) != side.want {
			t.Errorf("%d time_wait of the %s, want %d", len(events), role, side.want)
		}
		for _, e := range named(t, events) {
			substate, timeout := c.substate, c.timeoutMS
			if c.orphan && e.Substate != substate {
				substate, timeout = e.Substate, 60_000
			}
			if e.Role != role || e.Substate != substate || !e.Timestamps || e.TSRecent == 0 ||
				e.TimeoutMS > timeout || e.TimeoutMS+100 < timeout || !l.ours(e.Owner) {
				t.Errorf("%+v, want role %s, substate %s, timeout %d ms, owner %d", *e, role, substate, timeout, os.Getpid())
			}
		}
		checkTW(t, l, side.host, uint64(side.want), deaths)
	}
	if c.overflow == 0 {
		return
	}
	if w.rung(probe.Overflow) == probe.Counter {
		return // nothing to compare the counter with
	}
	r := l.reconciled(t, c.link.client.Inode(), "TCPTimeWaitOverflow")
	if r.Kernel != int64(c.overflow) || r.Difference != 0 {
		t.Errorf("%+v, want %d overflows and no difference", r, c.overflow)
	}
}
