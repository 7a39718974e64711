// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// chosen runs a load of a party in a process of its own.
func (p *party) chosen(t *testing.T, l lab.Load) *lab.Result {
	t.Helper()
	l.Targets, l.ClosesFirst = p.targets[:1], true
	proc := testutil.Must1[*lab.Process](t)(p.client.Spawn(t.Context(), lab.Program{Comm: "chosen", Load: &l}))
	return testutil.Must1[lab.Report](t)(proc.Go(t.Context())).Result
}

// says holds that something is said not to be known of a budget.
func says(t *testing.T, d event.Destination, words string) {
	t.Helper()
	if !strings.Contains(strings.Join(d.Unknown, "; "), words) {
		t.Errorf("unknown: %q, want something of %q", d.Unknown, words)
	}
}

// TestBudgetOfOneProgram: what other programs do is not seen, and nobody is
// accused for want of it.
func TestBudgetOfOneProgram(t *testing.T) {
	testutil.Root(t)
	const ports = 80
	shared := invite(t, "shared", ports, nil, lab.Server{})
	alone := invite(t, "alone", ports, nil, lab.Server{})
	w := gather(t, probe.Filters{Comms: []string{"chosen"}}, shared, alone)
	shared.run(t, lab.Load{Connections: ports / 2})
	for _, p := range []*party{shared, alone} {
		if res := p.chosen(t, lab.Load{Connections: ports + 5}); res.Failed["EADDRNOTAVAIL"] < 5 {
			t.Fatalf("%s: %+v", p.name, res)
		}
	}
	w.eventually(func(l log) bool { return len(alone.findings(l, "port-exhaustion")) > 0 }, "a finding")
	l := w.stop()

	shared.causes(t, l, ports/2+5, event.CauseOther)
	alone.causes(t, l, 5, event.CauseTimeWaitNotReusable)
	if f := shared.findings(l, ""); len(f) > 0 {
		t.Errorf("%s: %s", f[0].Code, f[0].Summary)
	}
	says(t, shared.budget(t, l), "other programs")
	says(t, alone.budget(t, l), "other programs")
	f := alone.findings(l, "port-exhaustion")[0]
	if f.Confidence > 0.9 {
		t.Errorf("confidence %g, although a part is not known", f.Confidence)
	}
	t.Log(f.Summary)
	l.replays(t)
}

// TestBudgetOfAllOwners: one program is watched, and the ports that another one
// holds count, those from before the start too.
func TestBudgetOfAllOwners(t *testing.T) {
	testutil.Root(t)
	const ports = 80
	shared := invite(t, "shared", ports, nil, lab.Server{})
	foreign := invite(t, "foreign", ports, nil, lab.Server{})
	shared.run(t, lab.Load{Connections: ports / 4})
	w := watch(t, func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		o.StatsInterval = time.Second
		o.Filters.Comms, o.AllOwners = []string{"chosen"}, true
	})
	shared.run(t, lab.Load{Connections: ports / 4})
	foreign.run(t, lab.Load{Connections: ports})
	if res := shared.chosen(t, lab.Load{Connections: ports/2 + 5}); res.Failed["EADDRNOTAVAIL"] != 5 {
		t.Fatalf("%+v", res)
	}
	w.eventually(func(l log) bool {
		return len(shared.findings(l, "port-exhaustion")) > 0 && shared.budget(t, l).TimeWait == ports
	}, "a finding, and a budget with all sockets")
	l := w.stop()

	for _, f := range shared.causes(t, l, 5, event.CauseTimeWaitNotReusable) {
		if !l.near(f.PortsTimeWait, ports) {
			t.Errorf("%+v", *f)
		}
	}
	n := len(of[*event.TimeWait](l, nil))
	if n > ports/2 || n+int(l.lost(event.KindTimeWait)) < ports/2-nameless(ports/2) || l.stopEvent(t).Seen["time_wait"] != uint64(n) {
		t.Errorf("%d lines of TIME_WAIT, %v counted", n, l.stopEvent(t).Seen)
	}
	d := shared.budget(t, l)
	if d.TimeWait != ports || d.ClosedHere != uint64(n) || strings.Contains(strings.Join(d.Unknown, "; "), "programs") {
		t.Errorf("%+v", d)
	}
	if n := len(of[*event.Census](l, nil)); n > 0 {
		t.Errorf("%d lines of sockets that have no owner", n)
	}
	for _, e := range of[*event.Destinations](l, nil) {
		for i := range e.List {
			if uint64(e.List[i].NetNS) == foreign.client.Inode() {
				t.Fatalf("a destination of others: %+v", e.List[i])
			}
		}
	}
	l.replays(t)
}

// TestBudgetOfOneDestination: it is whole, but for what bind() takes from it.
func TestBudgetOfOneDestination(t *testing.T) {
	testutil.Root(t)
	const ports = 80
	whole := invite(t, "whole", ports, nil, lab.Server{Port: 8080, Ports: 2})
	robbed := invite(t, "robbed", ports, nil, lab.Server{Port: 8080, Ports: 2})
	whole.run(t, lab.Load{Targets: whole.targets[:1], Connections: 10}) // before the start
	w := gather(t, probe.Filters{Remote: []probe.Endpoint{endpoint("10.0.0.2/32", 8080)}}, whole, robbed)
	whole.run(t, lab.Load{Targets: whole.targets[1:], Connections: ports})
	whole.run(t, lab.Load{Targets: whole.targets[:1], Connections: ports - 10 + 5})
	robbed.run(t, lab.Load{Targets: robbed.targets[1:], Connections: ports / 2, Dial: lab.Dial{LocalAddr: robbed.a.Addr4()}})
	robbed.run(t, lab.Load{Targets: robbed.targets[:1], Connections: ports/2 + 5})
	w.eventually(func(l log) bool { return len(whole.findings(l, "port-exhaustion")) > 0 }, "a finding")
	l := w.stop()

	for _, f := range whole.causes(t, l, 5, event.CauseTimeWaitNotReusable) {
		if !l.near(f.PortsTimeWait, ports) {
			t.Errorf("%+v", *f)
		}
	}
	robbed.causes(t, l, 5, event.CauseOther)
	if d := whole.budget(t, l); !l.near(d.TimeWait, ports) || d.PortsTotal != ports {
		t.Errorf("%+v", d)
	}
	says(t, robbed.budget(t, l), "bind()")
	if f := robbed.findings(l, ""); len(f) > 0 {
		t.Errorf("%s: %s", f[0].Code, f[0].Summary)
	}
	l.replays(t)
}
