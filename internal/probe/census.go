// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// census reads what was there before us.
type census struct {
	timewait *link.Iter
	open     *link.Iter
	programs []*ebpf.Program
}

// openCensus loads the iterators and has the kernel side note who holds the
// sockets that are open now. Without them twscope works from now on only.
func (p *Probe) openCensus() {
	choice := Choice{Observation: Census, Rung: Iterator}
	if err := p.loadCensus(); err != nil {
		choice.Rung = None
		choice.Tried = []Attempt{{Iterator, err}}
		choice.Lost = "sockets that were in TIME_WAIT before the start, and who opened the connections that were open then"
	}
	if err := p.loadOpen(); err != nil {
		p.census.open = nil
		choice.Tried = append(choice.Tried, Attempt{Iterator, err})
		if choice.Lost == "" {
			choice.Lost = "which ports are held by open connections: budgets know those in TIME_WAIT only"
		}
	}
	p.choices = append(p.choices, choice)
}

func (p *Probe) loadCensus() error {
	const timewait, holders = "tws_census_timewait", "tws_census_holders"
	progs, err := p.loader.load("census", []string{timewait, holders}, p.settings)
	if err != nil {
		return err
	}
	p.census.programs = []*ebpf.Program{progs[timewait], progs[holders]}
	p.census.timewait, err = link.AttachIter(link.IterOptions{Program: progs[timewait]})
	if err != nil {
		return fmt.Errorf("iter/tcp: %w", err)
	}
	it, err := link.AttachIter(link.IterOptions{Program: progs[holders]})
	if err != nil {
		return fmt.Errorf("iter/task_file: %w", err)
	}
	defer it.Close()
	return drainIter(it, func(io.Reader) error { return nil })
}

func drainIter(it *link.Iter, read func(io.Reader) error) error {
	r, err := it.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := read(r); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}

// Close detaches the iterators.
func (c *census) Close() {
	for _, it := range []*link.Iter{c.timewait, c.open} {
		if it != nil {
			it.Close()
		}
	}
	for _, p := range c.programs {
		p.Close()
	}
}

// ReusePolicy is what decides in a network namespace whether connect() may
// take over a TIME_WAIT socket.
type ReusePolicy struct {
	TWReuse int           // net.ipv4.tcp_tw_reuse: 0, 1, or 2 for loopback only
	Delay   time.Duration // net.ipv4.tcp_tw_reuse_delay; 1 s where there is none
}

// Snapshot is the sockets of one network namespace that were in TIME_WAIT at
// one moment, and before the probe was attached. Those that end first are
// first.
type Snapshot struct {
	found  []bpf.Census
	boot   uint64 // CLOCK_BOOTTIME, ns
	policy ReusePolicy
}

// CensusTimeWait lists the sockets of the calling thread's network namespace
// that entered TIME_WAIT before the probe was attached; the later ones have
// records of their own. It finds nothing, and no error, where there is no
// iterator.
func (p *Probe) CensusTimeWait(policy ReusePolicy) (Snapshot, error) {
	s, err := p.CensusAll(policy)
	if err != nil {
		return s, err
	}
	s.found = slices.DeleteFunc(s.found, func(c bpf.Census) bool {
		return s.entered(&c) > p.attached+uint64(jiffyMax)
	})
	sort.Slice(s.found, func(i, j int) bool { return s.found[i].RemainingMs < s.found[j].RemainingMs })
	return s, nil
}

// CensusAll is the same with the later ones too.
func (p *Probe) CensusAll(policy ReusePolicy) (Snapshot, error) {
	s := Snapshot{policy: policy, boot: bootNow()}
	if p.census.timewait == nil {
		return s, nil
	}
	err := drainIter(p.census.timewait, func(r io.Reader) error {
		return readRecords(bufio.NewReaderSize(r, 64<<10), func(c *bpf.Census) { s.found = append(s.found, *c) })
	})
	if err != nil {
		return s, fmt.Errorf("list the sockets in TIME_WAIT: %w", err)
	}
	return s, nil
}

// jiffyMax is a tick of the slowest clock, HZ=100: so much younger than it is
// may a socket look by its timer.
const jiffyMax = 10 * time.Millisecond

// entered returns when a socket went into TIME_WAIT, in CLOCK_BOOTTIME ns. A
// timer that was set anew makes it look younger, unless the kernel has kept the
// time of entry; a tcp_fin_timeout below 60 s makes FIN_WAIT2 look older.
func (s Snapshot) entered(c *bpf.Census) uint64 {
	const whole = 60_000
	age := whole - min(c.RemainingMs, whole)
	if c.HasEntryAge != 0 {
		age = c.EntryAgeMs
	}
	return s.boot - min(uint64(age)*uint64(time.Millisecond), s.boot)
}

// Summary counts the sockets and what connect() could do with them.
func (s Snapshot) Summary(netns uint32) event.NamespaceCensus {
	sum := event.NamespaceCensus{NetNS: netns, TimeWait: uint64(len(s.found)), Refused: map[string]uint64{}}
	for i := range s.found {
		reuse, _ := s.policy.judge(&s.found[i])
		if reuse == event.ReusableNow {
			sum.Reusable++
		} else {
			sum.Refused[reuse.String()]++
		}
	}
	return sum
}

// Census puts a snapshot into the log, and into the table of what is in
// TIME_WAIT. Like Run, it must be called by the goroutine that reads.
func (r *Reader) Census(sink Sink, s Snapshot) {
	for i := range s.found {
		c := &s.found[i]
		if r.table != nil {
			entered := s.entered(c)
			age := (s.boot - entered) / uint64(time.Millisecond)
			r.table.enter(&c.Tuple, c.SndNxt, entered, uint32(age)+c.RemainingMs)
		}
		sink.Put(r.censusEvent(c, s))
	}
}

// Recount hands over a snapshot that is not for the log.
func (r *Reader) Recount(s Snapshot, take func(*event.Census)) {
	for i := range s.found {
		take(r.censusEvent(&s.found[i], s))
	}
}

func (r *Reader) censusEvent(c *bpf.Census, s Snapshot) *event.Census {
	e := &event.Census{
		Header:      r.decoder.header(bpf.Header{TimeNs: s.boot}),
		Socket:      r.decoder.socket(&c.Tuple, nil),
		Role:        event.Role(c.Role),
		Substate:    event.Substate(c.Substate),
		Timestamps:  c.Timestamps != 0,
		TSRecent:    c.TsRecent,
		RemainingMS: c.RemainingMs,
	}
	e.Reuse, e.ReuseInMS = s.policy.judge(c)
	return e
}

// judge applies tcp_twsk_unique() (net/ipv4/tcp_ipv4.c), for a connect() that
// chooses its own port, to a socket as the census found it.
func (p ReusePolicy) judge(c *bpf.Census) (event.Reusable, uint32) {
	switch {
	// 0d9e5df4a257 (6.12, and stable kernels); which kernels lack it cannot
	// be told, and what they would do is not promised either
	case event.Substate(c.Substate) == event.SubstateFinWait2:
		return event.ReuseRefusedFinWait2, 0
	case p.TWReuse == 2 && c.Loopback == 0:
		return event.ReuseRefusedLoopback, 0
	case c.Timestamps == 0:
		return event.ReuseRefusedNoTS, 0
	case p.TWReuse == 0:
		return event.ReuseRefusedDisabled, 0
	}
	if c.HasEntryAge == 0 {
		// up to 6.13 the clock must show another second than the stamp
		if c.TsRecentAgeS < 1 {
			return event.ReuseRefusedTooYoung, 1000
		}
		return event.ReusableNow, 0
	}
	delay := uint32(p.Delay / time.Millisecond)
	if c.EntryAgeMs <= delay {
		return event.ReuseRefusedTooYoung, delay - c.EntryAgeMs + 1
	}
	return event.ReusableNow, 0
}
