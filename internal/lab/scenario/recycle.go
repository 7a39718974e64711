// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/lab/recycle"
	"github.com/twscope/twscope/internal/probe"
)

const recycleTopology = `
+---------+ 10.0.0.1                       10.8.0.2 +-----+
| client0 |------------+    +---------+ +-----------| old |  tcp_tw_recycle
+---------+            +----| gateway |-+           +-----+  by XDP
+---------+            +----|  (NAT)  |-+           +-----+
| client1 |------------+    +---------+ +-----------| new |
+---------+ 10.0.1.1                       10.9.0.2 +-----+`

const (
	recycleConns = 40 // of each client to each server
	// recycleRate, in connections/s of each client: for longer than a second,
	// because a peer that is silent counts only where others get through to it
	// afterwards.
	recycleRate = 15
	// recycleTimeout is longer than the 1 s after which a SYN is sent again, so
	// that silence shows.
	recycleTimeout = 1400 * time.Millisecond
)

// recycleScene is two clients behind a NAT that talk to an old server and to a
// new one.
type recycleScene struct {
	timestamps string // as in natScene

	clients []*lab.Host
	modern  *lab.Host         // new
	checks  [2]*recycle.Check // of old, which drops, and new, which counts
	wire    *lab.Capture      // on the gateway's end towards old: XDP drops before the server's captures
	targets [2]netip.AddrPort
	// connected to new; results are those with old
	connected int
	results   []*lab.Result
	refused   [2]uint64
	repeated  uint64 // SYNs to old that had been sent before
}

func recycleScenario() Scenario {
	return Scenario{
		Name: "nat-recycle-server",
		About: "Linux up to 4.11 with tcp_tw_recycle drops, silently, any SYN whose timestamp is behind the greatest one that its address has shown " +
			"within 60 s. An XDP program in front of old applies this check of 2.6.32 to real SYNs, and counts those to new that it would have dropped.",
		Topology: recycleTopology,
		Load: "40 connections of each client to each server, which close first: those to new one by one, in turns; those to old at 15/s, " +
			"and a connect() waits for 1.4 s",
		Cause: Side{
			"the hosts behind the NAT have clocks of their own (tcp_timestamps=1)",
			[]string{diagnose.PeerRefusesSYN, diagnose.NATRecycleDrop},
			[]string{diagnose.SharedSource, diagnose.ClockRandomised},
		},
		Control: Side{"all hosts show one clock (tcp_timestamps=2)", nil, nil},
		needs:   probe.SYNRefused,
		make: func(cause bool) scene {
			if cause {
				return &recycleScene{timestamps: "1"}
			}
			return &recycleScene{timestamps: "2"}
		},
	}
}

func (r *recycleScene) setUp(ctx context.Context, s *stage) error {
	hosts, err := s.add("gateway", "old", "new", "client0", "client1")
	if err != nil {
		return err
	}
	gateway, servers := hosts[0], hosts[1:3]
	r.modern, r.clients = hosts[2], hosts[3:]
	for _, h := range hosts[1:] {
		err = errors.Join(err, sysctls(h, "tcp_timestamps", r.timestamps))
	}
	if err = errors.Join(err, gateway.Forward()); err != nil {
		return err
	}
	for i, c := range r.clients {
		inner, err := s.link(ctx, c, gateway, fmt.Sprintf("10.0.%d.0/24", i))
		if err != nil {
			return err
		}
		if err := c.Route("0.0.0.0/0", inner.B.Addr4()); err != nil {
			return err
		}
	}
	for i, mode := range []recycle.Mode{recycle.Drop, recycle.Count} {
		outer, err := s.link(ctx, gateway, servers[i], fmt.Sprintf("10.%d.0.0/24", 8+i))
		if err != nil {
			return err
		}
		if err := r.serve(s, i, outer, mode); err != nil {
			return err
		}
	}
	return nil
}

// serve starts server i behind a link from the gateway.
func (r *recycleScene) serve(s *stage, i int, outer *lab.Link, mode recycle.Mode) error {
	if err := optional(outer.A.Host.Masquerade(&outer.A, lab.MasqOptions{})); err != nil {
		return err
	}
	sv, err := outer.B.Host.Serve(lab.Server{Network: "tcp4", ClosesFirst: true})
	if err != nil {
		return err
	}
	r.targets[i] = sv.Targets(outer.B.Addr4())[0]
	if r.checks[i], err = recycle.Attach(&outer.B, mode); err != nil {
		return optional(err)
	}
	s.open = append(s.open, r.checks[i])
	if mode == recycle.Drop {
		r.wire, err = outer.A.Capture()
	}
	return err
}

func (r *recycleScene) act(ctx context.Context, _ *stage) error {
	// Where one connection ends before the next begins, it does not matter
	// whether a SYN is looked at as it comes or as its handshake completes.
	for i := range 2 * recycleConns {
		res, err := r.clients[i%2].Run(ctx, lab.Load{Targets: r.targets[1:], Connections: 1})
		if err != nil {
			return err
		}
		r.connected += res.Connected
	}
	var err error
	r.results, err = together(r.clients, func(h *lab.Host) (*lab.Result, error) {
		return h.Run(ctx, lab.Load{
			Dial: lab.Dial{Timeout: recycleTimeout}, Targets: r.targets[:1],
			Connections: recycleConns, Concurrency: 10, Rate: recycleRate,
		})
	})
	return err
}

func (r *recycleScene) read() error {
	for i, c := range r.checks {
		var err error
		if r.refused[i], err = c.Refused(); err != nil {
			return err
		}
	}
	segments, err := finish(r.wire)
	known := map[netip.AddrPort]uint32{}
	for _, s := range segments {
		if !s.Outgoing || !s.Has(lab.SYN) {
			continue
		}
		if seq, ok := known[s.Src]; ok && seq == s.Seq {
			r.repeated++
		}
		known[s.Src] = s.Seq
	}
	return err
}

func (r *recycleScene) check(c *checks, seen *observed, cause bool) {
	failed, connected := 0, r.connected
	for _, res := range r.results {
		failed, connected = failed+res.Failed["EINPROGRESS"], connected+res.Connected
	}
	c.fact((r.refused[0] > 0) == cause, "SYNs that old has dropped (as PAWSPassive)", r.refused[0])
	c.fact((failed > 0) == cause, "connect() calls that waited in vain", uint64(failed))
	c.fact(connected > 0, "connections made", uint64(connected))
	// The kernel (6.18.44) does not run the tracepoint tcp_retransmit_skb for
	// each repetition: a program of its own beside a session missed the same.
	got, missed := seen.verdict.Refusals.Unanswered, max(1, r.repeated/20)
	near := got <= r.repeated && got+missed >= r.repeated
	c.add(near && (r.repeated > 0) == cause && (got > 0) == cause, "SYNs sent again for want of an answer (capture)", number(r.repeated), number(got))
	c.same("SYNs to new that an old server would refuse", r.refused[1], r.wouldRefuse(seen), cause)
}

// wouldRefuse is how many SYNs to new an old kernel would have refused, by the
// last account of sources.
func (r *recycleScene) wouldRefuse(seen *observed) uint64 {
	var n uint64
	if seen.sources != nil {
		for i := range seen.sources.List {
			if s := &seen.sources.List[i]; uint64(s.NetNS) == r.modern.Inode() {
				n += s.Recycle2632
			}
		}
	}
	return n
}
