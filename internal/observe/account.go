// SPDX-License-Identifier: Apache-2.0

// Package observe ties a source of events to what makes sense of them and to
// where they go, and holds what was seen against the kernel's own counters.
// It is pure: it is fed counts, events and time.
package observe

import (
	"slices"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// Seen is what was observed in one network namespace since the start,
// whatever the filters.
type Seen struct {
	TimeWait uint64            // sockets that entered TIME_WAIT
	Reused   uint64            // TIME_WAIT sockets that connect() took over
	Overflow uint64            // TIME_WAIT sockets that were not created
	PAWS     map[string]uint64 // rejects by MIB counter
}

// Coverage tells which counters there is something to compare with.
type Coverage struct {
	TimeWait, Reused, Overflow bool
	PAWS                       []string // names of counters
	Counting                   kernel.TWCounting
}

// Account holds what was seen in each network namespace beside the kernel's
// counters.
type Account struct {
	coverage Coverage
	books    map[uint32]*book
}

type book struct {
	counters0, counters kernel.Counters
	seen0, seen         Seen
	late, gone          bool
}

// NewAccount returns an empty account.
func NewAccount(c Coverage) *Account {
	return &Account{coverage: c, books: map[uint32]*book{}}
}

// Open begins a namespace's account. Its counters were read between two looks
// at what was seen, before and after. A namespace that is younger than the run
// has all of them from zero, if that adds up: if the kernel has counted no
// more sockets than were seen, and no less. Of any other, what was seen before
// counts from then, so that no socket can seem to be missing.
func (a *Account) Open(netns uint32, before Seen, counters kernel.Counters, after Seen, younger bool) {
	b := &book{counters0: counters, counters: counters, seen0: before, seen: after}
	if younger && a.adds(before, counters, after) {
		b.counters0, b.seen0 = zero(counters), Seen{}
	} else if younger {
		b.late = true
	}
	a.books[netns] = b
}

// adds reports whether everything since a namespace began was seen.
func (a *Account) adds(before Seen, counters kernel.Counters, after Seen) bool {
	if a.coverage.Counting != kernel.TWCountedAtCreation {
		return true
	}
	grown, _ := counters.Delta(zero(counters), "TW")
	killed, _ := counters.Delta(zero(counters), "TWKilled")
	return int64(before.TimeWait) <= grown+killed && grown+killed <= int64(after.TimeWait)
}

func zero(c kernel.Counters) kernel.Counters {
	z := make(kernel.Counters, len(c))
	for name := range c {
		z[name] = 0
	}
	return z
}

// Update brings a namespace's account up to date.
func (a *Account) Update(netns uint32, counters kernel.Counters, seen Seen) {
	if b := a.books[netns]; b != nil && !b.gone {
		b.counters, b.seen = counters, seen
	}
}

// Gone closes the account of a namespace that has vanished: what was last read
// of it stands.
func (a *Account) Gone(netns uint32) {
	if b := a.books[netns]; b != nil {
		b.gone = true
	}
}

// Reconcile compares, namespace by namespace and counter by counter. Counters
// that have not moved, and that we have nothing against, are left out, but TW
// always stands.
func (a *Account) Reconcile() []event.Reconciliation {
	var all []event.Reconciliation
	for _, netns := range a.namespaces() {
		all = append(all, a.reconcile(netns, a.books[netns])...)
	}
	return all
}

func (a *Account) namespaces() []uint32 {
	list := make([]uint32, 0, len(a.books))
	for netns := range a.books {
		list = append(list, netns)
	}
	slices.Sort(list)
	return list
}

func (a *Account) reconcile(netns uint32, b *book) []event.Reconciliation {
	var list []event.Reconciliation
	if a.coverage.TimeWait {
		list = append(list, a.reconcileTimeWait(netns, b))
	}
	add := func(counter string, seen uint64, why string) {
		grown, ok := b.counters.Delta(b.counters0, counter)
		if !ok || grown == 0 && seen == 0 {
			return
		}
		list = append(list, b.compared(netns, counter, grown, int64(seen), why))
	}
	if a.coverage.Reused {
		add("TWRecycled", b.seen.Reused-b.seen0.Reused, "")
	}
	const overflow = "TCPTimeWaitOverflow"
	if a.coverage.Overflow {
		add(overflow, b.seen.Overflow-b.seen0.Overflow, "")
	} else if grown, ok := b.counters.Delta(b.counters0, overflow); ok {
		add(overflow, uint64(max(grown, 0)), "only the kernel counts these here")
	}
	for _, counter := range a.coverage.PAWS {
		add(counter, b.seen.PAWS[counter]-b.seen0.PAWS[counter], "")
	}
	return list
}

// MissingTimeWaits sums up by how many sockets the kernel's TW is ahead.
func (a *Account) MissingTimeWaits() uint64 {
	var sum uint64
	for netns, b := range a.books {
		if d := a.reconcileTimeWait(netns, b).Difference; d > 0 {
			sum += uint64(d)
		}
	}
	return sum
}

// MissingPAWS sums up by how many rejects the kernel's counters are ahead.
func (a *Account) MissingPAWS() uint64 {
	var sum uint64
	for _, b := range a.books {
		for _, counter := range a.coverage.PAWS {
			grown, _ := b.counters.Delta(b.counters0, counter)
			if d := grown - int64(b.seen.PAWS[counter]-b.seen0.PAWS[counter]); d > 0 {
				sum += uint64(d)
			}
		}
	}
	return sum
}

// reconcileTimeWait compares the births of TIME_WAIT sockets. Kernels from
// 5.18 count them in __inet_twsk_schedule(): in TW, or in TWKilled those that
// are kept for 4 s or less. Older ones count in the same two when the timer
// ends.
func (a *Account) reconcileTimeWait(netns uint32, b *book) event.Reconciliation {
	grown, _ := b.counters.Delta(b.counters0, "TW")
	killed, _ := b.counters.Delta(b.counters0, "TWKilled")
	why := ""
	switch {
	case a.coverage.Counting == kernel.TWCountedAtExpiry:
		why = "this kernel counts a TIME_WAIT socket when its timer ends: " +
			"those still waiting, re-used or killed make the difference"
	case killed != 0:
		why = "the kernel's number includes TWKilled, where it counts sockets that it keeps for 4 s or less"
	}
	return b.compared(netns, "TW", grown+killed, int64(b.seen.TimeWait-b.seen0.TimeWait), why)
}

func (b *book) compared(netns uint32, counter string, grown, seen int64, why string) event.Reconciliation {
	add := func(s string) {
		if why != "" {
			why += "; "
		}
		why += s
	}
	if b.late {
		add("the namespace existed before it was found, and is counted from then")
	}
	if b.gone {
		add("the namespace is gone: its counters are those last read")
	}
	return event.Reconciliation{
		NetNS: netns, Counter: counter,
		Kernel: grown, TWScope: seen, Difference: grown - seen, Why: why,
	}
}

// Unseen returns how much a counter has grown beyond what was seen, since the
// last call of Unseen for it, for the observations that only the counters
// make. Already told growth is remembered in told.
func (a *Account) Unseen(counter string, told map[uint32]int64) map[uint32]uint64 {
	fresh := map[uint32]uint64{}
	for netns, b := range a.books {
		grown, ok := b.counters.Delta(b.counters0, counter)
		if !ok {
			continue
		}
		missing := grown - int64(b.seen.PAWS[counter]-b.seen0.PAWS[counter])
		if n := missing - told[netns]; n > 0 {
			fresh[netns] = uint64(n)
			told[netns] = missing
		}
	}
	return fresh
}

// UpdateReused brings the count of re-uses up to date, which user space makes
// from records that may have come after the counters were read.
func (a *Account) UpdateReused(netns uint32, reused uint64) {
	if b := a.books[netns]; b != nil && !b.gone {
		b.seen.Reused = reused
	}
}
