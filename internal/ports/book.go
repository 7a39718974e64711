// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// Options of a Book. The zero Options are usable.
type Options struct {
	// MaxDestinations bounds how many destinations have a budget of their
	// own; 0 is 10,000. Beyond it those that hold no port in TIME_WAIT give
	// way, the idlest first; if there is none, sockets of new destinations
	// only count in TimeWait.
	MaxDestinations int
	// HZ is the kernel's CONFIG_HZ; 0: not known, timers are taken for exact.
	HZ int
	// Ends tells that Leave is fed with every end that the kernel side sees.
	// A socket then stays until its end is told, or EndGrace after its time.
	Ends bool
	// UrgentWithin is the forecast below which Urgent reports a destination;
	// 0 is 60 s.
	UrgentWithin time.Duration
	// Chosen keeps Budgets and Urgent to the destinations that the run is
	// about: all but those of which only Foreign and Census have told.
	Chosen bool
	// Unfed is what the book is not fed, in words: every budget says so.
	Unfed []string
}

// EndGrace is how long after its time a socket in TIME_WAIT waits for its
// Leave, with Options.Ends.
const EndGrace = 3 * time.Second

const (
	defaultDestinations = 10_000
	defaultUrgentWithin = 60 * time.Second
	// maxNamespaces bounds the memory for namespaces.
	maxNamespaces = 4096
	msPerNS       = int64(time.Millisecond)
)

// Counters tell what the book did with what it was fed, since its start.
type Counters struct {
	Sockets      int    // ports that it holds now, in use or in TIME_WAIT
	Destinations int    // that have a budget now
	Evicted      uint64 // destinations given up for others
	Crowded      uint64 // sockets of destinations for which there was no place
	Ignored      uint64 // events without addresses or ports, or of a namespace too many
	Unmatched    uint64 // ends, and re-uses, of sockets that it did not hold
	Replaced     uint64 // sockets that entered TIME_WAIT while the book held them there
	Overdue      uint64 // ends that were not told in time, with Options.Ends
	Dropped      uint64 // sockets for which there was no memory
}

// Book is the ledger of ports. It is not safe for concurrent use.
type Book struct {
	max          int
	ends         bool
	grace        uint32 // ms
	urgentWithin int64  // ns
	onlyChosen   bool
	unfed        []string
	seed         maphash.Seed

	timer timer
	now   int64 // ns, the latest time that was seen
	table table
	wheel wheel

	namespaces map[uint32]*namespace
	ns         *namespace // the one used last

	index   map[address]uint32
	dests   []*destination // by index; 0 is none
	spare   []uint32       // indices to use again
	last    uint32         // the destination used last
	recent  lru
	beat    uint32 // the beat in which forecasts were made last
	urgent  bool
	counter Counters
}

// New returns an empty book.
func New(o Options) *Book {
	b := &Book{
		max: o.MaxDestinations, ends: o.Ends, urgentWithin: int64(o.UrgentWithin), onlyChosen: o.Chosen, unfed: slices.Clone(o.Unfed),
		seed: maphash.MakeSeed(), timer: newTimer(o.HZ), table: newTable(),
		namespaces: map[uint32]*namespace{}, index: map[address]uint32{},
		dests: []*destination{nil},
	}
	if b.max <= 0 {
		b.max = defaultDestinations
	}
	if b.urgentWithin <= 0 {
		b.urgentWithin = int64(defaultUrgentWithin)
	}
	if b.ends {
		b.grace = uint32(EndGrace / time.Millisecond)
	}
	return b
}

// Jiffies tells the value of the kernel's jiffies (64 bits, as bpf_jiffies64
// and /proc/timer_list have it) at an instant, from which follow the instants
// at which TIME_WAIT can end. Several observations, and one after each suspend,
// make it exact; without any, ends are known to within the granularity of the
// timer wheel (2.048 s at HZ=250, 4.096 s at HZ=1000).
func (b *Book) Jiffies(at int64, jiffies uint64) { b.timer.observe(clampTime(at), jiffies) }

// Counters returns the account of the book.
func (b *Book) Counters() Counters {
	c := b.counter
	c.Sockets, c.Destinations = b.table.used, len(b.index)
	return c
}

// TimeWait returns how many sockets of a namespace are in TIME_WAIT at an
// instant, those of servers included: what /proc/net/sockstat shows as "tw".
func (b *Book) TimeWait(netns uint32, at int64) uint32 {
	b.advance(at)
	if ns := b.namespaces[netns]; ns != nil {
		return ns.timeWait
	}
	return 0
}

// Connects tells whether a local port is most likely of a connection that this
// host has opened: connect() chooses from it, and nobody listens on it. It is
// false where the range of ports is not known.
func (b *Book) Connects(netns uint32, port uint16) bool {
	ns := b.namespaces[netns]
	return ns != nil && ns.connects(port)
}

// address identifies a destination.
type address struct {
	local, remote [16]byte // IPv4 as IPv4-mapped IPv6
	netns         uint32
	port          uint16 // remote
}

func addressOf(s *event.Socket) address {
	return address{
		local: s.Local.Addr().As16(), remote: s.Remote.Addr().As16(),
		netns: s.NetNS, port: s.Remote.Port(),
	}
}

func (a *address) addrs() (local, remote netip.Addr) {
	return netip.AddrFrom16(a.local).Unmap(), netip.AddrFrom16(a.remote).Unmap()
}

// complete tells whether a socket has all of its 4-tuple.
func complete(s *event.Socket) bool {
	return s.Local.IsValid() && s.Remote.IsValid() && s.Local.Port() != 0 && s.Remote.Port() != 0
}

// tag is what identifies a socket without a destination; never 0.
func (b *Book) tag(s *event.Socket) uint32 {
	var key [38]byte
	local, remote := s.Local.Addr().As16(), s.Remote.Addr().As16()
	copy(key[:], local[:])
	copy(key[16:], remote[:])
	binary.LittleEndian.PutUint32(key[32:], s.NetNS)
	binary.LittleEndian.PutUint16(key[36:], s.Remote.Port())
	return max(uint32(maphash.Bytes(b.seed, key[:])), 1)
}

func ms(at int64) uint32 { return uint32(at / msPerNS) }

// before tells whether a is before b, both ms modulo 2^32.
func before(a, b uint32) bool { return int32(a-b) < 0 }

// advance lets time pass: the kernel's timers end, sockets grow old enough to
// be taken over, and every beat forecasts are made.
func (b *Book) advance(at int64) {
	at = clampTime(at)
	if at <= b.now {
		return
	}
	target := at / msPerNS >> slotBits
	if b.now == 0 {
		b.wheel.slot = target
	}
	b.now = at
	if target-b.wheel.slot > wheelSize {
		// A time without events, such as a suspend: all that there was is
		// over, and differences modulo 2^32 tell nothing any more.
		b.clear(target)
	}
	for b.wheel.slot < target {
		for i := b.wheel.fire(); i != 0; {
			s := b.table.at(i)
			next := s.next
			s.next, s.prev = 0, 0
			b.ripen(i, s)
			i = next
		}
	}
	if beat := beatOf(ms(at)); beat != b.beat {
		b.beat = beat
		b.forecasts()
	}
}

// clear lets every timer run out, wherever in the wheel it is.
func (b *Book) clear(target int64) {
	for range wheelSize {
		for i := b.wheel.fire(); i != 0; {
			s := b.table.at(i)
			next := s.next
			s.next, s.prev = 0, 0
			b.release(i, s)
			i = next
		}
	}
	b.wheel.slot = target
}

// ripen does what is due for a socket that has fired.
func (b *Book) ripen(i uint32, s *socket) {
	now := uint32(b.wheel.slot << slotBits)
	if s.flags&flagYoung != 0 {
		s.flags &^= flagYoung
		b.dests[s.dest].young--
	}
	if end := s.due + b.grace; before(now, end) {
		b.wheel.put(&b.table, i, end)
		return
	}
	if b.ends {
		b.counter.Overdue++
	}
	b.release(i, s)
}

// release takes a socket in TIME_WAIT that is in no list out of all counts,
// and gives its place back.
func (b *Book) release(i uint32, s *socket) {
	b.uncount(s)
	b.dests[s.dest].released(b.now)
	b.table.remove(i)
}
