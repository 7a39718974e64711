// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
)

func TestSustainable(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ports uint32
		share float64
		delay uint32
		want  float64
	}{
		{"no re-use", 28_232, 0, 1000, 470.53},
		{"few ports", 1000, 0, 1000, 16.67},
		{"re-use", 1000, 1, 1000, 1000},
		{"half can be re-used", 1000, 0.5, 1000, 32.79},
		{"slow re-use", 1000, 1, 30_000, 33.33},
		{"re-use at once", 1000, 1, 0, 1_000_000},
		{"none", 0, 0, 1000, 0},
	} {
		if got := sustainable(tt.ports, tt.share, tt.delay); math.Abs(got-tt.want) > 0.01 {
			t.Errorf("%s: %.2f, want %.2f", tt.name, got, tt.want)
		}
	}
}

// TestReuseFollowsSysctls: what is derived is right after each change.
func TestReuseFollowsSysctls(t *testing.T) {
	b := New(Options{HZ: 250})
	f := facts(10_000, 10_999)
	b.Namespace(netns, start, f)
	waits(b, 100, timestamps)
	at := start + seconds(0.4)
	check := func(name string, refused event.Refused, reusable, inMS, total uint32, rate float64) {
		t.Helper()
		d := only(t, b, at)
		if d.Refused != refused || d.Reusable != reusable || d.ReusableInMS != inMS || d.PortsTotal != total || math.Abs(d.SustainableRate-rate) > 0.01 {
			t.Errorf("%s: %+v", name, d)
		}
		if d.TimeWait != 100 || d.Timestamps != event.TimestampsYes {
			t.Errorf("%s: %d in TIME_WAIT, timestamps %d", name, d.TimeWait, d.Timestamps)
		}
	}
	check("off", event.Refused{Disabled: 100}, 0, 0, 1000, 16.67)
	f.TWReuse = 1
	b.Namespace(netns, at, f)
	check("on", event.Refused{TooYoung: 100}, 0, 601, 1000, 1000)
	f.ReuseDelayMS = 100
	b.Namespace(netns, at, f)
	check("a shorter delay", event.Refused{}, 100, 0, 1000, 10_000)
	f.ReuseDelayMS = 30_000
	b.Namespace(netns, at, f)
	check("a longer delay", event.Refused{TooYoung: 100}, 0, 29_601, 1000, 33.33)
	at += seconds(30)
	check("later", event.Refused{}, 100, 0, 1000, 33.33)
	f.RangeHigh = 10_499
	b.Namespace(netns, at, f)
	check("half the range", event.Refused{}, 100, 0, 500, 16.67)
	f.TWReuse = 2
	b.Namespace(netns, at, f)
	check("loopback only", event.Refused{LoopbackOnly: 100}, 0, 0, 500, 8.33)
}

func TestRates(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Jiffies(start, 1000)
	b.Namespace(netns, start, facts(10_000, 19_999))
	b.Opens(netns, start, nil)
	at := start
	for i := range 7000 { // 100 per second for 70 s
		at = start + int64(i)*10*msPerNS
		b.Enter(timeWait(at, client, uint16(10_000+i%7000), server))
		if i%100 == 0 { // and 50 that the peer closes, and 10 that are reset
			b.Closed(netns, at, client, server, uint64(i/2), uint64(i/10))
			b.Opens(netns, at, nil)
		}
	}
	d := only(t, b, at)
	for _, r := range []struct {
		name           string
		got, low, high float64
	}{
		{"rate", d.Rate, 155, 165},
		{"rate out", d.RateOut, 135, 185}, // TIME_WAIT ends in lumps
	} {
		if r.got < r.low || r.got > r.high {
			t.Errorf("%s is %.1f", r.name, r.got)
		}
	}
	if d.ClosedHere != 7000 || d.ClosedThere != 3450 || d.ClosedReset != 690 {
		t.Errorf("closed: %d here, %d there, %d by RST", d.ClosedHere, d.ClosedThere, d.ClosedReset)
	}
	b.Closed(netns, at, client, server, 5, 0) // the kernel side has begun anew
	b.Opens(netns, at+seconds(1), nil)
	if d := only(t, b, at+seconds(1)); d.Rate < 0 || d.Rate > 200 || d.ClosedThere != 5 {
		t.Errorf("after a new beginning: %.1f, %d", d.Rate, d.ClosedThere)
	}
	b.Opens(netns, at+seconds(20), nil)
	if d := only(t, b, at+seconds(20)); d.Rate != 0 {
		t.Errorf("rate of nothing is %.1f", d.Rate)
	}
}

// TestRateWhenDry: what succeeded until just now is not counted with what fails.
func TestRateWhenDry(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_099))
	for i := range 100 { // 20 a second
		b.Enter(timeWait(start+seconds(float64(i)/20), client, uint16(10_000+i), server))
	}
	if d := only(t, b, start+seconds(5)); d.Rate < 18 || d.Rate > 22 {
		t.Errorf("rate %g, want 20", d.Rate)
	}
	for i := range 60 {
		b.Fail(fail(start + seconds(5+float64(i)/20)))
	}
	for at := 8.0; at < 20; at += 0.25 {
		if d := only(t, b, start+seconds(at)); d.Rate != 0 {
			t.Fatalf("rate %g at %g s, after %g s without a connection, want 0", d.Rate, at, at-5)
		}
	}
	for i := range 100 {
		b.Enter(timeWait(start+seconds(20+float64(i)/20), client, uint16(11_000+i), server))
	}
	if d := only(t, b, start+seconds(25)); d.Rate < 10 || d.Rate > 22 {
		t.Errorf("rate %g of what succeeds again, want 20 soon", d.Rate)
	}
}

// TestOrder: the order of the list is total, and failures come first.
func TestOrder(t *testing.T) {
	for shift := range 5 {
		b := New(Options{})
		b.Namespace(netns, start, facts(10_000, 19_999))
		for k := range 5 {
			i := (k + shift) % 5
			for p := range 10 * (i/2 + 1) { // two have as many each
				b.Enter(timeWait(start, client, uint16(10_000+p), port(server, uint16(80+i))))
			}
		}
		e := fail(start)
		e.Remote = port(server, 80)
		b.Fail(e)
		var got []uint16
		all := b.Budgets(start+1, 5)
		for _, d := range all.List {
			got = append(got, d.Rport)
		}
		if want := []uint16{80, 84, 82, 83, 81}; !slices.Equal(got, want) || all.Omitted != 0 {
			t.Errorf("order %d, want %d; %d omitted", got, want, all.Omitted)
		}
		few := b.Budgets(start+1, 2)
		if len(few.List) != 2 || few.List[0].Rport != 80 || few.List[1].Rport != 84 || few.Omitted != 3 {
			t.Errorf("of two: %+v", few)
		}
		if none := b.Budgets(start+1, 0); len(none.List) != 0 || none.Omitted != 5 {
			t.Errorf("of none: %+v", none)
		}
		if old := b.Budgets(start+seconds(200), 5); len(old.List)+int(old.Omitted) != 0 {
			t.Errorf("after minutes of silence: %+v", old)
		}
	}
}

func TestUnknown(t *testing.T) {
	words := func(b *Book, at int64) string { return strings.Join(only(t, b, at).Unknown, "; ") }
	b := New(Options{HZ: 250})
	b.Enter(timeWait(start, client, 10_000, server))
	for _, part := range []string{"port range", "tcp_tw_reuse", "ports in use", "within 2.048s"} {
		if got := words(b, start); !strings.Contains(got, part) {
			t.Errorf("%q says nothing of %q", got, part)
		}
	}
	b.Namespace(netns, start, facts(10_000, 10_999))
	b.Opens(netns, start, nil)
	b.Jiffies(start, 5)
	if got := words(b, start); got != "" {
		t.Errorf("all is known, but: %s", got)
	}
	e := timeWait(start, client, 10_001, server)
	e.Substate, e.TimeoutMS = event.SubstateFinWait2, 10_000
	b.Enter(e)
	if got := words(b, start+seconds(1)); !strings.Contains(got, "tcp_fin_timeout") {
		t.Errorf("nothing of FIN_WAIT2: %s", got)
	}
	b = New(Options{HZ: 250, Unfed: []string{"the half of it"}})
	b.Enter(timeWait(start, client, 10_000, server))
	if got := words(b, start); !strings.Contains(got, "the half of it") {
		t.Errorf("%q does not say what the book is not fed", got)
	}
}

// TestBlocked: a port that is bound counts for the destination that holds it,
// and is lost to all others.
func TestBlocked(t *testing.T) {
	b := New(Options{HZ: 250})
	f := facts(10_000, 10_099)
	f.Blocked = portSet(10_095, 10_120) // 5 in the range
	b.Namespace(netns, start, f)
	other := port(server, 99)
	for i := range 20 {
		e := timeWait(start, client, uint16(10_000+i), server)
		e.Bound = true
		b.Enter(e)
	}
	b.Enter(timeWait(start, client, 10_050, other))
	b.Enter(timeWait(start, client, 9_000, other)) // out of the range, but there
	for _, d := range b.Budgets(start, 2).List {
		total, blocked, bound, waiting := uint32(95), uint32(5), uint32(20), uint32(20)
		if d.Rport == 99 {
			total, blocked, bound, waiting = 75, 25, 0, 2
		}
		if d.PortsTotal != total || d.PortsBlocked != blocked || d.Bound != bound || d.TimeWait != waiting {
			t.Errorf("port %d: %d of %d blocked, %d bound, %d in TIME_WAIT", d.Rport, d.PortsBlocked, d.PortsTotal, d.Bound, d.TimeWait)
		}
		if d.Rport == server.Port() && d.Reusable+d.Refused.NoTimestamps != 0 {
			t.Errorf("connect() does not come as far as asking for a bound port: %+v", d)
		}
	}
	if d := b.Budgets(start+seconds(70), 2).List; d[0].PortsTotal != 95 || d[1].PortsTotal != 95 {
		t.Errorf("after TIME_WAIT the ports are still blocked: %+v", d)
	}
}

// TestRecountKeepsBound: a census does not show that a port was bound.
func TestRecountKeepsBound(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_009))
	e := timeWait(start, client, 10_000, server)
	e.Bound = true
	b.Enter(e)
	at := start + seconds(1)
	b.BeginRecount(netns, at)
	c := &event.Census{Header: event.Header{Time: at}, Role: event.RoleClient, RemainingMS: timeWaitLen - 1000}
	c.Socket = e.Socket
	b.Census(c)
	if n := b.EndRecount(netns); n != 0 {
		t.Errorf("%d removed", n)
	}
	other := fail(at)
	other.Remote = port(server, 81)
	b.Fail(other)
	if d := b.Budgets(at, 2).List; d[1].Bound != 1 || d[0].PortsBlocked != 1 {
		t.Errorf("%+v", d)
	}
}

// TestRoles: a server's sockets count in TimeWait and in no budget.
func TestRoles(t *testing.T) {
	b := New(Options{HZ: 250})
	f := facts(10_000, 10_099)
	f.Blocked = portSet(10_080, 10_080)
	b.Namespace(netns, start, f)
	for i, tt := range []struct {
		role  event.Role
		lport uint16
		own   bool
	}{
		{event.RoleServer, 10_001, false},
		{event.RoleClient, 80, true},
		{event.RoleUnknown, 443, false},
		{event.RoleUnknown, 10_080, false}, // listens
		{event.RoleUnknown, 10_002, true},
	} {
		e := timeWait(start, client, tt.lport, port(server, uint16(1000+i)))
		e.Role = tt.role
		b.Enter(e)
		own := slices.ContainsFunc(b.Budgets(start, 10).List, func(d event.Destination) bool { return d.Rport == uint16(1000+i) })
		if own != tt.own {
			t.Errorf("role %d, port %d: budget %t", tt.role, tt.lport, own)
		}
		if n := b.TimeWait(netns, start); n != uint32(i+1) {
			t.Errorf("%d in TIME_WAIT, want %d", n, i+1)
		}
	}
	// an end finds a server's socket as well
	leave := &event.TimeWaitEnd{Header: event.Header{Time: start}}
	leave.NetNS, leave.Local, leave.Remote = netns, netipPort(443), port(server, 1002)
	b.Leave(leave)
	if n := b.TimeWait(netns, start+seconds(1)); n != 4 || b.Counters().Unmatched != 0 {
		t.Errorf("%d in TIME_WAIT after an end", n)
	}
}

// TestAddresses: IPv4-mapped addresses are IPv4, others are told apart.
func TestAddresses(t *testing.T) {
	b := New(Options{})
	b.Namespace(netns, start, facts(10_000, 10_999))
	mapped := netip.MustParseAddrPort("[::ffff:10.0.0.2]:8080")
	b.Enter(timeWait(start, client, 10_000, server))
	b.Enter(timeWait(start, netip.MustParseAddr("::ffff:10.0.0.1"), 10_001, mapped))
	b.Enter(timeWait(start, netip.MustParseAddr("2001:db8::1"), 10_000, netip.MustParseAddrPort("[2001:db8::2]:8080")))
	b.Enter(timeWait(start, netip.MustParseAddr("10.0.0.3"), 10_000, server))
	l := b.Budgets(start, 10).List
	if len(l) != 3 || l[0].TimeWait != 2 || l[0].Laddr != client || l[0].Raddr != server.Addr() {
		t.Errorf("%+v", l)
	}
}

// TestOwner: who opens most is told, and a new owner takes over.
func TestOwner(t *testing.T) {
	b := New(Options{})
	b.Namespace(netns, start, facts(10_000, 60_000))
	n := uint16(10_000)
	cast := func(pid uint32, comm string, times int) {
		for range times {
			e := timeWait(start, client, n, server)
			e.Owner = event.Owner{PID: pid, Comm: comm}
			b.Enter(e)
			n++
		}
	}
	cast(1, "wrk", 60)
	cast(2, "curl", 30)
	cast(0, "", 100) // not known
	if d := only(t, b, start); d.PID != 1 || d.Comm != "wrk" {
		t.Errorf("owner is %s[%d]", d.Comm, d.PID)
	}
	cast(1, "wrk", 20_000)
	cast(2, "curl", 2*maxVotes)
	if d := only(t, b, start+int64(time.Second)); d.PID != 2 || d.Comm != "curl" {
		t.Errorf("owner is %s[%d]", d.Comm, d.PID)
	}
}

// TestOwnerOfManyProcesses: of a program that is run anew for each connection
// the name is told, and no process.
func TestOwnerOfManyProcesses(t *testing.T) {
	for _, tt := range []struct {
		name      string
		processes uint32 // of curl, that open a connection each
		other     int    // connections of one process of another program, afterwards
		pid       uint32
		comm      string
	}{
		{"one", 1, 0, 100, "curl"},
		{"many", 60, 0, 0, "curl"},
		{"many, and fewer of another", 60, 30, 0, "curl"},
		{"many, and more of another", 60, 130, 7, "wrk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := New(Options{})
			b.Namespace(netns, start, facts(10_000, 60_000))
			port := uint16(10_000)
			open := func(pid uint32, comm string) {
				e := timeWait(start, client, port, server)
				e.Owner = event.Owner{PID: pid, Comm: comm}
				b.Enter(e)
				port++
			}
			for i := range tt.processes {
				open(100+i, "curl")
			}
			for range tt.other {
				open(7, "wrk")
			}
			if d := only(t, b, start); d.PID != tt.pid || d.Comm != tt.comm {
				t.Errorf("owner is %s[%d], want %s[%d]", d.Comm, d.PID, tt.comm, tt.pid)
			}
		})
	}
}
