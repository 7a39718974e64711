// SPDX-License-Identifier: Apache-2.0

// Package session runs twscope from start to stop: it opens the probe, keeps
// the accounts, feeds the event log, and ends with what was seen and lost.
package session

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/observe"
	"github.com/twscope/twscope/internal/probe"
)

// Options of a session.
type Options struct {
	Version string
	Log     eventlog.Options // Start and Now are the session's own
	Kinds   []event.Kind     // what to write; nil: all but those off by default
	Filters probe.Filters
	// AllOwners has the port budgets count the sockets of all programs, where
	// Filters select some: they share the ports. Written are the events of those
	// that Filters select, and the budgets that they use; time_wait_end is not
	// written, because it tells no owner, and neither is census.
	AllOwners bool
	// Family, if any, is told how many processes run that Filters.PIDs selects,
	// descendants included: at the start, and when it has changed. The goroutine
	// that reads the ring calls it.
	Family func(int)
	// Observer, if any, follows what goes to the log.
	Observer Observer
	// FilterText is what the start event tells of the filters: flag names and
	// their values.
	FilterText    map[string][]string
	Rung          probe.Rung
	RingBytes     uint32
	StatsInterval time.Duration // between stats and between destinations events; 0: none
	// Destinations is how many a destinations event lists, and MaxDestinations
	// for how many a budget is kept; 0: 20 and 10,000.
	Destinations, MaxDestinations int
	// Sources is how many a sources event lists, and MaxSources how many are
	// kept; 0: 20 and 65,536.
	Sources, MaxSources int
	// Hangup asks for the log to be opened again (SIGHUP).
	Hangup <-chan os.Signal
	Logger zerolog.Logger // diagnostics
	// Ready is told once everything is attached and the start event is on
	// its way; default: nothing.
	Ready func(Report)
	// Facts and Cgroups describe this host; Cgroups may be nil.
	Facts   kernel.Facts
	Cgroups *kernel.Cgroups
}

// Observer follows a session from within. The goroutine that reads the ring
// calls it, so it must be quick.
type Observer interface {
	// Feed is called with every event that goes to the log, those kinds too
	// that are not to be written, in their order there. The event is only valid
	// during the call.
	Feed(event.Event)
	// Stop is called with the stop event in place of Feed, and returns the one
	// to write.
	Stop(*event.Stop) *event.Stop
}

// Report is what a person wants to know once the session runs.
type Report struct {
	Choices    []probe.Choice
	Namespaces int
	TimeWait   uint64 // sockets in TIME_WAIT before the start
	Path       string
	Took       time.Duration // from start to attached
}

const (
	defaultDestinations = 20
	defaultSources      = 20
)

// DefaultKinds are written unless --events says otherwise: all but
// time_wait_end and syn, which cost more than they tell most people.
func DefaultKinds() []event.Kind {
	var kinds []event.Kind
	for _, k := range event.Kinds() {
		if k != event.KindTimeWaitEnd && k != event.KindSYN {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// session is one run.
type session struct {
	opts   Options
	log    zerolog.Logger
	began  time.Time
	clock  probe.Clock
	probe  *probe.Probe
	reader *probe.Reader
	writer *eventlog.Writer

	account  *observe.Account
	hosts    *namespaces
	analysis *analysis
	budgets  *budgets
	refusals *refusals
	told     losses
	missing  uint64 // TIME_WAIT sockets that no program has seen
	rejects  uint64 // PAWS rejects that none has seen
	counter  counterRung
	shedder  probe.Shedder
	family   family
	start    atomic.Pointer[event.Start]
	recycle  []event.ConfigLine // that set tcp_tw_recycle
	stepped  time.Duration      // step of the wall clock already noted

	// work is what other goroutines want done by the one that reads.
	work chan func()
}

// Run observes until ctx is done. The cause of ctx is the reason that the stop
// event gives.
func Run(ctx context.Context, opts Options) (err error) {
	if opts.Kinds == nil {
		opts.Kinds = DefaultKinds()
	}
	if opts.Destinations == 0 {
		opts.Destinations = defaultDestinations
	}
	if opts.Sources == 0 {
		opts.Sources = defaultSources
	}
	s := &session{opts: opts, log: opts.Logger, began: time.Now(), work: make(chan func(), 16)}
	if err := s.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.loop(ctx)
}

func (s *session) open() error {
	var err error
	s.probe, err = probe.Open(probe.Config{
		Kinds: s.records(), SYNQuota: synQuota(s.opts.Kinds), Rung: s.opts.Rung, Filters: s.opts.Filters, AllOwners: s.opts.AllOwners,
		RingBytes: s.opts.RingBytes, Facts: s.opts.Facts, Cgroups: s.opts.Cgroups,
	})
	if err != nil {
		return err
	}
	took := time.Since(s.began)
	s.clock = probe.NewClock()
	s.reader = s.probe.Reader(s.clock)
	s.account = observe.NewAccount(s.coverage())
	s.counter = newCounterRung(s.probe)
	s.hosts = newNamespaces(s)
	s.analysis = newAnalysis(s)
	s.budgets = newBudgets(s)
	if s.refusals, err = newRefusals(s); err != nil {
		s.probe.Close()
		return err
	}
	s.budgets.listeners()
	snapshots, err := s.hosts.first()
	if err != nil {
		s.probe.Close()
		return err
	}
	s.findRecycle()
	s.describe()
	s.reader.Stamp()
	if err := s.openLog(); err != nil {
		s.probe.Close()
		return err
	}
	s.analysis.passOn(s.startEvent(0)) // the log has written it
	for _, snap := range snapshots {
		s.reader.Census(s.analysis, snap)
	}
	// the kernel's type information, read to load the programs, is garbage now,
	// and an idle daemon would keep it for long
	debug.FreeOSMemory()
	if s.opts.Ready != nil {
		s.opts.Ready(Report{
			Choices: s.probe.Choices(), Namespaces: len(s.hosts.known), Path: s.opts.Log.Path,
			TimeWait: s.hosts.timeWait(), Took: took,
		})
	}
	return nil
}

// findRecycle reads the configuration files once: what they say has been
// applied at boot.
func (s *session) findRecycle() {
	lines, err := kernel.RecycleLines(s.hosts.root)
	if err != nil {
		s.log.Debug().Err(err).Msg("read the configuration files of sysctl")
	}
	for _, l := range lines {
		s.recycle = append(s.recycle, event.ConfigLine{File: l.File, Line: uint32(l.No), Text: l.Text})
	}
}

func (s *session) openLog() error {
	o := s.opts.Log
	o.Kinds = s.opts.Kinds
	o.Start = s.startEvent
	o.Now = s.reader.Last
	o.Notify = func(err error) {
		if err != nil {
			s.log.Error().Err(err).Msg("the event log cannot be written; observing goes on and counts what is lost")
			return
		}
		s.log.Info().Msg("the event log is written again")
	}
	var err error
	s.writer, err = eventlog.Open(o)
	return err
}

// records are those that the kernel side is to make. Whoever follows a session
// wants what its conclusions are drawn from, whatever is written.
func (s *session) records() []bpf.Kind {
	kinds := s.opts.Kinds
	if s.opts.Observer != nil {
		kinds = append(DefaultKinds(), kinds...)
	}
	return recordKinds(kinds)
}

// recordKinds are the records that the events to write are made from.
func recordKinds(kinds []event.Kind) []bpf.Kind {
	var records []bpf.Kind
	for _, k := range kinds {
		switch k {
		case event.KindTimeWait:
			records = append(records, bpf.KindTimeWait)
		case event.KindTimeWaitEnd:
			// on the timer rung they follow from the others
			records = append(records, bpf.KindTimeWaitEnd, bpf.KindTimeWait, bpf.KindConnected)
		case event.KindTWReuse:
			records = append(records, bpf.KindTWReuse, bpf.KindTimeWait, bpf.KindConnected)
		case event.KindConnectFail:
			records = append(records, bpf.KindConnectFail)
		case event.KindDestinations:
			records = append(records, bpf.KindTimeWait, bpf.KindTWReuse, bpf.KindConnected, bpf.KindConnectFail)
		case event.KindSources:
			records = append(records, bpf.KindTimeWait, bpf.KindSYN, bpf.KindPAWSReject, bpf.KindSYNReject)
		case event.KindFinding:
			records = append(records, recordKinds([]event.Kind{event.KindDestinations, event.KindSources, event.KindSYNRefused})...)
		case event.KindSYN:
			records = append(records, bpf.KindSYN)
		case event.KindSYNRefused:
			records = append(records, bpf.KindSYNRefused)
		case event.KindPAWSReject:
			records = append(records, bpf.KindPAWSReject)
		case event.KindSYNReject:
			records = append(records, bpf.KindSYNReject)
		}
	}
	return records
}

// synsPerCPU is how many SYNs a second each CPU hands over when nobody asks for
// their events: enough to know the clocks of the sources by, and at full rate
// a small part of what twscope costs.
const synsPerCPU = 1000

// synQuota is for probe.Config: 0, all, if every SYN is to be a line.
func synQuota(kinds []event.Kind) uint32 {
	if slices.Contains(kinds, event.KindSYN) {
		return 0
	}
	return synsPerCPU
}

// loop reads until the end, with everything else in between.
func (s *session) loop(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.hosts.watch(ctx)
	}()
	nextStats := s.began.Add(s.opts.StatsInterval)
	idle := func() {
		s.doWork()
		select {
		case <-s.opts.Hangup:
			s.reopen()
		case <-s.writer.ReaderGone():
			cancel(eventlog.ErrReaderGone)
		default:
		}
		if s.opts.StatsInterval > 0 && !time.Now().Before(nextStats) {
			nextStats = nextStats.Add(s.opts.StatsInterval)
			s.writeStats()
			s.budgets.tell()
			s.refusals.tell()
		}
		s.budgets.hurry()
		s.refusals.hurry()
		s.counter.poll(s)
		s.shed()
		s.family.look(s)
	}
	err := s.reader.Run(ctx, s.analysis, idle)
	cancel(nil)
	s.waitWatch(watched)
	return errors.Join(err, s.stop(reason(ctx, err)))
}

// waitWatch waits for the watcher, which may be waiting for us.
func (s *session) waitWatch(watched <-chan struct{}) {
	for {
		select {
		case <-watched:
			s.doWork()
			return
		case f := <-s.work:
			f()
		}
	}
}

func (s *session) doWork() {
	for {
		select {
		case f := <-s.work:
			f()
		default:
			return
		}
	}
}

// shed gives up detail when the ring or the buffer of the log fills up, and
// takes it back when there is room again.
func (s *session) shed() {
	oneIn, changed := s.shedder.Next(max(s.probe.Backlog(), s.writer.Backlog()), time.Now())
	if !changed {
		return
	}
	if err := s.probe.Sample(oneIn); err != nil {
		s.log.Error().Err(err).Msg("shed detail")
		return
	}
	if oneIn == 1 {
		s.log.Info().Msg("every event is written again")
	} else {
		s.log.Warn().Uint32("one_in", oneIn).Msg("more happens than can be written: events are sampled, counts stay exact")
	}
	s.writeLosses()
}

func (s *session) reopen() {
	if err := s.writer.Reopen(); err != nil {
		s.log.Error().Err(err).Msg("re-open the event log after SIGHUP")
		return
	}
	s.log.Info().Str("path", s.opts.Log.Path).Msg("event log re-opened after SIGHUP")
}

func reason(ctx context.Context, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, eventlog.ErrReaderGone) {
		return "error: " + cause.Error()
	}
	return cause.Error()
}

// stop reads the counters a last time, then what is left in the ring, and
// writes the stop event.
func (s *session) stop(reason string) error {
	s.hosts.update()
	if err := s.reader.Drain(s.analysis); err != nil {
		s.log.Error().Err(err).Msg("read what is left in the ring")
	}
	s.hosts.updateReused()
	s.counter.now(s)
	s.budgets.tell()
	s.refusals.tell()
	s.writeLosses()
	// so that the stop event counts the lines that are on disk
	err := s.writer.Flush()
	stop := &event.Stop{Stats: s.stats(), Reason: reason}
	if s.opts.Observer != nil {
		stop = s.opts.Observer.Stop(stop)
	}
	s.writer.Put(stop)
	return err
}

func (s *session) close() error {
	err := s.writer.Close()
	s.probe.Close()
	if errors.Is(err, eventlog.ErrReaderGone) {
		return nil
	}
	return err
}
