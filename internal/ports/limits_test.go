// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/event"
)

// remote returns one of 16 million destinations.
func remote(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), 443)
}

func TestDestinationsAreBounded(t *testing.T) {
	const most = 100
	b := New(Options{MaxDestinations: most, HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_999))
	for i := range most {
		b.Enter(timeWait(start+int64(i)*msPerNS, client, 10_000, remote(i)))
	}
	// all are busy: whoever comes counts, without a budget
	at := start + seconds(1)
	for i := range 50 {
		b.Enter(timeWait(at, client, 10_000, remote(1000+i)))
	}
	c := b.Counters()
	if c.Destinations != most || c.Evicted != 0 || c.Crowded != 50 || b.TimeWait(netns, at) != most+50 {
		t.Fatalf("%+v, %d in TIME_WAIT", c, b.TimeWait(netns, at))
	}
	e := fail(at)
	e.Remote = remote(2000)
	if b.Fail(e); e.Cause != event.CauseOther {
		t.Errorf("cause of a destination without a budget is %d", e.Cause)
	}
	// one of those keeps its connections open, another is used again
	at = start + seconds(100)
	b.Opens(netns, at, []Open{{Local: netipPort(10_500), Remote: remote(0), Role: event.RoleClient}})
	b.Enter(timeWait(at, client, 10_001, remote(1)))
	for i := range 99 {
		b.Enter(timeWait(at, client, 10_000, remote(3000+i)))
	}
	got := b.Budgets(at, most)
	if c := b.Counters(); c.Destinations != most || c.Evicted != 99 || got.Evicted != 99 {
		t.Errorf("%+v", c)
	}
	for _, d := range got.List {
		if d.Raddr == remote(2).Addr() {
			t.Error("the idlest was kept")
		}
	}
	if n := b.TimeWait(netns, at); n != 100 {
		t.Errorf("%d in TIME_WAIT, want 100", n)
	}
	if n := b.TimeWait(netns, at+seconds(70)); n != 0 || b.table.used > 1 {
		t.Errorf("%d in TIME_WAIT, %d sockets at the end", n, b.table.used)
	}
}

func TestCrowdedIsSaid(t *testing.T) {
	b := New(Options{MaxDestinations: 1, HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_999))
	b.Jiffies(start, 1)
	b.Opens(netns, start, nil)
	b.Enter(timeWait(start, client, 10_000, server))
	b.Enter(timeWait(start+seconds(30), client, 10_000, remote(1))) // no place
	b.Enter(timeWait(start+seconds(65), client, 10_001, remote(1))) // a place
	if d := only(t, b, start+seconds(65)); d.Raddr != remote(1).Addr() || d.TimeWait != 1 || len(d.Unknown) != 1 {
		t.Errorf("%+v", d)
	}
	if d := only(t, b, start+seconds(100)); len(d.Unknown) != 0 {
		t.Errorf("what had no place is over, but: %q", d.Unknown)
	}
}

func TestNamespacesAreBounded(t *testing.T) {
	b := New(Options{})
	for i := range uint32(maxNamespaces + 10) {
		e := timeWait(start, client, 10_000, server)
		e.NetNS = i
		b.Enter(e)
	}
	if c := b.Counters(); len(b.namespaces) != maxNamespaces || c.Ignored != 10 || c.Sockets != maxNamespaces {
		t.Errorf("%d namespaces, %+v", len(b.namespaces), c)
	}
	for i := range uint32(maxNamespaces + 10) {
		b.Forget(i)
	}
	if c := b.Counters(); c.Sockets != 0 || c.Destinations != 0 || len(b.namespaces) != 0 || b.recent != (lru{}) {
		t.Errorf("after all is forgotten: %+v", c)
	}
	b.Enter(timeWait(start, client, 10_000, server))
	if b.TimeWait(netns, start) != 1 {
		t.Error("a namespace that is back is not taken")
	}
}

// TestHostile: nothing of this may panic or stay for ever.
func TestHostile(t *testing.T) {
	b := New(Options{HZ: 250, MaxDestinations: 10})
	f := facts(0, 65535)
	f.TWReuse, f.ReuseDelayMS = 77, math.MaxUint32
	b.Namespace(netns, math.MinInt64, f)
	at := []int64{start, math.MinInt64, 0, start - seconds(86400*30), start + 1, -1}
	locals := []netip.AddrPort{{}, netipPort(0), netipPort(10_000), netip.MustParseAddrPort("[fe80::1%eth0]:5")}
	for _, time := range at {
		for _, l := range locals {
			for _, r := range append(locals, server) {
				s := event.Socket{NetNS: netns, Local: l, Remote: r}
				h := event.Header{Time: time}
				b.Leave(&event.TimeWaitEnd{Header: h, Socket: s, Reason: 99, AgeMS: math.MaxUint32})
				b.Reuse(&event.TWReuse{Header: h, Socket: s})
				b.Enter(&event.TimeWait{Header: h, Socket: s, Role: 99, Substate: 99, TimeoutMS: math.MaxUint32})
				b.Enter(&event.TimeWait{Header: h, Socket: s, Role: event.RoleClient})
				b.Census(&event.Census{Header: h, Socket: s, RemainingMS: math.MaxUint32, Reuse: event.ReuseRefusedTooYoung, ReuseInMS: math.MaxUint32})
				b.Fail(&event.ConnectFail{Header: h, Socket: s, Errno: eADDRNOTAVAIL, RangeLow: 9, RangeHigh: 8, PerCall: 255})
				b.Closed(netns, time, l.Addr(), r, math.MaxUint64, 0)
				b.Opens(netns, time, []Open{{Local: l, Remote: r}, {Local: l, Remote: r, Role: 99, Bound: true}})
			}
		}
		b.Budgets(time, 5)
		b.Jiffies(time, math.MaxUint64)
	}
	b.EndRecount(netns)
	b.EndRecount(12345)
	b.Opens(netns, start+seconds(1), nil)
	end := start + seconds(300)
	if n := b.TimeWait(netns, end); n != 0 {
		t.Errorf("%d stay for ever", n)
	}
	if c := b.Counters(); c.Ignored == 0 || c.Sockets != 0 {
		t.Errorf("%+v", c)
	}
	b.Enter(timeWait(math.MaxInt64, client, 10_000, server))
	if n := b.TimeWait(netns, math.MaxInt64); n != 1 {
		t.Errorf("at the end of time: %d", n)
	}
}

// TestLongSilence: after a time in which nothing was fed, all is over, however
// long it was.
func TestLongSilence(t *testing.T) {
	for _, days := range []float64{0.001, 1, 24.9, 30, 49.8, 400} {
		b := New(Options{HZ: 250})
		b.Namespace(netns, start, Facts{RangeLow: 10_000, RangeHigh: 10_999, TWReuse: 1, ReuseDelayMS: 1000})
		waits(b, 100, timestamps)
		opens(b, 10_500, 10, server, false)
		at := start + seconds(days*86400)
		if n := b.TimeWait(netns, at); n != 0 {
			t.Errorf("after %v days: %d in TIME_WAIT", days, n)
		}
		b.Opens(netns, at, nil)
		if c := b.Counters(); c.Sockets != 0 {
			t.Errorf("after %v days: %+v", days, c)
		}
		b.Enter(timeWait(at, client, 10_000, server))
		if b.TimeWait(netns, at+seconds(59)) != 1 || b.TimeWait(netns, at+seconds(63)) != 0 {
			t.Errorf("after %v days: TIME_WAIT has another length", days)
		}
	}
}

// TestBackwards: events that are a little late count as they are.
func TestBackwards(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Jiffies(start, 4)
	b.Namespace(netns, start, facts(10_000, 10_999))
	for i := range 1000 {
		b.Enter(timeWait(start+int64(i%7)*50*msPerNS, client, uint16(10_000+i), server))
	}
	if n := b.TimeWait(netns, start); n != 1000 {
		t.Errorf("%d in TIME_WAIT", n)
	}
	if n := b.TimeWait(netns, start+seconds(59.9)); n != 1000 {
		t.Errorf("%d in TIME_WAIT", n)
	}
	if n := b.TimeWait(netns, start+seconds(62.5)); n != 0 {
		t.Errorf("%d in TIME_WAIT", n)
	}
}

// TestEnds: with Options.Ends a socket stays until its end is told, and not
// much longer.
func TestEnds(t *testing.T) {
	b := New(Options{HZ: 250, Ends: true})
	b.Jiffies(start, 4)
	b.Namespace(netns, start, facts(10_000, 10_999))
	waits(b, 10, nil)
	at := start + seconds(62.5)
	if n := b.TimeWait(netns, at); n != 10 {
		t.Errorf("%d in TIME_WAIT before an end is told", n)
	}
	leave := &event.TimeWaitEnd{Header: event.Header{Time: at}}
	leave.NetNS, leave.Local, leave.Remote = netns, netipPort(10_000), server
	b.Leave(leave)
	b.Leave(leave)
	if n := b.TimeWait(netns, at); n != 9 || b.Counters().Unmatched != 1 {
		t.Errorf("%d in TIME_WAIT after one end", n)
	}
	if n := b.TimeWait(netns, at+int64(EndGrace)); n != 0 || b.Counters().Overdue != 9 {
		t.Errorf("%d in TIME_WAIT of which no end was told", n)
	}
}

// FuzzBook plays any sequence of events; whatever it is, the counts are those
// of the sockets that the book holds, and in the end nothing is left.
func FuzzBook(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23})
	f.Add([]byte{8, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 2, 0, 0, 0, 0, 3, 9, 9, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		b := New(Options{HZ: 250, MaxDestinations: 3, Ends: len(in)%2 == 0})
		at := start
		for len(in) >= 8 {
			op, x, y, z := in[0], in[1], in[2], in[3]
			at += int64(int16(binary.LittleEndian.Uint16(in[4:]))) * int64(in[6]) * int64(in[7]) * 1000
			in = in[8:]
			at = max(at, start-seconds(10))
			playByte(b, at, op, x, y, z)
			checkCounts(t, b)
		}
		at = max(b.now, at) + seconds(200)
		b.advance(at)
		for id := range uint32(3) {
			b.Opens(id, at, nil)
			b.Opens(id, at+1e9, nil)
		}
		if c := b.Counters(); c.Sockets != 0 {
			t.Fatalf("%d sockets are left", c.Sockets)
		}
		checkCounts(t, b)
	})
}

func playByte(b *Book, at int64, op, x, y, z byte) {
	s := event.Socket{
		NetNS: uint32(x % 3), Local: netipPort(uint16(9_990 + int(y)%40)), Remote: port(server, uint16(1+z%8)),
	}
	h := event.Header{Time: at}
	flag := x&64 != 0
	switch op % 12 {
	case 0, 1, 2:
		b.Enter(&event.TimeWait{Header: h, Socket: s, Role: event.Role(x >> 4 % 3), Substate: event.Substate(y >> 7), Timestamps: flag, Bound: z > 200, TimeoutMS: uint32(y) * 300})
	case 3:
		b.Leave(&event.TimeWaitEnd{Header: h, Socket: s, Reason: event.EndReason(y % 6)})
	case 4:
		b.Reuse(&event.TWReuse{Header: h, Socket: s})
	case 5:
		b.Census(&event.Census{Header: h, Socket: s, Role: event.Role(x >> 4 % 3), Timestamps: flag, Bound: z > 200, RemainingMS: uint32(y) * 300, Reuse: event.Reusable(z % 6), ReuseInMS: uint32(y)})
	case 6:
		s.Local = netipPort(uint16(y%2) * 9_995)
		b.Fail(&event.ConnectFail{Header: h, Socket: s, Errno: eADDRNOTAVAIL, RangeLow: uint16(z) * 100, RangeHigh: uint16(z)*100 + 99, PerCall: y % 4})
	case 7:
		b.Opens(s.NetNS, at, []Open{
			{Local: s.Local, Remote: s.Remote, Role: event.Role(x >> 4 % 3), Bound: z > 200},
			{Local: netipPort(10_000), Remote: s.Remote, Role: event.RoleClient, Bound: flag},
		})
	case 8:
		f := facts(uint16(9_990+int(y)%10), uint16(9_990+int(z)%40))
		f.TWReuse, f.ReuseDelayMS = int(y%4)-1, uint32(z)*200
		if flag {
			f.Reserved, f.Blocked = portSet(9_999, 10_001), portSet(10_001, 10_003)
		}
		b.Namespace(s.NetNS, at, f)
	case 9:
		b.Budgets(at, int(y%4))
		b.Urgent(at)
		b.Jiffies(at, uint64(z)<<20)
	case 10:
		if b.BeginRecount(s.NetNS, at); flag {
			b.EndRecount(s.NetNS)
		}
		b.Closed(s.NetNS, at, client, s.Remote, uint64(y), uint64(z))
	case 11:
		if y == 0 {
			b.Forget(s.NetNS)
		}
	}
}

// checkCounts counts all sockets anew.
func checkCounts(t *testing.T, b *Book) {
	t.Helper()
	type sum struct{ wait, waitIn, open, openIn, bound, boundIn, young, untimed, finWait2, ends uint32 }
	want, have := map[uint32]sum{}, map[uint32]sum{}
	held := map[*namespace]map[uint16]bool{}
	used := 0
	for i := uint32(1); i < b.table.top; i++ {
		s := b.table.at(i)
		if s.dest == 0 {
			continue
		}
		used++
		d := b.dests[s.dest]
		w, in := want[s.dest], d.ns.inSet(s.port) && !d.pseudo
		if s.flags&flagOpen != 0 {
			w.open++
			if in {
				w.openIn++
			}
		} else {
			w.wait++
			if in {
				w.waitIn++
				w.ends++
			}
		}
		if s.flags&flagBound != 0 {
			w.bound++
			if in {
				w.boundIn++
			}
			if held[d.ns] == nil {
				held[d.ns] = map[uint16]bool{}
			}
			held[d.ns][s.port] = true
		} else if s.flags&(flagOpen|flagTagged) == 0 {
			switch {
			case s.flags&flagFinWait2 != 0:
				w.finWait2++
			case s.flags&flagTimestamps == 0:
				w.untimed++
			case s.flags&flagYoung != 0:
				w.young++
			}
		}
		want[s.dest] = w
	}
	for _, d := range b.dests {
		if d == nil {
			continue
		}
		s := sum{d.timeWait, d.timeWaitIn, d.open, d.openIn, d.bound, d.boundIn, d.young, d.untimed, d.finWait2, 0}
		for _, ends := range &d.ends {
			for _, n := range ends {
				s.ends += uint32(n)
			}
		}
		if s != (sum{}) {
			have[d.id] = s
		}
	}
	if len(want) != len(have) || used != b.table.used {
		t.Fatalf("%d destinations with %d sockets, want %d with %d", len(have), b.table.used, len(want), used)
	}
	for id, w := range want {
		if have[id] != w {
			t.Fatalf("destination %d: %+v, want %+v", id, have[id], w)
		}
	}
	for _, ns := range b.namespaces {
		blocked := uint32(0)
		for p := 9_900; p < 10_200; p++ { // more than playByte knows
			if ns.inSet(uint16(p)) && (ns.facts.Blocked.Has(uint16(p)) || held[ns][uint16(p)]) {
				blocked++
			}
		}
		if ns.blocked != blocked {
			t.Fatalf("%d ports are blocked, want %d", ns.blocked, blocked)
		}
	}
}
