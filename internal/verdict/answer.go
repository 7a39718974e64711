// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

const (
	// silentShare is how many connect() calls without an answer, as one in so
	// many, are more than packets that got lost.
	silentShare = 20
	// slowS is for how long connections stay open, in s, where the time that
	// they take bounds the rate.
	slowS = 1
	// closeShare is the use of a budget of ports that is near its end.
	closeShare = 0.8
	// slightLoss is how many lines may be missing, as one in so many, without
	// the counts becoming doubtful.
	slightLoss = 100
)

// answer is the one sentence, and what it rests on.
func (c *Collector) answer(v *Verdict, accounts []*account, found []*found) (sentence, basis string) {
	if len(found) > 0 && found[0].severity == event.SeverityCritical {
		return worst(found), BasisFinding
	}
	if f := &v.Failures; f.NoPort > 0 {
		return fmt.Sprintf("it is this client: %s failed for want of a local port%s",
			several(f.NoPort, "connect() of the kernel has", "connect() of the kernel have"), c.towards(accounts)), BasisFailures
	}
	if len(found) > 0 && found[0].severity == event.SeverityWarning {
		text := worst(found)
		if v.Connections.Made > 0 && v.Failures.Kernel == 0 && c.sees("connect_fail") {
			text = "no connect() failed for want of a port, but " + text
		}
		return text, BasisWarning
	}
	if f := &v.Failures; f.Kernel > 0 && !c.onlyRoute(f) {
		return fmt.Sprintf("it is this client: %s failed before a SYN was sent, not for want of a port (%s)",
			several(f.Kernel, "connect() of the kernel", "connect() of the kernel"), causesText(f)), BasisFailures
	}
	if text := refusedText(accounts); text != "" {
		return text, BasisRefused
	}
	return c.calm(v, accounts)
}

// onlyRoute tells whether all failures are for want of a route or an address:
// programs try IPv6 first where there is none, and lose nothing.
func (c *Collector) onlyRoute(f *Failures) bool {
	return f.Kernel == c.failures[event.CauseNoRouteOrAddress].kernel
}

func causesText(f *Failures) string {
	var parts []string
	for _, one := range f.ByCause {
		parts = append(parts, strings.ReplaceAll(one.Cause, "_", " "))
	}
	if len(parts) == 0 {
		return "the cause is not in the log"
	}
	return strings.Join(parts, ", ")
}

// towards names where connect() failed.
func (c *Collector) towards(accounts []*account) string {
	var most *account
	for _, a := range accounts {
		if a.failures > 0 && (most == nil || a.failures > most.failures) {
			most = a
		}
	}
	if most == nil {
		return ""
	}
	return " towards " + most.place()
}

// worst is the sentence of the worst finding.
func worst(found []*found) string {
	f := found[0]
	text := f.Summary
	if f.Closed {
		text += "; it is over since " + clock(f.Last) + " UTC"
	}
	var more uint64
	for _, o := range found[1:] {
		if o.severity == f.severity {
			more++
		}
	}
	if more > 0 {
		text += "; and " + several(more, "more "+f.severity.String()+" finding", "more "+f.severity.String()+" findings")
	}
	return text
}

// refusedText says that targets refuse SYNs, if so many that it matters.
func refusedText(accounts []*account) string {
	var most *account
	var more uint64
	for _, a := range accounts {
		made := a.made()
		silent := a.silent > 0 && (made == 0 || a.silent >= plus(made, a.silent)/silentShare)
		stale := a.stale > 0 && (made == 0 || a.stale >= plus(made, a.stale)/silentShare)
		if !silent && !stale {
			continue
		}
		if most == nil || plus(a.unanswered, a.stale) > plus(most.unanswered, most.stale) {
			most = a
		}
		more++
	}
	if most == nil {
		return ""
	}
	rest := ""
	if more > 1 {
		rest = ", and so did " + several(more-1, "other destination", "other destinations")
	}
	made := "no connection to it was made"
	if n := most.made(); n > 0 {
		made = several(n, "connection to it was made", "connections to it were made")
	}
	if most.unanswered >= most.stale {
		return fmt.Sprintf("not your client: %s, or a firewall before it, left %s unanswered%s; %s",
			most.place(), several(most.unanswered, "SYN", "SYNs"), rest, made)
	}
	return fmt.Sprintf("not your client's ports: %s answered %s with a stale ACK: it still holds older connections with the same ports%s; %s",
		most.place(), several(most.stale, "SYN", "SYNs"), rest, made)
}

// calm is the sentence where nothing failed.
func (c *Collector) calm(v *Verdict, accounts []*account) (sentence, basis string) {
	doubt := ""
	if len(v.Doubts) > 0 {
		doubt = "as far as was seen, "
	}
	n := &v.Connections
	switch {
	case v.Refusals.RefusedHere > 0 || v.Refusals.ListenDrops > 0:
		return c.refusedHere(v), BasisRefusedHere
	case n.Made > 0:
		if text := slow(v, accounts); text != "" {
			return doubt + text, BasisSlow
		}
		return doubt + c.notClient(v, accounts), BasisNotClient
	case n.Accepted > 0:
		text := "not this host: " + several(n.Accepted, "connection of a client was", "connections of clients were") + " seen"
		if c.sees("paws_time_wait") && c.sees("syn_reject") {
			text += ", it refused no SYN in TIME_WAIT"
		}
		return doubt + text + ", and no listener was seen to drop one", BasisNotServer
	case n.RoleUnknown > 0:
		return doubt + several(n.RoleUnknown, "connection was", "connections were") + " seen, who opened them is not known, and nothing is known to have failed", BasisNotClient
	}
	if text := c.taken(); text != "" {
		return doubt + text, BasisTaken
	}
	if open := c.open(); open > 0 {
		return doubt + "not your client: " + several(open, "connection is", "connections are") +
			" open, none has ended, and nothing failed", BasisOpen
	}
	switch {
	case len(v.Run.Filters["command"]) > 0: // of attach
		return doubt + "the command made no TCP connection", BasisNothing
	case len(v.Run.Filters) > 0:
		return doubt + "no connection matched the selectors" + ownerless(v.Run.Filters), BasisNothing
	case v.Failures.Kernel > 0:
		return doubt + "no connection was seen, only " + several(v.Failures.Kernel, "connect()", "connect()") + " without a route or an address", BasisNothing
	}
	return doubt + "no connection was seen", BasisNothing
}

// taken says that nobody can connect, if all local ports towards a destination
// are in use and nobody was seen to try: the load may have given up before.
func (c *Collector) taken() string {
	if c.latest == nil {
		return ""
	}
	for i := range c.latest.List {
		d := &c.latest.List[i]
		if d.PortsTotal == 0 || d.Reusable > 0 || d.InUse+d.TimeWait < d.PortsTotal {
			continue
		}
		return fmt.Sprintf("no connect() was seen, but one to %s would fail: all %s of %s are taken, %s by sockets in TIME_WAIT",
			netip.AddrPortFrom(d.Raddr, d.Rport), several(d.PortsTotal, "local port", "local ports"), d.Laddr, group(uint64(d.TimeWait)))
	}
	return ""
}

// ownerless says where to look for what filters by owner leave out.
func ownerless(filters map[string][]string) string {
	for _, by := range []string{"pid", "comm", "cgroup"} {
		if len(filters[by]) > 0 {
			return "; sockets that were in TIME_WAIT before belong to no process: --netns or --dst shows those"
		}
	}
	return ""
}

// open is how many connections were open when the budgets were told last.
func (c *Collector) open() uint64 {
	var n uint64
	if c.latest != nil {
		for i := range c.latest.List {
			n += uint64(c.latest.List[i].InUse)
		}
	}
	return n
}

func (c *Collector) refusedHere(v *Verdict) string {
	var parts []string
	if n := v.Refusals.RefusedHere; n > 0 {
		parts = append(parts, "this host refused "+several(n, "SYN", "SYNs")+" in TIME_WAIT")
	}
	if n := v.Refusals.ListenDrops; n > 0 {
		parts = append(parts, "its listeners dropped "+several(n, "SYN or final ACK", "SYNs and final ACKs"))
	}
	return strings.Join(parts, ", and ") + ", too few to conclude from"
}

// slow says that connections stay open for long, if that is what bounds the
// rate of the busiest destination.
func slow(v *Verdict, accounts []*account) string {
	if v.Ports != nil && v.Ports.Share >= closeShare || len(accounts) == 0 {
		return ""
	}
	a := accounts[0]
	seconds, inUse := a.open.mean(a.made())
	if seconds < slowS || 2*a.made() < v.Connections.Made {
		return ""
	}
	return join(fmt.Sprintf("not your client's ports: a connection to %s stays open for %s s on average, so %s at a time make no more than %s a second",
		a.place(), number(seconds), number(inUse), number(inUse/seconds)), used(v))
}

// used says how much of a budget was used at most.
func used(v *Verdict) string {
	if v.Ports == nil || v.Ports.Share == 0 {
		return ""
	}
	share := percent(v.Ports.Share)
	if !strings.HasPrefix(share, "less") {
		share = "at most " + share
	}
	return share + " of the local ports were seen in use"
}

func (c *Collector) notClient(v *Verdict, accounts []*account) string {
	where := ""
	if len(accounts) == 1 {
		where = " to " + accounts[0].place()
	} else if n := plus(uint64(len(v.Destinations)), v.DestinationsOmitted); n > 1 {
		where = " to " + several(n, "destination", "destinations")
	}
	failed, refused := "", ""
	if c.sees("connect_fail") {
		failed = "no connect() failed for want of a port"
	}
	few := plus(v.Refusals.Unanswered, v.Refusals.StaleACKs)
	switch {
	case few > 0:
		refused = several(few, "SYN was refused or left unanswered, which is", "SYNs were refused or left unanswered, which are") + " few"
	case c.sees("syn_refused"):
		refused = "no SYN was refused or left unanswered"
	}
	text := "not your client: " + join(several(v.Connections.Made, "connection", "connections")+where+" got through", failed, used(v), refused)
	if v.Ports != nil && v.Ports.Share >= closeShare {
		text += "; with a little more load the ports towards " + v.Ports.place() + " run out"
	}
	return text
}

// notObserved begins the doubt about an observation that was not made.
const notObserved = "not observed: "

// doubts are why the answer may be wrong.
func (c *Collector) doubts(v *Verdict) []string {
	list := c.gaps()
	list = append(list, missing(v)...)
	for _, r := range v.Unreconciled {
		if r.Why == "" && size(r.Difference) > size(r.Kernel)/slightLoss {
			list = append(list, fmt.Sprintf("the kernel's counter %s tells %d where twscope saw %d (network namespace %d)", r.Counter, r.Kernel, r.TWScope, r.NetNS))
		}
	}
	if n := c.evicted; n > 0 {
		list = append(list, several(n, "destination was", "destinations were")+" forgotten for want of room")
	}
	if n := plus(c.accounts.crowded, c.findings.omitted); n > 0 {
		list = append(list, "the verdict had no room for "+several(n, "event", "events"))
	}
	return list[:min(len(list), listedDoubts)]
}

// gaps are the parts of the run that are not in the log, or were not observed.
func (c *Collector) gaps() []string {
	list := []string{}
	switch {
	case c.start == nil:
		list = append(list, "the log has no start event: what was observed is not known")
	case c.start.Part > 0:
		list = append(list, fmt.Sprintf("the log begins with part %d of its run: what came before is not in it", c.start.Part))
	}
	if c.stop == nil {
		list = append(list, "the run has not ended, or its end is not in the log")
	}
	if c.start == nil {
		return list
	}
	for _, o := range essential()[:3] { // those about clients
		if !c.sees(o.name) {
			list = append(list, notObserved+o.without)
		}
	}
	return list
}

// missing tells of lost lines that matter: of rare events each does, of
// connections a hundredth.
func missing(v *Verdict) []string {
	var list []string
	all := plus(v.Connections.Made, v.TimeWait.Entered)
	for _, l := range v.Lost {
		switch l.Of {
		case event.KindSYN.String():
			continue // the answer does not depend on them
		case "", event.KindTimeWait.String(), event.KindTWReuse.String():
			if l.Count < all/slightLoss {
				continue
			}
		}
		text := several(l.Count, strings.TrimSpace(l.Of+" event")+" is", strings.TrimSpace(l.Of+" events")+" are") + " missing (" + l.Hop + ")"
		if l.Why != "" {
			text += ": " + l.Why
		}
		list = append(list, text)
	}
	return list
}
