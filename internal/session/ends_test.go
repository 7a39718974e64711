// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// ending is a host of its own in which TIME_WAIT sockets end in one way.
type ending struct {
	*lab.Host
	target netip.AddrPort
}

// endPort is outside of every range that a test sets.
const endPort = 9000

func newEnding(t *testing.T, l *lab.Lab, name string, s lab.Server, sysctls map[string]string) *ending {
	t.Helper()
	e := &ending{
		Host:   testutil.Must1[*lab.Host](t)(l.Host(name)),
		target: netip.AddrPortFrom(netip.MustParseAddr(loopback), endPort),
	}
	for name, value := range sysctls {
		testutil.Must(t, e.Sysctl("net.ipv4."+name, value))
	}
	s.Network, s.Port = "tcp4", endPort
	testutil.Must1[*lab.Serving](t)(e.Serve(s))
	return e
}

// from connects from a port, once.
func (e *ending) from(t *testing.T, port uint16) *lab.Conn {
	t.Helper()
	return testutil.Must1[*lab.Conn](t)(e.Connect(lab.Dial{LocalPort: port}, e.target))
}

// closeFirst closes a connection first, and waits until it is in TIME_WAIT.
func (e *ending) closeFirst(t *testing.T, c *lab.Conn) {
	t.Helper()
	testutil.Must(t, c.CloseWrite())
	testutil.Must(t, c.WaitEOF(deadline))
	testutil.Must(t, c.Close())
}

func (e *ending) ends(l log) []*event.TimeWaitEnd {
	return of(l, func(ev *event.TimeWaitEnd) bool { return uint64(ev.NetNS) == e.Inode() })
}

func (e *ending) reuses(l log) []*event.TWReuse {
	return of(l, func(ev *event.TWReuse) bool { return uint64(ev.NetNS) == e.Inode() })
}

// want holds that sockets have ended for one reason, at about the age that
// their time_wait events tell.
func (e *ending) want(t *testing.T, l log, n int, reason event.EndReason) {
	t.Helper()
	ends := e.ends(l)
	if len(ends) != n {
		t.Fatalf("%d sockets have ended, want %d", len(ends), n)
	}
	for _, end := range ends {
		if end.Reason != reason {
			t.Errorf("%s to %s: reason %s, want %s", end.Local, end.Remote, end.Reason, reason)
		}
		wantAge(t, l, end.Socket, end.Time, end.AgeMS)
	}
}

// wantAge compares the age at an event with when the socket entered.
func wantAge(t *testing.T, l log, s event.Socket, at int64, ageMS uint32) {
	t.Helper()
	const off = 100 * time.Millisecond // of ticks, and between the hooks
	entered := of(l, func(e *event.TimeWait) bool {
		return e.NetNS == s.NetNS && e.Local == s.Local && e.Remote == s.Remote && e.Time < at
	})
	if len(entered) == 0 {
		t.Errorf("%s to %s was never in TIME_WAIT", s.Local, s.Remote)
		return
	}
	age := time.Duration(ageMS) * time.Millisecond
	if actual := time.Duration(at - entered[len(entered)-1].Time); (actual - age).Abs() > off {
		t.Errorf("%s to %s: %s old, want %s", s.Local, s.Remote, age, actual)
	}
}

// watchEnds watches the hosts of a lab.
func watchEnds(t *testing.T, hosts ...*ending) *watcher {
	t.Helper()
	w := watch(t, func(o *session.Options) {
		for _, h := range hosts {
			o.Filters.NetNS = append(o.Filters.NetNS, uint32(h.Inode()))
		}
	})
	w.matrix(probe.TimeWaitEnd)
	w.matrix(probe.TWReuse)
	return w
}

func TestReuse(t *testing.T) {
	testutil.Root(t)
	l := newLab(t, "reuse")
	const n = 10
	many := newEnding(t, l, "many", lab.Server{}, map[string]string{
		"tcp_tw_reuse": "0", "ip_local_port_range": fmt.Sprint(20000, 20000+n-1),
	})
	// an explicit port takes over whatever tcp_tw_reuse says
	bound := newEnding(t, l, "bound", lab.Server{}, map[string]string{"tcp_tw_reuse": "0"})
	before := testutil.Must1[lab.Counters](t)(many.Netstat())
	w := watchEnds(t, many, bound)
	load(t, many.Host, closedBy(many.target, n))
	testutil.Eventually(t, deadline, func() bool {
		tw := eventuallyTW(t, many.Host, n)
		return !slices.ContainsFunc(tw, func(s lab.Socket) bool { return s.Remaining > 58*time.Second })
	}, "the sockets to be old enough")
	testutil.Must(t, many.Sysctl("net.ipv4.tcp_tw_reuse", "1"))
	taker := program(t, many.Host, "taker", closedBy(many.target, n))
	bound.closeFirst(t, bound.from(t, 20000))
	bound.closeFirst(t, bound.from(t, 20000))
	events := w.stop()

	recycled := testutil.Must1[lab.Counters](t)(many.Netstat()).Since(before)["TWRecycled"]
	if got := len(many.reuses(events)); got != n || recycled != n {
		t.Errorf("%d tw_reuse, the kernel counts %d, want %d", got, recycled, n)
	}
	for _, e := range many.reuses(events) {
		if e.Owner.PID != uint32(taker) || e.Owner.Comm != "taker" {
			t.Errorf("taken over by %+v, want %d", e.Owner, taker)
		}
		wantAge(t, events, e.Socket, e.Time, e.AgeMS)
	}
	many.want(t, events, n, event.EndReused)
	if got := bound.reuses(events); len(got) != 1 {
		t.Errorf("%d tw_reuse by bind(), want 1", len(got))
	}
	bound.want(t, events, 1, event.EndReused)
}

func TestEnds(t *testing.T) {
	testutil.Root(t)
	l := newLab(t, "ends")
	expired := newEnding(t, l, "expired", lab.Server{NeverAccept: true}, map[string]string{"tcp_fin_timeout": "2"})
	killed := newEnding(t, l, "killed", lab.Server{}, nil)
	reset := newEnding(t, l, "reset", lab.Server{}, nil)
	syn := newEnding(t, l, "syn", lab.Server{ClosesFirst: true}, nil)
	w := watchEnds(t, expired, killed, reset, syn)
	timer := w.rung(probe.TimeWaitEnd) == probe.Timer

	killed.closeFirst(t, killed.from(t, 20000))
	n, err := killed.KillTimeWaits()
	canKill := !errors.Is(err, unix.EOPNOTSUPP) // old kernels do not, for TIME_WAIT
	if canKill && (err != nil || n != 1) {
		t.Fatalf("killed %d: %v", n, err)
	}
	reset.kill(t)
	syn.acceptInPlace(t)
	intoFinWait2(t, expired.Host, expired.from(t, 20000))
	w.eventually(func(l log) bool { return len(expired.ends(l)) == 1 }, "the timer to end")

	events := w.stop()
	expired.want(t, events, 1, event.EndExpired)
	if e := expired.ends(events); e[0].AgeMS < 1900 || e[0].AgeMS > 4000 {
		t.Errorf("it has expired after %d ms, want 2000", e[0].AgeMS)
	}
	if timer { // which tells no reasons, and what is over only when another comes
		killed.want(t, events, 0, event.EndKilled)
		reset.want(t, events, 0, event.EndReset)
		syn.want(t, events, 1, event.EndUnknown)
		return
	}
	killed.want(t, events, n, event.EndKilled)
	reset.want(t, events, 1, event.EndReset)
	syn.want(t, events, 1, event.EndSYN)
}

// kill ends a TIME_WAIT socket by a RST of its peer with the right sequence
// number: the one behind the peer's FIN.
func (e *ending) kill(t *testing.T) {
	t.Helper()
	c := testutil.Must1[*lab.Capture](t)(e.CaptureLoopback())
	e.closeFirst(t, e.from(t, 20000))
	eventuallyTW(t, e.Host, 1)
	seen := testutil.Must1[lab.Captured](t)(c.Finish())
	i := slices.IndexFunc(seen.Segments, func(s lab.Segment) bool { return s.Src == e.target && s.Has(lab.FIN) })
	if i < 0 {
		t.Fatalf("no FIN of the server in %d segments", len(seen.Segments))
	}
	fin := seen.Segments[i]
	testutil.Must(t, e.SendSegment(lab.RawSegment{Src: fin.Src, Dst: fin.Dst, Flags: lab.RST, Seq: fin.Seq + uint32(fin.Len) + 1}))
	eventuallyTW(t, e.Host, 0)
}

// acceptInPlace connects again from the port that the server has in
// TIME_WAIT.
func (e *ending) acceptInPlace(t *testing.T) {
	t.Helper()
	for range 2 {
		c := e.from(t, 20000)
		testutil.Must(t, c.WaitEOF(deadline))
		testutil.Must(t, c.Close())
		eventuallyTW(t, e.Host, 1)
	}
}
