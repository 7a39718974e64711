// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// crowd is a client that asks more of a listener than its queues hold.
type crowd struct {
	link
	full, idle *lab.Serving
	addr       netip.AddrPort // of the full one, where the client reaches it
	from       netip.Addr
	before     lab.Counters
	sent       int // SYNs without a connection behind them
}

// newCrowd starts a listener that never accepts, and with idle another that
// does. It returns nil if the kernel lacks MPTCP and the server is to have it.
func newCrowd(t *testing.T, name string, s lab.Server, idle bool) *crowd {
	t.Helper()
	c := &crowd{link: newLink(t, name)}
	s.NeverAccept = true
	if c.full = serve(t, c.server, s); c.full == nil {
		return nil
	}
	if idle {
		c.idle = serve(t, c.server, lab.Server{})
	}
	at := c.b.Addr4()
	c.from = c.a.Addr4()
	if s.Network == "tcp6" {
		at, c.from = c.b.Addr6(), c.a.Addr6()
	}
	c.addr = netip.AddrPortFrom(at, c.full.Addr().Port())
	// the client would end with RST what it has not asked for
	testutil.Must1[*lab.Rule](t)(c.client.Drop(lab.Match{Hook: lab.Output, FlagMask: lab.RST, Flags: lab.RST}))
	c.before = testutil.Must1[lab.Counters](t)(c.server.Netstat())
	return c
}

// fill makes connections that nobody accepts.
func (c *crowd) fill(t *testing.T, n int) {
	t.Helper()
	for range n {
		conn := testutil.Must1[*lab.Conn](t)(c.client.Connect(lab.Dial{}, c.addr))
		t.Cleanup(func() { conn.Close() })
	}
}

// syns sends SYNs, each from a port of its own, which nobody answers, and waits
// until the server has counted a number of them.
func (c *crowd) syns(t *testing.T, n int, counter string, counted uint64) {
	t.Helper()
	before := c.grown(t)[counter]
	for range n {
		c.sent++
		testutil.Must(t, c.client.SendSegment(lab.RawSegment{
			Src: netip.AddrPortFrom(c.from, uint16(1000+c.sent)), Dst: c.addr, Flags: lab.SYN, Seq: 1,
		}))
	}
	testutil.Eventually(t, deadline, func() bool { return c.grown(t)[counter]-before >= counted },
		"the server to count %d in %s", counted, counter)
}

func (c *crowd) grown(t *testing.T) lab.Counters {
	t.Helper()
	return testutil.Must1[lab.Counters](t)(c.server.Netstat()).Since(c.before)
}

// dropSum is what listen_drop events tell together.
type dropSum struct{ Dropped, Overflows, SYNQueue, Cookies uint64 }

// truth is what the kernel has counted.
func (c *crowd) truth(t *testing.T) dropSum {
	t.Helper()
	g := c.grown(t)
	return dropSum{g["ListenDrops"], g["ListenOverflows"], g["TCPReqQFullDrop"], g["TCPReqQFullDoCookies"]}
}

func (c *crowd) events(l log) []*event.ListenDrop {
	return of(l, func(e *event.ListenDrop) bool {
		return uint64(e.NetNS) == c.server.Inode() || uint64(e.NetNS) == c.client.Inode()
	})
}

// check holds the events against what the kernel has counted, and each to
// the full listener.
func (c *crowd) check(t *testing.T, l log, want dropSum) {
	t.Helper()
	var got dropSum
	for _, e := range c.events(l) {
		got.Dropped += e.Dropped
		got.Overflows += e.Overflows
		got.SYNQueue += e.SYNQueue
		got.Cookies += e.Cookies
		if e.Local != c.full.Addr() || e.Remote.IsValid() || !l.ours(e.Owner) {
			t.Errorf("%+v, want the listener %s of process %d", *e, c.full.Addr(), os.Getpid())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || want == (dropSum{}) {
		t.Errorf("what the server dropped (-kernel +log):\n%s", diff)
	}
}

// TestListenDropAcceptQueue: the queue of a listener that does not accept is
// full, that of another beside it is not.
func TestListenDropAcceptQueue(t *testing.T) {
	const backlog, early, late = 2, 7, 5
	servers := map[string]lab.Server{
		"IPv4":  {Network: "tcp4"},
		"IPv6":  {Network: "tcp6"},
		"both":  {},
		"one":   {Network: "tcp4", Addr: serverAddr},
		"MPTCP": {MPTCP: true},
	}
	crowds := map[string]*crowd{}
	for name, s := range servers {
		s.Backlog = backlog
		if c := newCrowd(t, "accept-"+name, s, true); c != nil {
			crowds[name] = c
		}
	}
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	for _, c := range crowds {
		c.fill(t, backlog+1) // sk_acceptq_is_full() lets one more in
		c.syns(t, early, "ListenOverflows", early)
	}
	w.eventually(func(l log) bool {
		for _, c := range crowds {
			if len(c.events(l)) == 0 {
				return false
			}
		}
		return true
	}, "an event of each server while the session goes on")
	for _, c := range crowds {
		c.syns(t, late, "ListenOverflows", late)
	}
	l := w.stop()
	for name, c := range crowds {
		t.Run(name, func(t *testing.T) {
			want := c.truth(t)
			if want != (dropSum{Dropped: early + late, Overflows: early + late}) {
				t.Fatalf("the kernel has counted %+v, want %d overflows", want, early+late)
			}
			c.check(t, l, want)
			for _, e := range c.events(l) {
				if e.Backlog != backlog+1 || e.Limit != backlog {
					t.Errorf("%d of %d wait, want %d of %d", e.Backlog, e.Limit, backlog+1, backlog)
				}
			}
		})
	}
}

// TestListenDropSYNQueue: handshakes are begun and not completed, with and
// without SYN cookies.
func TestListenDropSYNQueue(t *testing.T) {
	const backlog, n = 4, 20
	crowds := map[string]*crowd{}
	for name, c := range map[string]struct {
		cookies, backlog int
		idle             bool
	}{
		"dropped": {0, backlog, true}, "last quarter": {0, 10 * n, true}, "no route": {1, backlog, true},
		"cookies": {1, backlog, false}, "whose cookies": {1, backlog, true}, "always cookies": {2, backlog, false},
	} {
		crowds[name] = newCrowd(t, "syns"+strconv.Itoa(len(crowds)), lab.Server{Backlog: c.backlog}, c.idle)
		testutil.Must(t, crowds[name].server.Sysctl("net.ipv4.tcp_syncookies", strconv.Itoa(c.cookies)))
	}
	testutil.Must(t, crowds["last quarter"].server.Sysctl("net.ipv4.tcp_max_syn_backlog", strconv.Itoa(backlog)))
	crowds["no route"].from = netip.MustParseAddr("192.0.2.1")
	w := watch(t, nil)
	for name, c := range crowds {
		counter := "TCPReqQFullDoCookies"
		switch name {
		case "dropped":
			counter = "TCPReqQFullDrop"
		case "last quarter", "no route":
			counter = "ListenDrops"
		}
		c.syns(t, n, counter, n-2*backlog)
	}
	l := w.stop()
	t.Run("dropped", func(t *testing.T) {
		c := crowds["dropped"]
		want := c.truth(t)
		if want.Dropped < n-2*backlog || want.SYNQueue == 0 || want.Overflows != 0 || want.Cookies != 0 {
			t.Fatalf("the kernel has counted %+v, want drops for a full SYN queue", want)
		}
		c.check(t, l, want)
	})
	t.Run("last quarter", func(t *testing.T) {
		c := crowds["last quarter"]
		want := c.truth(t)
		if want != (dropSum{Dropped: want.Dropped}) {
			t.Fatalf("the kernel has counted %+v, want drops by no other counter", want)
		}
		c.check(t, l, want)
	})
	t.Run("no route", func(t *testing.T) {
		c := crowds["no route"]
		if got, want := c.events(l), c.truth(t); len(got) > 0 || want != (dropSum{Dropped: n}) {
			t.Errorf("%d events, want none for what no full queue was the reason of: %+v", len(got), want)
		}
	})
	t.Run("cookies", func(t *testing.T) {
		c := crowds["cookies"]
		want := c.truth(t)
		if want.Cookies < n-2*backlog || want.Dropped != 0 {
			t.Fatalf("the kernel has counted %+v, want cookies", want)
		}
		c.check(t, l, want)
	})
	t.Run("whose cookies", func(t *testing.T) {
		c := crowds["whose cookies"]
		var cookies uint64
		for _, e := range c.events(l) {
			cookies += e.Cookies
			if e.Local.IsValid() || e.Owner.PID != 0 || e.Dropped != 0 {
				t.Errorf("%+v, want cookies of nobody knows which of two listeners", *e)
			}
		}
		if want := c.truth(t).Cookies; cookies != want || want == 0 {
			t.Errorf("%d cookies, the kernel has counted %d", cookies, want)
		}
	})
	t.Run("always cookies", func(t *testing.T) {
		c := crowds["always cookies"]
		if got, want := c.events(l), c.truth(t); len(got) > 0 || want.Cookies < n {
			t.Errorf("%d events, want none for %d cookies that no full queue was the reason of", len(got), want.Cookies)
		}
	})
}

// TestListenDropBefore: what was dropped before the start is not told, not even
// if the same listener drops more.
func TestListenDropBefore(t *testing.T) {
	const backlog, before, after = 1, 6, 3
	more := newCrowd(t, "more", lab.Server{Backlog: backlog}, true)
	calm := newCrowd(t, "calm", lab.Server{Backlog: backlog}, true)
	other := *more // on a port that is listed first
	other.full = serve(t, more.server, lab.Server{Backlog: backlog, NeverAccept: true, Port: 400})
	other.addr = netip.AddrPortFrom(more.addr.Addr(), 400)
	for _, c := range []*crowd{more, calm, &other} {
		c.fill(t, backlog+1)
		c.syns(t, before, "ListenDrops", before)
	}
	for _, c := range []*crowd{more, calm} {
		c.before = testutil.Must1[lab.Counters](t)(c.server.Netstat())
	}
	w := watch(t, nil)
	more.syns(t, after, "ListenDrops", after)
	load(t, calm.client, lab.Load{Targets: calm.idle.Targets(calm.b.Addr4()), Connections: 20, ClosesFirst: true})
	l := w.stop()
	more.check(t, l, dropSum{Dropped: after, Overflows: after})
	if got := calm.events(l); len(got) > 0 {
		t.Errorf("%d events of a server that drops no more, such as %+v", len(got), *got[0])
	}
}

// TestListenDropSelection: the events follow --netns.
func TestListenDropSelection(t *testing.T) {
	const backlog, n = 1, 3
	in := newCrowd(t, "in", lab.Server{Backlog: backlog}, false)
	out := newCrowd(t, "out", lab.Server{Backlog: backlog}, false)
	w := watch(t, func(o *session.Options) { o.Filters.NetNS = []uint32{uint32(in.server.Inode())} })
	for _, c := range []*crowd{in, out} {
		c.fill(t, backlog+1)
		c.syns(t, n, "ListenDrops", n)
	}
	l := w.stop()
	in.check(t, l, dropSum{Dropped: n, Overflows: n})
	if got := out.events(l); len(got) > 0 {
		t.Errorf("%d events of a namespace that was not selected", len(got))
	}
}
