// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
)

// tailText turns events into lines for people. Its columns grow with what they
// have held, so that lines stay aligned without knowing what comes.
type tailText struct {
	color                 bool
	zone                  *time.Location
	connWidth, ownerWidth int
}

// How wide the columns are, and how wide they may grow, in characters: from
// two IPv4 endpoints to two IPv6 endpoints, and a process name with its id.
const (
	minConnection = len(" -> ") + 2*len("192.168.111.222:65535")
	maxConnection = len(" -> ") + 2*len("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")
	minOwner      = len("process (123456)")
	maxOwner      = 32
	maxNetNS      = len("4294967295")
)

// SGR sequences of ECMA-48.
const (
	sgrReset  = "\x1b[0m"
	sgrBold   = "\x1b[1m"
	sgrDim    = "\x1b[2m"
	sgrRed    = "\x1b[31m"
	sgrGreen  = "\x1b[32m"
	sgrYellow = "\x1b[33m"
	sgrCyan   = "\x1b[36m"
)

func colorOf(ev event.Event) string {
	switch ev.Kind() {
	case event.KindConnectFail, event.KindPAWSReject, event.KindSYNReject, event.KindListenDrop:
		return sgrRed
	case event.KindSYNRefused, event.KindLoss, event.KindSysctlChange:
		return sgrYellow
	case event.KindTWReuse:
		return sgrGreen
	case event.KindTimeWait, event.KindSYN:
		return sgrCyan
	case event.KindStart, event.KindStats, event.KindStop:
		return sgrBold
	case event.KindFinding:
		return findingColor(ev)
	}
	return sgrDim
}

// line returns one line with its end. What comes from the log is cleaned: a
// file of unknown origin may hold anything.
func (t *tailText) line(ev event.Event) string {
	var b strings.Builder
	b.WriteString(t.paint(sgrDim, time.Unix(0, ev.UnixNano()).In(t.zone).Format("15:04:05.000")))
	name := ev.Kind().String()
	if u, ok := ev.(*event.Unknown); ok {
		name = event.Clean(u.Name)
	}
	b.WriteString("  " + t.paint(colorOf(ev), name) + pad(name, len("sysctl_change")))
	if s, ok := ev.(interface{ Connection() *event.Socket }); ok {
		k := s.Connection()
		netns, conn, owner := number(k.NetNS), connection(k), ownerText(&k.Owner)
		b.WriteString("  " + t.paint(sgrDim, netns) + pad(netns, maxNetNS))
		b.WriteString("  " + conn + padGrow(conn, &t.connWidth, minConnection, maxConnection))
		b.WriteString("  " + owner + padGrow(owner, &t.ownerWidth, minOwner, maxOwner))
	}
	b.WriteString("  " + event.Clean(facts(ev, t.zone)))
	return strings.TrimRight(b.String(), " ") + "\n"
}

func (t *tailText) paint(sgr, s string) string {
	if !t.color || s == "" {
		return s
	}
	return sgr + s + sgrReset
}

func pad(s string, width int) string {
	return strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}

func padGrow(s string, width *int, least, most int) string {
	*width = min(max(*width, least, utf8.RuneCountInString(s)), most)
	return pad(s, *width)
}

func number[N uint32 | uint64](n N) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

func connection(s *event.Socket) string {
	if s.Local == (netip.AddrPort{}) && s.Remote == (netip.AddrPort{}) {
		return ""
	}
	return endpoint(s.Local) + " -> " + endpoint(s.Remote)
}

// endpoint shows an address and port, "*" for what is not known.
func endpoint(a netip.AddrPort) string {
	host, port := "*", "*"
	if a.Addr().IsValid() {
		host = a.Addr().WithZone("").String()
	}
	if a.Addr().Is6() {
		host = "[" + host + "]"
	}
	if a.Port() != 0 {
		port = strconv.Itoa(int(a.Port()))
	}
	return host + ":" + port
}

func ownerText(o *event.Owner) string {
	var parts []string
	if o.Comm != "" {
		parts = append(parts, event.Clean(o.Comm))
	}
	if o.PID != 0 {
		parts = append(parts, "("+number(o.PID)+")")
	}
	return strings.Join(parts, " ")
}

// facts says what matters about an event in words, with units.
func facts(ev event.Event, zone *time.Location) string {
	switch ev := ev.(type) {
	case *event.Start:
		return startFacts(ev, zone)
	case *event.Census:
		return censusFacts(ev)
	case *event.TimeWait:
		return join(roleText(ev.Role), "for "+duration(ev.TimeoutMS), timestampsText(ev.Timestamps, "ts_recent", ev.TSRecent),
			finWait2(ev.Substate), cgroup(&ev.Socket))
	case *event.TimeWaitEnd:
		return join(ev.Reason.String()+" after "+duration(ev.AgeMS), cgroup(&ev.Socket))
	case *event.TWReuse:
		return join("taken over by connect() after "+duration(ev.AgeMS), cgroup(&ev.Socket))
	case *event.ConnectFail:
		return connectFailFacts(ev)
	case *event.SYN:
		return synFacts(ev)
	case *event.SYNRefused:
		how := "no answer"
		if ev.Signature == event.SignatureChallengeACK {
			how = "answered with a bare ACK"
		}
		return join(how, fmt.Sprintf("attempt %d", ev.Attempts), duration(ev.DelayMS)+" after the first", cgroup(&ev.Socket))
	case *event.PAWSReject:
		return pawsFacts(ev)
	case *event.SYNReject:
		return synRejectFacts(ev)
	case *event.ListenDrop:
		return listenDropFacts(ev)
	case *event.Sources:
		return sourcesFacts(ev)
	case *event.Finding:
		return findingFacts(ev)
	case *event.Destinations:
		return destinationsFacts(ev)
	case *event.SysctlChange:
		return fmt.Sprintf("%s: %s -> %s%s", ev.Name, orNone(ev.Old), orNone(ev.New), prefixed(" in netns ", number(ev.NetNS)))
	case *event.Loss:
		of := ev.Of
		if of == "" {
			of = "events"
		}
		return fmt.Sprintf("%d %s missing, lost at %s%s", ev.Count, of, ev.Hop, prefixed(": ", ev.Why))
	case *event.Stats:
		return statsFacts(ev)
	case *event.Stop:
		return ev.Reason + ", " + statsFacts(&ev.Stats)
	case *event.Unknown:
		return string(ev.Line)
	}
	return ""
}

// join joins the facts that there are.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// duration shows milliseconds as ms below one second, else as seconds.
func duration[N uint32 | uint64](ms N) string {
	if ms < 1000 {
		return strconv.FormatUint(uint64(ms), 10) + " ms"
	}
	return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) + " s"
}

func roleText(r event.Role) string {
	if r == event.RoleUnknown {
		return ""
	}
	return r.String()
}

func finWait2(s event.Substate) string {
	if s == event.SubstateFinWait2 {
		return "peer's FIN awaited"
	}
	return ""
}

func timestampsText(have bool, what string, v uint32) string {
	if !have {
		return "no timestamps"
	}
	return what + " " + strconv.FormatUint(uint64(v), 10)
}

func cgroup(s *event.Socket) string { return prefixed("cgroup ", s.Owner.Cgroup) }

func startFacts(s *event.Start, zone *time.Location) string {
	var rungs []string
	for _, k := range slices.Sorted(maps.Keys(s.Coverage)) {
		rungs = append(rungs, k+" by "+s.Coverage[k])
	}
	var filters []string
	for _, k := range slices.Sorted(maps.Keys(s.Filters)) {
		filters = append(filters, "--"+k+" "+strings.Join(s.Filters[k], ","))
	}
	var before uint64
	for _, c := range s.Census {
		before += c.TimeWait
	}
	return join(
		"twscope "+s.Version+" on "+s.Host,
		time.Unix(0, s.Time).In(zone).Format("2006-01-02 MST"),
		"Linux "+s.Kernel+" "+s.Arch, fmt.Sprintf("pid %d", s.PID), prefixed("part ", number(uint64(max(s.Part, 0)))),
		fmt.Sprintf("%d in TIME_WAIT before", before), strings.Join(filters, " "),
	) + prefixed("; ", strings.Join(rungs, ", ")) + prefixed("; cannot see: ", strings.Join(s.Lost, "; "))
}

func censusFacts(c *event.Census) string {
	reuse := map[event.Reusable]string{
		event.ReusableNow:          "reusable",
		event.ReuseRefusedFinWait2: "not reusable: FIN_WAIT2",
		event.ReuseRefusedLoopback: "not reusable: tcp_tw_reuse is for loopback only",
		event.ReuseRefusedNoTS:     "not reusable without timestamps",
		event.ReuseRefusedDisabled: "not reusable: tcp_tw_reuse is off",
		event.ReuseRefusedTooYoung: "reusable in " + duration(c.ReuseInMS),
	}
	return join(roleText(c.Role), duration(c.RemainingMS)+" left", reuse[c.Reuse],
		timestampsText(c.Timestamps, "ts_recent", c.TSRecent), finWait2(c.Substate))
}

func connectFailFacts(c *event.ConnectFail) string {
	errno, what := event.ErrnoName(c.Errno), "port range"
	if errno == "EADDRNOTAVAIL" {
		what = "no free port in"
	}
	inferred := ""
	if c.Inferred {
		inferred = "errno inferred"
	}
	return join(fmt.Sprintf("%s: %s %d-%d", errno, what, c.RangeLow, c.RangeHigh), inferred, causeText(c), cgroup(&c.Socket))
}

func synFacts(s *event.SYN) string {
	validated := "handshake not completed"
	if s.Validated {
		validated = "handshake completed"
	}
	return join(timestampsText(s.Timestamps, "TSval", s.TSval), prefixed("TTL ", number(uint32(s.TTL))),
		prefixed("fingerprint ", s.Fingerprint), validated, cgroup(&s.Socket))
}

func pawsFacts(p *event.PAWSReject) string {
	what := "segment"
	if p.Segment != event.SegmentUnknown {
		what = strings.ToUpper(p.Segment.String())
	}
	if p.Count > 1 {
		what = fmt.Sprintf("%d segments", p.Count)
	}
	where := ""
	if p.Where != event.WhereUnknown {
		where = " in " + p.Where.String()
	}
	age, clock := "", ""
	if p.HasAge {
		age = " of " + duration(p.AgeMS) + " ago"
	}
	if p.Delta != 0 {
		clock = fmt.Sprintf("TSval %d is %d ticks behind ts_recent %d%s", p.TSval, -int64(p.Delta), p.TSRecent, age)
	}
	return join(what+" refused"+where, clock, replyText(p.Reply), p.Reason, prefixed("counter ", p.Counter), verdictText(&p.Judgement), cgroup(&p.Socket))
}

func statsFacts(s *event.Stats) string {
	parts := []string{
		"up " + duration(s.UptimeMS), total(s.Seen) + " seen", total(s.Written) + " written", total(s.Lost) + " lost",
	}
	if s.ClockStepMS != 0 {
		parts = append(parts, fmt.Sprintf("wall clock stepped by %d ms", s.ClockStepMS))
	}
	for _, r := range s.Reconcile {
		if r.Difference != 0 || r.Kernel != 0 {
			parts = append(parts, fmt.Sprintf("netns %d %s: kernel %d, twscope %d, difference %d%s",
				r.NetNS, r.Counter, r.Kernel, r.TWScope, r.Difference, prefixed(", ", r.Why)))
		}
	}
	return join(parts...)
}

func total(counts map[string]uint64) string {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return strconv.FormatUint(n, 10)
}
