// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"cmp"
	"iter"
	"math"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// What the rules about SYNs call a while.
const (
	// minute is how long after a refusal SYNs count as being refused: as long
	// as TIME_WAIT takes.
	minute = timeWaitSeconds * second
	// enough is how many refusals within a minute make a finding; fewer are
	// told in their events only.
	enough = 3
	// forgotten is after how long without news something may make room.
	forgotten = 600 * second
	// maxKept bounds each table, against a log that names ever new addresses.
	maxKept = 4096
	// keptSamples is how many of the latest numbers medians are taken of.
	keptSamples = 32
)

// pair names a source of SYNs and the address of ours that they go to.
type pair struct {
	netns        uint32
	laddr, raddr netip.Addr
}

// lane is a pair at one listener; without raddr it is the listener.
type lane struct {
	pair
	lport uint16
}

func pairOf(netns uint32, laddr, raddr netip.Addr) pair {
	return pair{netns, laddr.Unmap().WithZone(""), raddr.Unmap().WithZone("")}
}

func laneOf(s *event.Socket) lane {
	return lane{pairOf(s.NetNS, s.Local.Addr(), s.Remote.Addr()), s.Local.Port()}
}

// subject is what a finding about a lane, a pair or a listener is about.
func (l lane) subject() subject {
	s := subject{key: subjectKey{lane: l}}
	s.NetNS, s.Laddr, s.Lport, s.Raddr = l.netns, l.laddr, l.lport, l.raddr
	return s
}

func (l lane) listener() string { return endpoint(l.laddr, l.lport) }

// table keeps things by key, in the order in which they came.
type table[K comparable, V any] struct {
	by    map[K]*V
	order []K
}

// get returns one, nil if there are too many.
func (t *table[K, V]) get(k K) *V {
	v := t.by[k]
	if v != nil || len(t.order) >= maxKept {
		return v
	}
	if t.by == nil {
		t.by = map[K]*V{}
	}
	v = new(V)
	t.by[k] = v
	t.order = append(t.order, k)
	return v
}

func (t *table[K, V]) all() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		for _, k := range t.order {
			if !yield(k, t.by[k]) {
				return
			}
		}
	}
}

// sweep makes room when there is none.
func (t *table[K, V]) sweep(useless func(K, *V) bool) {
	if len(t.order) < maxKept {
		return
	}
	t.order = slices.DeleteFunc(t.order, func(k K) bool {
		if !useless(k, t.by[k]) {
			return false
		}
		delete(t.by, k)
		return true
	})
}

// series is when something happened.
type series struct {
	count       uint64
	first, last int64         // ns
	recent      [enough]int64 // ns: the latest, oldest first; 0: there were fewer
}

func (s *series) add(at int64, n uint64) {
	if s.count == 0 {
		s.first = at
	}
	s.count = plus(s.count, n)
	s.last = max(s.last, at)
	for range min(n, enough) {
		copy(s.recent[:], s.recent[1:])
		s.recent[enough-1] = at
	}
}

// frequent tells whether the latest were within a minute.
func (s *series) frequent() bool {
	return s.recent[0] != 0 && s.last-s.recent[0] <= minute
}

// stage is what the times alone say of a finding.
func (s *series) stage(now int64, open bool) state {
	switch {
	case s.count == 0:
		return unclear
	case now-s.last >= minute:
		return good
	case open || s.frequent():
		return bad
	}
	return unclear
}

// plus adds counts, up to what JSON numbers hold exactly.
func plus(a, b uint64) uint64 {
	const most = 1 << 53
	return min(a, most) + min(b, most-min(a, most))
}

// samples are the latest of some numbers.
type samples struct {
	list []int64
	next int
}

func (s *samples) add(v int64) {
	if len(s.list) < keptSamples {
		s.list = append(s.list, v)
		return
	}
	s.list[s.next] = v
	s.next = (s.next + 1) % keptSamples
}

// median returns the middle one, the lower of two; there must be one.
func (s *samples) median() int64 {
	list := slices.Clone(s.list)
	slices.SortFunc(list, cmp.Compare[int64])
	return list[(len(list)-1)/2]
}

// thousandths writes a number as the log has it, which knows no smaller part.
func thousandths(v float64) int64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return int64(math.Round(max(-1e12, min(v, 1e12)) * 1000))
}

// brief is the beginning of a text, as short as the log leaves any text whole.
func brief(s string) string {
	const most = 256
	s = event.Clean(s)
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// party is a program: the first of those that were met, since several may
// listen on one port, and a finding is about the same as long as it is open.
type party struct {
	pid  uint32
	comm string
}

func (p *party) meet(o *event.Owner) {
	if p.pid == 0 && p.comm == "" {
		p.pid, p.comm = o.PID, brief(o.Comm)
	}
}

// syns is all that an Engine knows of SYNs and who refuses them.
type syns struct {
	lanes     table[lane, refusals]
	sources   table[pair, source]
	listeners table[lane, listener]
	peers     table[key, peer]
	// targets are the peers' addresses, with the connections to them from all
	// network namespaces; reached those from each.
	targets table[netip.AddrPort, series]
	reached table[key, reach]
	due     int64 // ns: the earliest of the lanes' and peers' due; 0: none
	skipped uint64
	evicted uint64
}

// remind has something judged if nothing brings that about before.
func (s *syns) remind(due *int64, at int64) {
	if *due != 0 {
		return
	}
	*due = at + patience
	if s.due == 0 || *due < s.due {
		s.due = *due
	}
}

// judgeSYNs judges everything; a sources or a stats event asks for it.
func (e *Engine) judgeSYNs() {
	s := &e.syns
	s.due = 0
	for l, r := range s.lanes.all() {
		r.due = 0
		e.judgeRefusals(l, r)
	}
	for p, r := range s.sources.all() {
		e.judgeSource(p, r)
	}
	for l, r := range s.listeners.all() {
		e.judgeListener(l, r)
	}
	for k, r := range s.peers.all() {
		r.due = 0
		e.judgePeer(k, r)
	}
	s.sweep(e)
}

// judgeOverdue judges what no such event has followed.
func (e *Engine) judgeOverdue() {
	s := &e.syns
	s.due = 0
	pending := func(due *int64) bool {
		if *due > e.now && (s.due == 0 || *due < s.due) {
			s.due = *due
		}
		if *due == 0 || *due > e.now {
			return false
		}
		*due = 0
		return true
	}
	for l, r := range s.lanes.all() {
		if pending(&r.due) {
			e.judgeRefusals(l, r)
		}
	}
	for k, r := range s.peers.all() {
		if pending(&r.due) {
			e.judgePeer(k, r)
		}
	}
}

func (s *syns) sweep(e *Engine) {
	idle := func(last int64, k subjectKey) bool { return e.now-last >= forgotten && !e.book.tells(k) }
	s.lanes.sweep(func(l lane, r *refusals) bool {
		if !idle(r.last(), subjectKey{lane: l}) {
			return false
		}
		if from := s.sources.by[l.pair]; from != nil {
			from.lanes--
		}
		return true
	})
	s.sources.sweep(func(p pair, r *source) bool {
		return r.lanes == 0 && idle(r.last(), subjectKey{lane: lane{pair: p}})
	})
	s.listeners.sweep(func(l lane, r *listener) bool { return idle(r.times.last, subjectKey{lane: l}) })
	s.peers.sweep(func(k key, r *peer) bool {
		return idle(max(r.stale.last, r.silent.last), subjectKey{destination: k})
	})
	used := map[netip.AddrPort]bool{}
	if len(s.targets.order) >= maxKept {
		for k := range s.peers.all() {
			used[k.target()] = true
		}
	}
	s.targets.sweep(func(a netip.AddrPort, _ *series) bool { return !used[a] })
	s.reached.sweep(func(k key, _ *reach) bool { return s.targets.by[k.target()] == nil })
}

// doubt is a confidence less what is missing of some kinds, of which so many
// were seen.
func (e *Engine) doubt(base float64, seen uint64, kinds ...event.Kind) (float64, []event.Fact) {
	share, lost := e.world.trustOf(seen, kinds...)
	if lost == 0 {
		return base, nil
	}
	return base * share, []event.Fact{num("events_lost", lost)}
}

// tells tells whether a finding about SYNs is open on a subject.
func (b *book) tells(k subjectKey) bool {
	for _, code := range synCodes() {
		if b.open(code, k) != nil {
			return true
		}
	}
	return false
}

// synSysctls are the sysctls whose change findings about SYNs tell.
var synSysctls = [...]string{
	kernel.SysctlTimestamps, kernel.SysctlRFC1337, kernel.SysctlTWRecycle, kernel.SysctlSomaxconn, kernel.SysctlMaxSYNBacklog, kernel.SysctlSYNCookies,
}

func (n *namespace) synSettings() (s [len(synSysctls)]string) {
	for i, name := range synSysctls {
		s[i] = n.sysctls[name]
	}
	return s
}
