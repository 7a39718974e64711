// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
)

// model is the book as one would write it without a thought for time and
// memory: a map of all sockets, and every number counted anew.
type model struct {
	timer   timer
	facts   Facts
	sockets map[event.Socket]*modelSocket
	reused  map[netip.AddrPort]uint64
	closed  map[netip.AddrPort]uint64
	ended   int64 // when a timer ended last
}

type modelSocket struct {
	open, timestamps, finWait2, bound, server bool
	born, due                                 int64
}

// keys returns the sockets in an order that a seed repeats.
func (m *model) keys() []event.Socket {
	return slices.SortedFunc(maps.Keys(m.sockets), func(a, b event.Socket) int {
		return cmp.Or(a.Remote.Compare(b.Remote), a.Local.Compare(b.Local))
	})
}

func (m *model) expire(now int64) {
	for k, s := range m.sockets {
		if !s.open && s.due <= now {
			m.ended = max(m.ended, s.due)
			delete(m.sockets, k)
		}
	}
}

// edge tells whether something happens so close to an instant that the book,
// which counts in ms and looks every 4 ms, may be of another opinion.
func (m *model) edge(now int64) bool {
	near := func(at int64) bool { return at > now-10*msPerNS && at < now+10*msPerNS }
	if near(m.ended) {
		return true
	}
	for _, s := range m.sockets {
		if !s.open && (near(s.due) || near(s.born+int64(m.facts.ReuseDelayMS)*msPerNS)) {
			return true
		}
	}
	return false
}

// budget counts the budget of one destination of client.
func (m *model) budget(remote netip.AddrPort, now int64) event.Destination {
	d := event.Destination{
		NetNS: netns, Laddr: client, Raddr: remote.Addr(), Rport: remote.Port(),
		Reused: m.reused[remote], ClosedHere: m.closed[remote],
	}
	own := map[uint16]bool{}
	for k, s := range m.sockets {
		if k.Remote != remote || s.server {
			continue
		}
		if s.bound {
			d.Bound++
			own[k.Local.Port()] = true
		}
		if s.open {
			d.InUse++
			continue
		}
		d.TimeWait++
		young := now <= s.born+int64(m.facts.ReuseDelayMS)*msPerNS
		reuse := m.facts.TWReuse == 1 || m.facts.TWReuse == 2 && (client.IsLoopback() || remote.Addr().IsLoopback())
		switch {
		case s.bound:
		case s.finWait2:
			d.Refused.FinWait2++
		case m.facts.TWReuse == 2 && !reuse:
			d.Refused.LoopbackOnly++
		case !s.timestamps:
			d.Refused.NoTimestamps++
		case !reuse:
			d.Refused.Disabled++
		case young:
			d.Refused.TooYoung++
		default:
			d.Reusable++
		}
	}
	for p := int(m.facts.RangeLow); p <= int(m.facts.RangeHigh); p++ {
		port := uint16(p)
		if m.facts.Reserved.Has(port) {
			d.PortsReserved++
			continue
		}
		blocked := m.facts.Blocked.Has(port)
		for k, s := range m.sockets {
			blocked = blocked || s.bound && !s.server && k.Local.Port() == port
		}
		if blocked && !own[port] {
			d.PortsBlocked++
		} else {
			d.PortsTotal++
		}
	}
	return d
}

// TestBookAgainstModel plays random events to both.
func TestBookAgainstModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			playModel(t, rand.New(rand.NewPCG(seed, 3)), seed%2 == 1)
		})
	}
}

type player struct {
	*rand.Rand
	t       *testing.T
	b       *Book
	m       *model
	now     int64
	remotes []netip.AddrPort
}

func playModel(t *testing.T, r *rand.Rand, ends bool) {
	p := &player{Rand: r, t: t, now: start, b: New(Options{HZ: 250, Ends: ends}), m: &model{
		timer: newTimer(250), sockets: map[event.Socket]*modelSocket{},
		reused: map[netip.AddrPort]uint64{}, closed: map[netip.AddrPort]uint64{},
	}}
	p.b.Jiffies(start, 123_456_789)
	p.m.timer.observe(start, 123_456_789)
	for i := range 5 {
		p.remotes = append(p.remotes, port(server, uint16(80+i)))
	}
	p.remotes = append(p.remotes, netip.MustParseAddrPort("127.0.0.1:80"))
	p.setFacts()
	p.b.Opens(netns, p.now, nil)
	compared := 0
	for range 10_000 {
		p.now += r.Int64N(20 * msPerNS)
		if r.IntN(1000) == 0 {
			p.now += seconds(float64(r.IntN(70)))
		}
		if ends {
			p.tellEnds()
		}
		p.m.expire(p.now)
		p.step()
		if r.IntN(100) == 0 && !p.m.edge(p.now) {
			compared++
			p.compare()
		}
	}
	if compared < 20 {
		t.Errorf("compared %d times only", compared)
	}
	if n := p.b.Counters().Overdue; n > 0 {
		t.Errorf("%d overdue", n)
	}
}

// tellEnds feeds the ends that the kernel side would see.
func (p *player) tellEnds() {
	var ends []*event.TimeWaitEnd
	for k, s := range p.m.sockets {
		if !s.open && s.due <= p.now {
			ends = append(ends, &event.TimeWaitEnd{Header: event.Header{Time: s.due}, Socket: k})
			p.m.ended = max(p.m.ended, s.due)
			delete(p.m.sockets, k)
		}
	}
	slices.SortFunc(ends, func(x, y *event.TimeWaitEnd) int { return cmp.Compare(x.Time, y.Time) })
	for _, e := range ends {
		p.b.Leave(e)
	}
}

func (p *player) step() {
	switch n := p.IntN(1000); {
	case n < 700:
		p.enter()
	case n < 800:
		p.leave()
	case n < 970:
		p.reuse()
	case n < 985:
		p.opens()
	case n < 988:
		p.recount()
	case n < 990:
		p.setFacts()
	}
}

func (p *player) socket() event.Socket {
	return event.Socket{
		NetNS: netns, Local: netipPort(uint16(1000 + p.IntN(300))),
		Remote: p.remotes[p.IntN(len(p.remotes))],
	}
}

// pick returns a socket of a kind, at random.
func (p *player) pick(open bool) (event.Socket, bool) {
	for range 20 {
		k := p.socket()
		if s := p.m.sockets[k]; s != nil && s.open == open && !s.server {
			return k, true
		}
	}
	return event.Socket{}, false
}

func (p *player) enter() {
	k := p.socket()
	if p.m.sockets[k] != nil && p.IntN(10) > 0 {
		return // a 4-tuple that is taken, which an event was lost of
	}
	e := &event.TimeWait{Header: event.Header{Time: p.now}, Socket: k, Role: event.RoleClient, TimeoutMS: timeWaitLen}
	s := &modelSocket{born: p.now, due: p.m.timer.end(p.now, timeWaitLen, timeWaitLen)}
	e.Timestamps = p.IntN(2) == 0
	e.Bound = p.IntN(10) == 0
	if p.IntN(20) == 0 {
		e.Substate = event.SubstateFinWait2
	}
	if p.IntN(10) == 0 {
		e.Role, s.server = event.RoleServer, true
		e.Local = netipPort(22) // no client has this
		k.Local = e.Local
	} else {
		p.m.closed[k.Remote]++
	}
	s.timestamps, s.bound = e.Timestamps, e.Bound
	p.m.sockets[k] = s
	p.b.Enter(e)
}

func (p *player) leave() {
	if k, ok := p.pick(false); ok {
		delete(p.m.sockets, k)
		p.b.Leave(&event.TimeWaitEnd{Header: event.Header{Time: p.now}, Socket: k, Reason: event.EndKilled})
	}
}

func (p *player) reuse() {
	if k, ok := p.pick(false); ok {
		p.m.sockets[k] = &modelSocket{open: true, born: p.now}
		p.m.reused[k.Remote]++
		end := &event.TimeWaitEnd{Header: event.Header{Time: p.now}, Socket: k, Reason: event.EndReused}
		order := p.IntN(3)
		if order == 0 {
			p.b.Leave(end)
		}
		p.b.Reuse(&event.TWReuse{Header: event.Header{Time: p.now}, Socket: k})
		if order == 1 {
			p.b.Leave(end)
		}
	}
}

// opens changes what is open, and takes a snapshot.
func (p *player) opens() {
	for _, k := range p.m.keys() {
		if p.m.sockets[k].open && p.IntN(3) == 0 {
			delete(p.m.sockets, k)
		}
	}
	for range p.IntN(20) {
		if k := p.socket(); p.m.sockets[k] == nil {
			p.m.sockets[k] = &modelSocket{open: true, bound: p.IntN(5) == 0, born: p.now}
		}
	}
	var list []Open
	for k, s := range p.m.sockets {
		if s.open {
			list = append(list, Open{Local: k.Local, Remote: k.Remote, Role: event.RoleClient, Bound: s.bound})
		}
	}
	list = append(list, Open{Local: netipPort(22), Remote: port(server, 5555), Role: event.RoleServer})
	p.now += 2 * msPerNS
	p.b.Opens(netns, p.now, list)
}

// recount loses some sockets, and lets the kernel have some that were not
// told of.
func (p *player) recount() {
	for _, k := range p.m.keys() {
		s := p.m.sockets[k]
		// the book knows the age of a server's socket to 2 s only
		if !s.open && !s.server && p.IntN(3) == 0 {
			delete(p.m.sockets, k)
		}
	}
	for range p.IntN(20) {
		if k := p.socket(); p.m.sockets[k] == nil {
			left := uint32(p.IntN(timeWaitLen))
			p.m.sockets[k] = &modelSocket{
				born: p.now - int64(timeWaitLen-left)*msPerNS, due: p.m.timer.end(p.now, left, timeWaitLen),
				timestamps: p.IntN(2) == 0, finWait2: p.IntN(4) == 0,
			}
		}
	}
	p.now += 2 * msPerNS
	p.m.expire(p.now)
	p.b.BeginRecount(netns, p.now)
	for k, s := range p.m.sockets {
		if s.open {
			continue
		}
		e := &event.Census{Header: event.Header{Time: p.now}, Socket: k, Role: event.RoleClient, Timestamps: s.timestamps, Bound: s.bound}
		if s.server {
			e.Role = event.RoleServer
		}
		if s.finWait2 {
			e.Substate = event.SubstateFinWait2
		}
		nominal := max(s.born+timeWaitLen*msPerNS-p.now, 0)
		e.RemainingMS = uint32((nominal + msPerNS - 1) / msPerNS)
		p.b.Census(e)
		// to the ms, it may end in another slot of the kernel's wheel
		s.due = p.m.timer.end(p.now, e.RemainingMS, timeWaitLen)
		s.born = p.now - int64(timeWaitLen-e.RemainingMS)*msPerNS
	}
	p.b.EndRecount(netns)
}

func (p *player) setFacts() {
	f := Facts{RangeLow: uint16(1000 + p.IntN(100)), ReuseDelayMS: uint32([]int{0, 500, 1000, 1000, 30_000}[p.IntN(5)])}
	f.RangeHigh = f.RangeLow + uint16(p.IntN(300))
	f.TWReuse = p.IntN(3)
	if p.IntN(2) == 0 {
		f.Reserved = new(PortSet)
		f.Reserved.Add(1050, uint16(1050+p.IntN(30)))
	}
	if p.IntN(2) == 0 {
		f.Blocked = new(PortSet)
		f.Blocked.Add(1120, uint16(1120+p.IntN(10)))
	}
	p.m.facts = f
	p.b.Namespace(netns, p.now, f)
}

// compare holds the book to the model.
func (p *player) compare() {
	p.t.Helper()
	waiting, found := uint32(0), 0
	for _, s := range p.m.sockets {
		if !s.open {
			waiting++
		}
	}
	if got := p.b.TimeWait(netns, p.now); got != waiting {
		p.t.Fatalf("%d in TIME_WAIT, want %d", got, waiting)
	}
	for _, d := range p.b.Budgets(p.now, 100).List {
		found++
		want := p.m.budget(netip.AddrPortFrom(d.Raddr, d.Rport), p.now)
		if d.Reusable+d.Refused.Disabled+d.Refused.FinWait2+d.Refused.LoopbackOnly+d.Refused.NoTimestamps+d.Refused.TooYoung > d.TimeWait {
			p.t.Errorf("more than all: %+v", d)
		}
		// what other tests are about
		d.ReusableInMS, d.Timestamps, d.Unknown = 0, 0, nil
		d.Rate, d.RateOut, d.SustainableRate, d.ExhaustedInS = 0, 0, 0, 0
		if diff := gocmp.Diff(want, d, gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			p.t.Fatalf("%s:%d, %s", d.Raddr, d.Rport, diff)
		}
	}
	if found != len(p.remotes) && p.now > start+seconds(60) {
		p.t.Fatalf("%d destinations, want %d", found, len(p.remotes))
	}
}
