// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"github.com/twscope/twscope/internal/bpf"
)

// Tally is what the kernel side has counted in one network namespace since the
// start. It is exact even when the ring overflowed.
type Tally struct {
	All      [bpf.KindMax]uint64 // happened, before any filter
	Seen     [bpf.KindMax]uint64 // passed the filters
	Lost     [bpf.KindMax]uint64 // passed, but the ring was full
	PAWS     map[string]uint64   // rejects by MIB counter, before any filter
	Overflow uint64              // TIME_WAIT sockets that were not created
	NoOwner  uint64              // the table of sockets was full: no owner
}

// Tallies returns the counts by the inode of the network namespace; 0 sums up
// the namespaces that found no place of their own.
func (p *Probe) Tallies() (map[uint32]*Tally, error) {
	tallies := map[uint32]*Tally{}
	var inode uint32
	var perCPU []bpf.Tally
	it := p.loader.maps["tws_counts"].Iterate()
	for it.Next(&inode, &perCPU) {
		t := &Tally{PAWS: map[string]uint64{}}
		for i := range perCPU {
			t.add(&perCPU[i])
		}
		tallies[inode] = t
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read the counts of the kernel side: %w", err)
	}
	return tallies, nil
}

func (t *Tally) add(c *bpf.Tally) {
	for k := range t.All {
		t.All[k] += c.All[k]
		t.Seen[k] += c.Seen[k]
		t.Lost[k] += c.Lost[k]
	}
	for i, n := range c.Paws {
		if name := counterName(bpf.Counter(i)); name != "" {
			t.PAWS[name] += n
		}
	}
	t.Overflow += c.Overflow
	t.NoOwner += c.NoOwner
}

// RecursionMisses counts program runs that the kernel left out because the
// program was running on that CPU already.
func (p *Probe) RecursionMisses() uint64 { return p.loader.recursionMisses() }
