// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// Tally is what the kernel side has counted in one network namespace since the
// start. It is exact even when the ring overflowed.
type Tally struct {
	All      [bpf.KindMax]uint64 // happened, before any filter
	Seen     [bpf.KindMax]uint64 // passed the filters
	Shed     [bpf.KindMax]uint64 // passed, but left out under overload
	Lost     [bpf.KindMax]uint64 // passed, but the ring was full
	PAWS     map[string]uint64   // rejects by MIB counter, before any filter
	Overflow uint64              // TIME_WAIT sockets that were not created
	NoOwner  uint64              // the table of sockets was full: no owner
	Repaired uint64              // TIME_WAIT sockets that tws_set_state() was not run for
}

// Tallies returns the counts by the inode of the network namespace; 0 sums up
// the namespaces that found no place of their own.
func (p *Probe) Tallies() (map[uint32]*Tally, error) {
	places, err := p.places()
	if err != nil {
		return nil, err
	}
	tallies := map[uint32]*Tally{}
	for i, place := range places {
		// what finds no place is counted in the first
		if place.Netns == 0 && i != 0 {
			continue
		}
		t := tallies[place.Netns]
		if t == nil {
			t = &Tally{PAWS: map[string]uint64{}}
		}
		if err := p.addTally(t, uint32(i)); err != nil {
			return nil, err
		}
		if place.Netns != 0 || t.any() {
			tallies[place.Netns] = t
		}
	}
	return tallies, nil
}

// placesTried is TWS_NETNS_TRIES in bpf/maps.h: so many places behind the first
// may be a namespace's.
const placesTried = 8

// Tally returns the counts of one network namespace.
func (p *Probe) Tally(inode uint32) (*Tally, error) {
	m := p.loader.maps["tws_places"]
	t := &Tally{PAWS: map[string]uint64{}}
	for i := range uint32(placesTried) {
		at := (inode + i) % m.MaxEntries()
		var place bpf.NetnsPlace
		if err := m.Lookup(at, &place); err != nil {
			return nil, fmt.Errorf("read the counts of the kernel side: %w", err)
		}
		if place.Netns != inode {
			continue
		}
		if err := p.addTally(t, at); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// places tells whose counts are where.
func (p *Probe) places() ([]bpf.NetnsPlace, error) {
	m := p.loader.maps["tws_places"]
	keys := make([]uint32, m.MaxEntries())
	places := make([]bpf.NetnsPlace, len(keys))
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, keys, places, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read the counts of the kernel side: %w", err)
	}
	return places[:n], nil
}

func (p *Probe) addTally(t *Tally, place uint32) error {
	var perCPU []bpf.Tally
	if err := p.loader.maps["tws_counts"].Lookup(place, &perCPU); err != nil {
		return fmt.Errorf("read the counts of the kernel side: %w", err)
	}
	for i := range perCPU {
		t.add(&perCPU[i])
	}
	return nil
}

func (t *Tally) any() bool {
	return t.All != [bpf.KindMax]uint64{} || t.Overflow != 0 || t.NoOwner != 0
}

func (t *Tally) add(c *bpf.Tally) {
	for k := range t.All {
		t.All[k] += c.All[k]
		t.Seen[k] += c.All[k] - c.Filtered[k]
		t.Shed[k] += c.Shed[k]
		t.Lost[k] += c.Lost[k]
	}
	for i, n := range c.Paws {
		if name := counterName(bpf.Counter(i)); name != "" {
			t.PAWS[name] += n
		}
	}
	t.Overflow += c.Overflow
	t.NoOwner += c.NoOwner
	t.Repaired += c.Repaired
}

// RecursionMisses counts program runs that the kernel left out because the
// program was running on that CPU already, and that nothing makes good.
func (p *Probe) RecursionMisses() uint64 {
	// what tws_set_state() is not run for, tws_destroy_sock() finds
	return p.loader.recursionMisses("tws_set_state")
}

// PAWSCounter is a MIB counter of PAWS rejects.
type PAWSCounter struct {
	Counter string
	Where   event.Where // what it counts; WhereUnknown when several places share it
	// Complete: every observation behind the counter is made reject by
	// reject. Otherwise the counter alone tells of some of them.
	Complete bool
}

// PAWSCounters lists the counters of this kernel. Up to 6.15 PAWSEstab holds
// the rejects of TIME_WAIT sockets too (c449d5f3a3d7).
func (p *Probe) PAWSCounters() []PAWSCounter {
	sees := func(list ...Observation) bool {
		for _, o := range list {
			if r := p.Rung(o); r == Counter || r == None {
				return false
			}
		}
		return true
	}
	list := []PAWSCounter{{"PAWSActive", event.WhereSYNSent, sees(PAWSSYNSent)}}
	if p.settings.ReasonTwPaws != 0 {
		list = append(list,
			PAWSCounter{"PAWSTimewait", event.WhereTimeWait, sees(PAWSTimeWait)},
			PAWSCounter{"PAWSEstab", event.WhereUnknown, sees(PAWSEstablished, PAWSSYNRecv)})
	} else {
		list = append(list,
			PAWSCounter{"PAWSEstab", event.WhereUnknown, sees(PAWSTimeWait, PAWSEstablished, PAWSSYNRecv)})
	}
	if p.settings.ReasonPawsAck != 0 {
		list = append(list, PAWSCounter{"PAWSOldAck", event.WhereEstablished, sees(PAWSEstablished)})
	}
	return list
}

// TWCounting returns when the kernel counts TIME_WAIT sockets.
func (p *Probe) TWCounting() kernel.TWCounting { return p.facts.counting }
