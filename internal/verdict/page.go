// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"strings"
	"unicode/utf8"

	"github.com/twscope/twscope/internal/event"
)

// Part is a part of a text that may be set off.
type Part uint8

// The parts.
const (
	PartTitle    Part = iota // of a section
	PartCritical             // what is bad
	PartWarning
	PartGood
	PartDim // what matters less
)

// Style is how a text is written. The zero Style is 80 columns without colour.
type Style struct {
	// Width is the number of columns; 0: 80. Below 30 it counts as 30. A word
	// that is longer than a line is not broken.
	Width int
	// Paint sets off a part of a line, without changing what is seen of it;
	// nil: nothing is set off.
	Paint func(p Part, text string) string
}

const (
	defaultWidth = 80
	minWidth     = 30
)

func (s Style) width() int {
	if s.Width == 0 {
		return defaultWidth
	}
	return max(s.Width, minWidth)
}

func (s Style) paint(p Part, text string) string {
	if s.Paint == nil || text == "" {
		return text
	}
	return s.Paint(p, text)
}

// page writes lines.
type page struct {
	strings.Builder
	style Style
}

func (p *page) title(text string) {
	if p.Len() > 0 {
		p.WriteByte('\n')
	}
	p.WriteString(p.style.paint(PartTitle, text) + "\n")
}

// para breaks a text into lines. The first one begins with lead, the others
// with as many blanks. It is cleaned, because it may come from a file of
// unknown origin.
func (p *page) para(lead, text string) { p.paint(lead, text, func(s string) string { return s }) }

// paint is para with each line set off.
func (p *page) paint(lead, text string, set func(string) string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(lead))
	for i, line := range wrap(event.Clean(text), p.style.width()-len(indent)) {
		if i > 0 {
			lead = indent
		}
		p.WriteString(strings.TrimRight(lead+set(line), " ") + "\n")
	}
}

// fact writes a name and its value.
func (p *page) fact(name, text string) {
	if text != "" {
		p.para("  "+pad(name, factWidth)+" ", text)
	}
}

const factWidth = len("connections")

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}

func padLeft(s string, width int) string {
	return strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0)) + s
}

// wrap breaks a text into lines of at most width characters, one at least.
func wrap(text string, width int) []string {
	var lines []string
	line, n := "", 0
	for word := range strings.FieldsSeq(text) {
		w := utf8.RuneCountInString(word)
		if n > 0 && n+1+w > width {
			lines = append(lines, line)
			line, n = "", 0
		}
		if n > 0 {
			line += " "
			n++
		}
		line, n = line+word, n+w
	}
	return append(lines, line)
}

// table writes rows under a head: the first column to the left, the others to
// the right. Where it does not fit, each row becomes a list of its cells.
func (p *page) table(head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(event.Clean(cell)))
		}
	}
	sum := 2 * len(head)
	for _, w := range widths {
		sum += w
	}
	if sum > p.style.width() {
		p.cells(head, rows)
		return
	}
	for n, row := range append([][]string{head}, rows...) {
		line := "  " + pad(event.Clean(row[0]), widths[0])
		for i := 1; i < len(row); i++ {
			line += "  " + padLeft(event.Clean(row[i]), widths[i])
		}
		line = strings.TrimRight(line, " ")
		if n == 0 {
			line = p.style.paint(PartDim, line)
		}
		p.WriteString(line + "\n")
	}
}

func (p *page) cells(head []string, rows [][]string) {
	for _, row := range rows {
		var parts []string
		for i := 1; i < len(row); i++ {
			if row[i] != "" {
				parts = append(parts, head[i]+" "+row[i])
			}
		}
		p.para("  ", row[0])
		p.para("    ", strings.Join(parts, ", "))
	}
}
