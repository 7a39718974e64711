// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// solo is a host that talks to itself, from one port only: what becomes of a
// second connect() tells whether the kernel takes over the TIME_WAIT socket
// that the first one has left there.
type solo struct {
	*lab.Host
	target netip.AddrPort
	want   event.Reusable
	socket lab.Socket // in TIME_WAIT
	seen   time.Time  // when the socket was listed
}

const (
	soloPort    = 30000
	loopback    = "127.0.0.1"
	notLoopback = "10.9.0.1"
)

func newSolo(t *testing.T, l *lab.Lab, name, addr string, want event.Reusable, sysctls map[string]string) *solo {
	t.Helper()
	s := &solo{want: want, Host: testutil.Must1[*lab.Host](t)(l.Host(name))}
	testutil.Must(t, s.AddLoopback(notLoopback+"/32"))
	testutil.Must(t, s.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprint(soloPort, soloPort)))
	for name, value := range sysctls {
		testutil.Must(t, s.Sysctl("net.ipv4."+name, value))
	}
	srv := lab.Server{Network: "tcp4", Port: 9000, NeverAccept: want == event.ReuseRefusedFinWait2}
	testutil.Must1[*lab.Serving](t)(s.Serve(srv))
	s.target = netip.AddrPortFrom(netip.MustParseAddr(addr), srv.Port)
	if srv.NeverAccept {
		intoFinWait2(t, s.Host, testutil.Must1[*lab.Conn](t)(s.Connect(lab.Dial{}, s.target)))
	} else {
		load(t, s.Host, closedBy(s.target, 1))
	}
	return s
}

// intoFinWait2 leaves a connection that the server does not close in substate
// FIN_WAIT2. close(2) alone may leave a full socket, if the ACK of its FIN finds
// it busy.
func intoFinWait2(t *testing.T, h *lab.Host, c *lab.Conn) {
	t.Helper()
	testutil.Must(t, c.CloseWrite())
	eventuallyState(t, h, lab.FinWait2)
	testutil.Must(t, c.Close())
	eventuallyTW(t, h, 1)
}

// list notes the TIME_WAIT socket as sock_diag shows it.
func (s *solo) list(t *testing.T) {
	t.Helper()
	s.seen = time.Now()
	s.socket = eventuallyTW(t, s.Host, 1)[0]
}

// check holds the census against sock_diag and against what connect() does.
func (s *solo) check(t *testing.T, l log) {
	t.Helper()
	found := of(l, func(e *event.Census) bool { return uint64(e.NetNS) == s.Inode() })
	if len(found) != 1 {
		t.Fatalf("%d census events, want 1", len(found))
	}
	e := found[0]
	if e.Local != s.socket.Local || e.Remote != s.socket.Remote {
		t.Errorf("%s to %s, want %s to %s", e.Local, e.Remote, s.socket.Local, s.socket.Remote)
	}
	ends := time.Unix(0, e.Time).Add(time.Duration(e.RemainingMS) * time.Millisecond)
	if off := ends.Sub(s.seen.Add(s.socket.Remaining)).Abs(); off > time.Second {
		t.Errorf("its timer ends %s from where sock_diag says", off)
	}
	if e.Reuse != s.want {
		t.Errorf("reuse %s, want %s", e.Reuse, s.want)
	}
	if e.Timestamps != (s.want != event.ReuseRefusedNoTS) || e.Timestamps != (e.TSRecent != 0) {
		t.Errorf("timestamps %t, ts_recent %d", e.Timestamps, e.TSRecent)
	}
	if fin := e.Substate == event.SubstateFinWait2; fin != (s.socket.State == lab.FinWait2) {
		t.Errorf("substate %d, sock_diag says %d", e.Substate, s.socket.State)
	}
	c, err := s.Connect(lab.Dial{}, s.target)
	switch {
	case err == nil:
		testutil.Must(t, c.Close())
		if e.Reuse != event.ReusableNow {
			t.Errorf("the kernel took it over, the census says %s", e.Reuse)
		}
	case !errors.Is(err, unix.EADDRNOTAVAIL) || e.Reuse == event.ReusableNow:
		t.Errorf("the census says %s; the kernel: %v", e.Reuse, err)
	}
}

func newLab(t *testing.T, name string) *lab.Lab {
	t.Helper()
	l := testutil.Must1[*lab.Lab](t)(lab.New(t.Context(), name, lab.Named()))
	t.Cleanup(func() { testutil.Must(t, l.Close()) })
	return l
}

func TestCensus(t *testing.T) {
	testutil.Root(t)
	l := newLab(t, "census")
	reuse := func(v string) map[string]string { return map[string]string{"tcp_tw_reuse": v} }
	hosts := map[string]*solo{
		"off":                   newSolo(t, l, "off", loopback, event.ReuseRefusedDisabled, reuse("0")),
		"on":                    newSolo(t, l, "on", notLoopback, event.ReusableNow, reuse("1")),
		"loopback, 2":           newSolo(t, l, "two", loopback, event.ReusableNow, reuse("2")),
		"not loopback, 2":       newSolo(t, l, "not", notLoopback, event.ReuseRefusedLoopback, reuse("2")),
		"FIN_WAIT2":             newSolo(t, l, "fin", notLoopback, event.ReuseRefusedFinWait2, reuse("1")),
		"without timestamps, 1": newSolo(t, l, "nots", notLoopback, event.ReuseRefusedNoTS, map[string]string{"tcp_tw_reuse": "1", "tcp_timestamps": "0"}),
	}
	if _, err := os.Stat("/proc/sys/net/ipv4/tcp_tw_reuse_delay"); err == nil {
		hosts["too young"] = newSolo(t, l, "young", notLoopback, event.ReuseRefusedTooYoung,
			map[string]string{"tcp_tw_reuse": "1", "tcp_tw_reuse_delay": "60000"})
	}
	for _, s := range hosts {
		// from here on 1 s is over for every kernel
		testutil.Eventually(t, deadline, func() bool {
			s.list(t)
			return s.socket.Remaining < 58*time.Second
		}, "%s to be old enough", s.Name())
	}
	var all []*lab.Host
	for _, s := range hosts {
		all = append(all, s.Host)
	}
	w := watch(t, only(all...))
	w.matrix(probe.Census)
	events := w.stop()
	start := of[*event.Start](events, nil)[0]
	for name, s := range hosts {
		t.Run(name, func(t *testing.T) {
			s.check(t, events)
			for _, c := range start.Census {
				if uint64(c.NetNS) != s.Inode() {
					continue
				}
				if c.TimeWait != 1 || c.Reusable+c.Refused[s.want.String()] != 1 {
					t.Errorf("the start event sums up %+v", c)
				}
				return
			}
			t.Errorf("the start event has no census of %d", s.Inode())
		})
	}
	if w.report.TimeWait < uint64(len(hosts)) {
		t.Errorf("%d sockets reported, want %d or more", w.report.TimeWait, len(hosts))
	}
}

// eventually waits until the log, as far as it is written, is as wanted.
func (w *watcher) eventually(cond func(log) bool, what string) {
	w.t.Helper()
	testutil.Eventually(w.t, deadline, func() bool { return cond(whole(w.t, w.path)) }, "%s", what)
}

// whole reads the lines that are whole: the last may be in the making.
func whole(t testing.TB, path string) log {
	t.Helper()
	r, err := eventlog.OpenReader(path, eventlog.ReadOptions{})
	testutil.Must(t, err)
	defer r.Close()
	var l log
	for ev, err := r.Next(t.Context()); err == nil; ev, err = r.Next(t.Context()) {
		l = append(l, ev)
	}
	return l
}

// known waits until the session has looked into a namespace: it then notices
// a change of a sysctl there.
func (w *watcher) known(h *lab.Host) {
	w.t.Helper()
	const name = "net.ipv4.tcp_invalid_ratelimit"
	i := 500
	w.eventually(func(l log) bool {
		i++
		testutil.Must(w.t, h.Sysctl(name, strconv.Itoa(i)))
		return len(of(l, func(e *event.SysctlChange) bool { return uint64(e.NetNS) == h.Inode() && e.Name == name })) > 0
	}, "the namespace to be known")
}

func TestNamespacesComeAndGo(t *testing.T) {
	const addr = "10.77.77.77" // by which to tell what is not there yet
	w := watch(t, func(o *session.Options) {
		o.Kinds, o.Filters = session.DefaultKinds(), probe.Filters{Local: prefix(addr + "/32")}
	})
	w.matrix(probe.TimeWait)
	l := newLab(t, "late")
	h := testutil.Must1[*lab.Host](t)(l.Host("late"))
	testutil.Must(t, h.AddLoopback(addr+"/32"))
	target := netip.AddrPortFrom(netip.MustParseAddr(addr), testutil.Must1[*lab.Serving](t)(h.Serve(lab.Server{Network: "tcp4"})).Addr().Port())
	load(t, h, closedBy(target, 5))
	w.known(h)
	load(t, h, closedBy(target, 5))
	testutil.Must(t, h.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
	testutil.Must(t, h.Sysctl("net.ipv4.tcp_tw_reuse", "1"))
	w.eventually(func(l log) bool {
		return len(of(l, func(e *event.SysctlChange) bool {
			return uint64(e.NetNS) == h.Inode() && e.Name == "net.ipv4.tcp_tw_reuse" && e.New == "1"
		})) == 1
	}, "a sysctl_change event")
	testutil.Must(t, l.Close())
	events := w.stop()
	if n := len(timeWaitsOf(events, h)); n != 10 {
		t.Errorf("%d time_wait events, want 10", n)
	}
	if twice := of(events, func(e *event.Census) bool { return uint64(e.NetNS) == h.Inode() }); len(twice) != 0 {
		t.Errorf("%d sockets are in the log as time_wait and as census", len(twice))
	}
	r := events.reconciled(t, h.Inode(), "TW")
	if !strings.Contains(r.Why, "gone") || r.TWScope != 10 {
		t.Errorf("%+v", r)
	}
	if !countsDeaths(t) && r.Difference != 0 {
		t.Errorf("%+v, want no difference", r)
	}
}

// TestCensusOfSources: whoever has connected to this host before the start is a
// source of SYNs, and whom this host has connected to is none, even if he closed
// first.
func TestCensusOfSources(t *testing.T) {
	const n = 20
	for name, serverCloses := range map[string]bool{"TIME_WAIT of a client": false, "TIME_WAIT of a server": true} {
		t.Run(name, func(t *testing.T) {
			p := newNarrow(t, "0", "1", lab.Server{ClosesFirst: serverCloses})
			for i := range uint16(n) { // a port that comes twice would end the server's socket of before
				p.run(t, lab.Load{Connections: 1, ClosesFirst: !serverCloses, Dial: lab.Dial{LocalPort: 20000 + i}})
			}
			where := p.client
			if serverCloses {
				where = p.server
			}
			eventuallyTW(t, where, n)
			l := p.watch(t).stop()
			if found := len(of[*event.Census](l, nil)); found != n {
				t.Fatalf("%d census events, want %d", found, n)
			}
			if tw := l.stopEvent(t).TimeWait; tw == nil || *tw != n {
				t.Errorf("time_wait %v in the stop event, want %d", tw, n)
			}
			var sources []event.Source
			for _, e := range of[*event.Sources](l, nil) {
				sources = e.List
			}
			switch {
			case !serverCloses && len(sources) > 0:
				t.Errorf("sources %+v, want none", sources)
			case serverCloses && (len(sources) != 1 || sources[0].Completed != n || uint64(sources[0].NetNS) != where.Inode()):
				t.Errorf("sources %+v, want one of %d connections", sources, n)
			}
		})
	}
}
