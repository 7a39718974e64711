// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/ports"
	"github.com/twscope/twscope/internal/probe"
)

// budgets keeps the port budgets and explains failed connects by them.
type budgets struct {
	session *session
	book    *ports.Book
	goes    map[uint32]bool   // processes by whether they are built by Go
	opened  int64             // ns: when the open connections were listed last
	listing time.Duration     // what that took
	told    int64             // ns: when the budgets were written last
	listed  int               // destinations in them
	drifts  map[uint32]*drift // by namespace
	// by namespace: the sysctls, and the ports on which somebody listens
	sysctls   map[uint32]map[string]string
	listening map[uint32][]uint16
	closes    map[probe.Closes]struct{} // as last handed to the book
}

const (
	// listShare bounds what listing open connections may cost: failures are
	// explained by a list that is younger than so many times what it took.
	listShare = 20
	// urgentEvery is how often budgets are written out of turn at most.
	urgentEvery = time.Second
	// goesMax bounds the processes that are remembered.
	goesMax = 4096
	// callsOfGo is how often Go's net.Dial tries a connect() that fails with
	// EADDRNOTAVAIL (spuriousENOTAVAIL in net/tcpsock_posix.go).
	callsOfGo = 3
)

func newBudgets(s *session) *budgets {
	ends := s.probe.Rung(probe.TimeWaitEnd)
	return &budgets{
		session: s,
		book: ports.New(ports.Options{
			MaxDestinations: s.opts.MaxDestinations, HZ: s.opts.Facts.HZ,
			Ends: ends == probe.Fentry || ends == probe.Kprobe, Unfed: unfed(&s.opts, s.probe.Rung(probe.Census) != probe.None),
			Chosen: s.chooses(),
		}),
		goes: map[uint32]bool{}, drifts: map[uint32]*drift{}, sysctls: map[uint32]map[string]string{},
	}
}

// byOwner tells whether filters leave out programs, byAddress whether
// connections.
func byOwner(f *probe.Filters) bool   { return len(f.PIDs)+len(f.Comms)+len(f.Cgroups) > 0 }
func byAddress(f *probe.Filters) bool { return len(f.Remote)+len(f.Local) > 0 }

// chooses tells whether the session knows of more programs than it is about.
func (s *session) chooses() bool { return s.opts.AllOwners && byOwner(&s.opts.Filters) }

// part tells whether filters by owner keep sockets from the budgets.
func part(o *Options) bool { return byOwner(&o.Filters) && !o.AllOwners }

// unfed tells what filters, and a kernel that lists no sockets, keep from the
// budgets. Filters of addresses select whole budgets, but a bound port counts
// in those of others too.
func unfed(o *Options, census bool) []string {
	var u []string
	if !census {
		u = append(u, "sockets in TIME_WAIT from before the start, and whether some were killed since (no BPF iterator)")
	}
	if part(o) {
		u = append(u, "sockets in TIME_WAIT of other programs, and those from before the start (--pid, --comm, --cgroup)")
	}
	if part(o) || byAddress(&o.Filters) {
		u = append(u, "ports that bind() has taken for connections which the filters leave out")
	}
	return u
}

// take brings in an event, and explains it if it is a failure.
func (b *budgets) take(ev event.Event) {
	switch e := ev.(type) {
	case *event.TimeWait:
		b.book.Enter(e)
	case *event.TimeWaitEnd:
		if r := b.session.probe.Rung(probe.TimeWaitEnd); r == probe.Fentry || r == probe.Kprobe {
			b.book.Leave(e)
		}
	case *event.TWReuse:
		b.book.Reuse(e)
	case *event.Census:
		b.book.Census(e)
	case *event.ConnectFail:
		b.explain(e)
	}
}

// takeForeign brings in an event of a program that the filters leave out.
func (b *budgets) takeForeign(ev event.Event) {
	if e, ok := ev.(*event.TimeWaitEnd); ok {
		b.take(e)
		return
	}
	b.book.Foreign(ev)
}

// explain fills in why a connect() failed.
func (b *budgets) explain(e *event.ConnectFail) {
	if e.Time-b.opened >= listShare*int64(b.listing) {
		b.list()
	}
	if b.dialsByGo(e.Owner.PID) {
		e.PerCall = callsOfGo
	}
	b.book.Fail(e)
}

// dialsByGo tells whether a process connects by Go's net.Dial, as every Go
// program does but this one, whose lab calls connect() itself.
func (b *budgets) dialsByGo(pid uint32) bool {
	if pid == 0 {
		return false
	}
	is, known := b.goes[pid]
	if !known {
		if len(b.goes) >= goesMax {
			clear(b.goes)
		}
		root := b.session.hosts.root
		is = kernel.IsGo(root, pid) && !kernel.SameProgram(root, pid, uint32(os.Getpid()))
		b.goes[pid] = is
	}
	return is
}

// list brings in what holds ports beside TIME_WAIT, and how connections ended
// that leave none.
func (b *budgets) list() {
	s := b.session
	began := s.clock.Now()
	b.opened = began
	b.listClosed(began) // first: rates follow from both
	b.listOpen(began)
	b.listing = time.Duration(s.clock.Now() - began)
}

func (b *budgets) listOpen(began int64) {
	s := b.session
	found, err := s.probe.Connections()
	if err != nil {
		if !errors.Is(err, probe.ErrNoIterator) {
			s.log.Error().Err(err).Msg("the ports of open connections are not known")
		}
		return
	}
	b.book.Jiffies(s.clock.UnixNano(found.Boot), found.Jiffies)
	open := map[uint32][]ports.Open{}
	for netns := range s.hosts.known {
		open[netns] = nil
	}
	for _, c := range found.List {
		if c.Local.Port() != 0 {
			open[c.NetNS] = append(open[c.NetNS], ports.Open{Local: c.Local, Remote: c.Remote, Role: c.Role, Bound: c.Bound, Foreign: c.Foreign})
		}
	}
	for netns, list := range open {
		b.book.Opens(netns, began, list)
	}
}

func (b *budgets) listClosed(began int64) {
	s := b.session
	closed, err := s.probe.Closes()
	if err != nil {
		s.log.Error().Err(err).Msg("how connections were closed is not known")
	}
	fresh := make(map[probe.Closes]struct{}, len(closed))
	for _, c := range closed {
		fresh[c] = struct{}{}
		if _, told := b.closes[c]; !told {
			b.book.Closed(c.NetNS, began, c.Local, c.Remote, c.There, c.Reset)
		}
	}
	b.closes = fresh
}

// tell writes the budgets.
func (b *budgets) tell() {
	b.list()
	now := b.session.reader.Stamp()
	b.told = now
	d := b.book.Budgets(now, b.session.opts.Destinations)
	// an empty list tells once that there is nothing any more
	was := b.listed
	b.listed = len(d.List)
	if b.listed == 0 && was == 0 {
		return
	}
	d.Namespaces = b.namespaces(d)
	b.session.analysis.log(d)
}

// namespaces tells what decides in the namespaces that a list names, in their
// order there.
func (b *budgets) namespaces(d *event.Destinations) []event.NamespacePorts {
	var list []event.NamespacePorts
	named := map[uint32]bool{}
	for i := range d.List {
		netns := d.List[i].NetNS
		sysctls, known := b.sysctls[netns]
		if named[netns] || !known {
			continue
		}
		named[netns] = true
		list = append(list, event.NamespacePorts{
			NetNS: netns, Sysctls: sysctls,
			Listening: kernel.FormatPorts(b.listening[netns]), HasListening: b.listening != nil,
		})
	}
	return list
}

// hurry writes the budgets out of turn when one has run out or is about to.
func (b *budgets) hurry() {
	now := b.session.reader.Stamp()
	if now-b.told >= int64(urgentEvery) && b.book.Urgent(now) {
		b.tell()
	}
}

// learn takes in what a look at a namespace has found.
func (b *budgets) learn(l look) {
	netns := l.namespace.Inode
	now := b.session.reader.Stamp()
	b.sysctls[netns] = l.sysctls
	b.book.Namespace(netns, now, portFacts(l.sysctls, b.listening[netns]))
	if l.recounted {
		b.session.reader.Recount(l.snapshot, b.book.Census)
		b.book.EndRecount(netns)
		b.drift(netns).recounted(b.missing(l), l.seen.TimeWait)
	}
}

// drift returns that of a namespace.
func (b *budgets) drift(netns uint32) *drift {
	d := b.drifts[netns]
	if d == nil {
		d = &drift{}
		b.drifts[netns] = d
	}
	return d
}

// missing is how many sockets in TIME_WAIT the book does not hold, or holds too
// many if negative.
func (b *budgets) missing(l look) int64 {
	return int64(l.timeWaits) - int64(b.book.TimeWait(l.namespace.Inode, b.session.reader.Stamp()))
}

// drifted reports whether the sockets in TIME_WAIT of a namespace should be
// counted anew: some were killed, or not seen.
func (b *budgets) drifted(l look) bool {
	netns := l.namespace.Inode
	f := &b.session.opts.Filters
	if part(&b.session.opts) || byAddress(f) || len(f.NetNS) > 0 && !slices.Contains(f.NetNS, netns) {
		return false // sockstat counts all, and we only some
	}
	if b.session.probe.Rung(probe.Census) == probe.None {
		return false // a count would find none, and leave none
	}
	if !b.drift(netns).look(b.missing(l), l.timeWaits, l.seen.TimeWait) {
		return false
	}
	b.book.BeginRecount(netns, b.session.reader.Stamp())
	return true
}

// forget drops a namespace that has gone.
func (b *budgets) forget(netns uint32) {
	b.book.Forget(netns)
	delete(b.drifts, netns)
	delete(b.sysctls, netns)
}

// listeners brings the listening ports up to date.
func (b *budgets) listeners() {
	list, err := b.session.probe.Listeners()
	if err != nil {
		b.session.log.Error().Err(err).Msg("the listening ports are not known")
		return
	}
	b.listening = list
}

// portFacts puts what was read in the terms of the book. What cannot be read is
// not known, and the book says so.
func portFacts(sysctls map[string]string, listening []uint16) ports.Facts {
	f := ports.Facts{TWReuse: -1, ReuseDelayMS: 1000, Blocked: new(ports.PortSet)}
	f.RangeLow, f.RangeHigh, _ = kernel.ParsePortRange(sysctls[kernel.SysctlPortRange])
	if spans, err := kernel.ParsePorts(sysctls[kernel.SysctlReservedPorts]); err == nil {
		f.Reserved = new(ports.PortSet)
		for _, s := range spans {
			f.Reserved.Add(s.Low, s.High)
		}
	}
	for _, p := range listening {
		f.Blocked.Add(p, p)
	}
	number := func(name string, take func(int)) {
		if n, err := strconv.Atoi(sysctls[name]); err == nil && n >= 0 {
			take(n)
		}
	}
	number(kernel.SysctlTWReuse, func(n int) { f.TWReuse = n })
	number(kernel.SysctlTWReuseDelay, func(n int) { f.ReuseDelayMS = uint32(n) })
	number(kernel.SysctlMaxTWBuckets, func(n int) { f.MaxTWBuckets = uint32(n) })
	return f
}
