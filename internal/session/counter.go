// SPDX-License-Identifier: Apache-2.0

package session

import (
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/probe"
)

// counterInterval is how often the counter rung looks.
const counterInterval = time.Second

// counterRung makes paws_reject events of what only the kernel's counters
// tell.
type counterRung struct {
	counters []probe.PAWSCounter
	told     map[string]map[uint32]int64
	next     time.Time
}

func newCounterRung(p *probe.Probe) counterRung {
	c := counterRung{told: map[string]map[uint32]int64{}}
	for _, counter := range p.PAWSCounters() {
		if !counter.Complete {
			c.counters = append(c.counters, counter)
			c.told[counter.Counter] = map[uint32]int64{}
		}
	}
	return c
}

// poll looks when it is time to.
func (c *counterRung) poll(s *session) {
	if len(c.counters) == 0 || time.Now().Before(c.next) {
		return
	}
	c.next = time.Now().Add(counterInterval)
	s.hosts.update()
	c.now(s)
}

// now tells what has grown according to the account as it stands.
func (c *counterRung) now(s *session) {
	for _, counter := range c.counters {
		for inode, n := range s.account.Unseen(counter.Counter, c.told[counter.Counter]) {
			e := &event.PAWSReject{
				Header: event.Header{Time: s.reader.Stamp()},
				Where:  counter.Where, Counter: counter.Counter, Count: n,
			}
			e.NetNS = inode
			s.analysis.log(e)
		}
	}
}
