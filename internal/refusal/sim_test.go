// SPDX-License-Identifier: Apache-2.0

package refusal_test

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/refusal"
)

const (
	second = int64(1e9)
	ms     = int64(1e6)
	// epoch is when simulated time starts.
	epoch = int64(1_790_000_000)*second + 123_456_789

	linuxPrint   = "4:64:1460:64240:7:mss,sok,ts,nop,ws"
	openbsdPrint = "4:64:1460:16384:6:mss,nop,nop,sok,nop,ws,nop,nop,ts"
)

// keying is what a stack draws the offset of TSval for.
type keying uint8

const (
	perHost keying = iota
	perTuple
	perConnection
)

// rig is a server that closes first, and who connects to it from one address.
type rig struct {
	hosts  int
	nat    bool
	keys   keying
	print  string  // of all SYNs; empty: not seen
	rate   float64 // connections per second of all hosts
	span   int64   // ns
	outer  int     // ports of the NAT
	inner  int     // ports of a host
	turns  bool    // ports are taken in turn, not at random
	resets []int64 // ns since the start: all hosts have other clocks from then on
	quiet  int64   // ns: for so long before each of these they are down
	copies float64 // of the SYNs that come once more
	late   int64   // ns: by how much these do, at most
	delays float64 // of the SYNs that come late, by 1 s on average
	keep   bool    // a refused SYN does not end TIME_WAIT (tcp_rfc1337)

	// What the judge is told of.
	noArrivals, noCompletions, noTimeWait, coarse bool
	sampled                                       float64 // of the SYNs, if not 0
}

// cause is the truth about a refused SYN.
type cause uint8

const (
	byNAT cause = iota
	byRestart
	byCopy
	byDraw
)

// outcome is what was judged, by what was true.
type outcome map[cause]map[event.Verdict]int

func (o outcome) add(c cause, v event.Verdict) {
	if o[c] == nil {
		o[c] = map[event.Verdict]int{}
	}
	o[c][v]++
}

func (o outcome) merge(p outcome) {
	for c, m := range p {
		for v, n := range m {
			for range n {
				o.add(c, v)
			}
		}
	}
}

func (o outcome) total(c cause) int {
	n := 0
	for _, k := range o[c] {
		n += k
	}
	return n
}

// nat is how many were judged to be by a NAT.
func (o outcome) nat(c cause) int {
	return o[c][event.VerdictNATPortRewrite] + o[c][event.VerdictNATMultiClock]
}

type action struct {
	at int64
	n  int
	do func()
}

type agenda []action

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, k int) bool {
	return a[i].at < a[k].at || a[i].at == a[k].at && a[i].n < a[k].n
}
func (a agenda) Swap(i, k int) { a[i], a[k] = a[k], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(action)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

// connection is one of a host.
type connection struct {
	host, epoch int
	inner       uint16
	port        uint16 // as the server sees it
	base        uint32 // TSval at time 0
}

func (c *connection) tsval(at int64) uint32 { return c.base + uint32(at/ms) }

// waiting is a socket in TIME_WAIT.
type waiting struct {
	conn   *connection
	recent uint32
	at     int64 // ns: when it entered
	until  int64
}

type world struct {
	rig
	rng    *rand.Rand
	j      *refusal.Judge
	todo   agenda
	n      int
	now    int64 // ns since epoch
	waits  map[uint16]waiting
	busy   map[uint16]int64 // ns: until when the NAT holds a port
	open   map[uint16]*connection
	secret uint64
	next   uint16
	ports  []uint16 // next of each host
	got    outcome
	source netip.Addr
}

func (r rig) run(seed uint64) outcome {
	j, err := refusal.New(refusal.Options{Sources: 100, Tuples: 20_000, Seed: [2]uint64{seed, 1}})
	if err != nil {
		panic(err)
	}
	return r.into(j, seed)
}

func (r rig) into(j *refusal.Judge, seed uint64) outcome {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{
		rig: r, rng: rng, j: j, waits: map[uint16]waiting{}, busy: map[uint16]int64{}, open: map[uint16]*connection{},
		secret: rng.Uint64(), got: outcome{}, ports: make([]uint16, r.hosts), source: netip.MustParseAddr("192.0.2.1"),
	}
	for i := range w.ports {
		w.ports[i] = uint16(rng.IntN(r.inner))
	}
	w.at(0, w.connect)
	for len(w.todo) > 0 {
		a := heap.Pop(&w.todo).(action)
		w.now = a.at
		a.do()
	}
	return w.got
}

func (w *world) at(at int64, do func()) {
	w.n++
	heap.Push(&w.todo, action{at, w.n, do})
}

func (w *world) after(d int64, do func()) { w.at(w.now+d, do) }

func (w *world) exp(mean float64) int64 { return int64(w.rng.ExpFloat64() * mean) }

// epoch is how often the hosts were reset, and whether they are down.
func (w *world) epoch() (n int, quiet bool) {
	for _, r := range w.resets {
		if w.now >= r {
			n++
		} else if w.now >= r-w.quiet {
			quiet = true
		}
	}
	return n, quiet
}

// gone tells whether the host of a connection is down, or was since.
func (w *world) gone(c *connection) bool {
	n, down := w.epoch()
	return down || n != c.epoch
}

func mix(x uint64) uint32 {
	x = (x ^ x>>31) * 0x7fb5d329728ea185
	x = (x ^ x>>27) * 0x81dadef4bc2dd44d
	return uint32(x >> 32)
}

// connect starts a connection, and the next.
func (w *world) connect() {
	if w.now > w.span {
		return
	}
	w.after(w.exp(1e9/w.rate), w.connect)
	n, quiet := w.epoch()
	if quiet {
		return
	}
	c := &connection{host: w.rng.IntN(w.hosts), epoch: n}
	if !w.port(c) {
		return
	}
	id := w.secret ^ uint64(c.host)<<32 ^ uint64(n)<<40
	switch w.keys {
	case perTuple:
		id ^= uint64(c.inner) << 1
	case perConnection:
		id = w.rng.Uint64()
	case perHost:
	}
	c.base = mix(id)
	w.send(c, 0)
	if w.rng.Float64() < w.copies {
		sent := w.now
		w.after(100*ms+w.rng.Int64N(max(1, w.late-100*ms)), func() { w.copy(c, c.tsval(sent)) })
	}
}

// port gives a connection its ports, if one is free.
func (w *world) port(c *connection) bool {
	const low = 32768
	for range w.inner {
		w.ports[c.host]++
		c.inner = low + w.ports[c.host]%uint16(w.inner)
		if !w.turns {
			c.inner = low + uint16(w.rng.IntN(w.inner))
		}
		c.port = c.inner
		if w.nat {
			w.next++
			c.port = 20000 + w.next%uint16(w.outer)
			if !w.turns {
				c.port = 20000 + uint16(w.rng.IntN(w.outer))
			}
		}
		if w.open[c.port] == nil && w.now >= w.busy[c.port] {
			w.open[c.port] = c
			return true
		}
	}
	return false
}

// send sends a SYN, which arrives after a while.
func (w *world) send(c *connection, try int) {
	v := c.tsval(w.now)
	delay := 500*int64(1e3) + w.exp(0.2e6)
	if w.rng.Float64() < w.delays {
		delay += w.exp(1e9)
	}
	w.after(delay, func() { w.arrive(c, v, try) })
}

func (w *world) socket(port uint16) event.Socket {
	return event.Socket{
		NetNS: 4026531840, Local: netip.MustParseAddrPort("198.51.100.1:80"), Remote: netip.AddrPortFrom(w.source, port),
	}
}

func (w *world) head() event.Header { return event.Header{Time: epoch + w.now} }

// refuses tells whether a socket in TIME_WAIT refuses a TSval by PAWS, and
// judges it.
func (w *world) refuses(port uint16, v uint32, why func(waiting) cause) bool {
	t, ok := w.waits[port]
	if !ok || w.now >= t.until {
		delete(w.waits, port)
		return false
	}
	if int32(v-t.recent) >= 0 {
		return false
	}
	e := &event.PAWSReject{
		Header: w.head(), Socket: w.socket(port), Where: event.WhereTimeWait, Segment: event.SegmentSYN,
		TSval: v, TSRecent: t.recent, Delta: int32(v - t.recent), HasAge: true, AgeMS: uint32((w.now - t.at) / ms),
		Fingerprint: w.print, TTL: 60,
	}
	if w.coarse {
		e.AgeMS = uint32((epoch+w.now)/second-(epoch+t.at)/second) * 1000
	}
	w.j.PAWS(e)
	w.got.add(why(t), e.Verdict)
	t.until = w.now + 60*second
	w.waits[port] = t
	return true
}

// why tells why a connection's SYN is refused.
func (w *world) why(c *connection) func(waiting) cause {
	return func(t waiting) cause {
		switch {
		case t.conn.epoch != c.epoch:
			return byRestart
		case t.conn.host == c.host && t.conn.inner == c.inner:
			return byDraw
		}
		return byNAT
	}
}

func (w *world) arrive(c *connection, v uint32, try int) {
	if w.gone(c) {
		// What is late may still be refused.
		w.refuses(c.port, v, func(waiting) cause { return byCopy })
		w.end(c)
		return
	}
	if w.refuses(c.port, v, w.why(c)) {
		if !w.keep {
			delete(w.waits, c.port)
		}
		if try > 5 {
			w.end(c)
			return
		}
		w.after(second<<try, func() { w.send(c, try+1) })
		return
	}
	delete(w.waits, c.port)
	seen := w.sampled == 0 || w.rng.Float64() < w.sampled
	e := event.SYN{
		Header: w.head(), Socket: w.socket(c.port), Timestamps: true, TSval: v, TTL: 60, Fingerprint: w.print,
	}
	if seen && !w.noArrivals {
		w.j.SYN(&e)
	}
	w.after(ms, func() {
		if w.gone(c) {
			w.end(c)
			return
		}
		if seen && !w.noCompletions {
			e.Header, e.Validated, e.Fingerprint, e.TTL = w.head(), true, "", 0
			w.j.SYN(&e)
		}
		w.after(2*ms+w.exp(10e6), func() { w.close(c) })
	})
}

func (w *world) end(c *connection) {
	if w.open[c.port] == c {
		delete(w.open, c.port)
	}
	w.busy[c.port] = w.now + second
}

func (w *world) close(c *connection) {
	defer w.end(c)
	if w.gone(c) {
		return
	}
	recent := c.tsval(w.now - ms/2)
	w.waits[c.port] = waiting{conn: c, recent: recent, at: w.now, until: w.now + 60*second}
	if !w.noTimeWait {
		w.j.TimeWait(&event.TimeWait{
			Header: w.head(), Socket: w.socket(c.port), Role: event.RoleServer, Timestamps: true,
			TSRecent: recent, TimeoutMS: 60_000,
		})
	}
}

// copy delivers a SYN once more.
func (w *world) copy(c *connection, v uint32) {
	if w.open[c.port] != nil {
		return
	}
	if w.refuses(c.port, v, func(waiting) cause { return byCopy }) {
		return
	}
	if _, ok := w.waits[c.port]; ok {
		return
	}
	if !w.noArrivals {
		w.j.SYN(&event.SYN{
			Header: w.head(), Socket: w.socket(c.port), Timestamps: true, TSval: v, TTL: 60, Fingerprint: w.print,
		})
	}
}
