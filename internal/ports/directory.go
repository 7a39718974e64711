// SPDX-License-Identifier: Apache-2.0

package ports

// lru is the list of destinations by when something happened to them last.
type lru struct{ newest, oldest uint32 }

// touch notes that something happened to a destination, and makes it the
// newest.
func (b *Book) touch(d *destination, at int64) {
	d.active = max(d.active, at)
	if b.recent.newest == d.id || d.pseudo {
		return
	}
	b.unlink(d)
	d.older = b.recent.newest
	if d.older != 0 {
		b.dests[d.older].newer = d.id
	} else {
		b.recent.oldest = d.id
	}
	b.recent.newest = d.id
}

// unlink takes a destination out of the list, if it is in it.
func (b *Book) unlink(d *destination) {
	if d.newer == 0 && d.older == 0 && b.recent.newest != d.id {
		return
	}
	if d.newer != 0 {
		b.dests[d.newer].older = d.older
	} else {
		b.recent.newest = d.older
	}
	if d.older != 0 {
		b.dests[d.older].newer = d.newer
	} else {
		b.recent.oldest = d.newer
	}
	d.newer, d.older = 0, 0
}

// lookup returns the destination of an address, or nil.
func (b *Book) lookup(a *address) *destination {
	if d := b.dests[b.last]; d != nil && d.address == *a {
		return d
	}
	id := b.index[*a]
	if id == 0 {
		return nil
	}
	b.last = id
	return b.dests[id]
}

// destination returns the destination of an address, and makes it if need be;
// nil when there is no place for one more.
func (b *Book) destination(a *address, ns *namespace) *destination {
	if d := b.lookup(a); d != nil {
		return d
	}
	if len(b.index) >= b.max && !b.evict() {
		return nil
	}
	d := b.open(ns)
	d.address = *a
	local, remote := a.addrs()
	d.loopback = local.IsLoopback() || remote.IsLoopback()
	if ns.crowded != 0 {
		d.crowdedUntil = ns.crowded + lifetime
	}
	d.place = len(ns.dests)
	ns.dests = append(ns.dests, d.id)
	b.index[*a] = d.id
	b.touch(d, b.now)
	return d
}

// lifetime is the longest that a socket stays in TIME_WAIT, in ns: with the
// rounding of a slow wheel.
const lifetime = (timeWaitLen + 6_000) * msPerNS

// open makes a destination that no address leads to yet.
func (b *Book) open(ns *namespace) *destination {
	d := &destination{ns: ns}
	d.swept = beatOf(ms(b.now))
	if n := len(b.spare); n > 0 {
		d.id = b.spare[n-1]
		b.spare = b.spare[:n-1]
		b.dests[d.id] = d
	} else {
		d.id = uint32(len(b.dests))
		b.dests = append(b.dests, d)
	}
	return d
}

// evict gives up the idlest destination without sockets in TIME_WAIT, and
// tells whether there was one. It looks at a few only: where all are busy,
// whoever comes must wait.
func (b *Book) evict() bool {
	const tries = 64
	d := b.dests[b.recent.oldest]
	for range tries {
		if d == nil {
			return false
		}
		if d.timeWait == 0 {
			b.drop(d)
			b.counter.Evicted++
			return true
		}
		d = b.dests[d.newer]
	}
	return false
}

// drop gives up a destination that has no sockets in TIME_WAIT.
func (b *Book) drop(d *destination) {
	for i := d.openList; i != 0; i = d.openList {
		b.forget(i, b.table.at(i))
	}
	b.unlink(d)
	ns := d.ns
	last := len(ns.dests) - 1
	ns.dests[d.place] = ns.dests[last]
	b.dests[ns.dests[d.place]].place = d.place
	ns.dests = ns.dests[:last]
	delete(b.index, d.address)
	b.dests[d.id] = nil
	b.spare = append(b.spare, d.id)
}
