// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/verdict"
)

// width of the texts, in columns.
const width = 80

// List writes what scenarios there are.
func List(list []Scenario) string {
	var b strings.Builder
	for i := range list {
		s := &list[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(s.Name + "\n")
		para(&b, "  ", s.About)
		para(&b, "  cause:   ", s.Cause.Setting)
		para(&b, "  expect:  ", words(s.Cause.Expect))
		para(&b, "  control: ", s.Control.Setting)
		para(&b, "  expect:  ", words(s.Control.Expect))
	}
	return b.String()
}

// Head writes what a scenario is about, before it runs.
func (s *Scenario) Head() string {
	var b strings.Builder
	b.WriteString("== " + s.Name + "\n")
	para(&b, "   ", s.About)
	for line := range strings.Lines(s.Topology + "\n") {
		b.WriteString(strings.TrimRight("   "+line, " \n") + "\n")
	}
	para(&b, "   load: ", s.Load)
	return b.String()
}

// Text writes a result for people. With whole it has all that the verdict says.
func (r *Result) Text(whole bool) string {
	var b strings.Builder
	b.WriteByte('\n')
	para(&b, "-- "+r.side()+": ", r.Setting)
	if v := r.Verdict; v != nil {
		para(&b, "   verdict: ", v.Answer)
		for i := range v.Findings {
			f := &v.Findings[i]
			para(&b, "     ", fmt.Sprintf("%s %s: %s", f.Severity, f.Code, f.Summary))
		}
		b.WriteString(table(r.Checks))
		if whole {
			b.WriteString("\n" + indent(v.Text(verdict.Style{Width: width - 5})) + "\n")
		}
	}
	for _, path := range r.Captures {
		b.WriteString("   saved " + event.Clean(path) + "\n")
	}
	for _, name := range r.Namespaces {
		b.WriteString("   kept: ip netns exec " + name + " ss -tan; ip netns del " + name + "\n")
	}
	last := fmt.Sprintf("   %s after %.1f s", r.Outcome, r.TookS)
	if r.Reason != "" {
		para(&b, last+": ", r.Reason)
	} else {
		b.WriteString(last + "\n")
	}
	return b.String()
}

func (r *Result) side() string {
	if r.Control {
		return "control"
	}
	return "cause"
}

// table writes comparisons, the truth beside what was seen.
func table(list []Check) string {
	var b strings.Builder
	fmt.Fprintf(&b, "   %-60s %7s %7s\n", "", "truth", "twscope")
	for _, c := range list {
		mark := "ok   "
		if !c.OK {
			mark = "WRONG"
		}
		if len(c.Truth) > 7 || len(c.TWScope) > 7 {
			b.WriteString("   " + mark + " " + c.What + "\n")
			para(&b, "           truth:   ", c.Truth)
			if c.TWScope != "" {
				para(&b, "           twscope: ", c.TWScope)
			}
			continue
		}
		line := fmt.Sprintf("   %s %-54s %7s %7s", mark, c.What, c.Truth, c.TWScope)
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// Summary writes a line for each scenario.
func Summary(list []Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-26s %-8s %-7s %6s\n", "scenario", "side", "outcome", "s")
	counts := map[Outcome]int{}
	for i := range list {
		r := &list[i]
		counts[r.Outcome]++
		fmt.Fprintf(&b, "%-26s %-8s %-7s %6.1f\n", r.Scenario, r.side(), r.Outcome, r.TookS)
	}
	fmt.Fprintf(&b, "%d passed, %d failed, %d skipped\n", counts[Pass], counts[Fail], counts[Skip])
	return b.String()
}

// para breaks a text into lines behind lead, which the others are indented to.
func para(b *strings.Builder, lead, text string) {
	room := strings.Repeat(" ", utf8.RuneCountInString(lead))
	line := lead
	begun := false
	for word := range strings.FieldsSeq(event.Clean(text)) {
		if begun && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			b.WriteString(line + "\n")
			line, begun = room, false
		}
		if begun {
			line += " "
		}
		line, begun = line+word, true
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

func indent(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = "     " + l
		}
	}
	return strings.Join(lines, "\n")
}
