// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

// natted is clients behind one gateway, and a server that knows no way to them
// but through its masquerading.
type natted struct {
	clients []*Host
	gw      *Host
	server  *Host
	outer   *Link
}

func newNATted(t *testing.T, clients int, o MasqOptions) natted {
	t.Helper()
	l, hosts := newHosts(t, "gw", "server")
	n := natted{gw: hosts[0], server: hosts[1]}
	n.outer = testutil.Must1[*Link](t)(l.Link(t.Context(), n.gw, n.server, "10.9.0.0/24", "fd00:9::/64"))
	testutil.Must(t, n.gw.Forward())
	testutil.Must(t, n.gw.Masquerade(&n.outer.A, o))
	for i := range clients {
		c := testutil.Must1[*Host](t)(l.Host(fmt.Sprintf("client%d", i)))
		inner := testutil.Must1[*Link](t)(l.Link(t.Context(), c, n.gw, fmt.Sprintf("10.0.%d.0/24", i), fmt.Sprintf("fd00:a%d::/64", i)))
		testutil.Must(t, c.Route("0.0.0.0/0", inner.B.Addr4()))
		testutil.Must(t, c.Route("::/0", inner.B.Addr6()))
		n.clients = append(n.clients, c)
	}
	return n
}

func TestMasqueradePortRange(t *testing.T) {
	n := newNATted(t, 1, MasqOptions{PortLow: 5000, PortHigh: 5099, FullyRandom: true})
	sv := serve(t, n.server, Server{ClosesFirst: true})
	for _, dst := range []netip.Addr{n.outer.B.Addr4(), n.outer.B.Addr6()} {
		capture := testutil.Must1[*Capture](t)(n.outer.B.Capture())
		res := run(t, n.clients[0], Load{Targets: sv.Targets(dst), Connections: 20})
		if res.Connected != 20 {
			t.Fatalf("%+v, want 20 connected", res)
		}
		got := testutil.Must1[Captured](t)(capture.Finish())
		syns := 0
		for _, s := range got.Segments {
			if !s.Has(SYN) || s.Outgoing {
				continue
			}
			syns++
			if port := s.Src.Port(); port < 5000 || port > 5099 {
				t.Errorf("SYN from port %d, want 5000 to 5099", port)
			}
			if a := s.Src.Addr(); a != n.outer.A.Addr4() && a != n.outer.A.Addr6() {
				t.Errorf("SYN from %s, want the gateway's address", a)
			}
		}
		if syns < 20 || got.Lost != 0 {
			t.Errorf("captured %d SYNs and lost %d, want at least 20 and 0", syns, got.Lost)
		}
	}
}

func TestMasqueradeIsRefused(t *testing.T) {
	p := newPair(t)
	for name, err := range map[string]error{
		"other host's interface": p.client.Masquerade(&p.link.B, MasqOptions{}),
		"range upside down":      p.client.Masquerade(&p.link.A, MasqOptions{PortLow: 2, PortHigh: 1}),
		"half a range":           p.client.Masquerade(&p.link.A, MasqOptions{PortHigh: 1}),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// pawsInTimeWait is the counter of SYNs and others refused by a TIME_WAIT
// socket: PAWSTimewait, which up to 6.15 was part of PAWSEstab.
func pawsInTimeWait(c Counters) uint64 {
	if v, ok := c["PAWSTimewait"]; ok {
		return v
	}
	return c["PAWSEstab"]
}

func TestNATMakesPAWSRefuse(t *testing.T) {
	// Two clients are two clocks on every kernel; where the timestamp offset
	// depends on the ports, one would do.
	n := newNATted(t, 2, MasqOptions{PortLow: 20000, PortHigh: 20199, FullyRandom: true})
	testutil.Must(t, n.gw.ConntrackTimeWait(time.Second))
	sv := serve(t, n.server, Server{ClosesFirst: true})
	before := pawsInTimeWait(netstat(t, n.server))
	results := make([]*Result, len(n.clients))
	errs := make([]error, len(n.clients))
	var wg sync.WaitGroup
	for i, c := range n.clients {
		wg.Go(func() {
			results[i], errs[i] = c.Run(t.Context(), Load{
				Targets: sv.Targets(n.outer.B.Addr4()), Connections: 200, Concurrency: 20, Rate: 80,
			})
		})
	}
	wg.Wait()
	testutil.Must(t, errors.Join(errs...))
	slow := 0
	for _, r := range results {
		slow += r.Slower(900 * time.Millisecond)
	}
	refused := pawsInTimeWait(netstat(t, n.server)) - before
	t.Logf("400 connects: %d PAWS refusals, %d slower than 0.9 s", refused, slow)
	if refused == 0 {
		t.Errorf("the server refused nothing by PAWS: %+v %+v", results[0], results[1])
	}
}

func TestOneClockMakesPAWSRefuseNothing(t *testing.T) {
	n := newNATted(t, 2, MasqOptions{PortLow: 20000, PortHigh: 20199, FullyRandom: true})
	testutil.Must(t, n.gw.ConntrackTimeWait(time.Second))
	for _, c := range n.clients {
		testutil.Must(t, c.Sysctl("net.ipv4.tcp_timestamps", "2")) // no offset: the machine's one clock
	}
	sv := serve(t, n.server, Server{ClosesFirst: true})
	for _, c := range n.clients {
		run(t, c, Load{Targets: sv.Targets(n.outer.B.Addr4()), Connections: 200, Concurrency: 20, Rate: 150})
	}
	if got := pawsInTimeWait(netstat(t, n.server)); got != 0 {
		t.Errorf("the server refused %d by PAWS, want none", got)
	}
}

func TestDrop(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			p := newPair(t)
			src, dst := p.link.A.Addr4(), p.link.B.Addr4()
			if family == "IPv6" {
				src, dst = p.link.A.Addr6(), p.link.B.Addr6()
			}
			sv := serve(t, p.server, Server{Ports: 2})
			targets := sv.Targets(dst)
			connect := func(target netip.AddrPort, limit time.Duration) error {
				c, err := p.client.Connect(Dial{Timeout: limit}, target)
				if err != nil {
					return err
				}
				return c.Close()
			}
			rule := testutil.Must1[*Rule](t)(p.server.Drop(Match{
				Hook: Input, Src: src, Dst: dst, DstPort: targets[0].Port(), FlagMask: SYN | ACK, Flags: SYN,
			}))
			if err := connect(targets[0], 100*time.Millisecond); !errors.Is(err, unix.EINPROGRESS) {
				t.Errorf("connect to the dropped port: %v, want the timeout", err)
			}
			testutil.Must(t, connect(targets[1], waitLimit))
			if got := testutil.Must1[uint64](t)(rule.Packets()); got == 0 {
				t.Error("the rule dropped nothing")
			}
			testutil.Must(t, rule.Remove())
			testutil.Must(t, connect(targets[0], waitLimit))
		})
	}
	p := newPair(t)
	for name, m := range map[string]Match{
		"two families": {Src: p.link.A.Addr4(), Dst: p.link.B.Addr6()}, "no such hook": {Hook: 9},
	} {
		if _, err := p.client.Drop(m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
