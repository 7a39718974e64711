// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"testing"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
	mapped    = netip.MustParseAddr("::ffff:127.0.0.1")
)

func TestCloseOrder(t *testing.T) {
	const n = 50
	zero := 0
	for _, tc := range []struct {
		name           string
		server         Server
		load           Load
		dst            int // 4, 6 or 46 (an IPv4-mapped destination)
		clientTW, srTW int
	}{
		{"client first", Server{}, Load{ClosesFirst: true}, 4, n, 0},
		{"client first, no wait", Server{}, Load{ClosesFirst: true, NoWait: true}, 4, n, 0},
		{"client first, IPv6", Server{}, Load{ClosesFirst: true}, 6, n, 0},
		{"client first, IPv4-mapped", Server{}, Load{ClosesFirst: true}, 46, n, 0},
		{"client first, tcp4 server", Server{Network: "tcp4"}, Load{ClosesFirst: true}, 4, n, 0},
		{"client first, MPTCP listener", Server{MPTCP: true}, Load{ClosesFirst: true}, 4, n, 0},
		{"client first with RST", Server{}, Load{ClosesFirst: true, Dial: Dial{Linger: &zero}}, 4, 0, 0},
		{"server first", Server{ClosesFirst: true}, Load{}, 4, 0, n},
		{"server first, IPv6", Server{ClosesFirst: true, Network: "tcp6"}, Load{}, 6, 0, n},
		{"server first, IPv4-mapped", Server{ClosesFirst: true}, Load{}, 46, 0, n},
		{"server first, MPTCP listener", Server{ClosesFirst: true, MPTCP: true}, Load{}, 4, 0, n},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			sv := serve(t, p.server, tc.server)
			dst := map[int]netip.Addr{
				4: p.link.B.Addr4(), 6: p.link.B.Addr6(), 46: netip.AddrFrom16(p.link.B.Addr4().As16()),
			}[tc.dst]
			tc.load.Targets, tc.load.Connections, tc.load.Concurrency = sv.Targets(dst), n, 4
			res := run(t, p.client, tc.load)
			if res.Connected != n || len(res.CloseErrs) != 0 {
				t.Fatalf("result %+v, want %d connected and no errors", res, n)
			}
			eventually(t, "server has closed all", func() bool { return sv.Stats().Closed == n })
			eventually(t, "TIME_WAIT where expected", func() bool {
				return len(timeWaits(t, p.client)) == tc.clientTW && len(timeWaits(t, p.server)) == tc.srTW
			})
			wantResets := int64(0)
			if tc.load.Linger != nil {
				wantResets = n
			}
			if got := sv.Stats().Resets; got != wantResets {
				t.Errorf("%d connections ended with RST, want %d", got, wantResets)
			}
		})
	}
}

func TestLoadRate(t *testing.T) {
	_, hosts := newHosts(t, "host")
	h := hosts[0]
	sv := serve(t, h, Server{ClosesFirst: true, Ports: 4, Threads: 1})
	var dsts []netip.Addr
	for i := range 16 {
		dsts = append(dsts, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}))
	}
	for _, mode := range []struct {
		name string
		load Load
		srv  *Serving
	}{
		{"server first", Load{Concurrency: 2}, sv},
		{"client first", Load{Concurrency: 2, ClosesFirst: true, NoWait: true}, serve(t, h, Server{Ports: 4})},
	} {
		mode.load.Targets, mode.load.Connections = mode.srv.Targets(dsts...), 60000
		res := run(t, h, mode.load)
		t.Logf("%s: %.0f connections/s %+v", mode.name, res.Rate(), res.Failed)
	}
}
