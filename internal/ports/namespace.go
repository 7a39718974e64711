// SPDX-License-Identifier: Apache-2.0

package ports

import "time"

// Facts are what decides in a network namespace about local ports.
type Facts struct {
	// RangeLow and RangeHigh are net.ipv4.ip_local_port_range; both are in
	// it. 0 and 0: not known.
	RangeLow, RangeHigh uint16
	// Reserved is net.ipv4.ip_local_reserved_ports; nil: none.
	Reserved *PortSet
	// Blocked are the ports whose bind bucket was made by listen() or by
	// bind() without IP_BIND_ADDRESS_NO_PORT and is there yet; nil: none.
	// Of connections, and only of them, that are in the snapshots the port
	// may be left out: their Bound tells.
	Blocked *PortSet
	// TWReuse is net.ipv4.tcp_tw_reuse: 0, 1, or 2 for loopback only;
	// negative: not known, taken for 0.
	TWReuse int
	// ReuseDelayMS is net.ipv4.tcp_tw_reuse_delay, 0 to 60,000; a kernel up
	// to 6.13 has none and behaves as with 1000, or up to 1 s less, because
	// it compares whole seconds.
	ReuseDelayMS uint32
	// MaxTWBuckets is net.ipv4.tcp_max_tw_buckets; 0: not known.
	MaxTWBuckets uint32
}

// span is a range of ports, both ends included. The zero span is none.
type span struct{ low, high uint16 }

func (f *Facts) span() span { return span{f.RangeLow, f.RangeHigh} }

// namespace is what the book knows of a network namespace.
type namespace struct {
	id    uint32
	facts Facts
	delay uint32 // ms, facts.ReuseDelayMS

	was   span  // the range before this one
	wasAt int64 // ns: when it was replaced, 0: never

	size     uint32 // ports in the range that are not reserved
	reserved uint32 // ports in the range that are
	blocked  uint32 // of size, those in facts.Blocked or in held
	held     *[65536]uint16

	dests    []uint32
	rest     *destination // of sockets without a destination; nil: none so far
	crowded  int64        // ns: when a socket last found no place
	timeWait uint32

	census   uint8 // number of the latest census
	censusAt int64 // ns, when the census under way began; 0: none is
	snapshot uint8
	openAt   int64 // ns, of the latest snapshot of open connections; 0: none so far
}

// known tells whether the range is.
func (ns *namespace) known() bool { return ns.facts.RangeHigh != 0 }

// inSet tells whether connect() may choose a port, if nothing holds it.
func (ns *namespace) inSet(port uint16) bool {
	return port >= ns.facts.RangeLow && port <= ns.facts.RangeHigh && ns.known() && !ns.facts.Reserved.Has(port)
}

// connects tells whether a port is one that connect() chooses from, and nobody
// listens on it.
func (ns *namespace) connects(port uint16) bool {
	return ns.inSet(port) && !ns.facts.Blocked.Has(port)
}

// hold notes that n, 1 or -1, more sockets hold a port by bind().
func (ns *namespace) hold(port uint16, n uint32) {
	if ns.held == nil {
		ns.held = new([65536]uint16)
	}
	was := ns.held[port]
	ns.held[port] += uint16(n)
	if (was == 0) != (ns.held[port] == 0) && ns.connects(port) {
		ns.blocked += n
	}
}

// measure counts the ports of the range anew.
func (ns *namespace) measure() {
	ns.size, ns.reserved, ns.blocked = 0, 0, 0
	if !ns.known() {
		return
	}
	low, high := ns.facts.RangeLow, ns.facts.RangeHigh
	ns.reserved = ns.facts.Reserved.Count(low, high)
	ns.size = uint32(high) - uint32(low) + 1 - ns.reserved
	for p := uint32(low); p <= uint32(high); p++ {
		if ns.blocks(uint16(p)) && ns.inSet(uint16(p)) {
			ns.blocked++
		}
	}
}

// blocks tells whether a bind bucket keeps connect() from a port.
func (ns *namespace) blocks(port uint16) bool {
	return ns.facts.Blocked.Has(port) || ns.held != nil && ns.held[port] != 0
}

// reuses tells whether tcp_tw_reuse covers connections of a destination: 2
// does with a loopback address only. (A socket that is bound to the device lo
// counts as well; that cannot be seen here.)
func (d *destination) reuses() bool {
	switch d.ns.facts.TWReuse {
	case 1:
		return true
	case 2:
		return d.loopback
	}
	return false
}

// namespace returns a namespace and makes it if need be; nil if there are too
// many.
func (b *Book) namespace(id uint32) *namespace {
	if b.ns != nil && b.ns.id == id {
		return b.ns
	}
	ns := b.namespaces[id]
	if ns == nil {
		if len(b.namespaces) >= maxNamespaces {
			return nil
		}
		ns = &namespace{id: id, delay: 1000, facts: Facts{TWReuse: -1, ReuseDelayMS: 1000}}
		b.namespaces[id] = ns
	}
	b.ns = ns
	return ns
}

// Namespace tells what decides about ports in a namespace. It may be told
// again at any time: all that follows from it is right afterwards. The sets
// are kept and must not change. A call with the range, the reserved ports and
// the delay of the call before costs some microseconds per 1,000 ports of the
// range; else every socket of the book is looked at. A range whose high is
// below its low is taken as not known.
func (b *Book) Namespace(netns uint32, at int64, f Facts) {
	b.advance(at)
	ns := b.namespace(netns)
	if ns == nil {
		b.counter.Ignored++
		return
	}
	if f.RangeLow > f.RangeHigh {
		f.RangeLow, f.RangeHigh = 0, 0
	}
	f.ReuseDelayMS = min(f.ReuseDelayMS, timeWaitLen)
	old := ns.facts
	ns.facts = f
	if now, was := f.span(), old.span(); now != was && was != (span{}) {
		ns.was, ns.wasAt = was, max(b.now, 1)
		b.adopt(ns, now)
	}
	if old.RangeLow != f.RangeLow || old.RangeHigh != f.RangeHigh || !same(old.Reserved, f.Reserved) || ns.delay != f.ReuseDelayMS {
		b.refit(ns, f.ReuseDelayMS)
	}
	ns.measure()
}

// lag is how long events may follow that are older than what is told of a
// namespace, in ns.
const lag = 10 * int64(time.Second)

// adopt takes the ranges of its own for the range of the namespace that have
// become it: searches in it were told earlier than the change.
func (b *Book) adopt(ns *namespace, now span) {
	for _, id := range ns.dests {
		d := b.dests[id]
		if d.ranged != 0 && b.now-d.ranged < lag && d.special.span == now {
			d.ranged = 0
		}
	}
}

// replaced tells whether a range was that of the namespace until shortly.
func (ns *namespace) replaced(r span, now int64) bool {
	return ns.wasAt != 0 && now-ns.wasAt < lag && ns.was == r
}

func same(a, b *PortSet) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a == b || a.words == b.words
}

// refit makes every socket of a namespace fit the facts as they are now.
func (b *Book) refit(ns *namespace, delay uint32) {
	ns.delay = delay
	for i := uint32(1); i < b.table.top; i++ {
		s := b.table.at(i)
		if s.dest == 0 || b.dests[s.dest].ns != ns || b.dests[s.dest].pseudo {
			continue
		}
		b.uncount(s)
		if s.flags &^= flagInSet; ns.inSet(s.port) {
			s.flags |= flagInSet
		}
		if s.flags&flagOpen == 0 {
			b.unlist(i, s)
			b.schedule(i, s)
		}
		b.count(s)
	}
}

// schedule puts a socket in TIME_WAIT into the wheel, and tells whether it is
// young. It must not be counted yet.
func (b *Book) schedule(i uint32, s *socket) {
	s.flags &^= flagYoung
	when := s.due + b.grace
	if ripe := s.born + b.dests[s.dest].ns.delay + 1; s.timed() && before(ms(b.now), ripe) {
		s.flags |= flagYoung
		if before(ripe, when) {
			when = ripe
		}
	}
	b.wheel.put(&b.table, i, when)
}

// Forget drops a namespace that is gone, with all that is in it. It looks at
// every socket of the book.
func (b *Book) Forget(netns uint32) {
	ns := b.namespaces[netns]
	if ns == nil {
		return
	}
	for i := uint32(1); i < b.table.top; i++ {
		if s := b.table.at(i); s.dest != 0 && b.dests[s.dest].ns == ns {
			b.forget(i, s)
		}
	}
	for len(ns.dests) > 0 {
		b.drop(b.dests[ns.dests[0]])
	}
	if ns.rest != nil {
		b.dests[ns.rest.id] = nil
		b.spare = append(b.spare, ns.rest.id)
	}
	delete(b.namespaces, netns)
	if b.ns == ns {
		b.ns = nil
	}
}
