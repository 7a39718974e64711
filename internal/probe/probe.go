// SPDX-License-Identifier: Apache-2.0

// Package probe observes the kernel: it decides by trial which hooks to use,
// attaches them, and turns their records into events. Everything that depends
// on the machine is decided here, once, at start.
package probe

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/kernel"
)

// Config is what to observe.
type Config struct {
	// Kinds are the records to emit; the kernel side counts all of them.
	Kinds []bpf.Kind
	// Rung forces a rung: better ones are left out, and an observation that
	// has this rung must get it. Empty: the best that works.
	Rung    Rung
	Filters Filters
	// AllOwners has the sockets of programs that Filters leave out told too, as
	// far as they hold local ports: see Reader.Foreign.
	AllOwners bool
	// RingBytes is the size of the ring buffer, a power of two and a multiple
	// of the page size; 0: DefaultRingBytes.
	RingBytes uint32
	// SYNQuota is how many SYN records a CPU makes per second at most; 0: all.
	SYNQuota uint32
	Facts    kernel.Facts
	Cgroups  *kernel.Cgroups
}

// DefaultRingBytes holds 75,000 TIME_WAIT records.
const DefaultRingBytes = 8 << 20

// flushInterval is how long a record may wait in the ring when it does not
// fill faster.
const flushInterval = 100 * time.Millisecond

func (c Config) wants(k bpf.Kind) bool {
	return slices.Contains(c.Kinds, k)
}

// Choice is how one observation is made.
type Choice struct {
	Observation Observation
	Rung        Rung
	// Lost says in words what this rung cannot see; empty: nothing.
	Lost string
	// Tried are the better rungs that do not work here, and why.
	Tried []Attempt
	// Missing are optional hooks that this kernel does not have.
	Missing []string
}

// Attempt is a rung that does not work here.
type Attempt struct {
	Rung Rung
	Err  error
}

// ErrNothingToSee says that neither TIME_WAIT nor PAWS can be observed.
var ErrNothingToSee = errors.New("neither TIME_WAIT nor PAWS rejects can be observed on this kernel")

// ErrForcedRung says that the forced rung does not work here.
var ErrForcedRung = errors.New("the rung asked for does not work on this kernel")

// Probe is a set of attached programs and their records.
type Probe struct {
	cfg      Config
	facts    facts
	loader   *loader
	choices  []Choice
	settings bpf.Config
	control  bpf.Orders // as the kernel side has it
	reader   *ringbuf.Reader
	census   census
	attached uint64 // CLOCK_BOOTTIME, ns: from then on records tell of everything
}

// Open plans, loads and attaches. What does not work is stepped over and told
// by Choices; it is an error if nothing of worth works.
func Open(cfg Config) (*Probe, error) {
	if cfg.RingBytes == 0 {
		cfg.RingBytes = DefaultRingBytes
	}
	// up to 5.10 BPF maps count against it; later this does nothing
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise our own limit on locked memory: %w", err)
	}
	cache := btf.NewCache()
	spec, err := cache.Kernel()
	if err != nil {
		return nil, fmt.Errorf("this kernel shows no type information (BTF), without which its structures cannot be read; "+
			"use a kernel with CONFIG_DEBUG_INFO_BTF, where /sys/kernel/btf/vmlinux exists: %w", err)
	}
	p := &Probe{cfg: cfg, facts: newFacts(kernel.NewBTF(spec))}
	if p.loader, err = newLoader(cache, cfg.RingBytes); err != nil {
		return nil, explainLoadError(err)
	}
	if err := p.start(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Probe) start() error {
	var err error
	if err = p.setFilters(); err != nil {
		return err
	}
	p.settings = p.baseSettings()
	if err = p.followSuspend(); err != nil {
		return err
	}
	if err = p.climb(); err != nil {
		return err
	}
	if err = p.adoptFamilies(); err != nil {
		return err
	}
	p.attached = bootNow()
	p.openCensus()
	if p.reader, err = ringbuf.NewReader(p.loader.maps["tws_events"]); err != nil {
		return fmt.Errorf("read the ring buffer: %w", err)
	}
	p.loader.done()
	p.facts.btf = kernel.BTF{}
	return nil
}

func newFacts(b kernel.BTF) facts {
	f := facts{btf: b, reasons: b.DropReasons(), counting: b.TWCounting()}
	f.kfreeSkbArgs, _ = b.TracepointArgs("kfree_skb")
	return f
}

// TCP_PAWS_WRAP and TCP_PAWS_24DAYS, include/net/tcp.h, in seconds.
const (
	pawsWrap    = (1 << 31) / 1000000
	pawsDays24  = 60 * 60 * 24 * 24
	wakeupShare = 16 // of the ring
)

func (p *Probe) baseSettings() bpf.Config {
	c := bpf.Config{
		Hz:           uint32(p.cfg.Facts.HZ),
		WakeupBytes:  p.cfg.RingBytes / wakeupShare,
		KfreeSkbArgs: uint32(p.facts.kfreeSkbArgs),
		PawsWrapS:    pawsDays24,

		ReasonTwPaws:  p.facts.reasons.Value["TCP_RFC7323_TW_PAWS"],
		ReasonPaws:    p.facts.reasons.Value["TCP_RFC7323_PAWS"],
		ReasonPawsAck: p.facts.reasons.Value["TCP_RFC7323_PAWS_ACK"],
		ReasonTsecr:   p.facts.reasons.Value["TCP_RFC7323_TSECR"],
		ReasonNone:    p.facts.reasons.Value["NOT_SPECIFIED"],
		SynQuota:      p.cfg.SYNQuota,
	}
	// 614e8316aa4c shortened the window in the series that brought tcp_usec_ts
	if p.facts.btf.HasField("tcp_sock", "tcp_usec_ts") {
		c.PawsWrapS = pawsWrap
	}
	for _, k := range p.cfg.Kinds {
		c.Kinds |= 1 << k
	}
	p.cfg.Filters.settings(&c)
	if p.cfg.AllOwners {
		c.AllOwners = 1
	}
	return c
}

// climb decides every ladder. Steps that share the program on
// inet_sock_set_state or on kfree_skb only leave their mark in the settings;
// those two programs are attached last.
func (p *Probe) climb() error {
	have := map[Observation]bool{}
	for _, l := range plan() {
		if have[l.observation] || l.wanted != nil && !l.wanted(p.cfg) {
			continue
		}
		choice, step, err := p.climbOne(l)
		if err != nil {
			return err
		}
		p.choices = append(p.choices, choice)
		if step == nil {
			continue
		}
		for _, o := range step.also {
			have[o] = true
			p.choices = append(p.choices, Choice{Observation: o, Rung: step.rung, Tried: choice.Tried})
		}
	}
	if !have[Overflow] {
		p.choices = append(p.choices, Choice{
			Observation: Overflow, Rung: Counter,
			Lost: "which sockets were closed without TIME_WAIT because tcp_max_tw_buckets was reached: only their number is known",
		})
	}
	if !have[SYNReject] {
		p.choices = append(p.choices, Choice{Observation: SYNReject, Rung: None, Lost: synRejectLost})
	}
	if r := p.Rung(SYN); r == Fentry || r == Kprobe {
		p.settings.SynOnState = 1 // those hooks do not see that a handshake completes
	}
	if err := p.attachShared(); err != nil {
		return err
	}
	return p.check()
}

// climbOne finds the first step that works.
func (p *Probe) climbOne(l ladder) (Choice, *step, error) {
	choice := Choice{Observation: l.observation, Rung: None, Lost: l.lost}
	for _, s := range sortForced(l.steps, p.cfg.Rung) {
		missing, err := p.try(s)
		if err == nil {
			choice.Rung, choice.Lost, choice.Missing = s.rung, s.lost, missing
			return choice, &s, nil
		}
		choice.Tried = append(choice.Tried, Attempt{s.rung, err})
		if s.rung == p.cfg.Rung && !errors.Is(err, errLacks) && !isMissing(err) {
			return choice, nil, fmt.Errorf("%w: --rung %s for %s: %w", ErrForcedRung, s.rung, l.observation, err)
		}
	}
	return choice, nil, nil
}

var errLacks = errors.New("not in this kernel")

func (p *Probe) try(s step) ([]string, error) {
	if s.has != nil && !s.has(p.facts) {
		return nil, fmt.Errorf("%w: %s", errLacks, s.lacks)
	}
	if s.shared || s.object == "" {
		if s.set != nil {
			s.set(&p.settings)
		}
		return nil, nil
	}
	settings := p.settings
	if s.set != nil {
		s.set(&settings)
	}
	return p.loader.attach(s.object, s.programs, settings)
}

// attachShared attaches the two programs that serve several observations.
func (p *Probe) attachShared() error {
	s := &p.settings
	if s.DropsTimewait|s.DropsEstablished|s.DropsSynRecv != 0 {
		if _, err := p.loader.attach("paws", one("tws_kfree_skb"), *s); err != nil {
			p.stepDown(err, func(c Choice) bool {
				return c.Rung == Tracepoint && isPAWSDrop(c.Observation)
			}, Counter, pawsCounterLost)
			p.stepDown(err, func(c Choice) bool {
				return c.Rung == Tracepoint && c.Observation == SYNReject
			}, None, synRejectLost)
		}
	}
	programs := []program{{name: "tws_set_state"}, {name: "tws_destroy_sock"}}
	if s.FilterPid != 0 {
		programs = append(programs, program{name: "tws_fork"}, program{name: "tws_exit"})
	}
	// bpf_sk_storage_get() is there for tracing programs since 5.11
	s.SkStorage = 1
	_, err := p.loader.attach("connect", programs, *s)
	if err != nil {
		s.SkStorage = 0
		_, err = p.loader.attach("connect", programs, *s)
	}
	owner := Choice{Observation: Owner, Rung: Tracepoint}
	switch {
	case err != nil:
		p.stepDown(err, func(c Choice) bool { return c.Rung == Tracepoint && sharesState(c.Observation) }, None, "")
		owner.Rung, owner.Lost = None, "who called connect() and who listens"
		owner.Tried = []Attempt{{Tracepoint, err}}
	case s.SkStorage == 0:
		owner.Lost = "the owner of connections accepted on a port on which several processes listen (SO_REUSEPORT)"
	}
	p.choices = append(p.choices, owner)
	return nil
}

func isPAWSDrop(o Observation) bool {
	return o == PAWSTimeWait || o == PAWSEstablished || o == PAWSSYNRecv
}

func sharesState(o Observation) bool {
	return o == TimeWait || o == TWReuse || o == ConnectFail || o == SYN
}

func (p *Probe) stepDown(err error, which func(Choice) bool, to Rung, lost string) {
	for i := range p.choices {
		c := &p.choices[i]
		if !which(*c) {
			continue
		}
		c.Tried = append(c.Tried, Attempt{c.Rung, err})
		c.Rung = to
		if lost != "" {
			c.Lost = lost
		}
		for _, l := range plan() {
			if lost == "" && l.observation == c.Observation {
				c.Lost = l.lost
			}
		}
	}
}

// check refuses to run when nothing of worth can be seen.
func (p *Probe) check() error {
	var errs []error
	for _, c := range p.choices {
		if c.Observation != TimeWait && c.Observation != PAWSTimeWait {
			continue
		}
		if c.Rung != None && c.Rung != Counter {
			return nil
		}
		for _, t := range c.Tried {
			errs = append(errs, fmt.Errorf("%s by %s: %w", c.Observation, t.Rung, t.Err))
		}
	}
	return fmt.Errorf("%w; use a kernel of 5.8 or later that allows BPF tracepoint programs, and see 'twscope check': %w",
		ErrNothingToSee, errors.Join(errs...))
}

// sortForced leaves out the rungs above a forced one, and puts it first.
func sortForced(steps []step, forced Rung) []step {
	if forced == "" {
		return steps
	}
	var first, rest []step
	for _, s := range steps {
		switch {
		case s.rung == forced:
			first = append(first, s)
		case s.rung.rank() <= forced.rank():
			rest = append(rest, s)
		}
	}
	return append(first, rest...)
}

// Rung returns how an observation is made.
func (p *Probe) Rung(o Observation) Rung {
	for _, c := range p.choices {
		if c.Observation == o {
			return c.Rung
		}
	}
	return None
}

// Choices tells how each observation is made.
func (p *Probe) Choices() []Choice { return p.choices }

// Close detaches everything. Records still in the ring are lost: Drain first.
func (p *Probe) Close() error {
	p.census.Close()
	if p.reader != nil {
		p.reader.Close()
	}
	p.loader.Close()
	return nil
}
