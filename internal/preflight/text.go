// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

// WriteText writes the report for people, at most 100 columns wide unless a
// single word is wider. If verbose, it tells of every rung that was tried.
func (r Report) WriteText(w io.Writer, verbose bool) error {
	p := &page{}
	r.writeKernel(p)
	r.writeCapabilities(p)
	r.writeObservations(p, verbose)
	r.writeSysctls(p)
	r.writeConfig(p)
	r.writeVerdict(p)
	_, err := io.WriteString(w, p.String())
	return err
}

func (r Report) writeKernel(p *page) {
	k := r.Kernel
	p.WriteString("Kernel\n")
	fact := func(name, text string) { p.row(2, []int{15}, name, text) }
	release := k.Release + " " + k.Arch
	if k.HZ > 0 {
		release += fmt.Sprintf(", %d ticks/s", k.HZ)
	}
	fact("release", release)
	fact("BTF", btfText(k.BTFBytes))
	fact("lockdown", lockdownText(k.Lockdown))
	if k.InitialPIDNS {
		fact("pid namespace", "the host's own: pids in events are those that ps shows here")
	} else {
		fact("pid namespace", "a container's: events show the host's pids, not those that ps shows here")
	}
	if k.InitialCgroupNS {
		fact("cgroup ns", "the host's own: cgroups are those of the whole host")
	} else {
		fact("cgroup ns", "a container's: paths and --cgroup know only the cgroups below its own")
	}
	fact("cgroup v2", mountText(k.Cgroup2, "not mounted: events show no cgroup, and --cgroup does not work"))
	fact("bpffs", mountText(k.BPFFS, "not mounted, and not needed"))
	fact("tracefs", mountText(k.TraceFS, "not mounted; only needed where kprobes cannot be opened without it"))
	fact("TW is counted", k.TWCountingMeans)
	fact("TSval offset", k.TSOffsetMeans)
}

func btfText(bytes int64) string {
	if bytes == 0 {
		return "none: twscope cannot read the kernel's structures, and nothing can be observed"
	}
	return fmt.Sprintf("%.1f MiB of type information, by which twscope reads the kernel's structures", float64(bytes)/(1<<20))
}

func lockdownText(mode string) string {
	switch mode {
	case "":
		return "not shown here (securityfs is not mounted, or the kernel has none)"
	case "confidentiality":
		return mode + ": BPF programs cannot read kernel memory, and nothing can be observed"
	default:
		return mode + ": does not hinder twscope"
	}
}

func mountText(point, without string) string {
	if point == "" {
		return without
	}
	return point
}

func (r Report) writeCapabilities(p *page) {
	if len(r.Missing) == 0 {
		p.title("Capabilities: all that twscope uses are there")
		return
	}
	p.title("Capabilities that are missing")
	for _, c := range r.Missing {
		need := ""
		if c.Required {
			need = "required: "
		}
		p.row(2, []int{len("CAP_DAC_READ_SEARCH")}, c.Name, need+c.For)
	}
	p.row(2, nil, "remedy: "+r.MissingRemedy)
}

func (r Report) writeObservations(p *page, verbose bool) {
	if len(r.Observations) == 0 {
		p.title("Observations: none can be made")
		return
	}
	p.title("Observations, and the rung (the way to observe) that works here; each was tried, then undone")
	var names, ways []string
	for _, o := range r.Observations {
		names, ways = append(names, o.Name), append(ways, o.Rung)
	}
	widths := []int{width(names...), width(ways...)}
	for _, o := range r.Observations {
		p.row(2, widths, o.Name, o.Rung, o.Sees)
		if o.Lost != "" && o.Rung != string(probe.None) {
			p.row(2, widths, "", "", "lost: "+o.Lost)
		}
		if len(o.MissingHooks) > 0 {
			p.row(2, widths, "", "", "hooks that this kernel does not have: "+strings.Join(o.MissingHooks, ", "))
		}
		if verbose {
			for _, a := range o.Tried {
				p.row(2, widths, "", "", attemptText(a))
			}
		}
	}
	p.WriteByte('\n')
	r.writeRungs(p, widths[1])
	if !verbose {
		r.writeTried(p)
	}
	p.WriteByte('\n')
	p.row(2, []int{4}, "PAWS", "TCP's check that refuses segments with a timestamp older than the last one seen")
}

func attemptText(a Attempt) string {
	if a.Hook == "" {
		return fmt.Sprintf("not %s: %s", a.Rung, a.Reason)
	}
	return fmt.Sprintf("not %s (%s): %s", a.Rung, a.Hook, a.Reason)
}

// writeRungs explains the rungs that the table shows.
func (r Report) writeRungs(p *page, nameWidth int) {
	shown := map[string]bool{}
	for _, o := range r.Observations {
		shown[o.Rung] = true
		for _, a := range o.Tried {
			shown[a.Rung] = true
		}
	}
	for _, rung := range rungs() {
		if shown[rung[0]] {
			p.row(2, []int{nameWidth}, rung[0], rung[1])
		}
	}
}

// writeTried sums up why better rungs do not work.
func (r Report) writeTried(p *page) {
	type key struct{ rung, reason string }
	counts := map[key]int{}
	var order []key
	for _, o := range r.Observations {
		seen := map[key]bool{}
		for _, a := range o.Tried {
			k := key{a.Rung, a.Reason}
			if seen[k] {
				continue
			}
			seen[k] = true
			if counts[k] == 0 {
				order = append(order, k)
			}
			counts[k]++
		}
	}
	if len(order) == 0 {
		return
	}
	p.WriteByte('\n')
	p.row(2, nil, "Better rungs that do not work here (each try: --verbose):")
	for _, k := range order {
		p.row(4, []int{width(k.rung)}, k.rung, fmt.Sprintf("%s (%s)", k.reason, count(counts[k], "observation")))
	}
}

func (r Report) writeSysctls(p *page) {
	for i, g := range r.Sysctls {
		where := namespaceList(g.Namespaces)
		if i == 0 {
			p.title("Sysctls in " + where)
			writeEffects(p, g.Effects)
			continue
		}
		p.title("Sysctls that differ in " + where)
		writeEffects(p, differing(g.Effects, r.Sysctls[0].Effects))
	}
	if len(r.UnreadNamespaces) > 0 || r.HiddenProcesses > 0 {
		p.title("Network namespaces that could not be looked into")
	}
	for _, u := range r.UnreadNamespaces {
		p.row(2, nil, namespaceText(u.NamespaceName)+": "+u.Reason)
	}
	if n := r.HiddenProcesses; n > 0 {
		p.row(2, nil, "those of "+count(n, "process")+" are hidden from us: "+r.whyHidden())
	}
}

func (r Report) whyHidden() string {
	for _, c := range r.Missing {
		if c.Name == "CAP_SYS_PTRACE" {
			return "run as root, with CAP_SYS_PTRACE, to see them"
		}
	}
	return "a security module forbids it, or they belong to another user namespace"
}

// differing leaves out what is the same in the first group, and adds what
// that group alone has.
func differing(list, first []Effect) []Effect {
	var rest []Effect
	for _, e := range list {
		if !slices.Contains(first, e) {
			rest = append(rest, e)
		}
	}
	for _, f := range first {
		if !slices.ContainsFunc(list, func(e Effect) bool { return e.Name == f.Name }) {
			rest = append(rest, Effect{Name: f.Name, Value: "-", Effect: "does not exist here", Severity: kernel.OK.String()})
		}
	}
	return rest
}

// valueWidth bounds the column of values: a long list of reserved ports must
// not push the effects off the line.
const valueWidth = 12

func writeEffects(p *page, list []Effect) {
	if len(list) == 0 {
		p.row(2, nil, "none that twscope knows of")
		return
	}
	var grades, names, values []string
	for _, e := range list {
		grade := e.Severity
		if grade == kernel.OK.String() {
			grade = ""
		}
		grades = append(grades, grade)
		names = append(names, shortName(e.Name))
		values = append(values, e.Value)
	}
	widths := []int{width(grades...), width(names...), min(width(values...), valueWidth)}
	for i, e := range list {
		if width(values[i]) > valueWidth {
			p.row(2, widths[:2], grades[i], names[i], values[i])
			p.row(2, widths, "", "", "", e.Effect)
			continue
		}
		p.row(2, widths, grades[i], names[i], values[i], e.Effect)
	}
}

// shortName is the part of a sysctl's name by which people know it.
func shortName(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// namespacesShown bounds how many namespaces a line names.
const namespacesShown = 8

func namespaceList(list []NamespaceName) string {
	var texts []string
	for _, n := range list[:min(len(list), namespacesShown)] {
		texts = append(texts, namespaceText(n))
	}
	text := strings.Join(texts, ", ")
	if more := len(list) - namespacesShown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(list) == 1 {
		return "network namespace " + text
	}
	return fmt.Sprintf("%d network namespaces: %s", len(list), text)
}

func namespaceText(n NamespaceName) string {
	var notes []string
	if n.Init {
		notes = append(notes, "init's")
	}
	if n.Own {
		notes = append(notes, "ours")
	}
	notes = append(notes, n.Names...)
	text := strconv.FormatUint(uint64(n.Inode), 10)
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	return text
}

func (r Report) writeConfig(p *page) {
	if len(r.RecycleLines) > 0 {
		p.title("Configuration that does nothing: kernels since 4.12 have no tcp_tw_recycle; remove these lines")
	}
	for _, l := range r.RecycleLines {
		p.row(2, nil, fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text))
	}
	if len(r.Problems) > 0 {
		p.title("Not read, and so missing above")
	}
	for _, text := range r.Problems {
		p.row(2, nil, text)
	}
}

func (r Report) writeVerdict(p *page) {
	if n := len(r.Warnings); n > 0 {
		p.title(count(n, "warning"))
		for _, w := range r.Warnings {
			p.row(2, []int{1}, "-", w.Text)
		}
	}
	if r.Ready {
		p.title("ready: " + r.Summary)
		return
	}
	p.title("not ready: " + r.Summary)
	p.row(2, nil, "remedy: "+r.Remedy)
	if r.Error != "" {
		p.row(2, nil, "error: "+r.Error)
	}
}
