// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/observe"
	"github.com/twscope/twscope/internal/probe"
)

// watchInterval is how often namespaces are looked for and sysctls are read.
const watchInterval = 2 * time.Second

// namespaces knows the network namespaces of this host. The map and what is in
// it belong to the goroutine that reads.
type namespaces struct {
	session *session
	root    fs.FS
	known   map[uint32]*namespace
	listens *listens
}

type namespace struct {
	kernel.Namespace
	sysctls map[string]string
	census  event.NamespaceCensus
	next    survey // at the next visit
	listens listenBook
}

// look is what one visit to a namespace finds.
type look struct {
	namespace kernel.Namespace
	sysctls   map[string]string
	seen      observe.Seen // by the kernel side, just before counters
	counters  kernel.Counters
	snapshot  probe.Snapshot
	recounted bool   // snapshot is of all sockets in TIME_WAIT, not of those before us
	timeWaits uint32 // sockets in TIME_WAIT, by sockstat
	err       error
}

// survey is which sockets in TIME_WAIT a visit lists.
type survey uint8

const (
	surveyNone    survey = iota
	surveyEarlier        // than the probe
	surveyAll
)

func newNamespaces(s *session) *namespaces {
	root := os.DirFS("/")
	return &namespaces{session: s, root: root, known: map[uint32]*namespace{}, listens: newListens(s, root)}
}

// first finds the namespaces that are there at the start and counts their
// sockets in TIME_WAIT.
func (n *namespaces) first() ([]probe.Snapshot, error) {
	found, err := kernel.FindNamespaces(n.root)
	if err != nil {
		return nil, fmt.Errorf("find the network namespaces: %w", err)
	}
	var snapshots []probe.Snapshot
	for _, ns := range found.List {
		l := n.visit(ns, surveyEarlier)
		if l.err != nil {
			n.complain(l)
			continue
		}
		n.add(l, false)
		snapshots = append(snapshots, l.snapshot)
	}
	return snapshots, nil
}

// visit goes into a namespace and looks around.
func (n *namespaces) visit(ns kernel.Namespace, of survey) look {
	l := look{namespace: ns, recounted: of == surveyAll}
	l.err = ns.Do(func() error {
		var err error
		// what cannot be read is not known, which is no reason not to go on
		l.sysctls, _ = kernel.ReadSysctls(n.root)
		if l.seen, err = n.session.kernelSeen(ns.Inode); err != nil {
			return err
		}
		if l.counters, err = kernel.ReadCounters(n.root, "proc/thread-self/net"); err != nil {
			return err
		}
		return n.list(&l, of)
	})
	return l
}

// list lists the sockets of the namespace that the calling thread is in.
func (n *namespaces) list(l *look, of survey) error {
	const proc = "proc/thread-self/net"
	var err error
	if l.timeWaits, err = kernel.ReadTimeWaits(n.root, proc); err != nil {
		return err
	}
	switch of {
	case surveyEarlier:
		l.snapshot, err = n.session.probe.CensusTimeWait(policy(l.sysctls))
	case surveyAll:
		l.snapshot, err = n.session.probe.CensusAll(policy(l.sysctls))
	}
	return err
}

// policy is what connect() goes by in a namespace.
func policy(sysctls map[string]string) probe.ReusePolicy {
	p := probe.ReusePolicy{Delay: time.Second}
	p.TWReuse, _ = strconv.Atoi(sysctls[kernel.SysctlTWReuse])
	if ms, err := strconv.Atoi(sysctls[kernel.SysctlTWReuseDelay]); err == nil {
		p.Delay = time.Duration(ms) * time.Millisecond
	}
	return p
}

// add opens the account of a namespace.
func (n *namespaces) add(l look, younger bool) {
	s := n.session
	inode := l.namespace.Inode
	census := l.snapshot
	if s.chooses() {
		census = probe.Snapshot{} // whose they are is not known
	}
	n.known[inode] = &namespace{Namespace: l.namespace, sysctls: l.sysctls, census: census.Summary(inode)}
	s.account.Open(inode, l.seen, l.counters, s.seen(inode), younger)
	n.listens.open(n.known[inode], l.counters)
	s.budgets.learn(l)
}

func (n *namespaces) complain(l look) {
	if errors.Is(l.err, kernel.ErrNamespaceGone) {
		return
	}
	n.session.log.Warn().Err(l.err).Uint32("netns", l.namespace.Inode).
		Msg("a network namespace cannot be looked into: its events are logged, its counters and sysctls are not")
}

// watch looks for namespaces that come and go, and for sysctls that change,
// until ctx is done.
func (n *namespaces) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		found, err := kernel.FindNamespaces(n.root)
		if err != nil {
			n.session.log.Warn().Err(err).Msg("look for network namespaces")
			continue
		}
		known := n.ask(ctx)
		var looks []look
		for _, ns := range found.List {
			of, ok := known[ns.Inode]
			if !ok {
				of = surveyEarlier
			}
			looks = append(looks, n.visit(ns, of))
		}
		n.hand(ctx, func() { n.compare(looks) })
	}
}

// ask returns which namespaces are known, and what is to be listed there.
func (n *namespaces) ask(ctx context.Context) map[uint32]survey {
	answer := make(chan map[uint32]survey, 1)
	n.hand(ctx, func() {
		known := make(map[uint32]survey, len(n.known))
		for inode, ns := range n.known {
			known[inode] = ns.next
		}
		answer <- known
	})
	select {
	case known := <-answer:
		return known
	case <-ctx.Done():
		return nil
	}
}

// hand gives work to the goroutine that reads.
func (n *namespaces) hand(ctx context.Context, f func()) {
	select {
	case n.session.work <- f:
	case <-ctx.Done():
	}
}

// compare takes in what a round has found.
func (n *namespaces) compare(looks []look) {
	there := map[uint32]bool{}
	n.session.budgets.listeners()
	for _, l := range looks {
		inode := l.namespace.Inode
		if l.err != nil {
			if !errors.Is(l.err, kernel.ErrNamespaceGone) {
				there[inode] = true
			}
			continue
		}
		there[inode] = true
		known := n.known[inode]
		if known == nil {
			n.add(l, true)
			n.session.reader.Census(n.session.analysis, l.snapshot)
			continue
		}
		known.Namespace = l.namespace
		n.tellChanges(known, l.sysctls)
		n.session.account.Update(inode, l.counters, n.session.seen(inode))
		n.listens.look(known, l.counters)
		n.session.budgets.learn(l)
		known.next = surveyNone
		if !l.recounted && n.session.budgets.drifted(l) {
			known.next = surveyAll
		}
	}
	for inode := range n.known {
		if !there[inode] {
			n.session.account.Gone(inode)
			n.session.budgets.forget(inode)
			n.session.refusals.judge.Forget(inode)
			delete(n.known, inode)
		}
	}
	n.session.describe()
}

func (n *namespaces) tellChanges(known *namespace, now map[string]string) {
	for _, name := range names(known.sysctls, now) {
		if was, is := known.sysctls[name], now[name]; was != is {
			n.session.analysis.log(&event.SysctlChange{
				Header: event.Header{Time: n.session.reader.Stamp()},
				NetNS:  known.Inode, Name: name, Old: was, New: is,
			})
		}
	}
	known.sysctls = now
}

// names returns the keys of two maps, sorted, so that a log is the same for
// the same changes.
func names(a, b map[string]string) []string {
	var list []string
	for name := range a {
		list = append(list, name)
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// update reads the counters of every namespace that is still there.
func (n *namespaces) update() {
	for inode, ns := range n.known {
		counters, err := n.counters(ns.Namespace)
		switch {
		case err == nil:
			n.session.account.Update(inode, counters, n.session.seen(inode))
			n.listens.look(ns, counters)
		case errors.Is(err, kernel.ErrNamespaceGone):
			n.session.account.Gone(inode)
			n.session.budgets.forget(inode)
			n.session.refusals.judge.Forget(inode)
			delete(n.known, inode)
		default:
			n.complain(look{namespace: ns.Namespace, err: err})
		}
	}
}

func (n *namespaces) counters(ns kernel.Namespace) (c kernel.Counters, err error) {
	err = ns.Do(func() error {
		c, err = kernel.ReadCounters(n.root, "proc/thread-self/net")
		return err
	})
	return c, err
}

// waiting is how many sockets are in TIME_WAIT in the namespaces that are
// selected; nil: one of them cannot tell.
func (n *namespaces) waiting() *uint64 {
	var sum uint64
	for inode, ns := range n.known {
		if !selects(&n.session.opts.Filters, inode) {
			continue
		}
		var tw uint32
		err := ns.Do(func() (err error) {
			tw, err = kernel.ReadTimeWaits(n.root, "proc/thread-self/net")
			return err
		})
		if err != nil && !errors.Is(err, kernel.ErrNamespaceGone) {
			return nil
		}
		sum += uint64(tw)
	}
	return &sum
}

// timeWait is how many sockets were in TIME_WAIT at the start.
func (n *namespaces) timeWait() uint64 {
	var sum uint64
	for _, ns := range n.known {
		sum += ns.census.TimeWait
	}
	return sum
}

// describe lists the namespaces for the start event.
func (n *namespaces) describe() (sysctls []event.NamespaceSysctls, census []event.NamespaceCensus) {
	inodes := make([]uint32, 0, len(n.known))
	for inode := range n.known {
		inodes = append(inodes, inode)
	}
	slices.Sort(inodes)
	for _, inode := range inodes {
		ns := n.known[inode]
		sysctls = append(sysctls, event.NamespaceSysctls{NetNS: inode, Names: ns.Names, Values: ns.sysctls})
		census = append(census, ns.census)
	}
	return sysctls, census
}
