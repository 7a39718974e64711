// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"time"

	"github.com/twscope/twscope/internal/event"
)

const (
	// Hold is for how long of a capture's time a SYN waits for its answer and
	// for the end of its handshake. It is a second more than the 3 s after
	// which systems before RFC 6298 repeat a SYN.
	Hold = 4 * time.Second
	// Disorder is by how much a packet may be older than one before it in the
	// capture, as those of several queues or interfaces are.
	Disorder = time.Second
	// setBack is how long packets have to be older than that, without one in
	// between that is not, for the clock to have been set back. Others are
	// strays.
	setBack = 10 * time.Second
)

// OrderError is a capture whose packets from one on are older than those
// before: the clock was set back, or captures were joined in the wrong order.
type OrderError struct {
	Packet int64         // the first one's number in the capture
	By     time.Duration // how much it is older than one before
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("capture: from packet %d on they are older than those before, by %s: put them in order with `reordercap IN OUT`, "+
		"or cut the capture there with `editcap` if the clock was set back", e.Packet, e.By)
}

// SourceOptions bound the memory of a Source. The zero value is good.
type SourceOptions struct {
	Connections int // 4-tuples that are remembered, about 220 bytes each; 0: 262,144
	Pending     int // SYNs that wait for their answers, about 180 bytes each; 0: 65,536
}

// Source tells the TCP segments of a capture as the events that a run on the
// servers would have seen: who sent SYNs, which connections left a socket in
// TIME_WAIT with a server, and which SYNs such a socket refused. Local is who
// was connected to, Remote who sent the SYN, whatever host the capture was
// taken on. NetNS is 0.
//
// # What it tells
//
// Each event has the time of the segment that it is about, and the events are
// in the order of time; those within Disorder of a later one bear its time.
// For that, up to Hold of the capture are kept back.
//
//   - A *event.SYN for each SYN that no connection refused, not for those that
//     repeat it. Unlike in a run it comes once, and Validated tells whether
//     the handshake was seen to be completed within Hold.
//   - A *event.TimeWait of role server where the server sent its FIN before it
//     had that of the client, and both were acknowledged. TSRecent is the
//     TSval that Linux would have kept (RFC 7323 section 4.3).
//   - A *event.PAWSReject or *event.SYNReject for each SYN, repeated ones too,
//     on the 4-tuple of such a connection that got the old connection's ACK,
//     however old that is, or in its 60 s no answer before it was repeated. It
//     is PAWSReject if paws.TimeWait.Receive says that PAWS refuses it. Its
//     Rule is unknown if that knows no reason at all: perhaps nobody listens.
//
// What becomes of a SYN is what the capture shows. One that PAWS should have
// refused but that got a SYN-ACK was accepted.
//
// # What it cannot tell
//
// Connections whose SYN is not in the capture are passed over. Without the
// packets of the servers there are no refusals, and a handshake counts as
// completed when the client has acknowledged something, and then more.
// Whether an answer was sent but not captured, or lost before it got there, is
// not known. Notes says which of these the capture suffers from.
type Source struct {
	in     Segments
	seg    Segment
	table  table
	queue  queue
	prints fingerprints
	now    int64 // ns: the latest time in the capture
	begun  bool
	stray  *stray // nil: the segment before was in order
	err    error
	stats  SourceStats

	// The event that Next returned last.
	syn      event.SYN
	timeWait event.TimeWait
	paws     event.PAWSReject
	reject   event.SYNReject
}

// Segments is where a Source gets its segments from: a *Reader. Next is as in
// Reader.
type Segments interface {
	Next(s *Segment) error
}

// NewSource returns a Source of the segments of in.
func NewSource(in Segments, o SourceOptions) (*Source, error) {
	if o.Connections == 0 {
		o.Connections = 1 << 18
	}
	if o.Pending == 0 {
		o.Pending = 1 << 16
	}
	const most = 1 << 28
	if o.Connections < 1 || o.Connections > most || o.Pending < 1 || o.Pending > most {
		return nil, errors.New("capture: connections and pending SYNs: want 1 to 2^28 of each")
	}
	return &Source{
		in: in, table: newTable(o.Connections), queue: queue{most: o.Pending}, prints: fingerprints{},
	}, nil
}

// Next returns the next event. At the end it returns the error of the
// segments, io.EOF if all is well, or an *OrderError; all events that follow
// from what came before have then been returned. The event is good until the
// next call.
func (s *Source) Next() (event.Event, error) {
	for {
		for s.queue.ripe(s.now, s.err != nil) {
			p := s.queue.pop()
			if !p.decided() && s.err == nil && s.now-p.time < int64(Hold) {
				s.stats.Hurried++
			}
			if ev := s.tell(p); ev != nil {
				return ev, nil
			}
		}
		if s.err != nil {
			return nil, s.err
		}
		if s.err = s.in.Next(&s.seg); s.err == nil {
			s.err = s.take(&s.seg)
		}
	}
}

// Now returns the time of the latest segment, in nanoseconds since the Unix
// epoch: 0 before the first.
func (s *Source) Now() int64 { return s.now }

// stray is the first of some segments that are too old.
type stray struct {
	packet, time, by int64
}

// order takes the time of a segment, and tells whether it is too old.
func (s *Source) order(g *Segment) (old bool, err error) {
	switch {
	case !s.begun || g.Time >= s.now:
		s.now, s.begun = g.Time, true
	case s.now-g.Time <= int64(Disorder):
		s.stats.Disordered++
	default:
		s.stats.Strays++
		if s.stray == nil {
			s.stray = &stray{g.Packet, g.Time, s.now - g.Time}
		}
		if g.Time-s.stray.time >= int64(setBack) {
			err = &OrderError{Packet: s.stray.packet, By: time.Duration(s.stray.by)}
		}
		return true, err
	}
	s.stray = nil
	return false, nil
}

// take learns from a segment.
func (s *Source) take(g *Segment) error {
	s.stats.Segments++
	if old, err := s.order(g); old || err != nil {
		return err
	}
	key, flipped := keyOf(g)
	i := s.table.find(&key)
	if g.Flags&(SYN|ACK|RST|FIN) == SYN {
		s.arrive(i, &key, flipped, g)
		return nil
	}
	switch {
	case i == none && g.Flags&(SYN|ACK|RST) == SYN|ACK:
		s.stats.StraySYNACKs++
	case i == none:
		s.stats.Unknown++
	default:
		c := s.table.touch(i)
		if c.flipped == flipped {
			s.stats.FromClients++
			s.fromClient(i, c, g)
		} else {
			s.stats.FromServers++
			s.fromServer(c, g)
		}
	}
	return nil
}

// tell makes an event of what is known of a SYN or a TIME_WAIT socket, nil for
// none.
func (s *Source) tell(p *pending) event.Event {
	header := event.Header{Time: p.time}
	socket := event.Socket{Local: p.local, Remote: p.remote}
	switch p.fate {
	case enteredTimeWait:
		s.timeWait = event.TimeWait{
			Header: header, Socket: socket, Role: event.RoleServer, Timestamps: p.old.timestamps(), TSRecent: p.old.TSval,
			TimeoutMS: uint32(timeWaitLen / time.Millisecond),
		}
		return &s.timeWait
	case refusedPAWS:
		s.paws = event.PAWSReject{
			Header: header, Socket: socket, Where: event.WhereTimeWait, Segment: event.SegmentSYN,
			TSval: p.TSval, TSRecent: p.old.TSval, Delta: int32(p.TSval - p.old.TSval), AgeMS: age(p.time, p.old.taken), HasAge: true,
			Reply: p.reply, Seq: p.Seq, TTL: p.ttl, Fingerprint: p.fingerprint,
		}
		return &s.paws
	case refusedOther:
		s.reject = event.SYNReject{
			Header: header, Socket: socket, Rule: p.rule, Timestamps: p.Timestamps, TSval: p.TSval, TSRecent: p.old.TSval,
			Seq: p.Seq, RcvNxt: p.old.RcvNxt, AgeMS: age(p.time, p.old.since), HasAge: true,
			Reply: p.reply, TTL: p.ttl, Fingerprint: p.fingerprint,
		}
		return &s.reject
	case passedOver:
		return nil
	case waiting:
		s.stats.Unanswered++
		if p.refusable() {
			s.stats.Undecided++
		}
	}
	s.syn = event.SYN{
		Header: header, Socket: socket, Timestamps: p.Timestamps, TSval: p.TSval, TTL: p.ttl,
		Fingerprint: p.fingerprint, Validated: p.fate == completed,
	}
	return &s.syn
}

// age returns the ms from then to now.
func age(now, then int64) uint32 {
	return uint32(min(max((now-then)/int64(time.Millisecond), 0), 1<<32-1))
}
