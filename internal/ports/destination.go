// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"strings"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// A beat is 1024 ms, the unit of time of rates and forecasts: a power of two,
// so that Unix ms modulo 2^32 divide into beats without a seam.
const (
	beatBits = 10
	beatMS   = 1 << beatBits
	beatMask = 1<<(32-beatBits) - 1
)

func beatOf(ms uint32) uint32 { return ms >> beatBits }

// ring counts something per beat.
type ring [32]uint32

// endings counts by beat, modulo its length, how many ports come back.
type endings [128]uint16

// destination is the account of one destination, or, where pseudo is set, of
// all sockets of a namespace that have none of their own: of servers, and of
// destinations for which there was no place.
type destination struct {
	address
	ns       *namespace
	pseudo   bool
	chosen   bool // the run is about it, see Options.Chosen
	loopback bool // either address is 127/8 or ::1
	id       uint32
	place    int // in ns.dests
	newer    uint32
	older    uint32 // in the list of recent use
	openList uint32

	// Sockets in TIME_WAIT, in all and those that connect() could choose the
	// port of. The rest of those in TIME_WAIT are of the kinds below, and of
	// them neither of these: old enough to be taken over, if the sysctl and
	// the addresses allow it.
	timeWait, timeWaitIn                  uint32
	boundWait, finWait2, untimed, young   uint32
	open, openIn, bound, boundIn, assumed uint32
	// When ports come back: those that tcp_tw_reuse could free earlier, and
	// the others. Of the ports that connect() could choose only.
	ends [2]endings

	births, deaths ring
	swept          uint32 // the beat up to which the rings are cleared
	since          int64  // ns: begin of the present activity
	lastBirth      int64  // ns
	lastTimed      uint32 // ms: when the youngest that could be taken over was born

	timestamps   event.TimestampUse // of the latest connection
	crowdedUntil int64              // ns: until then, sockets may have found no place
	ranged       int64              // ns: when a connect() last had a range of its own, 0: never

	reused, failed, failedCalls uint64
	pending                     uint8  // failures that make no failed call yet
	here, there, reset          uint64 // connections ended
	lastFail                    int64  // ns, 0: never
	lastDry                     int64  // ns: when a search of the whole range last found no port, 0: never
	active                      int64  // ns: the last thing that happened
	begun                       begun
	owner                       vote
	forecast                    forecast
	special                     special
}

// begun measures what the snapshots of open connections tell of the rate at
// which connections begin.
type begun struct {
	at    int64 // ns, 0: no snapshot yet
	total uint64
	rate  float64 // per second, besides those that entered TIME_WAIT
	back  uint64  // connections that gave back their port without TIME_WAIT
	freed float64 // per second
	open  uint32
	slope float64 // change of open connections per second
	alike uint8   // slopes in a row that were upwards and much like the one before, up to 2
	base  uint32  // open connections when these began
	// The growth is steady, and more than chance.
	steady bool
}

// vote finds the owner of most sockets, by the algorithm of Boyer and Moore:
// the name, and besides it the process, since a program may be run anew for
// each connection. Votes are limited, so that a new owner takes over in time.
type vote struct {
	pid       uint32
	votes     uint32
	name      string // of that process
	comm      string
	commVotes uint32
}

const (
	maxVotes = 1000
	// A process has opened most of what its program has, for all we know, if
	// it has this part of the program's votes.
	chiefPart = 4
)

func (v *vote) cast(o *event.Owner) {
	if o.PID == 0 {
		return
	}
	switch {
	case o.PID == v.pid:
		v.votes = min(v.votes+1, maxVotes)
	case v.votes > 0:
		v.votes--
	default:
		v.pid, v.votes = o.PID, 1
		if v.name != o.Comm {
			v.name = strings.Clone(o.Comm) // the event's text may change
		}
	}
	switch {
	case o.Comm == v.comm:
		v.commVotes = min(v.commVotes+1, maxVotes)
	case v.commVotes > 0:
		v.commVotes--
	default:
		v.comm, v.commVotes = strings.Clone(o.Comm), 1
	}
}

// process returns the process of the owner, 0 if none has opened most.
func (v *vote) process() uint32 {
	if v.votes*chiefPart < v.commVotes || v.name != v.comm {
		return 0
	}
	return v.pid
}

// roll clears the rings up to a beat.
func (d *destination) roll(beat uint32) {
	n := (beat - d.swept) & beatMask
	if n > beatMask/2 {
		return // a late event
	}
	for i := range min(n, uint32(len(d.births))) {
		at := (beat - i) % uint32(len(d.births))
		d.births[at], d.deaths[at] = 0, 0
	}
	d.swept = beat
}

// Over how many beats a rate is the mean: of few, and of no more than have begun
// since, when connect() has failed.
const (
	usualWindow = 8
	dryWindow   = 2
)

// window is over how many beats the rate of new connections is the mean. Once
// connect() fails the load is what fails, and what succeeded before must not be
// added to that; nor may it come back when the failures are over.
func (b *Book) window(d *destination) uint32 {
	if d.lastDry == 0 {
		return usualWindow
	}
	beats := (b.now - d.lastDry) / (beatMS * msPerNS)
	return uint32(min(max(beats, dryWindow), usualWindow))
}

// quiet is how long nothing happens until a next event is a new activity.
const quiet = int64(len(ring{})) * beatMS * int64(time.Millisecond)

// begins notes that a connection has entered TIME_WAIT.
func (d *destination) begins(at int64) {
	d.roll(beatOf(ms(at)))
	if d.lastBirth == 0 || at-d.lastBirth > quiet {
		d.since = at
	}
	d.lastBirth = max(d.lastBirth, at)
	d.births[d.swept%uint32(len(d.births))]++
}

// released notes that a port in TIME_WAIT has come back.
func (d *destination) released(at int64) {
	d.roll(beatOf(ms(at)))
	d.deaths[d.swept%uint32(len(d.deaths))]++
}

// rate returns the mean per second of a ring over its last beats, or since the
// present activity began.
func (d *destination) rate(r *ring, now int64, window uint32) float64 {
	nowMS := now / msPerNS
	d.roll(beatOf(uint32(nowMS)))
	from := (nowMS>>beatBits - int64(window) + 1) << beatBits
	if s := d.since / msPerNS; s > from && r == &d.births {
		from = s
	}
	var n uint32
	for i := range window {
		n += r[(d.swept-i)%uint32(len(r))]
	}
	if n == 0 {
		return 0
	}
	// what came within the first ms is no rate yet
	return float64(n) * 1000 / float64(max(nowMS-from, 250))
}

// class returns the count that a socket in TIME_WAIT belongs to, nil for one
// that is old enough to be taken over.
func (d *destination) class(s *socket) *uint32 {
	switch {
	case s.flags&flagBound != 0:
		return &d.boundWait
	case s.flags&flagFinWait2 != 0:
		return &d.finWait2
	case s.flags&flagTimestamps == 0:
		return &d.untimed
	case s.flags&flagYoung != 0:
		return &d.young
	}
	return nil
}

// timed tells whether a socket in TIME_WAIT could be taken over once it is old
// enough, as far as it depends on the socket itself. A bind bucket that bind()
// made is passed over by the search of connect().
func (s *socket) timed() bool {
	return s.flags&(flagTimestamps|flagFinWait2|flagBound|flagTagged|flagOpen) == flagTimestamps
}

// count enters a socket into all counts.
func (b *Book) count(s *socket) { b.tally(s, 1) }

// uncount takes a socket out of all counts.
func (b *Book) uncount(s *socket) { b.tally(s, ^uint32(0)) }

// tally adds n, which is 1 or -1, to all counts that a socket belongs to.
func (b *Book) tally(s *socket, n uint32) {
	d := b.dests[s.dest]
	in := s.flags&flagInSet != 0
	if s.flags&flagBound != 0 && !d.pseudo {
		d.bound += n
		if in {
			d.boundIn += n
		}
		d.ns.hold(s.port, n)
	}
	if s.flags&flagOpen != 0 {
		d.open += n
		if in {
			d.openIn += n
		}
		return
	}
	d.ns.timeWait += n
	d.timeWait += n
	if d.pseudo {
		return
	}
	if s.flags&flagAssumed != 0 {
		d.assumed += n
	}
	if c := d.class(s); c != nil {
		*c += n
	}
	if in {
		d.timeWaitIn += n
		kind := 0
		if !s.timed() {
			kind = 1
		}
		d.ends[kind][beatOf(s.due)%uint32(len(endings{}))] += uint16(n)
	}
}

// list puts an open socket into the list of its destination.
func (b *Book) list(i uint32, s *socket) {
	d := b.dests[s.dest]
	s.next, s.prev = d.openList, listHead
	if s.next != 0 {
		b.table.at(s.next).prev = i
	}
	d.openList = i
}

// unlist takes a socket out of the list it is in.
func (b *Book) unlist(i uint32, s *socket) {
	if s.flags&flagOpen == 0 {
		b.wheel.take(&b.table, i)
		return
	}
	if s.prev&listHead != 0 {
		b.dests[s.dest].openList = s.next
	} else {
		b.table.at(s.prev).next = s.next
	}
	if s.next != 0 {
		b.table.at(s.next).prev = s.prev
	}
}

// forget takes a socket out of everything.
func (b *Book) forget(i uint32, s *socket) {
	b.uncount(s)
	b.unlist(i, s)
	b.table.remove(i)
}
