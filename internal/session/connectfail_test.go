// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// exhaustion is a client that makes more connections than it has ports, to a
// server without timestamps.
type exhaustion struct {
	link
	family
	name   string
	target netip.AddrPort
	// the range that the client may use, and how often it connects
	low, high, ports, connects int

	load *lab.Result
	left []lab.Socket // in TIME_WAIT afterwards, by sock_diag
}

func newExhaustion(t *testing.T, name string, which int, mptcp bool, ports int) *exhaustion {
	t.Helper()
	x := &exhaustion{
		name: name, link: newLink(t, name),
		low: 20000, high: 20000 + ports - 1, ports: ports, connects: ports + ports/2,
	}
	x.family = families(x.a, x.b)[which]
	testutil.Must(t, x.link.client.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", x.low, x.high)))
	testutil.Must(t, x.link.client.Sysctl("net.ipv4.tcp_tw_reuse", "1")) // inert: the server has no timestamps
	testutil.Must(t, x.link.server.Sysctl("net.ipv4.tcp_timestamps", "0"))
	sv := serve(t, x.link.server, lab.Server{MPTCP: mptcp})
	if sv == nil {
		return nil
	}
	x.target = sv.Targets(x.dial)[0]
	return x
}

func TestPortsRunOut(t *testing.T) {
	var cases []*exhaustion
	for which, name := range []string{"IPv4", "IPv6", "mapped"} {
		for _, mptcp := range []bool{false, true} {
			full, ports := name, few(1000, 200)
			if mptcp {
				full += "-MPTCP"
			}
			if len(cases) == 0 {
				ports = 1000
			}
			if x := newExhaustion(t, full, which, mptcp, ports); x != nil {
				cases = append(cases, x)
			}
		}
	}
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	w.matrix(probe.TimeWait)
	w.matrix(probe.ConnectFail)
	for _, x := range cases {
		x.load = testutil.Must1[*lab.Result](t)(x.link.client.Run(t.Context(), lab.Load{
			Targets: []netip.AddrPort{x.target}, Connections: x.connects, ClosesFirst: true,
		}))
		x.left = testutil.Must1[[]lab.Socket](t)(x.link.client.TimeWaits())
	}
	l := w.stop()
	deaths := countsDeaths(t)
	for _, x := range cases {
		t.Run(x.name, func(t *testing.T) { x.check(t, w, l, deaths) })
	}
}

func (x *exhaustion) check(t *testing.T, w *watcher, l log, deaths bool) {
	want := map[string]int{"EADDRNOTAVAIL": x.connects - x.ports}
	if diff := cmp.Diff(want, x.load.Failed); diff != "" || x.load.Connected != x.ports || len(x.left) != x.ports {
		t.Fatalf("%d connected and %d in TIME_WAIT, want %d; failed (-want +got):\n%s",
			x.load.Connected, len(x.left), x.ports, diff)
	}
	x.checkFails(t, w, l)
	left := map[uint16]bool{}
	for _, s := range x.left {
		left[s.Local.Port()] = true
	}
	waits := timeWaitsOf(l, x.link.client)
	if len(waits) != x.ports {
		t.Errorf("%d time_wait, want %d", len(waits), x.ports)
	}
	for _, e := range waits {
		if e.Local.Addr() != x.family.client || e.Remote != x.remote() || !left[e.Local.Port()] {
			t.Errorf("time_wait of %s to %s: no such socket by sock_diag", e.Local, e.Remote)
		}
		delete(left, e.Local.Port())
	}
	for _, e := range named(t, waits) {
		if e.Timestamps || e.TSRecent != 0 || e.Role != event.RoleClient || e.Substate != event.SubstateTimeWait ||
			e.TimeoutMS != 60000 || !l.ours(e.Owner) {
			t.Errorf("%+v, want a client's TIME_WAIT of 60 s without timestamps, owner %d", *e, os.Getpid())
		}
	}
	if n := len(timeWaitsOf(l, x.link.server)); n != 0 {
		t.Errorf("%d time_wait of the server, want none", n)
	}
	checkTW(t, l, x.link.client, uint64(x.ports), deaths)
	checkTW(t, l, x.link.server, 0, deaths)
}

func (x *exhaustion) checkFails(t *testing.T, w *watcher, l log) {
	t.Helper()
	fails := of(l, func(e *event.ConnectFail) bool { return uint64(e.NetNS) == x.link.client.Inode() })
	if len(fails) != x.connects-x.ports {
		t.Errorf("%d connect_fail, want %d", len(fails), x.connects-x.ports)
	}
	inferred := w.rung(probe.ConnectFail) == probe.Tracepoint
	for _, e := range fails {
		if unix.Errno(e.Errno) != unix.EADDRNOTAVAIL || e.Local != netip.AddrPortFrom(x.family.client, 0) ||
			e.Remote != x.remote() || e.RangeLow != uint16(x.low) || e.RangeHigh != uint16(x.high) ||
			e.Inferred != inferred || !l.ours(e.Owner) {
			t.Errorf("%+v, want EADDRNOTAVAIL from %s to %s in %d-%d, inferred %t",
				*e, x.family.client, x.remote(), uint16(x.low), uint16(x.high), inferred)
		}
	}
}

// remote is the destination as the log shows it.
func (x *exhaustion) remote() netip.AddrPort {
	return netip.AddrPortFrom(x.family.server, x.target.Port())
}
