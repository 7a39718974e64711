// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
)

// What a live view lists at most.
const (
	liveDestinations = 3
	liveFindings     = 3
)

// Lines writes the state for a terminal, to be redrawn in place: lines that are
// no longer than the style's width, with what is most wanted first.
func (l *Live) Lines(s Style) []string {
	b := &block{style: s, width: s.width()}
	b.add("twscope "+duration(float64(int64(l.UptimeS)))+"  ", PartTitle, l.rates()...)
	b.add("  ", PartDim, l.troubles()...)
	for i := range l.Destinations[:min(len(l.Destinations), liveDestinations)] {
		d := &l.Destinations[i]
		part := PartDim
		if d.SecondsLeft >= 0 || d.Failed > 0 {
			part = PartWarning
		}
		b.add("  "+d.place()+"  ", part, d.parts()...)
	}
	for i := range l.Findings[:min(len(l.Findings), liveFindings)] {
		f := &l.Findings[i]
		b.lines = append(b.lines, s.paint(severityPart(f.Severity), cut("  "+f.headline(), b.width)))
	}
	return b.lines
}

// Line writes the state on one line.
func (l *Live) Line() string {
	text := duration(float64(int64(l.UptimeS))) + ": " + strings.Join(append(l.rates(), l.troubles()...), ", ")
	if len(l.Destinations) > 0 {
		d := &l.Destinations[0]
		text += "; " + d.place() + ": " + strings.Join(d.parts(), ", ")
	}
	return text
}

func (l *Live) rates() []string {
	parts := []string{number(l.PerS) + " connections/s", group(l.TimeWait) + " in TIME_WAIT", group(l.Made) + " made"}
	if l.Accepted > 0 {
		parts = append(parts, group(l.Accepted)+" accepted")
	}
	return parts
}

func (l *Live) troubles() []string {
	r := &l.Refusals
	parts := []string{
		group(l.Failures.Kernel) + " failed",
		group(plus(plus(r.Unanswered, r.StaleACKs), plus(r.RefusedHere, r.ListenDrops))) + " refused",
	}
	if l.Lost > 0 {
		parts = append(parts, several(l.Lost, "event lost", "events lost"))
	}
	return parts
}

func (d *LiveDestination) parts() []string {
	parts := []string{number(d.PerS) + "/s"}
	if d.PortsTotal > 0 {
		parts = append([]string{group(d.PortsLeft) + " of " + several(d.PortsTotal, "port", "ports") + " left"}, parts...)
	}
	if d.SecondsLeft >= 0 && d.PortsLeft > 0 {
		parts = append(parts, "gone in "+number(d.SecondsLeft)+" s")
	}
	return parts
}

// headline writes a finding on one line: severity, id and summary.
func (f *Finding) headline() string {
	return f.Severity + " " + f.ID + ": " + f.Summary
}

// Ticker tells on lines of their own which findings open, get worse and close.
// The zero Ticker has told nothing.
type Ticker struct{ told map[string]Finding }

// News returns what has changed since the last time.
func (t *Ticker) News(l *Live) []string {
	var news []string
	open := make(map[string]Finding, len(l.Findings))
	for _, f := range l.Findings {
		open[f.ID] = f
		if was, ok := t.told[f.ID]; !ok || severityRank(was.Severity) < severityRank(f.Severity) {
			news = append(news, f.headline())
		}
	}
	for _, id := range slices.Sorted(maps.Keys(t.told)) {
		if _, still := open[id]; !still {
			news = append(news, "closed "+id)
		}
	}
	t.told = open
	return news
}

// block packs parts into lines.
type block struct {
	style Style
	width int
	lines []string
}

// add writes parts behind a lead, which is set off, on as many lines as it takes.
func (b *block) add(lead string, part Part, parts ...string) {
	lead = event.Clean(lead)
	line, n := b.style.paint(part, cut(lead, b.width)), min(utf8.RuneCountInString(lead), b.width)
	fresh := true
	for i, text := range parts {
		if i < len(parts)-1 {
			text += ","
		}
		w := utf8.RuneCountInString(text)
		gap := 1
		if fresh {
			gap = 0
		}
		if n+gap+w > b.width {
			b.lines = append(b.lines, strings.TrimRight(line, " "))
			line, n, gap = "    ", 4, 0
			text = cut(text, b.width-n)
			w = utf8.RuneCountInString(text)
		}
		line += strings.Repeat(" ", gap) + text
		n, fresh = n+gap+w, false
	}
	b.lines = append(b.lines, line)
}

// cut makes a text printable and shortens it to a number of columns.
func cut(text string, width int) string {
	text = event.Clean(text)
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	const mark = "..."
	return string([]rune(text)[:max(width-len(mark), 0)]) + mark
}
