// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// party is one of several pairs of hosts that one session watches at once.
type party struct {
	link
	name    string
	serving *lab.Serving
	targets []netip.AddrPort
}

// invite makes a client with so many ports from 20000 on, and a server.
func invite(t *testing.T, name string, ports int, sysctls map[string]string, s lab.Server) *party {
	t.Helper()
	p := &party{link: newLink(t, name), name: name}
	p.ports(t, 20000, 20000+ports-1)
	testutil.Must(t, p.client.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
	testutil.Must(t, p.server.Sysctl("net.ipv4.tcp_timestamps", "0"))
	for name, value := range sysctls {
		testutil.Must(t, p.client.Sysctl("net.ipv4."+name, value))
	}
	p.serving = serve(t, p.server, s)
	p.targets = p.serving.Targets(p.b.Addr4())
	return p
}

// ports sets the range that the client's connect() chooses from.
func (p *party) ports(t testing.TB, low, high int) {
	t.Helper()
	testutil.Must(t, p.client.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprint(low, high)))
}

// run makes connections that the client closes first, unless told otherwise.
func (p *party) run(t testing.TB, l lab.Load) *lab.Result {
	t.Helper()
	if l.Targets == nil {
		l.Targets = p.targets
	}
	l.ClosesFirst = true
	return testutil.Must1[*lab.Result](t)(p.client.Run(t.Context(), l))
}

// keep runs a load at a pace for a time.
func (p *party) keep(t testing.TB, l lab.Load, length time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	l.Targets, l.Connections = p.targets, 1<<20
	if _, err := p.client.Run(ctx, l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: %v", p.name, err)
	}
}

func (p *party) findings(l log, code string) []*event.Finding {
	return of(l, func(f *event.Finding) bool {
		return uint64(f.Subject.NetNS) == p.client.Inode() && (code == "" || f.Code == code)
	})
}

func (p *party) fails(l log) []*event.ConnectFail {
	return of(l, func(f *event.ConnectFail) bool { return uint64(f.NetNS) == p.client.Inode() })
}

// budgets returns the latest budgets of the client, by remote address and port
// and local address.
func (p *party) budgets(l log) map[string]event.Destination {
	list := map[string]event.Destination{}
	for _, e := range of[*event.Destinations](l, nil) {
		for _, d := range e.List {
			if uint64(d.NetNS) == p.client.Inode() {
				list[fmt.Sprint(d.Laddr, " ", netip.AddrPortFrom(d.Raddr, d.Rport))] = d
			}
		}
	}
	return list
}

// budget returns that of the client's only destination.
func (p *party) budget(t testing.TB, l log) event.Destination {
	t.Helper()
	list := p.budgets(l)
	if len(list) != 1 {
		t.Fatalf("%s: %d budgets, want 1: %v", p.name, len(list), list)
	}
	for _, d := range list {
		return d
	}
	return event.Destination{}
}

// gather starts a session that watches all of them.
func gather(t *testing.T, filters probe.Filters, parties ...*party) *watcher {
	t.Helper()
	return watch(t, func(o *session.Options) {
		o.Kinds, o.Filters = session.DefaultKinds(), filters
		o.StatsInterval, o.Destinations = time.Second, 100
		for _, p := range parties {
			o.Filters.NetNS = append(o.Filters.NetNS, uint32(p.client.Inode()), uint32(p.server.Inode()))
		}
	})
}

// play is one that is acted beside others in front of one session: act
// makes the load, judge looks at the log.
type play struct {
	*party
	act   func(t *testing.T, w *watcher)
	judge func(t *testing.T, l log)
}

// perform acts all at once.
func perform(t *testing.T, acts []play) {
	t.Helper()
	var parties []*party
	for _, a := range acts {
		parties = append(parties, a.party)
	}
	w := gather(t, probe.Filters{}, parties...)
	var wg sync.WaitGroup
	for _, a := range acts {
		wg.Go(func() { a.act(t, w) })
	}
	wg.Wait()
	l := w.stop()
	for _, a := range acts {
		t.Run(a.name, func(t *testing.T) { a.judge(t, l) })
	}
	l.replays(t)
}

// soakEnv makes the loads last longer than the kernel keeps TIME_WAIT.
const soakEnv = "TWSCOPE_SOAK"

// TestBudgetsUnderLoad: what will run out is told ahead, what will not is not,
// a remedy shows, and what is in TIME_WAIT is what ss shows.
func TestBudgetsUnderLoad(t *testing.T) {
	testutil.Root(t)
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	length, lasting := 44*time.Second, 3
	if os.Getenv(soakEnv) != "" {
		length, lasting = 90*time.Second, 10
	}
	var plays []play
	for _, k := range []struct {
		ports int
		in    float64 // s
	}{{1000, 40}, {2000, 38}, {1500, 32}} {
		p := invite(t, fmt.Sprintf("dry%d", k.ports), k.ports, nil, lab.Server{})
		plays = append(plays, play{p, func(t *testing.T, _ *watcher) {
			p.keep(t, lab.Load{Rate: float64(k.ports) / k.in, ClosesFirst: true}, min(length, 50*time.Second))
		}, p.foreseen})
	}
	for i := range lasting {
		ports := 200 * (i + 1)
		p := invite(t, fmt.Sprintf("lasts%d", ports), ports, nil, lab.Server{})
		plays = append(plays, play{p, func(t *testing.T, _ *watcher) {
			p.keep(t, lab.Load{Rate: float64(ports) / 60 * 0.95, ClosesFirst: true}, length)
		}, p.silent})
	}
	plays = append(plays, followed(t, length), lingering(t), closedThere(t), cured(t))
	perform(t, plays)
}

// foreseen holds a forecast against the first failure.
func (p *party) foreseen(t *testing.T, l log) {
	soon, fails := p.findings(l, "port-exhaustion-soon"), p.fails(l)
	if len(soon) == 0 || len(fails) == 0 {
		t.Fatalf("%d findings, %d failures", len(soon), len(fails))
	}
	first := fails[0].Time
	for _, f := range soon {
		t.Logf("%6.1f s before the first failure: %s: %s", float64(first-f.Time)/1e9, f.State, f.Summary)
	}
	open := soon[0]
	ahead := float64(first-open.Time) / 1e9
	if ahead < 20 {
		t.Errorf("opened %.1f s ahead, want 20", ahead)
	}
	if open.State != event.FindingOpen || soon[len(soon)-1].State != event.FindingClose {
		t.Errorf("%s ... %s", open.State, soon[len(soon)-1].State)
	}
	for _, f := range soon {
		said, ok := fact(f, "exhausted_in_s")
		if !ok || f.Time > first {
			continue
		}
		left := float64(first-f.Time) / 1e9
		if off := said - left; math.Abs(off) > max(0.2*left, 2) {
			t.Errorf("%.1f s ahead it said %.1f s", left, said)
		}
	}
	if got := p.findings(l, "port-exhaustion"); len(got) == 0 {
		t.Error("no finding port-exhaustion")
	}
}

// silent holds that there was neither a failure nor a finding.
func (p *party) silent(t *testing.T, l log) {
	if n := len(p.fails(l)); n > 0 {
		t.Fatalf("%d failures: the pace was not sustainable", n)
	}
	for _, f := range p.findings(l, "") {
		t.Errorf("%s: %s", f.Code, f.Summary)
	}
}

func fact(f *event.Finding, name string) (float64, bool) {
	for _, e := range f.Evidence {
		if e.Name == name {
			return e.Number, true
		}
	}
	return 0, false
}
