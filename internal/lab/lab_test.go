// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/testutil"
)

// footprint is what a lab could leave behind in this process and its namespace.
type footprint struct {
	fds        int
	links      []string
	namespaces []uint64 // of all threads
}

func takeFootprint(t *testing.T) footprint {
	t.Helper()
	var f footprint
	f.fds = len(testutil.Must1[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")))
	for _, i := range testutil.Must1[[]net.Interface](t)(net.Interfaces()) {
		f.links = append(f.links, i.Name)
	}
	for _, task := range testutil.Must1[[]os.DirEntry](t)(os.ReadDir("/proc/self/task")) {
		inode, err := inodeOf("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && !slices.Contains(f.namespaces, inode) {
			f.namespaces = append(f.namespaces, inode)
		}
	}
	return f
}

// busyLab builds a lab with something of everything, running.
func busyLab(ctx context.Context, t *testing.T, name string) *Lab {
	t.Helper()
	l := testutil.Must1[*Lab](t)(New(ctx, name))
	hosts := testutil.Must1[[]*Host](t)(l.Hosts("client", "gw", "server"))
	inner := testutil.Must1[*Link](t)(l.Link(ctx, hosts[0], hosts[1], "10.1.0.0/24"))
	outer := testutil.Must1[*Link](t)(l.Link(ctx, hosts[1], hosts[2], "10.2.0.0/24"))
	testutil.Must(t, hosts[0].Route("0.0.0.0/0", inner.B.Addr4()))
	testutil.Must(t, hosts[1].Forward())
	testutil.Must(t, hosts[1].Masquerade(&outer.A, MasqOptions{}))
	testutil.Must1[*Capture](t)(outer.B.Capture())
	sv := serve(t, hosts[2], Server{ClosesFirst: true, Ports: 2})
	testutil.Must1[*Process](t)(hosts[2].Spawn(ctx, Program{Comm: "idle", Server: &Server{}}))
	res := run(t, hosts[0], Load{Targets: sv.Targets(outer.B.Addr4()), Connections: 4})
	if res.Connected != 4 {
		t.Fatalf("%+v, want 4 connected", res)
	}
	testutil.Must1[*Conn](t)(hosts[0].Connect(Dial{}, sv.Targets(outer.B.Addr4())[0])).Close()
	return l
}

func TestNothingIsLeft(t *testing.T) {
	testutil.Root(t)
	testutil.Must(t, busyLab(t.Context(), t, "warm-up").Close()) // the Go runtime keeps some descriptors from here on
	var before footprint
	testutil.Eventually(t, waitLimit, func() bool {
		before = takeFootprint(t)
		return len(before.namespaces) == 1
	}, "the threads of the first lab have ended")
	for _, tc := range []struct {
		name string
		end  func(l *Lab, cancel func())
	}{
		{"close", func(l *Lab, _ func()) { testutil.Must(t, l.Close()) }},
		{"close twice", func(l *Lab, _ func()) { testutil.Must(t, l.Close()); testutil.Must(t, l.Close()) }},
		{"context ends", func(_ *Lab, cancel func()) { cancel() }},
		{"panic", func(l *Lab, _ func()) {
			defer func() { _ = recover() }()
			defer l.Close()
			_ = l.hosts[0].Do(func() error { panic("in the namespace") })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tc.end(busyLab(ctx, t, "leaves-nothing"), cancel)
			var after footprint
			defer func() {
				if t.Failed() {
					t.Logf("before %+v, after %+v", before, after)
				}
			}()
			testutil.Eventually(t, waitLimit, func() bool {
				after = takeFootprint(t)
				return after.fds <= before.fds && slices.Equal(after.links, before.links) &&
					slices.Equal(after.namespaces, before.namespaces)
			}, "no descriptors, links or namespaces left")
		})
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	testutil.Root(t)
	a, b := busyLab(t.Context(), t, "one"), busyLab(t.Context(), t, "two")
	defer b.Close()
	if a.Name() == b.Name() || !strings.HasPrefix(a.Name(), "twscope-") {
		t.Errorf("names %q and %q", a.Name(), b.Name())
	}
	testutil.Must(t, a.Close())
	if inode := b.hosts[0].Inode(); inode == 0 || timeWaits(t, b.hosts[2]) == nil {
		t.Errorf("lab two has suffered from the end of lab one")
	}
}

func TestNamed(t *testing.T) {
	l := newLab(t, Named())
	h := testutil.Must1[*Host](t)(l.Host("client"))
	path := filepath.Join(netnsDir, l.Name()+"-client")
	if got := testutil.Must1[uint64](t)(inodeOf(path)); got != h.Inode() {
		t.Errorf("%s is namespace %d, want %d", path, got, h.Inode())
	}
	testutil.Must(t, l.Close())
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

// The context of a test ends before its cleanups, so Close often comes second.
func TestCloseWaitsForTheEndOfTheContext(t *testing.T) {
	testutil.Root(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		l := testutil.Must1[*Lab](t)(New(ctx, "twice", Named()))
		testutil.Must1[[]*Host](t)(l.Hosts("a", "b", "c"))
		names := testutil.Must1[[]string](t)(filepath.Glob("/run/netns/" + l.Name() + "-*"))
		cancel()
		testutil.Must(t, l.Close())
		for _, name := range names {
			if _, err := os.Stat(name); !os.IsNotExist(err) {
				t.Fatalf("%s is still there: %v", name, err)
			}
		}
	}
}

// TestDoWhileClosing: who comes too late is told so.
func TestDoWhileClosing(t *testing.T) {
	l, hosts := newHosts(t, "a")
	began, ended := make(chan struct{}), make(chan error)
	go func() {
		err := hosts[0].Do(func() error { return nil })
		close(began)
		for err == nil {
			err = hosts[0].Do(func() error { return nil })
		}
		ended <- err
	}()
	<-began
	testutil.Must(t, l.Close())
	if err := <-ended; !strings.Contains(err.Error(), "the lab is closed") {
		t.Error(err)
	}
}

func TestHostsAreRefused(t *testing.T) {
	l := newLab(t)
	testutil.Must1[*Host](t)(l.Host("a"))
	for _, name := range []string{"", "a", "x/y", "x y"} {
		if _, err := l.Host(name); err == nil {
			t.Errorf("host %q was made", name)
		}
	}
	testutil.Must(t, l.Close())
	if _, err := l.Host("b"); err == nil {
		t.Error("a closed lab made a host")
	}
}

func TestDo(t *testing.T) {
	_, hosts := newHosts(t, "a", "b")
	outside := testutil.Must1[uint64](t)(inodeOf("/proc/self/ns/net"))
	for _, h := range hosts {
		var inside uint64
		testutil.Must(t, h.Do(func() (err error) { inside, err = inodeOf("/proc/thread-self/ns/net"); return err }))
		if inside != h.Inode() || inside == outside {
			t.Errorf("host %s: Do ran in %d, want %d", h.Name(), inside, h.Inode())
		}
	}
	if err := hosts[0].Do(func() error { runtime.Goexit(); return nil }); err != errGoexit { //nolint:errorlint // the sentinel itself
		t.Errorf("Goexit: error %v", err)
	}
	defer func() {
		if r := recover(); !strings.Contains(fmt.Sprint(r), "as told") {
			t.Errorf("recovered %v, want the panic of the function", r)
		}
		if now := testutil.Must1[uint64](t)(inodeOf("/proc/thread-self/ns/net")); now != outside {
			t.Errorf("this goroutine is in namespace %d, want %d", now, outside)
		}
	}()
	_ = hosts[0].Do(func() error { panic("as told") })
}

func TestSysctlStaysInside(t *testing.T) {
	l, hosts := newHosts(t, "a", "b")
	const name, path = "net.ipv4.tcp_fin_timeout", "/proc/sys/net/ipv4/tcp_fin_timeout"
	outside := testutil.Must1[[]byte](t)(os.ReadFile(path))
	testutil.Must(t, hosts[0].Sysctl(name, "17"))
	if got := testutil.Must1[string](t)(hosts[0].ReadSysctl(name)); got != "17" {
		t.Errorf("host a has %s, want 17", got)
	}
	if got := testutil.Must1[string](t)(hosts[1].ReadSysctl(name)); got == "17" {
		t.Error("host b has the value of host a")
	}
	if got := testutil.Must1[[]byte](t)(os.ReadFile(path)); string(got) != string(outside) {
		t.Errorf("outside it is %s now, was %s", got, outside)
	}
	// A host that wrongly holds the outer namespace must not be able to change it.
	ns := testutil.Must1[*os.File](t)(os.Open("/proc/self/ns/net"))
	defer ns.Close()
	wrong := &Host{lab: l, name: "wrong", ns: ns, inode: testutil.Must1[uint64](t)(inodeOf("/proc/self/ns/net"))}
	if err := wrong.Sysctl(name, strings.TrimSpace(string(outside))); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("writing in the outer namespace: %v, want a refusal", err)
	}
	for _, bad := range []string{"kernel.hostname", "net.ipv4/../../kernel", "net..x", "net.ipv4.no_such", ""} {
		if err := hosts[0].Sysctl(bad, "1"); err == nil {
			t.Errorf("sysctl %q was written", bad)
		}
	}
}

func TestListenAndDial(t *testing.T) {
	p := newPair(t)
	for _, addr := range []netip.Addr{p.link.B.Addr4(), p.link.B.Addr6()} {
		ln := testutil.Must1[net.Listener](t)(p.server.Listen(t.Context(), netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
		port := netip.MustParseAddrPort(ln.Addr().String()).Port()
		c := testutil.Must1[net.Conn](t)(p.client.Dial(t.Context(), netip.AddrPortFrom(addr, port)))
		in := testutil.Must1[net.Conn](t)(ln.Accept())
		if c.LocalAddr().String() != in.RemoteAddr().String() {
			t.Errorf("client is %s, server sees %s", c.LocalAddr(), in.RemoteAddr())
		}
		testutil.Must(t, c.Close())
		testutil.Must(t, in.Close())
		testutil.Must(t, ln.Close())
	}
}

func TestMoreAddresses(t *testing.T) {
	p := newPair(t)
	testutil.Must(t, p.link.A.AddAddr("10.1.0.77/24"))
	testutil.Must(t, p.link.A.AddAddr("fd00:1::77/64"))
	testutil.Must(t, p.client.AddLoopback("fd00:2::1/128"))
	sv := serve(t, p.server, Server{})
	for _, tc := range []struct{ local, remote netip.Addr }{
		{netip.MustParseAddr("10.1.0.77"), p.link.B.Addr4()},
		{netip.MustParseAddr("fd00:1::77"), p.link.B.Addr6()},
	} {
		c := testutil.Must1[*Conn](t)(p.client.Connect(Dial{LocalAddr: tc.local, NoPort: true}, sv.Targets(tc.remote)[0]))
		if got := c.Local().Addr(); got != tc.local {
			t.Errorf("connected from %s, want %s", got, tc.local)
		}
		testutil.Must(t, c.Close())
	}
}

func TestWrongAddressesAndRoutes(t *testing.T) {
	p := newPair(t)
	for name, err := range map[string]error{
		"address": p.link.A.AddAddr("10.1.0"), "loopback": p.client.AddLoopback("x/8"),
		"route": p.client.Route("default", p.link.B.Addr4()), "next hop": p.client.Route("10.9.0.0/24", netip.MustParseAddr("10.8.0.1")),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	l := p.client.lab
	if _, err := l.Link(t.Context(), p.client, p.server, "10.1.0.0"); err == nil {
		t.Error("a link with a malformed subnet was made")
	}
}
