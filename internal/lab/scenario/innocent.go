// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"net/netip"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
)

const puppetTopology = `
+--------+ 10.77.0.1                      10.1.0.2 +--------+
| client |-----------------------------------------| server |
+--------+ forged segments: a clock of our choice  +--------+`

const (
	firstPort = 30000
	oldPorts  = 40 // used before
	newPorts  = 40 // not used before
	// outage is how long the host is away, or SYNs are late.
	outage = 1500 * time.Millisecond
	// aheadTicks is how far the old clock was ahead: ten days at 1000 Hz.
	aheadTicks = 10 * 24 * 3600 * 1000
	lateSYNs   = 15
)

// innocent is what the scenes without a NAT have in common: SYNs that the
// server refuses in TIME_WAIT.
type innocent struct {
	*puppet
	server        *lab.Host
	before, grown lab.Counters
	counter       string
	refusals      uint64 // SYNs that the rig knows to be refused
}

func (n *innocent) setUp(ctx context.Context, s *stage) error {
	var err error
	if n.puppet, n.server, err = newPuppet(ctx, s); err != nil {
		return err
	}
	n.before, err = n.server.Netstat()
	return err
}

func (n *innocent) read() error {
	after, err := n.server.Netstat()
	n.counter, n.grown = timeWaitCounter(after), after.Since(n.before)
	return err
}

// verify: what the rig, the kernel and twscope count is one number, and no SYN
// is blamed on a NAT.
func (n *innocent) verify(c *checks, seen *observed, cause bool, want event.Verdict) {
	var lines, wanted, nat uint64
	for _, e := range seen.rejects {
		lines += max(e.Count, 1)
		switch e.Verdict {
		case want:
			wanted++
		case event.VerdictNATMultiClock, event.VerdictNATPortRewrite:
			nat++
		}
	}
	c.fact(n.grown[n.counter] == n.refusals, n.counter+" is what the rig saw refused", n.grown[n.counter])
	c.same("SYNs that PAWS refused in TIME_WAIT (rig)", n.refusals, lines, cause)
	c.add(nat == 0, "of these, because of a NAT", "0", number(nat))
	// the first ones may come before there is enough to judge by
	c.add(2*wanted >= n.refusals && (wanted > 0) == cause, "of these, "+want.String(), number(n.refusals), number(wanted))
}

// restartScene is one host that comes back with another clock.
type restartScene struct {
	innocent
	restarts bool
}

func restartScenario() Scenario {
	return Scenario{
		Name: "one-host-restart",
		About: "A host that had been up for long restarts. Its clock begins anew, behind what the server remembers in TIME_WAIT, and PAWS refuses its SYNs " +
			"from ports that it used before. Nothing is wrong, and no NAT is there.",
		Topology: puppetTopology,
		Load:     "80 connections that the server closes first, 1.5 s of silence, 80 more, half of them from the same ports",
		Cause: Side{
			"after the silence the clock is 10 days behind",
			[]string{diagnose.PawsDropRestart},
			// an old server would refuse these too
			[]string{diagnose.NATRecycleDrop},
		},
		Control: Side{"the clock goes on", nil, nil},
		needs:   probe.PAWSTimeWait,
		make:    func(cause bool) scene { return &restartScene{restarts: cause} },
	}
}

func (r *restartScene) act(ctx context.Context, _ *stage) error {
	for i := range uint16(oldPorts + newPorts) {
		if _, err := r.connect(ctx, firstPort+i); err != nil {
			return err
		}
	}
	if err := pause(ctx, outage); err != nil {
		return err
	}
	if r.restarts {
		r.restart(r.last - aheadTicks)
	}
	for i := range uint16(newPorts) {
		for _, port := range []uint16{firstPort + oldPorts + newPorts + i, firstPort + i} {
			if _, err := r.connect(ctx, port); err != nil {
				return err
			}
		}
	}
	r.refusals = uint64(r.refused)
	return nil
}

func (r *restartScene) check(c *checks, seen *observed, cause bool) {
	r.verify(c, seen, cause, event.VerdictRestart)
}

// duplicateScene is a network that delivers SYNs twice, the second time late.
type duplicateScene struct {
	innocent
	late bool
}

func duplicateScenario() Scenario {
	return Scenario{
		Name: "old-duplicate",
		About: "The network delivers some SYNs twice, the second time after their connection has ended. PAWS was made to refuse these; no connection is lost, " +
			"and no NAT is there.",
		Topology: puppetTopology,
		Load:     "40 connections that the server closes first, and 1.5 s of silence",
		Cause:    Side{"15 SYNs come again then", []string{diagnose.PawsDropOldDuplicate}, nil},
		Control:  Side{"each SYN comes once", nil, nil},
		needs:    probe.PAWSTimeWait,
		make:     func(cause bool) scene { return &duplicateScene{late: cause} },
	}
}

func (d *duplicateScene) act(ctx context.Context, _ *stage) error {
	var syns []synID
	for i := range uint16(oldPorts) {
		id, err := d.connect(ctx, firstPort+i)
		if err != nil {
			return err
		}
		syns = append(syns, id)
	}
	if err := pause(ctx, outage); err != nil || !d.late {
		return err
	}
	for i, id := range syns[:lateSYNs] {
		_, answer, err := d.syn(firstPort+uint16(i), id.seq, id.tsval)
		if err != nil {
			return err
		}
		if !answer.Has(lab.SYN) {
			d.refusals++
		}
	}
	return nil
}

func (d *duplicateScene) check(c *checks, seen *observed, cause bool) {
	d.verify(c, seen, cause, event.VerdictOldDuplicate)
}

const (
	overflowConns   = 24
	overflowBacklog = 2
	// overflowTimeout leaves time for one retransmission.
	overflowTimeout = 1500 * time.Millisecond
)

// overflowScene is a server that does not accept.
type overflowScene struct {
	accepts bool

	client, server *lab.Host
	target         netip.AddrPort
	before, grown  lab.Counters
	result         *lab.Result
}

func overflowScenario() Scenario {
	return Scenario{
		Name: "listen-overflow",
		About: "A program is too slow to accept(). Its queue is full, and the kernel drops SYNs without a word: to clients it looks as if a NAT or " +
			"tcp_tw_recycle were at work.",
		Topology: pairTopology,
		Load:     "3 connections one by one, then 24 at once that wait for 1.5 s",
		Cause: Side{
			"the server, with a backlog of 2, accepts nothing", []string{diagnose.ListenOverflow}, []string{diagnose.PeerRefusesSYN},
		},
		Control: Side{"the server accepts", nil, nil},
		make:    func(cause bool) scene { return &overflowScene{accepts: !cause} },
	}
}

func (o *overflowScene) setUp(ctx context.Context, s *stage) error {
	hosts, err := s.add("client", "server")
	if err != nil {
		return err
	}
	o.client, o.server = hosts[0], hosts[1]
	link, err := s.link(ctx, o.client, o.server, "10.1.0.0/24")
	if err != nil {
		return err
	}
	server := lab.Server{Network: "tcp4"}
	if !o.accepts {
		server.NeverAccept, server.Backlog = true, overflowBacklog
	}
	sv, err := o.server.Serve(server)
	if err != nil {
		return err
	}
	o.target = sv.Targets(link.B.Addr4())[0]
	o.before, err = o.server.Netstat()
	return err
}

func (o *overflowScene) act(ctx context.Context, _ *stage) error {
	// sk_acceptq_is_full() lets one more in than the backlog
	for range overflowBacklog + 1 {
		conn, err := o.client.Connect(lab.Dial{Timeout: overflowTimeout}, o.target)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	var err error
	o.result, err = o.client.Run(ctx, lab.Load{
		Dial: lab.Dial{Timeout: overflowTimeout}, Targets: []netip.AddrPort{o.target},
		Connections: overflowConns, Concurrency: overflowConns, ClosesFirst: true,
	})
	return err
}

func (o *overflowScene) read() error {
	after, err := o.server.Netstat()
	o.grown = after.Since(o.before)
	return err
}

func (o *overflowScene) check(c *checks, seen *observed, cause bool) {
	failed := uint64(o.result.Failed["EINPROGRESS"])
	c.fact((failed == overflowConns) == cause, "connect() calls that waited in vain", failed)
	c.same("SYNs that the listener dropped (ListenDrops)", o.grown["ListenDrops"], seen.verdict.Refusals.ListenDrops, cause)
	c.fact(o.grown["ListenOverflows"] == o.grown["ListenDrops"], "of these, because the accept queue was full (ListenOverflows)", o.grown["ListenOverflows"])
	c.add(len(seen.rejects) == 0, "SYNs that PAWS refused", "0", number(uint64(len(seen.rejects))))
}
