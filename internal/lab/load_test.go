// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
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
			if tc.server.MPTCP {
				needMPTCP(t, p.server)
			}
			sv := serve(t, p.server, tc.server)
			dst := map[int]netip.Addr{
				4: p.link.B.Addr4(), 6: p.link.B.Addr6(), 46: netip.AddrFrom16(p.link.B.Addr4().As16()),
			}[tc.dst]
			tc.load.Targets, tc.load.Connections, tc.load.Concurrency = sv.Targets(dst), n, 4
			res := run(t, p.client, tc.load)
			if res.Connected != n || len(res.CloseErrs) != 0 {
				t.Fatalf("result %+v, want %d connected and no errors", res, n)
			}
			testutil.Eventually(t, waitLimit, func() bool { return sv.Stats().Closed == n }, "server has closed all")
			testutil.Eventually(t, waitLimit, func() bool {
				return len(timeWaits(t, p.client)) == tc.clientTW && len(timeWaits(t, p.server)) == tc.srTW
			}, "TIME_WAIT where expected")
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

// fastTargets are enough destinations that ports do not run out within a
// minute: 16 times 4, with 28,232 ports each.
func fastTargets(sv *Serving) []netip.AddrPort {
	var dsts []netip.Addr
	for i := range 16 {
		dsts = append(dsts, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}))
	}
	return sv.Targets(dsts...)
}

func TestFastLoadIsCountedByTheKernel(t *testing.T) {
	const n = 20000
	for _, tc := range []struct {
		name    string
		spread  bool
		maxRSTs uint64
	}{{"one CPU", false, 0}, {"spread", true, n / 100}} {
		t.Run(tc.name, func(t *testing.T) {
			_, hosts := newHosts(t, "host")
			h := hosts[0]
			testutil.Must(t, h.Sysctl("net.ipv4.tcp_max_tw_buckets", "65536")) // less by default on small machines
			testutil.Must(t, h.Sysctl("net.ipv4.tcp_tw_reuse", "0"))           // 2, the default, re-uses on loopback
			sv := serve(t, h, Server{Ports: 4, Spread: tc.spread})
			before := netstat(t, h)
			res := run(t, h, Load{
				Targets: fastTargets(sv), Connections: n, Concurrency: 2,
				ClosesFirst: true, NoWait: true, Spread: tc.spread,
			})
			if res.Attempts != n || res.Connected != n || len(res.Failed) != 0 || len(res.CloseErrs) != 0 {
				t.Fatalf("result %+v, want %d connected", res, n)
			}
			if res.P50 <= 0 || res.P90 < res.P50 || res.P99 < res.P90 || res.Max < res.P99 {
				t.Errorf("percentiles are not in order: %+v", res)
			}
			testutil.Eventually(t, waitLimit, func() bool { return sv.Stats().Closed == n }, "server has closed all")
			grown := netstat(t, h).Since(before)
			if got := grown["Tcp.ActiveOpens"]; got != n {
				t.Errorf("kernel counted %d active opens, want %d", got, n)
			}
			tw, rst := uint64(len(timeWaits(t, h))), grown["Tcp.OutRsts"]
			if tw+rst != n || rst > tc.maxRSTs {
				t.Errorf("%d in TIME_WAIT and %d RSTs sent, want %d together and at most %d RSTs: %v", tw, rst, n, tc.maxRSTs, grown)
			}
		})
	}
}

func TestRateIsKept(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{})
	res := run(t, p.client, Load{
		Targets: sv.Targets(p.link.B.Addr4()), Connections: 51, Concurrency: 3, ClosesFirst: true, Rate: 200,
	})
	if res.Connected != 51 || res.Elapsed < 250*time.Millisecond {
		t.Errorf("51 connections at 200/s took %s, want at least 250ms: %+v", res.Elapsed, res)
	}
}

func TestPortsRunOut(t *testing.T) {
	p := newPair(t)
	testutil.Must(t, p.client.Sysctl("net.ipv4.ip_local_port_range", "30000 30999"))
	testutil.Must(t, p.client.Sysctl("net.ipv4.tcp_tw_reuse", "1"))
	testutil.Must(t, p.server.Sysctl("net.ipv4.tcp_timestamps", "0"))
	sv := serve(t, p.server, Server{})
	res := run(t, p.client, Load{
		Targets: sv.Targets(p.link.B.Addr4()), Connections: 1500, ClosesFirst: true,
	})
	if res.Attempts != 1500 || res.Connected != 1000 || res.Failed["EADDRNOTAVAIL"] != 500 {
		t.Errorf("%+v, want 1000 connected and 500 EADDRNOTAVAIL", res)
	}
	if got := len(timeWaits(t, p.client)); got != 1000 {
		t.Errorf("%d sockets in TIME_WAIT, want 1000", got)
	}
}

func TestLocalPort(t *testing.T) {
	for _, tc := range []struct {
		name, timestamps  string
		connected, failed int
	}{
		// A connect from a bound port takes over a TIME_WAIT socket with
		// timestamps at once, whatever tcp_tw_reuse says.
		{"timestamps", "1", 2, 0},
		{"no timestamps", "0", 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			testutil.Must(t, p.client.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
			testutil.Must(t, p.server.Sysctl("net.ipv4.tcp_timestamps", tc.timestamps))
			sv := serve(t, p.server, Server{})
			res := run(t, p.client, Load{
				Dial:    Dial{LocalAddr: p.link.A.Addr4(), LocalPort: 40000},
				Targets: sv.Targets(p.link.B.Addr4()), Connections: 2, ClosesFirst: true,
			})
			if res.Connected != tc.connected || res.Failed["EADDRNOTAVAIL"] != tc.failed {
				t.Errorf("%+v, want %d connected and %d EADDRNOTAVAIL", res, tc.connected, tc.failed)
			}
			tw := timeWaits(t, p.client)
			if want := netip.AddrPortFrom(p.link.A.Addr4(), 40000); len(tw) != 1 || tw[0].Local != want {
				t.Errorf("TIME_WAIT %+v, want one at %s", tw, want)
			}
		})
	}
}

func TestBindAddressNoPort(t *testing.T) {
	for _, tc := range []struct {
		name              string
		noPort            bool
		connected, failed int
	}{{"port at bind", false, 10, 10}, {"port at connect", true, 20, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			testutil.Must(t, p.client.Sysctl("net.ipv4.ip_local_port_range", "30000 30009"))
			testutil.Must(t, p.client.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
			sv := serve(t, p.server, Server{Ports: 2})
			res := run(t, p.client, Load{
				Dial:    Dial{LocalAddr: p.link.A.Addr4(), NoPort: tc.noPort},
				Targets: sv.Targets(p.link.B.Addr4()), Connections: 20, ClosesFirst: true,
			})
			if res.Connected != tc.connected || res.Failed["EADDRINUSE"] != tc.failed {
				t.Errorf("%+v, want %d connected and %d EADDRINUSE", res, tc.connected, tc.failed)
			}
		})
	}
}

func TestBacklogFills(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{NeverAccept: true, Backlog: 1})
	before := netstat(t, p.server)
	res := run(t, p.client, Load{
		Dial:    Dial{Timeout: time.Second},
		Targets: sv.Targets(p.link.B.Addr4()), Connections: 4, ClosesFirst: true, NoWait: true,
	})
	if res.Connected != 2 || res.Failed["EINPROGRESS"] != 2 {
		t.Errorf("%+v, want 2 connected and 2 timed out", res)
	}
	if grown := netstat(t, p.server).Since(before); grown["ListenOverflows"] == 0 {
		t.Errorf("ListenOverflows did not move: %v", grown)
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{})
	rule := testutil.Must1[*Rule](t)(p.server.Drop(Match{Hook: Input, FlagMask: SYN, Flags: SYN}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.client.Run(ctx, Load{Targets: sv.Targets(p.link.B.Addr4()), Connections: 2, Concurrency: 2})
		done <- err
	}()
	testutil.Eventually(t, waitLimit, func() bool { return testutil.Must1[uint64](t)(rule.Packets()) >= 2 }, "SYNs dropped")
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	case <-time.After(waitLimit):
		t.Fatal("the load does not end")
	}
}

func TestLoadRejects(t *testing.T) {
	_, hosts := newHosts(t, "host")
	target := []netip.AddrPort{netip.AddrPortFrom(loopback4, 1)}
	for _, tc := range []struct {
		name, want string
		load       Load
	}{
		{"no target", "want at least one target", Load{Connections: 1}},
		{"no connection", "one connection", Load{Targets: target}},
		{"unknown via", "via \"pigeon\"", Load{Targets: target, Connections: 1, Dial: Dial{Via: "pigeon"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := hosts[0].Run(t.Context(), tc.load); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := hosts[0].Serve(Server{Network: "udp"}); err == nil {
		t.Error("a server on udp started")
	}
}

func TestConnectVia(t *testing.T) {
	for _, via := range []Via{ViaSyscall, ViaURing, ViaSQPoll} {
		for _, dst := range []netip.Addr{loopback4, loopback6, mapped} {
			t.Run(fmt.Sprintf("%q to %s", via, dst), func(t *testing.T) {
				_, hosts := newHosts(t, "host")
				h := hosts[0]
				sv := serve(t, h, Server{})
				target := sv.Targets(dst)[0]
				c, err := h.Connect(Dial{Via: via}, target)
				testutil.SkipUnless(t, !URingUnavailable(err), fmt.Sprint(err))
				testutil.Must(t, err)
				local := c.Local()
				if local.Addr() != dst || local.Port() == 0 {
					t.Errorf("local address %s, want %s and a port", local, dst)
				}
				testutil.Must(t, c.CloseWrite())
				testutil.Must(t, c.WaitEOF(waitLimit))
				testutil.Must(t, c.Close())
				tw := timeWaits(t, h)
				if len(tw) != 1 || tw[0].Local.Port() != local.Port() {
					t.Errorf("TIME_WAIT %+v, want one at %s", tw, local)
				}
				sv.Stop()
				if _, err := h.Connect(Dial{Via: via}, target); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("connect to a stopped server: %v, want ECONNREFUSED", err)
				}
			})
		}
	}
}

func TestMPTCPClient(t *testing.T) {
	p := newPair(t)
	needMPTCP(t, p.server)
	sv := serve(t, p.server, Server{MPTCP: true})
	res := run(t, p.client, Load{
		Dial:    Dial{MPTCP: true},
		Targets: sv.Targets(p.link.B.Addr4()), Connections: 5, ClosesFirst: true,
	})
	if res.Connected != 5 {
		t.Errorf("%+v, want 5 connected", res)
	}
	if got := netstat(t, p.client)["Tcp.ActiveOpens"]; got != 5 {
		t.Errorf("kernel counted %d active opens, want 5", got)
	}
}

// The rate is what the machine gives; on two cores at rest more than 20,000/s.
func BenchmarkConnect(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: it makes network namespaces")
	}
	for _, tc := range []struct {
		name                        string
		serverFirst, noWait, spread bool
	}{
		{"client first", false, false, false},
		{"client first, no wait", false, true, false},
		{"client first, no wait, spread", false, true, true},
		{"server first", true, false, false},
		{"server first, spread", true, false, true},
	} {
		b.Run(tc.name, func(b *testing.B) {
			l, err := New(b.Context(), "bench")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			h, err := l.Host("host")
			if err != nil {
				b.Fatal(err)
			}
			sv, err := h.Serve(Server{Ports: 4, ClosesFirst: tc.serverFirst, Spread: tc.spread})
			if err != nil {
				b.Fatal(err)
			}
			res, err := h.Run(b.Context(), Load{
				Targets: fastTargets(sv), Connections: b.N, Concurrency: 2, ClosesFirst: !tc.serverFirst, NoWait: tc.noWait, Spread: tc.spread,
			})
			if err != nil || res.Connected != b.N {
				b.Fatalf("%+v: %v", res, err)
			}
			b.ReportMetric(res.Rate(), "conn/s")
		})
	}
}
