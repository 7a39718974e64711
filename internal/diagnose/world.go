// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"maps"
	"net/netip"
	"strconv"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// key names a destination.
type key struct {
	netns        uint32
	laddr, raddr netip.Addr
	rport        uint16
}

// namespace is what is known of a network namespace.
type namespace struct {
	id      uint32
	sysctls map[string]string
	// listening are the ports of sockets in LISTEN, if known.
	listening      portList
	knowsListening bool
	allListening   bool   // the list was not cut
	overflow       uint64 // TCPTimeWaitOverflow since the start of the run
	overflowAt     int64  // ns, of the stats event it is from; 0: none
	bind           *bindUse
}

func (n *namespace) number(name string) (int, bool) {
	v, err := strconv.Atoi(n.sysctls[name])
	return v, err == nil
}

// reuse is tcp_tw_reuse: 0, 1 or 2.
func (n *namespace) reuse() (int, bool) { return n.number(kernel.SysctlTWReuse) }

// delayMS is how old a TIME_WAIT socket must be to be taken over; kernels
// before 6.14 have no sysctl and wait for the next full second.
func (n *namespace) delayMS() uint32 {
	if v, ok := n.number(kernel.SysctlTWReuseDelay); ok && v >= 0 && v <= 60000 {
		return uint32(v)
	}
	return 1000
}

// timestampsOff tells that this namespace itself negotiates none.
func (n *namespace) timestampsOff() bool {
	v, ok := n.number(kernel.SysctlTimestamps)
	return ok && v == 0
}

// ports is ip_local_port_range, false if it is not known.
func (n *namespace) ports() (portSpan, bool) {
	return parseSpan(n.sysctls[kernel.SysctlPortRange], " ")
}

// reserved is ip_local_reserved_ports, false if it is not known as a whole.
func (n *namespace) reserved() (portList, bool) {
	text, ok := n.sysctls[kernel.SysctlReservedPorts]
	list, whole := parsePorts(text)
	return list, ok && whole
}

// failure is the latest connect() that failed for want of a port.
type failure struct {
	cause         event.Cause
	inferred      bool
	searched      portSpan // the range that the kernel searched
	refused       event.Refused
	total         uint32
	timeWait, use uint32
	timestamps    event.TimestampUse
	pid           uint32
	comm          string
}

// destination is what is known of a destination.
type destination struct {
	key    key
	budget event.Destination
	at     int64 // ns, of the budget; 0: there is none
	listed bool  // it is in the latest destinations event
	away   bool  // it counts as idle, because it is in none any more
	rated  bool  // the rates are known
	// failing is the pace of failed calls of programs where known how many
	// kernel calls one makes, and else of failed kernel calls, per second.
	failing float64
	failed  uint64 // kernel calls, by the latest budget
	// keeps is the share of connections that this host closes first, of those
	// that ended lately: they alone keep their port. 1 if few have ended.
	keeps   float64
	closed  uint64 // by this host first, when that was counted last
	stopped uint64 // and in any way
	before  demand // the latest before connect() failed

	fail      failure
	failures  uint64 // connect_fail events for want of a port
	firstFail int64  // ns, of the present trouble
	lastFail  int64  // ns, 0: never
	perCall   uint8  // as in connect_fail, 0: not known
	// due is when a failure is told without a budget; 0: nothing is to tell.
	due int64
}

// loopback tells whether tcp_tw_reuse=2 covers it: either address is
// 127.0.0.0/8 or ::1 (tcp_twsk_unique, net/ipv4/tcp_ipv4.c, since 4.19).
func (k *key) loopback() bool { return k.laddr.IsLoopback() || k.raddr.IsLoopback() }

// used is the number of ports that connect() cannot have.
func (d *destination) used() uint32 {
	b := &d.budget
	return uint32(min(uint64(b.InUse)+uint64(b.TimeWait)-uint64(min(b.Reusable, b.TimeWait)), uint64(b.PortsTotal)))
}

// pressed tells whether at least a part in n of the ports are used.
func (d *destination) pressed(n uint32) bool {
	return d.budget.PortsTotal > 0 && uint64(d.used())*uint64(n) >= uint64(d.budget.PortsTotal)
}

// load is how many connections per second programs ask for.
func (d *destination) load() float64 { return d.budget.Rate + d.failing }

// pressing is the part of the load that the ports must suffice for.
func (d *destination) pressing() float64 { return d.load() * d.keeps }

// demand is a load, and what of it the ports must suffice for.
type demand struct{ load, here float64 }

// subsided tells whether the budget would sustain the load as it is now, and
// not as it was before connect() failed: many a program gives up then.
func (d *destination) subsided() bool {
	return d.lastFail != 0 && d.pressing() <= d.budget.SustainableRate && d.before.here > d.budget.SustainableRate
}

// burden is what the ports must suffice for.
func (d *destination) burden() float64 {
	if d.subsided() {
		return d.before.here
	}
	return d.pressing()
}

// mixed tells whether that is notably less than the load.
func (d *destination) mixed() bool { return d.keeps < 0.9 }

// takeEndings brings in how connections have ended.
func (d *destination) takeEndings(b *event.Destination) {
	const few = 20
	here, all := b.ClosedHere, b.ClosedHere+b.ClosedThere+b.ClosedReset
	if all < d.stopped {
		d.closed, d.stopped = 0, 0 // it was forgotten for want of room, and counts anew
	}
	if n := all - d.stopped; n >= few {
		d.keeps = min(float64(grown(d.closed, here))/float64(n), 1)
		d.closed, d.stopped = here, all
	}
}

// calls is the number of failed calls of programs, false if not known.
func (d *destination) calls() (uint64, bool) {
	if d.budget.FailedCalls == 0 && d.budget.Failed > 0 && d.perCall == 0 {
		return 0, false
	}
	return d.budget.FailedCalls, d.budget.FailedCalls > 0
}

// takeBudget brings in what a destinations event says.
func (d *destination) takeBudget(b *event.Destination, now int64) {
	if dt := float64(now-d.at) / 1e9; d.at != 0 && dt >= 0.5 {
		failed := grown(d.failed, b.Failed)
		if d.perCall > 0 {
			failed /= uint64(d.perCall)
		}
		if calls := grown(d.budget.FailedCalls, b.FailedCalls); calls > 0 {
			failed = calls
		}
		d.failing = float64(failed) / dt
	}
	// A failure whose own line is missing, for want of room or by --rate.
	if b.Failed > d.failed && b.ExhaustedInS == 0 && d.lastFail != 0 {
		d.lastFail = max(d.lastFail, now)
	}
	d.takeEndings(b)
	d.failed = b.Failed
	d.budget, d.at, d.listed, d.away, d.rated = *b, now, true, false, true
	if d.lastFail == 0 || now-d.lastFail > troubleGap {
		d.before = demand{d.load(), d.pressing()}
	}
}

// takeAbsence notes that a destination is in no budget any more.
func (d *destination) takeAbsence() {
	b := &d.budget
	b.InUse, b.TimeWait, b.Reusable, b.Bound = 0, 0, 0, 0
	b.Refused, b.ReusableInMS, b.Rate, b.RateOut, b.ExhaustedInS = event.Refused{}, 0, 0, 0, -1
	d.failing, d.away = 0, true
}

// takeFailure brings in a failed connect().
func (d *destination) takeFailure(c *event.ConnectFail) {
	d.fail = failure{
		cause: c.Cause, inferred: c.Inferred, searched: portSpan{c.RangeLow, c.RangeHigh}, refused: c.Refused,
		total: c.PortsTotal, timeWait: c.PortsTimeWait, use: c.PortsInUse, timestamps: c.Timestamps,
		pid: c.Owner.PID, comm: d.fail.comm,
	}
	if d.fail.comm != c.Owner.Comm {
		d.fail.comm = event.Clean(c.Owner.Comm)
	}
	if c.PerCall != 0 {
		d.perCall = c.PerCall
	}
	if d.lastFail == 0 || c.Time-d.lastFail > troubleGap {
		d.firstFail = c.Time
	}
	d.lastFail = max(d.lastFail, c.Time)
	d.failures++
}

// withoutBudget brings in the numbers of the failure itself, which are those
// of its instant, where no budget has followed. Rates are those of the latest
// budget, if there is one.
func (d *destination) withoutBudget() {
	f, b := &d.fail, &d.budget
	b.NetNS, b.Laddr, b.Raddr, b.Rport = d.key.netns, d.key.laddr, d.key.raddr, d.key.rport
	b.PortsTotal, b.InUse, b.TimeWait, b.Refused = f.total, f.use, f.timeWait, f.refused
	b.Reusable = uint32(uint64(f.timeWait) - min(uint64(f.timeWait), f.refused.Total()))
	b.Timestamps, b.ExhaustedInS, b.Failed = f.timestamps, 0, max(b.Failed, d.failures)
	if !d.listed || d.lastFail-d.at > failingFor {
		b.PID, b.Comm, b.Rate, d.failing, d.rated = f.pid, f.comm, 0, 0, false
		b.SustainableRate = sustains(f.total, 0, 0)
		b.Unknown = []string{"the rate of new connections"}
	}
}

func grown(from, to uint64) uint64 { return to - min(from, to) }

// world is all that an Engine knows.
type world struct {
	namespaces   map[uint32]*namespace
	destinations map[key]*destination
	order        []*destination // in the order in which they came
	lost         map[string]uint64
	seen         uint64 // connections and failures in the latest budgets
	crowded      uint64 // failures of destinations that there was no room for
}

func newWorld() world {
	return world{namespaces: map[uint32]*namespace{}, destinations: map[key]*destination{}, lost: map[string]uint64{}}
}

// Bounds of what is kept, against a log that names ever new ones.
const (
	maxNamespaces   = 4096
	maxDestinations = 4096
)

// namespace returns what is known of one. Beyond the bound it is nothing.
func (w *world) namespace(id uint32) *namespace {
	n := w.namespaces[id]
	if n == nil {
		n = &namespace{id: id, sysctls: map[string]string{}}
		if len(w.namespaces) < maxNamespaces {
			w.namespaces[id] = n
		}
	}
	return n
}

// destination returns one, nil if there are too many.
func (w *world) destination(k key) *destination {
	d := w.destinations[k]
	if d == nil && len(w.order) < maxDestinations {
		d = &destination{key: k, keeps: 1}
		d.budget.ExhaustedInS = -1
		w.destinations[k] = d
		w.order = append(w.order, d)
	}
	return d
}

// start takes the sysctls of a start event.
func (w *world) start(s *event.Start) {
	for i := range s.Sysctls {
		n := &s.Sysctls[i]
		maps.Copy(w.namespace(n.NetNS).sysctls, n.Values)
	}
}

func (w *world) change(c *event.SysctlChange) {
	n := w.namespace(c.NetNS)
	if c.New == "" {
		delete(n.sysctls, c.Name)
		return
	}
	n.sysctls[c.Name] = c.New
}

func (w *world) takePorts(p *event.NamespacePorts) {
	n := w.namespace(p.NetNS)
	maps.Copy(n.sysctls, p.Sysctls)
	if n.knowsListening = p.HasListening; p.HasListening {
		n.listening, n.allListening = parsePorts(p.Listening)
	}
}

// sweep forgets destinations that are of no interest any more.
func (w *world) sweep(keep func(*destination) bool) {
	kept := w.order[:0]
	for _, d := range w.order {
		if keep(d) {
			kept = append(kept, d)
			continue
		}
		delete(w.destinations, d.key)
	}
	clear(w.order[len(kept):])
	w.order = kept
}

// trust is how far the log can be relied on, from 0.5 to 1: what is missing
// of the kinds that a conclusion rests on lowers it.
func (w *world) trust(kinds ...event.Kind) (share float64, lost uint64) {
	return w.trustOf(w.seen, kinds...)
}

// trustOf is trust where so many were seen.
func (w *world) trustOf(seen uint64, kinds ...event.Kind) (share float64, lost uint64) {
	lost = w.lost[""]
	for _, k := range kinds {
		lost += w.lost[k.String()]
	}
	if lost == 0 {
		return 1, 0
	}
	return 1 - min(0.5, max(0.02, float64(lost)/float64(lost+seen))), lost
}
