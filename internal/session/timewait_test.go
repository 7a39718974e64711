// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
)

// pair is a client and a server with IPv4 and IPv6 between them.
func pair(t *testing.T) (client, server *lab.Host) {
	t.Helper()
	l, err := lab.New(t.Context(), "pair", lab.Named())
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
	if _, err := l.Link(t.Context(), hosts[0], hosts[1], "10.0.0.0/24", "fd00::/64"); err != nil {
		t.Fatal(err)
	}
	return hosts[0], hosts[1]
}

func TestPortsRunOut(t *testing.T) {
	client, server := pair(t)
	must(t, client.Sysctl("net.ipv4.ip_local_port_range", "20000 20999"))
	must(t, server.Sysctl("net.ipv4.tcp_timestamps", "0"))
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	w.matrix(probe.TimeWait)
	w.matrix(probe.ConnectFail)
	srv, err := server.Serve(lab.Server{})
	must(t, err)
	target := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), srv.Addr().Port())
	res, err := client.Run(t.Context(), lab.Load{
		Targets: []netip.AddrPort{target}, Connections: 1500, ClosesFirst: true,
	})
	must(t, err)
	t.Logf("%+v", res)
	l := w.stop()
	fails := of(l, func(e *event.ConnectFail) bool { return uint64(e.NetNS) == client.Inode() })
	if len(fails) != 500 {
		t.Errorf("%d connect_fail, want 500", len(fails))
	}
	waits := of(l, func(e *event.TimeWait) bool { return uint64(e.NetNS) == client.Inode() })
	if len(waits) != 1000 {
		t.Errorf("%d time_wait, want 1000", len(waits))
	}
	r := l.reconciled(t, client.Inode(), "TW")
	t.Logf("%+v", r)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
