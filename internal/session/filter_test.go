// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// flows are connections by name: what their TIME_WAIT sockets look like.
type flows map[string]func(*event.TimeWait) bool

// logged returns the names of the flows in the log, and fails the test for
// events of none of them.
func (f flows) logged(t testing.TB, l log) []string {
	t.Helper()
	var names []string
next:
	for _, e := range of[*event.TimeWait](l, nil) {
		for name, is := range f {
			if is(e) {
				names = append(names, name)
				continue next
			}
		}
		t.Errorf("of no flow: %+v", e)
	}
	slices.Sort(names)
	return names
}

func (f flows) want(t testing.TB, l log, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := f.logged(t, l); !slices.Equal(got, names) {
		t.Errorf("the log has %q, want %q", got, names)
	}
}

// endpoint is --dst.
func endpoint(prefix string, port uint16) probe.Endpoint {
	return probe.Endpoint{Prefix: netip.MustParsePrefix(prefix), Port: port}
}

func prefix(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func TestFilterByAddress(t *testing.T) {
	client, server := pair(t)
	a := testutil.Must1[*lab.Serving](t)(server.Serve(lab.Server{})).Addr().Port()
	b := testutil.Must1[*lab.Serving](t)(server.Serve(lab.Server{})).Addr().Port()
	first := testutil.Must1[*lab.Serving](t)(server.Serve(lab.Server{ClosesFirst: true})).Addr().Port()
	six := netip.MustParseAddr("fd00::2")
	connect := func() {
		for _, target := range []netip.AddrPort{
			netip.AddrPortFrom(serverAddr, a), netip.AddrPortFrom(serverAddr, b),
			netip.AddrPortFrom(six, a), netip.AddrPortFrom(netip.AddrFrom16(serverAddr.As16()), a),
		} {
			load(t, client, closedBy(target, 1))
		}
		load(t, client, to(netip.AddrPortFrom(serverAddr, first), 1))
	}
	// IPv4-mapped sockets are shown as IPv4, so they look like those
	f := flows{
		"4a":     func(e *event.TimeWait) bool { return e.Remote == netip.AddrPortFrom(serverAddr, a) },
		"4b":     func(e *event.TimeWait) bool { return e.Remote == netip.AddrPortFrom(serverAddr, b) },
		"6a":     func(e *event.TimeWait) bool { return e.Remote == netip.AddrPortFrom(six, a) },
		"server": func(e *event.TimeWait) bool { return e.Local == netip.AddrPortFrom(serverAddr, first) },
	}
	both := []uint32{uint32(client.Inode()), uint32(server.Inode())}
	onlyServer := both[1:]
	for name, tt := range map[string]struct {
		filters probe.Filters
		want    []string
	}{
		"netns":          {probe.Filters{NetNS: onlyServer}, []string{"server"}},
		"netns or netns": {probe.Filters{NetNS: both}, []string{"4a", "4a", "4b", "6a", "server"}},
		"network":        {probe.Filters{Remote: []probe.Endpoint{endpoint("10.0.0.0/24", 0)}}, []string{"4a", "4a", "4b", "server"}},
		"address:port":   {probe.Filters{Remote: []probe.Endpoint{endpoint("10.0.0.2/32", a)}}, []string{"4a", "4a"}},
		":port":          {probe.Filters{Remote: []probe.Endpoint{endpoint("::/0", a)}}, []string{"4a", "4a", "6a"}},
		"IPv6":           {probe.Filters{Remote: []probe.Endpoint{endpoint("fd00::/64", 0)}}, []string{"6a"}},
		"dst or dst": {
			probe.Filters{Remote: []probe.Endpoint{endpoint("fd00::2/128", 0), endpoint("::/0", b)}}, []string{"4b", "6a"},
		},
		// the longest prefix of one port must not hide the shorter one of any
		"dst or wider dst": {
			probe.Filters{Remote: []probe.Endpoint{endpoint("10.0.0.2/32", 1), endpoint("10.0.0.0/24", 0)}},
			[]string{"4a", "4a", "4b", "server"},
		},
		"src":           {probe.Filters{Local: prefix("10.0.0.2/32")}, []string{"server"}},
		"src and dst":   {probe.Filters{Local: prefix("10.0.0.0/24"), Remote: []probe.Endpoint{endpoint("::/0", b)}}, []string{"4b"}},
		"netns and dst": {probe.Filters{NetNS: onlyServer, Remote: []probe.Endpoint{endpoint("10.0.0.2/32", 0)}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := testutil.Must1[lab.Counters](t)(client.Netstat())
			w := watch(t, func(o *session.Options) {
				o.Kinds, o.Filters = session.DefaultKinds(), tt.filters
				if len(o.Filters.NetNS) == 0 {
					o.Filters.NetNS = both // this host has other sockets
				}
			})
			connect()
			l := w.stop()
			f.want(t, l, tt.want...)
			wantTW(t, l, client, before, 4)
			if seen := l.stopEvent(t).Seen["time_wait"]; seen != uint64(len(tt.want)) {
				t.Errorf("%d time_wait seen, want %d", seen, len(tt.want))
			}
		})
	}
}

func TestFilterOfCensus(t *testing.T) {
	s := newScene(t, "one", "two")
	for _, target := range s.targets {
		load(t, s.client, closedBy(target, 3))
	}
	one := probe.Endpoint{Prefix: netip.PrefixFrom(serverAddr, 32), Port: s.targets["one"].Port()}
	for name, tt := range map[string]struct {
		filters probe.Filters
		want    int
	}{
		"netns": {probe.Filters{}, 6},
		"dst":   {probe.Filters{Remote: []probe.Endpoint{one}}, 3},
		"src":   {probe.Filters{Local: prefix("10.0.0.2/32")}, 0},
		"comm":  {probe.Filters{Comms: []string{ownComm(t)}}, 0}, // no TIME_WAIT socket has an owner
	} {
		t.Run(name, func(t *testing.T) {
			w := s.watch(t, tt.filters)
			if found := len(of[*event.Census](w.stop(), nil)); found != tt.want || w.report.TimeWait != uint64(tt.want) {
				t.Errorf("%d in the log, %d reported, want %d", found, w.report.TimeWait, tt.want)
			}
		})
	}
}

// wantTW holds that filters change nothing in what is held against the
// kernel's counters.
func wantTW(t testing.TB, l log, h *lab.Host, before lab.Counters, n int64) {
	t.Helper()
	r := l.reconciled(t, h.Inode(), "TW")
	now := testutil.Must1[lab.Counters](t)(h.Netstat()).Since(before)
	if r.TWScope != n {
		t.Errorf("%+v, want %d", r, n)
	}
	// where deaths are counted, some of before the session fall into it
	if !countsDeaths(t) && (r.Difference != 0 || r.Kernel != int64(now["TW"]+now["TWKilled"])) {
		t.Errorf("%+v, want no difference, and %d of the kernel", r, now["TW"])
	}
}

// scene is a client host with an obedient servant in it, and places to
// connect to, one a flow.
type scene struct {
	client, server *lab.Host
	flows          flows
	targets        map[string]netip.AddrPort
}

func newScene(t *testing.T, names ...string) *scene {
	t.Helper()
	s := &scene{flows: flows{}, targets: map[string]netip.AddrPort{}}
	s.client, s.server = pair(t)
	for _, name := range names {
		target := sinkhole(t, s.server)
		s.targets[name] = target
		s.flows[name] = func(e *event.TimeWait) bool { return e.Remote == target }
	}
	return s
}

// watch starts a session that looks only at this scene's client.
func (s *scene) watch(t *testing.T, f probe.Filters) *watcher {
	t.Helper()
	f.NetNS = []uint32{uint32(s.client.Inode())}
	return watch(t, func(o *session.Options) { o.Kinds, o.Filters = session.DefaultKinds(), f })
}

func TestFilterByProcess(t *testing.T) {
	s := newScene(t, "child", "grandchild", "thread", "stranger")
	family := hire(t, s.client, "parent")
	child := family.connect(sinkhole(t, s.server)) // it is there before the session
	tree, err := kernel.ProcessTree(os.DirFS("/"), uint32(family.cmd.PID()))
	testutil.Must(t, err)
	if !slices.Contains(tree, uint32(child)) {
		t.Fatalf("%d is not in the family %d", child, tree)
	}
	before := testutil.Must1[lab.Counters](t)(s.client.Netstat())
	w := s.watch(t, probe.Filters{PIDs: append(tree, uint32(os.Getpid()))})
	w.matrix(probe.Owner)
	family.connect(s.targets["child"])
	family.order("fork", s.targets["grandchild"].String())
	load(t, s.client, closedBy(s.targets["thread"], 1))
	stranger := hire(t, s.client, "obey")
	// it is a child of this process, made under the eyes of the session
	stranger.connect(s.targets["stranger"])
	l := w.stop()
	s.flows.want(t, l, "child", "grandchild", "thread", "stranger")
	wantTW(t, l, s.client, before, 4)

	w = s.watch(t, probe.Filters{PIDs: tree})
	family.connect(s.targets["child"])
	family.order("fork", s.targets["grandchild"].String())
	load(t, s.client, closedBy(s.targets["thread"], 1))
	stranger.connect(s.targets["stranger"])
	s.flows.want(t, w.stop(), "child", "grandchild")
}

func TestFilterByComm(t *testing.T) {
	s := newScene(t, "one", "two", "three")
	p, accepted := spawnServer(t, s.server, "acceptor", lab.Server{Network: "tcp4", ClosesFirst: true})
	s.flows["acceptor"] = func(e *event.TimeWait) bool {
		return e.Local == accepted && e.Owner.PID == uint32(p.PID())
	}
	connect := func(t *testing.T) {
		for _, comm := range []string{"one", "two", "three"} {
			program(t, s.client, comm, closedBy(s.targets[comm], 1))
		}
		load(t, s.client, to(accepted, 1))
	}
	both := []uint32{uint32(s.client.Inode()), uint32(s.server.Inode())}
	for name, tt := range map[string]struct {
		filters probe.Filters
		want    []string
	}{
		"one":         {probe.Filters{Comms: []string{"one"}}, []string{"one"}},
		"one or two":  {probe.Filters{Comms: []string{"one", "two"}}, []string{"one", "two"}},
		"of a server": {probe.Filters{Comms: []string{"acceptor"}}, []string{"acceptor"}},
		"and dst": {
			probe.Filters{Comms: []string{"one", "two"}, Remote: []probe.Endpoint{endpoint("::/0", s.targets["two"].Port())}},
			[]string{"two"},
		},
		"and pid": {probe.Filters{Comms: []string{"one"}, PIDs: []uint32{uint32(p.PID())}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := watch(t, func(o *session.Options) {
				o.Kinds, o.Filters = session.DefaultKinds(), tt.filters
				o.Filters.NetNS = both
			})
			connect(t)
			s.flows.want(t, w.stop(), tt.want...)
		})
	}
}

// cgroup makes a cgroup v2 that is removed with what is in it, whose
// processes must have ended by then.
func cgroup(t *testing.T, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, fmt.Sprintf("twscope-test-%d", os.Getpid()))
	testutil.Must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		testutil.Eventually(t, deadline, func() bool { return os.Remove(dir) == nil }, "%s to be empty", dir)
	})
	return dir
}

func enter(t *testing.T, dir string, pid int) {
	t.Helper()
	testutil.Must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0))
}

func TestFilterByCgroup(t *testing.T) {
	testutil.Root(t)
	facts, err := kernel.Local()
	testutil.Must(t, err)
	testutil.SkipUnless(t, facts.Cgroup2 != "", "no cgroup v2 hierarchy is mounted")
	top := cgroup(t, facts.Cgroup2)
	s := newScene(t, "top", "below", "beside", "outside")
	id, level, err := kernel.NewCgroups(facts.Cgroup2).ID(top)
	testutil.Must(t, err)
	w := s.watch(t, probe.Filters{Cgroups: []probe.Cgroup{{ID: id, Level: level}}})
	w.matrix(probe.Owner)
	p := hire(t, s.client, "obey")
	p.connect(s.targets["outside"])
	enter(t, top, p.cmd.PID())
	p.connect(s.targets["top"])
	below := cgroup(t, top) // younger than the session
	enter(t, below, p.cmd.PID())
	p.order("fork", s.targets["below"].String())
	enter(t, facts.Cgroup2, p.cmd.PID())
	p.connect(s.targets["beside"])
	l := w.stop()
	s.flows.want(t, l, "top", "below")
	for _, e := range of(l, s.flows["below"]) {
		if want := strings.TrimPrefix(below, facts.Cgroup2); e.Owner.Cgroup != want {
			t.Errorf("cgroup %q, want %q", e.Owner.Cgroup, want)
		}
	}
}
