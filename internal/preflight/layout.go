// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"strings"
	"unicode/utf8"
)

// lineWidth is the width of the report, in columns.
const lineWidth = 100

// page is text in aligned columns.
type page struct{ strings.Builder }

// row writes columns of the given widths, and the last text wrapped in what is
// left of the line. A column that is too long pushes the rest to its right.
func (p *page) row(indent int, widths []int, columns ...string) {
	var head strings.Builder
	head.WriteString(strings.Repeat(" ", indent))
	at := indent
	last := columns[len(columns)-1]
	for i, c := range columns[:len(columns)-1] {
		head.WriteString(c)
		pad := max(widths[i]-utf8.RuneCountInString(c), 0) + 2
		head.WriteString(strings.Repeat(" ", pad))
		at += widths[i] + 2
	}
	for i, line := range wrap(last, lineWidth-at) {
		if i > 0 {
			head.Reset()
			head.WriteString(strings.Repeat(" ", at))
		}
		p.WriteString(strings.TrimRight(head.String()+line, " "))
		p.WriteByte('\n')
	}
}

// title starts a section.
func (p *page) title(text string) {
	p.WriteByte('\n')
	for _, line := range wrap(text, lineWidth) {
		p.WriteString(line)
		p.WriteByte('\n')
	}
}

// wrap breaks text at blanks into lines of at most width runes; a longer word
// stays whole, because people copy paths and commands. It returns at least one
// line.
func wrap(text string, width int) []string {
	lines := []string{""}
	used := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		end := len(lines) - 1
		switch {
		case used == 0:
			lines[end], used = word, n
		case used+1+n <= width:
			lines[end] += " " + word
			used += 1 + n
		default:
			lines, used = append(lines, word), n
		}
	}
	return lines
}

// width is that of the widest text, in runes.
func width(texts ...string) int {
	w := 0
	for _, t := range texts {
		w = max(w, utf8.RuneCountInString(t))
	}
	return w
}
