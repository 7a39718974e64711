// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
)

const (
	oneHostTopology = `
+---------+ 10.0.0.1   10.0.0.2 +---------+ 10.9.0.1   10.9.0.2 +--------+
| client0 |---------------------| gateway |---------------------| server |
+---------+                     +---------+                     +--------+`
	twoHostsTopology = `
+---------+ 10.0.0.1
| client0 |------------+    +---------+ 10.9.0.1   10.9.0.2 +--------+
+---------+            +----| gateway |---------------------| server |
+---------+            +----|  (NAT)  |                     +--------+
| client1 |------------+    +---------+
+---------+ 10.0.1.1`
	natLoad = "400 connections of each client at 150/s; the server closes first and keeps TIME_WAIT for 60 s, " +
		"while the gateway forgets a connection after 1 s and has 200 ports"
)

const (
	natPortLow, natPortHigh = 20000, 20199
	natConns                = 400 // of each client
	natRate                 = 150 // connections/s of each client
)

// natScene is clients behind a gateway that gives out few ports again soon.
type natScene struct {
	clients    int
	timestamps string // tcp_timestamps of all hosts: 1 a clock for each address or 4-tuple, 2 one clock
	routed     bool   // the gateway forwards and rewrites nothing

	server         *lab.Host
	hosts          []*lab.Host    // the clients
	inner          []*lab.Capture // on the clients' ends
	outer          *lab.Capture   // on the server's end
	target         netip.AddrPort
	before, grown  lab.Counters // of the server
	counter        string       // of SYNs that PAWS refuses in TIME_WAIT
	connected      int
	refused, moved map[synID]bool
	sent           map[synID]netip.AddrPort
}

// synID is what a NAT leaves alone of a SYN.
type synID struct{ seq, tsval uint32 }

func natScenarios() []Scenario {
	expect := []string{diagnose.NATPawsDrop}
	// what else is true of a source with several clocks, seen from both ends
	beside := []string{diagnose.PeerRefusesSYN, diagnose.SharedSource, diagnose.ClockRandomised, diagnose.NATRecycleDrop}
	return []Scenario{
		{
			Name: "nat-port-reuse-one-host",
			About: "One host behind a NAT is enough: its kernel has a clock for each 4-tuple (7.0, 6.18.17, 6.12.94 and later), the NAT maps several " +
				"of them to one, and the server refuses half of the SYNs there as old duplicates (PAWS).",
			Topology: oneHostTopology, Load: natLoad,
			Cause:   Side{"the gateway masquerades behind 200 ports", expect, beside},
			Control: Side{"the gateway forwards, and the client itself has 200 ports", nil, []string{diagnose.ClockRandomised, diagnose.NATRecycleDrop}},
			applies: func(k Kernel) string {
				if k.TSOffset == kernel.TSOffsetPerTuple {
					return ""
				}
				return fmt.Sprintf("does not apply on this kernel (%s): one host has one clock towards a server, whatever a NAT does with its ports", k.Facts.Release)
			},
			needs: probe.PAWSTimeWait,
			make:  func(cause bool) scene { return &natScene{clients: 1, timestamps: "1", routed: !cause} },
		},
		{
			Name: "nat-port-reuse-two-hosts",
			About: "Two hosts with clocks of their own behind a NAT that gives a port to one soon after the other: the server, still in TIME_WAIT, " +
				"refuses SYNs whose clock is behind (PAWS).",
			Topology: twoHostsTopology, Load: natLoad,
			Cause: Side{"each host has a clock of its own (tcp_timestamps=1)", expect, beside},
			// A NAT that has no port left drops the SYN.
			Control: Side{"all hosts show one clock (tcp_timestamps=2), behind the same NAT", nil, []string{diagnose.PeerRefusesSYN}},
			needs:   probe.PAWSTimeWait,
			make: func(cause bool) scene {
				if cause {
					return &natScene{clients: 2, timestamps: "1"}
				}
				return &natScene{clients: 2, timestamps: "2"}
			},
		},
	}
}

func (n *natScene) setUp(ctx context.Context, s *stage) error {
	gateway, err := n.network(ctx, s)
	if err != nil {
		return err
	}
	if n.routed {
		for _, c := range n.hosts {
			err = errors.Join(err, sysctls(c, "ip_local_port_range", fmt.Sprint(natPortLow, natPortHigh)))
		}
		err = errors.Join(err, n.server.Route("10.0.0.0/16", gateway.A.Addr4()))
	} else {
		err = masquerade(&gateway.A, lab.MasqOptions{PortLow: natPortLow, PortHigh: natPortHigh, FullyRandom: true})
	}
	if err != nil {
		return err
	}
	sv, err := n.server.Serve(lab.Server{Network: "tcp4", ClosesFirst: true})
	if err != nil {
		return err
	}
	n.target = sv.Targets(gateway.B.Addr4())[0]
	if n.outer, err = gateway.B.Capture(); err != nil {
		return err
	}
	n.before, err = n.server.Netstat()
	return err
}

// network makes the hosts and returns the link from the gateway to the server.
func (n *natScene) network(ctx context.Context, s *stage) (*lab.Link, error) {
	names := []string{"gateway", "server"}
	for i := range n.clients {
		names = append(names, fmt.Sprintf("client%d", i))
	}
	hosts, err := s.add(names...)
	if err != nil {
		return nil, err
	}
	n.server, n.hosts = hosts[1], hosts[2:]
	for _, h := range hosts[1:] {
		err = errors.Join(err, sysctls(h, "tcp_timestamps", n.timestamps))
	}
	if err = errors.Join(err, hosts[0].Forward()); err != nil {
		return nil, err
	}
	for i, c := range n.hosts {
		inner, err := s.link(ctx, c, hosts[0], fmt.Sprintf("10.0.%d.0/24", i))
		if err != nil {
			return nil, err
		}
		tap, err := inner.A.Capture()
		if err = errors.Join(err, c.Route("0.0.0.0/0", inner.B.Addr4())); err != nil {
			return nil, err
		}
		n.inner = append(n.inner, tap)
	}
	return s.link(ctx, hosts[0], n.server, "10.9.0.0/24")
}

// masquerade makes out's host a NAT that forgets closed connections after a
// second.
func masquerade(out *lab.End, o lab.MasqOptions) error {
	err := out.Host.Masquerade(out, o)
	if err == nil {
		err = out.Host.ConntrackTimeWait(time.Second)
	}
	return optional(err)
}

func (n *natScene) act(ctx context.Context, _ *stage) error {
	results, err := together(n.hosts, func(h *lab.Host) (*lab.Result, error) {
		return h.Run(ctx, lab.Load{
			Targets: []netip.AddrPort{n.target}, Connections: natConns, Concurrency: 10, Rate: natRate,
		})
	})
	for _, r := range results {
		n.connected += r.Connected
	}
	return err
}

// together runs a load on several hosts at once.
func together(hosts []*lab.Host, load func(*lab.Host) (*lab.Result, error)) ([]*lab.Result, error) {
	results, errs := make([]*lab.Result, len(hosts)), make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() { results[i], errs[i] = load(h) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return results, nil
}

// read finds out which socket sent each SYN and which of them were refused.
func (n *natScene) read() error {
	after, err := n.server.Netstat()
	if err != nil {
		return err
	}
	n.counter, n.grown = timeWaitCounter(after), after.Since(n.before)
	n.sent = map[synID]netip.AddrPort{}
	for _, c := range n.inner {
		got, err := finish(c)
		if err != nil {
			return err
		}
		for _, s := range got {
			if s.Outgoing && s.Has(lab.SYN) {
				n.sent[synID{s.Seq, s.TSval}] = s.Src
			}
		}
	}
	got, err := finish(n.outer)
	n.refused, n.moved = refusals(got, n.sent)
	return err
}

// timeWaitCounter is the counter of what PAWS refuses in TIME_WAIT, which up to
// 6.15 is counted with the rest.
func timeWaitCounter(c lab.Counters) string {
	if _, ok := c["PAWSTimewait"]; ok {
		return "PAWSTimewait"
	}
	return "PAWSEstab"
}

// finish ends a capture, which must be complete.
func finish(c *lab.Capture) ([]lab.Segment, error) {
	got, err := c.Finish()
	if err == nil && got.Lost > 0 {
		err = fmt.Errorf("a capture lost %d packets", got.Lost)
	}
	return got.Segments, err
}

// refusals returns the SYNs that were not answered by a SYN-ACK, as captured on
// the server's end, and those of them that another socket sent than the one
// that had had the 4-tuple.
func refusals(segments []lab.Segment, sent map[synID]netip.AddrPort) (refused, moved map[synID]bool) {
	refused, moved = map[synID]bool{}, map[synID]bool{}
	holders := map[netip.AddrPort]netip.AddrPort{}
	for i, s := range segments {
		if s.Outgoing || !s.Has(lab.SYN) {
			continue
		}
		id := synID{s.Seq, s.TSval}
		sender := sent[id]
		if accepted(segments[i:]) {
			holders[s.Src] = sender
			continue
		}
		refused[id] = true
		if h := holders[s.Src]; h.IsValid() && h != sender {
			moved[id] = true
		}
	}
	return refused, moved
}

// accepted tells whether the next answer to the first segment is a SYN-ACK.
func accepted(segments []lab.Segment) bool {
	for _, s := range segments[1:] {
		if s.Outgoing && s.Dst == segments[0].Src {
			return s.Has(lab.SYN | lab.ACK)
		}
	}
	return false
}

func (n *natScene) check(c *checks, seen *observed, cause bool) {
	counted := n.grown[n.counter]
	lines, verdicts := uint64(0), uint64(0)
	var blame blames
	for _, e := range seen.rejects {
		if uint64(e.NetNS) != n.server.Inode() {
			continue
		}
		lines += max(e.Count, 1)
		if e.Verdict != event.VerdictNone {
			verdicts++
		}
		blame.take(e.Verdict, n.moved[synID{e.Seq, e.TSval}])
	}
	c.same("SYNs that PAWS refused in TIME_WAIT ("+n.counter+")", counted, lines, cause)
	c.equal("of these, explained one by one", counted, verdicts)
	moved := uint64(len(n.moved))
	c.add((moved > 0) == cause && blame.good(moved), "refused SYNs whose 4-tuple another socket had (captures)",
		number(moved), blame.String())
	c.fact(n.connected > 0, "connections made", uint64(n.connected))
}

// blames counts refused SYNs that a NAT is blamed for. Before there is proof,
// none is: one restart of the client would explain them too.
type blames struct {
	nat, right uint64
	before     uint64 // a NAT's, but before the first was said to be
}

func (b *blames) take(v event.Verdict, moved bool) {
	switch {
	case v == event.VerdictNATPortRewrite || v == event.VerdictNATMultiClock:
		b.nat++
		if moved {
			b.right++
		}
	case moved && b.nat == 0 && v == event.VerdictUnknown:
		b.before++
	}
}

// good tells whether, of all that moved, one in three at most came before there
// was proof and one in 20 was missed after it; one in 100 may be blamed wrongly.
func (b *blames) good(moved uint64) bool {
	return b.nat-b.right <= b.nat/100 && b.before <= moved/3 && b.right+b.before >= moved-moved/20
}

func (b *blames) String() string {
	text := fmt.Sprintf("%d, %d rightly", b.nat, b.right)
	if b.before > 0 {
		text += fmt.Sprintf("; %d before it was sure", b.before)
	}
	return text
}
