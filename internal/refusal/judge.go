// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/twscope/twscope/internal/clock"
	"github.com/twscope/twscope/internal/event"
)

// Options set up a Judge. The zero value is good.
type Options struct {
	// Sources is how many (netns, source, local) triples are kept at most; 0
	// is 65,536. One costs about 850 bytes.
	Sources int
	// Tuples is how many 4-tuples are kept at most; 0 is twice Sources. One
	// costs about 230 bytes. Those of 60 s of connections should fit.
	Tuples int
	// Outage is the shortest time, in ns, from the last packet that a host
	// sends before it restarts, or gives up its address, to the first that is
	// sent from the address after; 0 is 300 ms. Less than 0 assumes none, and
	// finds a NAT later.
	Outage int64
	// TickRate is as in clock.Config.
	TickRate int
	// Seed is as in clock.Config.
	Seed [2]uint64
}

const maxRecords = 1 << 24

// Judge tells why SYNs were refused. It is not safe for concurrent use.
type Judge struct {
	clocks  *clock.Tracker
	sources pool[sourceKey, source]
	tuples  pool[tupleKey, tuple]
	hosts   pool[hostKey, host]
	prints  map[look]system
	outage  int64
	proofs  bool // handshakes are seen to complete, so that their lack tells something
}

// New returns a Judge. It fails if an option is out of range.
func New(o Options) (*Judge, error) {
	if o.Sources == 0 {
		o.Sources = 1 << 16
	}
	if o.Tuples == 0 {
		o.Tuples = 2 * o.Sources
	}
	if o.Sources < 1 || o.Sources > maxRecords {
		return nil, fmt.Errorf("sources: %d is not from 1 to %d", o.Sources, maxRecords)
	}
	if o.Tuples < 1 || o.Tuples > 2*maxRecords {
		return nil, fmt.Errorf("tuples: %d is not from 1 to %d", o.Tuples, 2*maxRecords)
	}
	if o.Outage == 0 {
		o.Outage = 300e6
	}
	c, err := clock.New(clock.Config{Sources: o.Sources, TickRate: o.TickRate, Seed: o.Seed})
	if err != nil {
		return nil, err
	}
	return &Judge{
		clocks:  c,
		sources: newPool[sourceKey, source](o.Sources),
		tuples:  newPool[tupleKey, tuple](o.Tuples),
		hosts:   newPool[hostKey, host](o.Sources),
		prints:  map[look]system{},
		outage:  o.Outage,
	}, nil
}

// Feed takes an event of the log. It tells whether that is a refused SYN, of
// which its judgement now says why.
func (j *Judge) Feed(ev event.Event) (refused bool) {
	switch e := ev.(type) {
	case *event.SYN:
		j.SYN(e)
	case *event.TimeWait:
		j.TimeWait(e)
	case *event.Census:
		j.Census(e)
	case *event.PAWSReject:
		j.PAWS(e)
		return e.Verdict != event.VerdictNone
	case *event.SYNReject:
		j.Reject(e)
		return e.Verdict != event.VerdictNone
	}
	return false
}

// The keys hold no pointers, so that the garbage collector passes them over.
type (
	sourceKey struct {
		netns         uint32
		source, local [16]byte
	}
	tupleKey struct {
		sourceKey
		sport, dport uint16 // of the SYN
	}
	hostKey struct {
		netns  uint32
		source [16]byte
	}
)

// socketKeys returns the keys of a socket. They are not good without addresses,
// as on the rung of counters.
func socketKeys(s *event.Socket) (k tupleKey, ok bool) {
	if !s.Remote.Addr().IsValid() || !s.Local.Addr().IsValid() {
		return k, false
	}
	return tupleKey{
		sourceKey{s.NetNS, s.Remote.Addr().As16(), s.Local.Addr().As16()},
		s.Remote.Port(), s.Local.Port(),
	}, true
}

func (k *sourceKey) host() hostKey { return hostKey{k.netns, k.source} }

func (k *sourceKey) clock() clock.Key {
	return clock.Key{
		NetNS:  k.netns,
		Source: netip.AddrFrom16(k.source).Unmap(), Local: netip.AddrFrom16(k.local).Unmap(),
	}
}

// look is a kind of SYN, system what follows from it.
type look struct {
	text string
	ttl  uint8
}

type system struct {
	group clock.Group
	stack stack
	text  string
}

// maxPrints bounds the fingerprints that are remembered: who sends SYNs can
// make up as many as there are.
const maxPrints = 1024

func (j *Judge) system(fingerprint string, ttl uint8) system {
	if fingerprint == "" {
		return system{}
	}
	if s, ok := j.prints[look{fingerprint, ttl}]; ok {
		return s
	}
	if len(j.prints) == maxPrints {
		clear(j.prints)
	}
	text := strings.Clone(fingerprint)
	s := system{group: j.clocks.Group(text, ttl), stack: stackOf(text), text: text}
	j.prints[look{text, ttl}] = s
	return s
}

// source is what is kept of one source. It is made once a handshake completed,
// or a socket of this host refused a SYN of it.
type source struct {
	tally     tally
	syns      uint64
	completed uint64
	repeated  uint64
	rewritten uint64
	refused   uint64
	rejected  uint64
	verdicts  [event.VerdictUnknown + 1]uint64
	asked     uint64 // SYNs that tcp_tw_recycle would have judged
	recycle   [len(recycles)]uint64
	prints    [4]string
	drawn     uint32 // 4-tuples with another clock, of a stack that draws it
	proven    bool   // a handshake completed
}

func (s *source) saw(fingerprint string) {
	if fingerprint == "" {
		return
	}
	for i, p := range s.prints {
		if p == "" {
			s.prints[i] = fingerprint
		}
		if p == "" || p == fingerprint {
			return
		}
	}
}

// forever is for records that only others drive out.
const forever = 1<<63 - 1

// proof returns the source of a connection that completed, or of a SYN that met
// one. It is nil if there is no room.
func (j *Judge) proof(k *sourceKey, now int64) *source {
	return j.sources.put(*k, true, now, forever)
}

// Forget drops all that was seen in a network namespace that is gone. Its
// clocks go within an hour.
func (j *Judge) Forget(netns uint32) {
	j.sources.forget(func(k sourceKey) bool { return k.netns == netns })
	j.tuples.forget(func(k tupleKey) bool { return k.netns == netns })
	j.hosts.forget(func(k hostKey) bool { return k.netns == netns })
}
