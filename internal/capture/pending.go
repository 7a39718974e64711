// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/paws"
)

// fate is what became of a SYN.
type fate uint8

const (
	waiting   fate = iota // no answer yet
	denied                // answered by RST: nobody listens
	accepted              // answered by a SYN-ACK
	completed             // which was acknowledged
	refusedPAWS
	refusedOther
	passedOver      // refused by a connection that is open
	enteredTimeWait // no SYN, but the end of a connection
)

// oldSocket is a socket in TIME_WAIT.
type oldSocket struct {
	paws.TimeWait
	taken int64 // ns: when its ts_recent was
	since int64 // ns: when it entered TIME_WAIT
}

func (o *oldSocket) timestamps() bool { return o.Stamp != 0 }

// pending is an event that is kept back until it is known, or is its turn.
type pending struct {
	time          int64
	local, remote netip.AddrPort
	fate          fate
	ttl           uint8
	paws.SYN
	fingerprint string

	// On the 4-tuple of an old connection:
	old     oldSocket
	onOld   bool // it was in TIME_WAIT
	onOpen  bool // it was open
	alive   bool // for less than its 60 s, and no RST had killed it
	outcome paws.Outcome
	rule    event.Rule
	reply   event.Reply
}

// refusable tells whether silence is a refusal by a socket in TIME_WAIT.
func (p *pending) refusable() bool {
	return p.onOld && p.alive && (p.outcome == paws.PAWS || p.outcome == paws.Sequence)
}

// decided tells whether it will not change any more.
func (p *pending) decided() bool { return p.fate != waiting && p.fate != accepted }

// refuse notes that the socket in TIME_WAIT refused it.
func (p *pending) refuse(r event.Reply) {
	p.reply, p.fate = r, refusedOther
	switch p.outcome {
	case paws.PAWS:
		p.fate = refusedPAWS
	case paws.Sequence:
		p.rule = event.RuleSequence
	}
}

// queue holds events in the order of the capture. Each has a number, from 1.
type queue struct {
	ring  []pending // its length is a power of two
	first uint64    // number of the oldest, less one
	n     int
	most  int
}

// push appends p and returns its number.
func (q *queue) push(p pending) uint64 {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.n++
	number := q.first + uint64(q.n)
	q.ring[number&uint64(len(q.ring)-1)] = p
	return number
}

func (q *queue) grow() {
	ring := make([]pending, max(64, 2*len(q.ring)))
	for i := range uint64(q.n) {
		number := q.first + 1 + i
		ring[number&uint64(len(ring)-1)] = q.ring[number&uint64(len(q.ring)-1)]
	}
	q.ring = ring
}

// get returns the one of a number, nil if it is gone.
func (q *queue) get(number uint64) *pending {
	if number <= q.first {
		return nil
	}
	return &q.ring[number&uint64(len(q.ring)-1)]
}

// ripe tells whether the oldest is to be told now.
func (q *queue) ripe(now int64, end bool) bool {
	if q.n == 0 {
		return false
	}
	p := q.get(q.first + 1)
	return end || q.n > q.most || p.decided() || now-p.time >= int64(Hold)
}

// pop removes the oldest. It is good until the next push.
func (q *queue) pop() *pending {
	p := q.get(q.first + 1)
	q.first++
	q.n--
	return p
}

// seconds is a time as package paws wants it: never 0, which means none.
func seconds(ns int64) uint32 { return max(uint32(ns/int64(time.Second)), 1) }
