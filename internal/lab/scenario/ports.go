// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"net/netip"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/lab"
)

const pairTopology = `
+--------+ 10.1.0.1                       10.1.0.2 +--------+
| client |-----------------------------------------| server |
+--------+ 400 local ports                         +--------+`

const (
	portRange   = "20000 20399"
	portConns   = 600
	portRate    = 150 // connections/s: well below 400 in the second after which tcp_tw_reuse helps
	portsLoad   = "600 connections at 150/s from a client with 400 local ports; each is closed at once"
	portsNumber = 400
)

// portSetting is a client that makes more connections than it has ports.
type portSetting struct {
	reuse       string // tcp_tw_reuse of the client
	timestamps  string // tcp_timestamps of the server
	serverFirst bool   // the server closes first
	reset       bool   // the client closes with RST

	exhausted bool // ports run out
	reused    bool // sockets in TIME_WAIT are taken over
}

// leaves tells whether connections end in TIME_WAIT on the client.
func (p *portSetting) leaves() bool { return !p.serverFirst && !p.reset }

// portScene acts one setting, and knows that of the other side.
type portScene struct {
	portSetting
	sides [2]portSetting // of the control, of the cause

	client, server *lab.Host
	serving        *lab.Serving
	target         netip.AddrPort
	before, grown  lab.Counters // of the client
	result         *lab.Result
	waiting        int // sockets in TIME_WAIT on the client at the end
	stats          lab.ServerStats
}

func portScenarios() []Scenario {
	exhausted := func(why string) []string { return []string{diagnose.PortExhaustion, why} }
	soon := []string{diagnose.PortExhaustionSoon}
	plain := portSetting{reuse: "1", timestamps: "0", exhausted: true} // what most people have
	reuse := portSetting{reuse: "1", timestamps: "1", reused: true}
	off := portSetting{reuse: "0", timestamps: "1", exhausted: true}
	loopback := portSetting{reuse: "2", timestamps: "1", exhausted: true}
	there := portSetting{reuse: "1", timestamps: "0", serverFirst: true}
	reset := portSetting{reuse: "1", timestamps: "0", reset: true}

	inert := Side{"the server has tcp_timestamps=0, so tcp_tw_reuse=1 of the client is inert", exhausted(diagnose.TWReuseInert), soon}
	works := Side{"the client has tcp_tw_reuse=1, the server tcp_timestamps=1", nil, nil}
	list := []Scenario{
		{
			Name: "exhaust-no-timestamps",
			About: "A client that closes first keeps each port in TIME_WAIT for 60 s and runs out of them. It has tcp_tw_reuse on, " +
				"which needs timestamps from the other side; load balancers turn them off.",
			Cause: inert, Control: works, make: portPair(plain, reuse),
		},
		{
			Name:  "exhaust-reuse-off",
			About: "The same, with timestamps on both sides: the kernel could take ports over from TIME_WAIT after a second, and may not.",
			Cause: Side{"the client has tcp_tw_reuse=0", exhausted(diagnose.TWReuseOff), soon}, Control: works,
			make: portPair(off, reuse),
		},
		{
			Name:  "reuse-works",
			About: "With timestamps on both sides and tcp_tw_reuse=1, connect() takes over sockets that were in TIME_WAIT for a second.",
			Cause: works,
			Control: Side{
				"the client has tcp_tw_reuse=2, the default: for loopback only",
				exhausted(diagnose.TWReuseLoopbackOnly), soon,
			},
			make: portPair(reuse, loopback),
		},
		{
			Name:  "fix-server-closes",
			About: "The remedy \"Connection: close\": who closes first has the TIME_WAIT, and the server needs no port of its own for it.",
			Cause: Side{"the server closes first", nil, nil}, Control: inert, make: portPair(there, plain),
		},
		{
			Name:  "fix-linger-rst",
			About: "The remedy SO_LINGER 1,0: the client closes with RST, which leaves no TIME_WAIT, and loses what was not yet sent.",
			Cause: Side{"the client closes with RST", nil, nil}, Control: inert, make: portPair(reset, plain),
		},
	}
	for i := range list {
		list[i].Topology, list[i].Load = pairTopology, portsLoad
	}
	return list
}

func portPair(cause, control portSetting) func(bool) scene {
	return func(isCause bool) scene {
		s := &portScene{portSetting: control, sides: [2]portSetting{control, cause}}
		if isCause {
			s.portSetting = cause
		}
		return s
	}
}

func (p *portScene) setUp(ctx context.Context, s *stage) error {
	hosts, err := s.add("client", "server")
	if err != nil {
		return err
	}
	p.client, p.server = hosts[0], hosts[1]
	link, err := s.link(ctx, p.client, p.server, "10.1.0.0/24")
	if err != nil {
		return err
	}
	if err := sysctls(p.client, "ip_local_port_range", portRange, "tcp_tw_reuse", p.reuse, "tcp_timestamps", "1"); err != nil {
		return err
	}
	if err := sysctls(p.server, "tcp_timestamps", p.timestamps); err != nil {
		return err
	}
	if p.serving, err = p.server.Serve(lab.Server{Network: "tcp4", ClosesFirst: p.serverFirst}); err != nil {
		return err
	}
	p.target = p.serving.Targets(link.B.Addr4())[0]
	p.before, err = p.client.Netstat()
	return err
}

func (p *portScene) act(ctx context.Context, _ *stage) error {
	l := lab.Load{
		Targets: []netip.AddrPort{p.target}, Connections: portConns, Rate: portRate, ClosesFirst: !p.serverFirst,
	}
	if p.reset {
		l.Linger = new(int)
	}
	var err error
	p.result, err = p.client.Run(ctx, l)
	return err
}

func (p *portScene) read() error {
	after, err := p.client.Netstat()
	if err != nil {
		return err
	}
	waiting, err := p.client.TimeWaits()
	p.grown, p.waiting, p.stats = after.Since(p.before), len(waiting), p.serving.Stats()
	return err
}

func (p *portScene) check(c *checks, seen *observed, cause bool) {
	want := &p.sides[0]
	if cause {
		want = &p.sides[1]
	}
	made, v := uint64(p.result.Connected), &seen.verdict
	c.same("connect() calls that failed with EADDRNOTAVAIL", uint64(p.result.Failed["EADDRNOTAVAIL"]), v.Failures.NoPort, want.exhausted)
	c.same("connections made", made, v.Connections.Made, true)
	c.same("sockets in TIME_WAIT taken over (TWRecycled)", p.grown["TWRecycled"], v.TimeWait.Reused, want.reused)
	c.same("sockets in TIME_WAIT on the client (sock_diag)", uint64(p.waiting), v.Connections.ClosedHere-v.TimeWait.Reused, want.leaves())
	there := uint64(0)
	if p.serverFirst {
		there = uint64(p.stats.Closed)
	}
	c.same("connections that the server closed first", there, v.Connections.ClosedThere, want.serverFirst)
	c.same("connections that ended by RST", uint64(p.stats.Resets), v.Connections.Reset, want.reset)
	if want.exhausted {
		c.fact(p.result.Connected == portsNumber, "one connection for each of the 400 ports, and no more", made)
	} else {
		c.fact(p.result.Connected == portConns, "all of the 600 connections", made)
	}
}
