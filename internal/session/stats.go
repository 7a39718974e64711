// SPDX-License-Identifier: Apache-2.0

package session

import (
	"os"
	"slices"
	"time"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/observe"
	"github.com/twscope/twscope/internal/probe"
)

// coverage tells the account what there is to compare.
func (s *session) coverage() observe.Coverage {
	sees := func(o probe.Observation) bool {
		r := s.probe.Rung(o)
		return r != probe.None && r != probe.Counter
	}
	c := observe.Coverage{
		TimeWait: sees(probe.TimeWait),
		// on the tracepoint rung re-uses are counted behind the filters
		Reused: sees(probe.TWReuse) &&
			(s.probe.Rung(probe.TWReuse) != probe.Tracepoint || s.wholeReuses()),
		Overflow: sees(probe.Overflow),
		Counting: s.probe.TWCounting(),
	}
	for _, name := range s.probe.PAWSCounters() {
		if name.Complete {
			c.PAWS = append(c.PAWS, name.Counter)
		}
	}
	return c
}

// wholeReuses tells whether the reader is told of every re-use.
func (s *session) wholeReuses() bool {
	f := &s.opts.Filters
	return !part(&s.opts) && !byAddress(f) && len(f.NetNS) == 0
}

// kernelSeen is what the kernel side has counted in a namespace. Any goroutine
// may call it.
func (s *session) kernelSeen(inode uint32) (observe.Seen, error) {
	t, err := s.probe.Tally(inode)
	if err != nil {
		return observe.Seen{}, err
	}
	return observe.Seen{
		TimeWait: t.All[bpf.KindTimeWait],
		Reused:   t.All[bpf.KindTWReuse],
		Overflow: t.Overflow,
		PAWS:     t.PAWS,
	}, nil
}

// seen adds what the reader has counted.
func (s *session) seen(inode uint32) observe.Seen {
	seen, err := s.kernelSeen(inode)
	if err != nil {
		s.log.Error().Err(err).Msg("read the counts of the kernel side")
	}
	seen.Reused += s.reader.Reused[inode]
	return seen
}

// updateReused brings in what was counted while the ring was drained.
func (n *namespaces) updateReused() {
	for inode := range n.known {
		n.session.account.UpdateReused(inode, n.session.seen(inode).Reused)
	}
}

// kindNames are the events that the kernel side counts.
func kindNames() map[bpf.Kind]event.Kind {
	return map[bpf.Kind]event.Kind{
		bpf.KindTimeWait:    event.KindTimeWait,
		bpf.KindTimeWaitEnd: event.KindTimeWaitEnd,
		bpf.KindTWReuse:     event.KindTWReuse,
		bpf.KindConnectFail: event.KindConnectFail,
		bpf.KindSYN:         event.KindSYN,
		bpf.KindSYNRefused:  event.KindSYNRefused,
		bpf.KindPAWSReject:  event.KindPAWSReject,
		bpf.KindSYNReject:   event.KindSYNReject,
	}
}

// stats is the account of the run so far.
func (s *session) stats() event.Stats {
	counts := s.writer.Counts()
	st := event.Stats{
		Header:      event.Header{Time: s.reader.Stamp()},
		UptimeMS:    uint64(time.Since(s.began).Milliseconds()),
		Seen:        map[string]uint64{},
		Written:     counts.Written,
		Lost:        counts.LostByHop(),
		Reconcile:   s.account.Reconcile(),
		TimeWait:    s.hosts.waiting(),
		ClockStepMS: s.clockStep().Milliseconds(),
	}
	tallies, err := s.probe.Tallies()
	if err != nil {
		s.log.Error().Err(err).Msg("read the counts of the kernel side")
	}
	for _, t := range tallies {
		for k, kind := range kindNames() {
			if t.Seen[k] > 0 {
				st.Seen[kind.String()] += t.Seen[k]
			}
		}
	}
	var reused uint64
	for _, n := range s.reader.Reused {
		reused += n
	}
	if reused -= s.reader.ForeignReused; reused > 0 {
		st.Seen[event.KindTWReuse.String()] += reused
	}
	for hop, n := range s.kernelLosses(tallies) {
		if n.total > 0 {
			st.Lost[hop.hop] += n.total
		}
	}
	return st
}

// clockStep tells how far the wall clock was stepped; below 100 ms it may be
// its drift.
func (s *session) clockStep() time.Duration {
	const drift = 100 * time.Millisecond
	step := s.clock.Step()
	if step.Abs() < drift {
		return 0
	}
	if (step - s.stepped).Abs() >= drift {
		s.log.Warn().Dur("step", step).Msg("the wall clock was stepped; event times go on without the step")
		s.stepped = step
	}
	return step
}

func (s *session) writeStats() {
	s.hosts.update()
	s.writeLosses()
	st := s.stats()
	s.analysis.log(&st)
}

// source is where in the kernel side or the reader something was lost.
type source struct {
	hop string
	of  event.Kind
}

type loss struct {
	total uint64
	why   string
}

// losses are those already told, by source.
type losses map[source]uint64

const (
	whyRing      = "the ring buffer was full: twscope got too little CPU; enlarge it with --ring-size, or select less"
	whySample    = "more happens than can be written, so some of it is left out of the log; counts stay exact; select less, or write to a faster disk"
	whyDecode    = "a record of the kernel side was not understood: please report this"
	whyUnseen    = "the kernel counted these, but ran no program of twscope for them, as it does when they interrupt each other on a busy CPU"
	whyRecursion = "the kernel left out runs of a program that was already running on the CPU"
	whyOwner     = "these connections have no owner in the log: the table of open sockets was full, or the kernel left out a run of our program"
)

// kernelLosses sums up the losses before the event log.
func (s *session) kernelLosses(tallies map[uint32]*probe.Tally) map[source]loss {
	all := map[source]loss{
		{hop: "decode"}:                  {s.reader.DecodeErrors, whyDecode},
		{"unseen", event.KindTimeWait}:   {s.unseen(), whyUnseen},
		{"unseen", event.KindPAWSReject}: {s.unseenRejects(), whyUnseen},
		{hop: "recursion"}:               {s.leftOut(), whyRecursion},
	}
	add := func(at source, n uint64, why string) {
		all[at] = loss{all[at].total + n, why}
	}
	for netns, t := range tallies {
		if selects(&s.opts.Filters, netns) {
			add(source{hop: "owner"}, t.NoOwner, whyOwner)
		}
		for k, kind := range kindNames() {
			add(source{"ring", kind}, t.Lost[k], whyRing)
			add(source{"sample", kind}, t.Shed[k], whySample)
		}
		add(source{"sample", event.KindTWReuse}, t.Shed[bpf.KindConnected], whySample)
		add(source{"ring", event.KindTWReuse}, t.Lost[bpf.KindConnected], whyRing)
	}
	return all
}

// selects tells whether a namespace is one that filters select; 0, where those
// are counted that found no place of their own, may be.
func selects(f *probe.Filters, netns uint32) bool {
	return netns == 0 || len(f.NetNS) == 0 || slices.Contains(f.NetNS, netns)
}

// unseen counts the TIME_WAIT sockets that the kernel has counted and no
// program of ours has seen. The counters are read before our tallies, so what
// happens in between does not count.
func (s *session) unseen() uint64 {
	if s.probe.TWCounting() == kernel.TWCountedAtCreation {
		s.missing = max(s.missing, s.account.MissingTimeWaits())
	}
	return s.missing
}

// unseenRejects counts the same of segments that PAWS refused.
func (s *session) unseenRejects() uint64 {
	s.rejects = max(s.rejects, s.account.MissingPAWS())
	return s.rejects
}

// leftOut counts runs of our programs that the kernel left out, where nothing
// better tells what was lost with them: most would have told nothing.
func (s *session) leftOut() uint64 {
	if s.probe.TWCounting() == kernel.TWCountedAtCreation {
		return 0
	}
	return s.probe.RecursionMisses()
}

// writeLosses tells what has been lost since the last time.
func (s *session) writeLosses() {
	tallies, err := s.probe.Tallies()
	if err != nil {
		s.log.Error().Err(err).Msg("read the counts of the kernel side")
		return
	}
	if s.told == nil {
		s.told = losses{}
	}
	for at, l := range s.kernelLosses(tallies) {
		fresh := l.total - s.told[at]
		if fresh == 0 {
			continue
		}
		s.told[at] = l.total
		ev := &event.Loss{
			Header: event.Header{Time: s.reader.Stamp()},
			Hop:    at.hop, Count: fresh, Why: l.why,
		}
		if at.of != event.KindUnknown {
			ev.Of = at.of.String()
		}
		s.analysis.log(ev)
		s.log.Warn().Str("hop", ev.Hop).Str("of", ev.Of).Uint64("count", ev.Count).Msg(ev.Why)
	}
}

// describe makes the start event of the files to come; the one who reads
// calls it whenever something in it has changed.
func (s *session) describe() {
	f := s.opts.Facts
	e := &event.Start{
		Version: s.opts.Version, Host: f.Host, Kernel: f.Release, Arch: f.Machine, BootID: f.BootID,
		PID: os.Getpid(), Coverage: map[string]string{}, Filters: s.opts.FilterText,
	}
	for _, c := range s.probe.Choices() {
		e.Coverage[string(c.Observation)] = string(c.Rung)
		if c.Lost != "" {
			e.Lost = append(e.Lost, c.Lost)
		}
	}
	e.Sysctls, e.Census = s.hosts.describe()
	e.Recycle = s.recycle
	s.start.Store(e)
}

// startEvent is the first line of a file; the event log's own goroutine asks.
func (s *session) startEvent(part int) *event.Start {
	e := *s.start.Load()
	e.Time, e.Part = s.reader.Last(), part
	if e.Time == 0 {
		e.Time = s.clock.Now()
	}
	return &e
}
