// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
)

// causes holds that all failures of a party have one cause, and returns them.
func (p *party) causes(t *testing.T, l log, n int, want event.Cause) []*event.ConnectFail {
	t.Helper()
	fails := p.fails(l)
	if len(fails) != n {
		t.Errorf("%d failures, want %d", len(fails), n)
	}
	for _, f := range fails {
		if f.Cause != want {
			t.Fatalf("%+v, want %s", *f, want)
		}
	}
	return fails
}

// knows holds that nothing of a budget is said to be unknown.
func knows(t *testing.T, d event.Destination) {
	t.Helper()
	if len(d.Unknown) > 0 {
		t.Errorf("unknown: %q", d.Unknown)
	}
}

// TestBudgetHardCases: ranges of few ports and of changing ones, and all that
// shares ports or takes them away.
func TestBudgetHardCases(t *testing.T) {
	testutil.Root(t)
	acts := tinyRanges(t)
	acts = append(acts, reservedPorts(t), boundPorts(t), noPortBinds(t), sharedPorts(t), twoSources(t), sixes(t), changedRange(t))
	perform(t, acts)
}

func tinyRanges(t *testing.T) []play {
	var acts []play
	// of three the last is never used: see the package ports
	for ports, usable := range map[int]int{1: 1, 2: 2, 3: 2} {
		p := invite(t, fmt.Sprintf("tiny%d", ports), ports, nil, lab.Server{})
		var res *lab.Result
		acts = append(acts, play{p, func(t *testing.T, w *watcher) {
			res = p.run(t, lab.Load{Connections: 10})
			w.eventually(func(l log) bool { return len(p.findings(l, "port-exhaustion")) > 0 }, "a finding")
		}, func(t *testing.T, l log) {
			if res.Connected != usable {
				t.Errorf("%d of %d ports used", res.Connected, ports)
			}
			for _, f := range p.causes(t, l, 10-usable, event.CauseRangeTiny) {
				if f.PortsTotal != uint32(ports) || f.PortsTimeWait != uint32(usable) {
					t.Errorf("%+v", *f)
				}
			}
			d := p.budget(t, l)
			if d.PortsTotal != uint32(ports) || d.TimeWait != uint32(usable) {
				t.Errorf("%+v", d)
			}
			knows(t, d)
			t.Log(p.findings(l, "port-exhaustion")[0].Summary)
		}})
	}
	return acts
}

func reservedPorts(t *testing.T) play {
	p := invite(t, "reserved", 100, map[string]string{"ip_local_reserved_ports": "20000-20089"}, lab.Server{})
	return play{p, func(t *testing.T, w *watcher) {
		p.run(t, lab.Load{Connections: 20})
		w.eventually(func(l log) bool { return len(p.findings(l, "port-exhaustion")) > 0 }, "a finding")
	}, func(t *testing.T, l log) {
		p.causes(t, l, 10, event.CauseReserved)
		d := p.budget(t, l)
		if d.PortsTotal != 10 || d.PortsReserved != 90 || d.TimeWait != 10 {
			t.Errorf("%+v", d)
		}
		knows(t, d)
		t.Log(p.findings(l, "port-exhaustion")[0].Summary)
	}}
}

// boundPorts: a program that binds its address takes the ports of all, so that
// another, which goes elsewhere, finds none.
func boundPorts(t *testing.T) play {
	const ports = 60
	p := invite(t, "bound", ports, nil, lab.Server{Ports: 2})
	return play{p, func(t *testing.T, w *watcher) {
		p.run(t, lab.Load{Targets: p.targets[:1], Connections: ports, Dial: lab.Dial{LocalAddr: p.a.Addr4()}})
		p.run(t, lab.Load{Targets: p.targets[1:], Connections: 20})
		w.eventually(func(l log) bool { return len(p.findings(l, "bind-without-no-port")) > 0 }, "a finding")
	}, func(t *testing.T, l log) {
		for _, f := range p.causes(t, l, 20, event.CauseBoundWithoutNoPort) {
			if f.PortsTotal != 0 || f.PortsTimeWait != 0 {
				t.Errorf("%+v", *f)
			}
		}
		binder, other := p.budgetTo(l, 0), p.budgetTo(l, 1)
		if binder.Bound != ports || binder.TimeWait != ports || binder.PortsTotal != ports || other.PortsBlocked != ports {
			t.Errorf("%+v\n%+v", binder, other)
		}
		for _, code := range []string{"port-exhaustion", "bind-without-no-port"} {
			for _, f := range p.findings(l, code) {
				t.Log(f.State, f.Summary)
			}
		}
	}}
}

func (p *party) budgetTo(l log, target int) event.Destination {
	return p.budgets(l)[fmt.Sprint(p.a.Addr4(), " ", p.targets[target])]
}

// noPortBinds is the control: with IP_BIND_ADDRESS_NO_PORT they share.
func noPortBinds(t *testing.T) play {
	const ports = 60
	p := invite(t, "noport", ports, nil, lab.Server{Ports: 2})
	return play{p, func(t *testing.T, _ *watcher) {
		p.run(t, lab.Load{Targets: p.targets[:1], Connections: ports, Dial: lab.Dial{LocalAddr: p.a.Addr4(), NoPort: true}})
		p.run(t, lab.Load{Targets: p.targets[1:], Connections: ports})
	}, func(t *testing.T, l log) {
		p.causes(t, l, 0, 0)
		for i := range p.targets {
			if d := p.budgetTo(l, i); d.Bound != 0 || d.TimeWait != ports || d.PortsTotal != ports || d.PortsBlocked != 0 {
				t.Errorf("%+v", d)
			}
		}
		if f := p.findings(l, "bind-without-no-port"); len(f) > 0 {
			t.Error(f[0].Summary)
		}
	}}
}

// sharedPorts: a budget is per 4-tuple, not per port.
func sharedPorts(t *testing.T) play {
	const ports = 50
	p := invite(t, "shared", ports, nil, lab.Server{Ports: 3})
	return play{p, func(t *testing.T, _ *watcher) {
		p.run(t, lab.Load{Connections: 3 * ports})
		p.run(t, lab.Load{Targets: p.targets[1:2], Connections: 5})
	}, func(t *testing.T, l log) {
		p.causes(t, l, 5, event.CauseTimeWaitNotReusable)
		for i := range p.targets {
			d := p.budgetTo(l, i)
			if d.TimeWait != ports || d.PortsTotal != ports || d.Failed != map[int]uint64{1: 5}[i] {
				t.Errorf("%+v", d)
			}
			knows(t, d)
		}
	}}
}

func twoSources(t *testing.T) play {
	const ports = 50
	p := invite(t, "sources", ports, nil, lab.Server{})
	testutil.Must(t, p.a.AddAddr("10.0.0.9/24"))
	dial := lab.Dial{LocalAddr: netip.MustParseAddr("10.0.0.9"), NoPort: true}
	return play{p, func(t *testing.T, _ *watcher) {
		p.run(t, lab.Load{Connections: ports})
		p.run(t, lab.Load{Connections: ports + 5, Dial: dial})
	}, func(t *testing.T, l log) {
		for _, f := range p.causes(t, l, 5, event.CauseTimeWaitNotReusable) {
			if f.Local.Addr() != dial.LocalAddr || f.PortsTimeWait != ports {
				t.Errorf("%+v", *f)
			}
		}
		list := p.budgets(l)
		if len(list) != 2 {
			t.Fatalf("%v", list)
		}
		for _, d := range list {
			if d.TimeWait != ports || d.PortsTotal != ports || (d.Failed == 5) != (d.Laddr == dial.LocalAddr) {
				t.Errorf("%+v", d)
			}
			knows(t, d)
		}
	}}
}

func sixes(t *testing.T) play {
	const ports = 50
	p := invite(t, "six", ports, map[string]string{"tcp_tw_reuse": "1"}, lab.Server{})
	p.targets = []netip.AddrPort{netip.AddrPortFrom(p.b.Addr6(), p.targets[0].Port())}
	return play{p, func(t *testing.T, w *watcher) {
		p.run(t, lab.Load{Connections: ports + 5})
		w.eventually(func(l log) bool { return len(p.findings(l, "tw-reuse-inert")) > 0 }, "a finding")
	}, func(t *testing.T, l log) {
		p.causes(t, l, 5, event.CauseTimeWaitNotReusable)
		d := p.budget(t, l)
		if d.TimeWait != ports || d.Refused.NoTimestamps != ports || d.Laddr != p.a.Addr6() {
			t.Errorf("%+v", d)
		}
		knows(t, d)
	}}
}

// changedRange: the range grows, and shrinks to ports that are used.
func changedRange(t *testing.T) play {
	p := invite(t, "range", 60, nil, lab.Server{})
	total := func(n uint32) func(log) bool {
		return func(l log) bool {
			return slices.ContainsFunc(of[*event.Destinations](l, nil), func(e *event.Destinations) bool {
				return slices.ContainsFunc(e.List, func(d event.Destination) bool {
					return uint64(d.NetNS) == p.client.Inode() && d.PortsTotal == n
				})
			})
		}
	}
	return play{p, func(t *testing.T, w *watcher) {
		p.run(t, lab.Load{Connections: 65})
		w.eventually(func(l log) bool { return len(p.findings(l, "port-exhaustion")) > 0 }, "a finding")
		p.ports(t, 20000, 20199)
		w.eventually(total(200), "the budget to have 200 ports")
		if res := p.run(t, lab.Load{Connections: 40}); res.Connected != 40 {
			t.Errorf("%v", res.Failed)
		}
		w.eventually(func(l log) bool {
			f := p.findings(l, "port-exhaustion")
			return f[len(f)-1].State == event.FindingClose
		}, "the finding to close")
		// at once, when the session does not know it yet
		p.ports(t, 20000, 20049)
		p.run(t, lab.Load{Connections: 5})
		w.eventually(total(50), "the budget to have 50 ports")
	}, func(t *testing.T, l log) {
		fails := p.causes(t, l, 10, event.CauseTimeWaitNotReusable)
		if f := fails[len(fails)-1]; f.PortsTotal != 50 || f.PortsTimeWait != 50 {
			t.Errorf("%+v", *f)
		}
		d := p.budget(t, l)
		if d.PortsTotal != 50 || d.TimeWait != 100 {
			t.Errorf("%+v", d)
		}
		knows(t, d)
		for _, f := range p.findings(l, "") {
			t.Log(f.Code, f.State, f.Summary, "|", f.Changed)
			if strings.Contains(f.Summary, "own range") {
				t.Error("a changed sysctl is no range of the program's own")
			}
		}
	}}
}
