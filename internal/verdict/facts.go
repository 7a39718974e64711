// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fact is a line of the evidence.
type fact struct{ name, text string }

// facts puts the numbers into words, the same for every format.
func (v *Verdict) facts() []fact {
	list := []fact{
		{"connections", v.Connections.text()},
		{"rate", v.Connections.rateText()},
		{"TIME_WAIT", v.TimeWait.text()},
		{"ports", v.portsText()},
		{"failures", v.Failures.text()},
		{"refusals", v.Refusals.text()},
		{"duration", v.Run.text()},
	}
	return slices.DeleteFunc(list, func(f fact) bool { return f.text == "" })
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

// some writes a count, nothing for 0.
func some(n uint64, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, group(n))
}

func (n *Connections) text() string {
	made := ""
	if n.Made > 0 {
		made = group(n.Made) + " made (" + join(some(n.ClosedHere, "%s closed by this host first"), some(n.ClosedThere, "%s by the peer"), some(n.Reset, "%s by RST")) + ")"
	}
	text := join(made, some(n.Accepted, "%s accepted and closed by this host first"), some(n.RoleUnknown, "%s of unknown role"))
	if text == "" {
		return "none has ended"
	}
	return text
}

func (n *Connections) rateText() string {
	if n.Made == 0 {
		return ""
	}
	return fmt.Sprintf("%s/s on average over %s, %s/s at most", number(n.MeanPerS), duration(n.ActiveS), number(n.PeakPerS))
}

func (t *TimeWait) text() string {
	return join(group(t.Peak)+" at most", some(t.Entered, "%s entered"), some(t.Before, "%s before"), some(t.Reused, "%s re-used by connect()"))
}

func (v *Verdict) portsText() string {
	u := v.Ports
	if u == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s used at most (%s), towards %s, seen in %s",
		group(u.Used), group(u.Total), percent(u.Share), u.place(), several(u.Looks, "look", "looks"))
}

func (f *Failures) text() string {
	if f.Kernel == 0 {
		return "none"
	}
	text := several(f.Kernel, "connect() of the kernel", "connect() of the kernel")
	if f.Calls > 0 {
		text += ", " + several(f.Calls, "call of programs", "calls of programs")
	}
	var causes []string
	for _, c := range f.ByCause {
		one := strings.ReplaceAll(c.Cause, "_", " ") + " " + group(c.Kernel)
		if c.Calls > 0 && c.Calls != c.Kernel {
			one += " (" + several(c.Calls, "call", "calls") + ")"
		}
		causes = append(causes, one)
	}
	if n := f.untold(); n > 0 && len(causes) > 0 {
		causes = append(causes, "not in the log "+group(n))
	}
	if len(causes) > 0 {
		text += ": " + strings.Join(causes, ", ")
	}
	return text
}

// untold are the failures whose events are not in the log.
func (f *Failures) untold() uint64 {
	n := f.Kernel
	for _, c := range f.ByCause {
		n -= min(c.Kernel, n)
	}
	return n
}

func (r *Refusals) text() string {
	var verdicts []string
	for _, name := range slices.Sorted(maps.Keys(r.ByVerdict)) {
		verdicts = append(verdicts, name+" "+group(r.ByVerdict[name]))
	}
	here := some(r.RefusedHere, "SYNs refused by this host %s")
	if len(verdicts) > 0 {
		here += " (" + strings.Join(verdicts, ", ") + ")"
	}
	text := join(some(r.Unanswered, "SYNs left unanswered by targets %s"), some(r.StaleACKs, "SYNs answered with a stale ACK %s"), here,
		some(r.Segments, "other segments refused here by PAWS %s"), some(r.ListenDrops, "SYNs and final ACKs dropped by listeners here %s"))
	if text == "" {
		return "none"
	}
	return text
}

func (r *Run) text() string {
	end := "has not ended"
	if r.Reason != "" {
		end = r.Reason
	}
	earlier := some(r.Earlier, "earlier runs in the log, passed over: %s")
	return join(duration(r.DurationS), "from "+r.Began.UTC().Format("2006-01-02 15:04:05")+" UTC", end, earlier)
}

// destinationHead and the rows below it are a table of the busiest ones.
func destinationHead() []string {
	return []string{"destination", "made", "peak/s", "TIME_WAIT", "ports", "failed", "refused"}
}

// rows names the busiest destinations so that none looks like another.
func (v *Verdict) rows() [][]string {
	seen := map[string]int{}
	local := func(d *Destination) string {
		if !d.Laddr.IsValid() {
			return d.place()
		}
		return d.Laddr.String() + " -> " + d.place()
	}
	for i := range v.Destinations {
		d := &v.Destinations[i]
		seen[d.place()]++
		if l := local(d); l != d.place() {
			seen[l]++
		}
	}
	var rows [][]string
	for i := range v.Destinations {
		d := &v.Destinations[i]
		row := d.row()
		if seen[d.place()] > 1 {
			row[0] = local(d)
		}
		if seen[row[0]] > 1 {
			row[0] += fmt.Sprintf(" in netns %d", d.NetNS)
		}
		rows = append(rows, row)
	}
	return rows
}

func (d *Destination) row() []string {
	ports := ""
	if d.PortsTotal > 0 {
		ports = percent(float64(d.PortsUsed)/float64(d.PortsTotal)) + " of " + group(d.PortsTotal)
	}
	return []string{
		d.place(), group(d.Made), number(d.PeakPerS), group(d.TimeWaitPeak), ports,
		group(d.Failed), group(plus(d.Unanswered, d.StaleACKs)),
	}
}

// when says when a finding was there.
func (f *Finding) when() string {
	if f.Closed {
		return clock(f.First) + " to " + clock(f.Last) + " UTC"
	}
	return "since " + clock(f.First) + " UTC"
}

func (l *Loss) text() string {
	what := l.Of
	if what == "" {
		what = "lines"
	}
	text := group(l.Count) + " " + what + " (" + l.Hop + ")"
	if l.Why != "" {
		text += ": " + l.Why
	}
	return text
}

// unseen are the lines about what was not seen, without those that stand among
// the doubts.
func (v *Verdict) unseen() []string {
	return slices.DeleteFunc(slices.Clone(v.NotSeen), func(s string) bool { return slices.Contains(v.Doubts, notObserved+s) })
}

// lostTexts are all lines about what is missing.
func (v *Verdict) lostTexts() []string {
	var list []string
	for i := range v.Lost {
		list = append(list, v.Lost[i].text())
	}
	for _, r := range v.Unreconciled {
		text := fmt.Sprintf("network namespace %d, %s: the kernel counts %d, twscope %d, difference %d", r.NetNS, r.Counter, r.Kernel, r.TWScope, r.Difference)
		if r.Why != "" {
			text += " (" + r.Why + ")"
		}
		list = append(list, text)
	}
	return list
}

func omitted(n uint64, one, more string) string {
	if n == 0 {
		return ""
	}
	return "and " + several(n, "more "+one, "more "+more)
}
