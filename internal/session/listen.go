// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// The counters that tell of full queues. ListenOverflows and TCPReqQFullDrop
// grow in ListenDrops too: tcp_conn_request() and tcp_v4_syn_recv_sock() end in
// tcp_listendrop() after either (6.18).
const (
	counterListenDrops     = "ListenDrops"
	counterListenOverflows = "ListenOverflows"
	counterSYNQueueDrop    = "TCPReqQFullDrop"
	counterSYNCookies      = "TCPReqQFullDoCookies"
)

// listens makes listen_drop events of counters that have grown. Only then, and
// at first where something was dropped before, does it ask the kernel for the
// listeners. Only the goroutine that reads uses it.
type listens struct {
	session *session
	root    fs.FS
	off     bool // nobody wants to know
	blind   bool // it has been said that listeners cannot be listed
}

func newListens(s *session, root fs.FS) *listens {
	kinds := s.opts.Kinds
	return &listens{
		session: s, root: root,
		off: !slices.Contains(kinds, event.KindListenDrop) && !slices.Contains(kinds, event.KindFinding),
	}
}

// excludes tells whether nothing of a namespace is to be told.
func (s *listens) excludes(netns uint32) bool {
	selected := s.session.opts.Filters.NetNS
	return s.off || len(selected) > 0 && !slices.Contains(selected, netns)
}

// open begins the account of a namespace at its counters. Where nothing was
// dropped yet, that costs nothing.
func (s *listens) open(ns *namespace, counters kernel.Counters) {
	ns.listens = listenBook{counters: counters, told: counters, drops: map[uint64]uint32{}}
	if s.excludes(ns.Inode) || counters[counterListenDrops] == 0 {
		return
	}
	l := s.list(ns, counters, true)
	ns.listens = listenBook{counters: l.counters, told: l.counters}
	ns.listens.attribute(l, event.ListenDrop{})
}

// look logs what was dropped since the look before, if anything was. counters
// are the namespace's as just read.
func (s *listens) look(ns *namespace, counters kernel.Counters) {
	if s.excludes(ns.Inode) || !ns.listens.stirred(counters) {
		return
	}
	l := s.list(ns, counters, ns.listens.dropped(counters))
	for _, e := range ns.listens.account(counters, l) {
		e.Time, e.NetNS = s.session.reader.Stamp(), ns.Inode
		if e.Local.IsValid() {
			e.Owner = s.session.reader.ListenerOwner(e.NetNS, e.Local)
		}
		s.session.analysis.log(&e)
	}
}

// listenLook is what a look at the listeners of a namespace finds.
type listenLook struct {
	listed    bool
	listeners []kernel.Listener
	counters  kernel.Counters // read after the listeners
	cookies   string          // tcp_syncookies; "": not known, or there is none
}

// always tells whether every SYN is answered with a cookie, be the queue full
// or not: TCPReqQFullDoCookies counts them all.
func (l *listenLook) always() bool { return l.cookies == "2" }

// list lists the listeners of a namespace whose counters were just read, if
// some have dropped or cookies tell of a full queue.
func (s *listens) list(ns *namespace, counters kernel.Counters, dropped bool) listenLook {
	l := listenLook{counters: counters, cookies: ns.sysctls[kernel.SysctlSYNCookies]}
	if l.always() && !dropped {
		return l
	}
	err := ns.Do(func() error {
		listeners, err := kernel.ReadListeners()
		if err != nil {
			return err
		}
		after, err := kernel.ReadCounters(s.root, "proc/thread-self/net")
		if err != nil {
			return err
		}
		l.listed, l.listeners, l.counters = true, listeners, after
		return nil
	})
	if err != nil && !errors.Is(err, kernel.ErrNamespaceGone) && !s.blind {
		s.blind = true
		s.session.log.Warn().Err(err).Uint32("netns", ns.Inode).
			Msg("listeners cannot be listed: listen_drop events will not tell which listener it was")
	}
	return l
}

// listenBook is the account of the listeners of one namespace.
type listenBook struct {
	counters kernel.Counters   // as of the last look
	told     kernel.Counters   // as of the last event
	drops    map[uint64]uint32 // sk_drops by cookie when they were listed; nil: not known
	// missing is by how much ListenDrops has grown beyond what was told.
	missing uint64
}

func growth(now, before kernel.Counters, counter string) uint64 {
	n, _ := now.Delta(before, counter)
	return uint64(max(n, 0)) // negative: now is the older one
}

// stirred tells whether there is something to look for.
func (b *listenBook) stirred(now kernel.Counters) bool {
	return b.dropped(now) || growth(now, b.counters, counterSYNCookies) > 0
}

func (b *listenBook) dropped(now kernel.Counters) bool {
	return b.missing > 0 || growth(now, b.counters, counterListenDrops) > 0
}

// account attributes what the counters tell to the listeners whose sk_drops
// have grown. before are the counters of before the list: what was dropped
// while it was made may be in it or not, and if not is left to the next look.
func (b *listenBook) account(before kernel.Counters, l listenLook) []event.ListenDrop {
	judged := b.missing > 0
	b.missing += growth(l.counters, b.counters, counterListenDrops)
	namespace := event.ListenDrop{
		Overflows: growth(l.counters, b.told, counterListenOverflows),
		SYNQueue:  growth(l.counters, b.told, counterSYNQueueDrop),
	}
	if !l.always() {
		namespace.Cookies = growth(l.counters, b.told, counterSYNCookies)
	}
	if full := namespace.Overflows+namespace.SYNQueue+namespace.Cookies > 0; !full && !judged && l.cookies > "0" {
		// no queue is: tcp_listendrop() also counts SYNs for whose answer there
		// is no route or memory, and handshakes that an ICMP error ends
		// (tcp_req_err). Without cookies it may be one: tcp_conn_request() keeps
		// the last quarter of tcp_max_syn_backlog for peers that it knows.
		b.missing = 0
	}
	events := b.attribute(l, namespace)
	if unsure := growth(l.counters, before, counterListenDrops); b.missing > unsure {
		// the listener is closed, or could not be listed
		e := namespace
		e.Dropped = b.missing - unsure
		b.missing = unsure
		events = append(events, e)
	}
	if len(events) == 0 && b.missing == 0 && namespace.Cookies > 0 {
		events = append(events, alone(l, namespace))
	}
	b.counters = l.counters
	if len(events) > 0 || l.always() && b.missing == 0 {
		b.told = l.counters
	}
	return events
}

// attribute makes the events of listeners that are known to have dropped.
func (b *listenBook) attribute(l listenLook, namespace event.ListenDrop) []event.ListenDrop {
	if !l.listed {
		if b.missing > 0 {
			b.drops = nil
		}
		return nil
	}
	slices.SortFunc(l.listeners, func(x, y kernel.Listener) int {
		return cmp.Or(x.Local.Compare(y.Local), cmp.Compare(x.Cookie, y.Cookie))
	})
	var events []event.ListenDrop
	drops := make(map[uint64]uint32, len(l.listeners))
	for _, k := range l.listeners {
		drops[k.Cookie] = k.Drops
		// sk_drops also counts what did not come to TCP, and wraps
		n := min(uint64(k.Drops-b.drops[k.Cookie]), b.missing)
		if b.drops == nil || n == 0 {
			continue
		}
		b.missing -= n
		e := ofListener(k, namespace)
		e.Dropped = n
		events = append(events, e)
	}
	b.drops = drops
	return events
}

// alone tells of cookies, which no listener counts: it is known who sends them
// only if there is one.
func alone(l listenLook, namespace event.ListenDrop) event.ListenDrop {
	if len(l.listeners) == 1 {
		return ofListener(l.listeners[0], namespace)
	}
	return namespace
}

func ofListener(k kernel.Listener, namespace event.ListenDrop) event.ListenDrop {
	e := namespace
	e.Local, e.Backlog, e.Limit = k.Local, k.Backlog, k.Limit
	return e
}
