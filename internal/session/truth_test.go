// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"strconv"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// few is a number of connections: less in short tests and on an emulated CPU.
func few(here, slow int) int {
	if n, err := strconv.Atoi(os.Getenv("TWSCOPE_CONNECTIONS")); err == nil {
		return n
	}
	if testing.Short() || os.Getenv("TWSCOPE_VM") != "" {
		return slow
	}
	return here
}

// countsDeaths tells whether this kernel's TW counts sockets that leave
// TIME_WAIT, which was so up to 5.17.
func countsDeaths(t testing.TB) bool {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	testutil.Must(t, err)
	return kernel.NewBTF(spec).TWCounting() == kernel.TWCountedAtExpiry
}

// checkTW holds the stop event's comparison of TIME_WAIT sockets against the
// kernel's counters: entered is how many there were, by sock_diag; deaths tells
// what the kernel counts.
func checkTW(t testing.TB, l log, h *lab.Host, entered uint64, deaths bool) {
	t.Helper()
	c := testutil.Must1[lab.Counters](t)(h.Netstat())
	counted := int64(c["TW"] + c["TWKilled"])
	r := l.reconciled(t, h.Inode(), "TW")
	if deaths {
		counted = min(counted, r.Kernel) // more may have died since the run ended
	}
	if r.TWScope != int64(entered) || r.Kernel != counted || r.Difference != r.Kernel-r.TWScope {
		t.Errorf("%s: %+v, want %d by the kernel and %d by twscope", h.Name(), r, counted, entered)
	}
	if deaths {
		if r.Why == "" {
			t.Errorf("%s: %+v does not say that this kernel counts at expiry", h.Name(), r)
		}
	} else if r.Difference != 0 {
		t.Errorf("%s: %+v, want no difference", h.Name(), r)
	}
}

// States of sockets that are being closed, as in include/net/tcp_states.h.
const (
	finWait1  lab.State = 4
	closeWait lab.State = 8
	lastAck   lab.State = 9
)

// fast is a host that connects to itself, to so many addresses that its ports
// do not run out.
type fast struct {
	host    *lab.Host
	targets []netip.AddrPort
	before  lab.Counters
}

func newFast(t *testing.T) *fast {
	t.Helper()
	l := testutil.Must1[*lab.Lab](t)(lab.New(t.Context(), "fast", lab.Named()))
	t.Cleanup(func() { testutil.Must(t, l.Close()) })
	h := testutil.Must1[*lab.Host](t)(l.Host("host"))
	testutil.Must(t, h.Sysctl("net.ipv4.tcp_tw_reuse", "0")) // 2, the default, re-uses on loopback
	testutil.Must(t, h.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000"))
	sv := serve(t, h, lab.Server{Ports: 4})
	var addrs []netip.Addr
	for i := range 16 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)}))
	}
	return &fast{h, sv.Targets(addrs...), testutil.Must1[lab.Counters](t)(h.Netstat())}
}

// run makes connections as fast as it can, up to a rate per second.
func (f *fast) run(t *testing.T, n int, rate float64) *lab.Result {
	t.Helper()
	res := testutil.Must1[*lab.Result](t)(f.host.Run(t.Context(), lab.Load{
		Targets: f.targets, Connections: n, Concurrency: 2, Rate: rate, ClosesFirst: true, NoWait: true,
	}))
	if res.Connected != n {
		t.Fatalf("connected %d of %d: %v", res.Connected, n, res.Failed)
	}
	testutil.Eventually(t, deadline, func() bool {
		return len(testutil.Must1[[]lab.Socket](t)(f.host.Sockets(lab.Established, finWait1, closeWait, lastAck))) == 0
	}, "all connections are closed")
	return res
}

// entered is how many sockets have entered TIME_WAIT: by the kernel's counter
// where it counts that, else by sock_diag.
func (f *fast) entered(t *testing.T) uint64 {
	t.Helper()
	if countsDeaths(t) {
		return uint64(len(testutil.Must1[[]lab.Socket](t)(f.host.TimeWaits())))
	}
	grown := testutil.Must1[lab.Counters](t)(f.host.Netstat()).Since(f.before)
	return grown["TW"] + grown["TWKilled"]
}

// tally is what a log tells of one kind of event.
type tally struct {
	lines, lost, recursion uint64
	stop                   *event.Stop
}

// tallyOf counts the time_wait lines of a network namespace and the losses of
// such lines.
func tallyOf(t *testing.T, path string, netns uint64) tally {
	t.Helper()
	r := testutil.Must1[*eventlog.Reader](t)(eventlog.OpenReader(path, eventlog.ReadOptions{}))
	defer r.Close()
	var c tally
	for {
		ev, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return c
		}
		testutil.Must(t, err)
		switch e := ev.(type) {
		case *event.TimeWait:
			if uint64(e.NetNS) == netns {
				c.lines++
			}
		case *event.Loss:
			switch e.Hop {
			case "ring", "sample", "unseen":
				if e.Of == event.KindTimeWait.String() {
					c.lost += e.Count
				}
			case "recursion":
				c.recursion += e.Count
			default:
				t.Errorf("%+v, want only losses that the kernel side states", *e)
			}
		case *event.Stop:
			c.stop = e
		}
	}
}

// TestFullSpeed: every TIME_WAIT socket of a load at 20,000 connections per
// second is a line or a stated loss.
func TestFullSpeed(t *testing.T) {
	f := newFast(t)
	w := watch(t, func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		o.Filters.NetNS = []uint32{uint32(f.host.Inode())}
	})
	w.matrix(probe.TimeWait)
	res := f.run(t, few(200_000, 3_000), 20_000)
	entered := f.entered(t)
	w.end()
	c := tallyOf(t, w.path, f.host.Inode())
	t.Logf("%.0f connections/s: %d in TIME_WAIT, %d lines, lost %d to the ring; %d runs left out",
		res.Rate(), entered, c.lines, c.lost, c.recursion)
	c.check(t, f, entered)
}

// check holds lines and losses against the kernel, to the unit. Where the
// kernel counts deaths, what is missing is only bounded, by the runs that it
// left out.
func (c tally) check(t *testing.T, f *fast, entered uint64) {
	t.Helper()
	if told := c.lines + c.lost; told > entered || told+c.recursion < entered {
		t.Errorf("%d lines, %d lost and at most %d left out, the kernel counted %d", c.lines, c.lost, c.recursion, entered)
	}
	if c.stop == nil {
		t.Fatal("no stop event")
	}
	if countsDeaths(t) {
		return
	}
	got := log{c.stop}.reconciled(t, f.host.Inode(), "TW")
	if got.Kernel != int64(entered) || got.Difference < 0 || got.Difference > int64(c.lost) {
		t.Errorf("%+v, want %d by the kernel and a difference that is stated", got, entered)
	}
}

// TestRingOverflow: a ring of one page loses most of a burst, and says so.
func TestRingOverflow(t *testing.T) {
	f := newFast(t)
	w := watch(t, func(o *session.Options) {
		o.Kinds = session.DefaultKinds()
		o.RingBytes = uint32(os.Getpagesize())
		o.Filters.NetNS = []uint32{uint32(f.host.Inode())} // what others lose is not ours
	})
	w.matrix(probe.TimeWait)
	f.run(t, few(10_000, 2_000), 0)
	entered := f.entered(t)
	l := w.stop()
	c := tallyOf(t, w.path, f.host.Inode())
	if c.lost == 0 || c.lines == 0 {
		t.Errorf("%d lines and %d lost, want both", c.lines, c.lost)
	}
	c.check(t, f, entered)
	var ring uint64
	for _, e := range of(l, func(e *event.Loss) bool { return e.Hop == "ring" }) {
		ring += e.Count
	}
	if got := l.stopEvent(t).Lost["ring"]; got != ring || ring == 0 {
		t.Errorf("stop tells of %d lost to the ring, the loss events sum up to %d", got, ring)
	}
}
