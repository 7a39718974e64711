// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

// Markdown writes the verdict as a comment, in the dialect of GitHub.
func (v *Verdict) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n", escape(v.Answer))
	b.WriteString("| evidence | |\n|---|---|\n")
	for _, f := range v.facts() {
		fmt.Fprintf(&b, "| %s | %s |\n", f.name, escape(f.text))
	}
	v.markdownDestinations(&b)
	v.markdownFindings(&b)
	if len(v.Remedies) > 0 {
		b.WriteString("\n#### What helps\n\n")
		for i := range v.Remedies {
			r := &v.Remedies[i]
			fmt.Fprintf(&b, "%d. %s\n", i+1, escape(r.Do))
			for _, line := range [][2]string{{"buys", r.Buys}, {"price", r.Caveat}} {
				if line[1] != "" {
					fmt.Fprintf(&b, "   - %s: %s\n", line[0], escape(line[1]))
				}
			}
		}
		markdownMore(&b, omitted(v.RemediesOmitted, "remedy", "remedies"))
	}
	markdownList(&b, "Doubts", v.Doubts)
	markdownList(&b, "Not seen", v.unseen())
	markdownList(&b, "Lost", v.lostTexts())
	return b.String()
}

func (v *Verdict) markdownDestinations(b *strings.Builder) {
	if len(v.Destinations) == 0 {
		return
	}
	b.WriteByte('\n')
	markdownTable(b, destinationHead(), v.rows())
	markdownMore(b, omitted(v.DestinationsOmitted, "destination", "destinations"))
}

func (v *Verdict) markdownFindings(b *strings.Builder) {
	if len(v.Findings) == 0 {
		return
	}
	b.WriteString("\n#### Findings\n\n")
	for i := range v.Findings {
		f := &v.Findings[i]
		fmt.Fprintf(b, "- **%s** `%s`, %s, confidence %s: %s\n", f.Severity, strings.ReplaceAll(event.Clean(f.ID), "`", "'"), f.when(), percent(f.Confidence), escape(f.Summary))
		if f.Closing != "" {
			fmt.Fprintf(b, "  - closed: %s\n", escape(f.Closing))
		}
	}
	markdownMore(b, omitted(v.FindingsOmitted, "finding", "findings"))
}

func markdownTable(b *strings.Builder, head []string, rows [][]string) {
	b.WriteString("| " + strings.Join(head, " | ") + " |\n|---|" + strings.Repeat("---:|", len(head)-1) + "\n")
	for _, row := range rows {
		for _, cell := range row {
			b.WriteString("| " + escape(cell) + " ")
		}
		b.WriteString("|\n")
	}
}

func markdownMore(b *strings.Builder, text string) {
	if text != "" {
		b.WriteString("\n" + text + "\n")
	}
}

func markdownList(b *strings.Builder, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "\n<details><summary>%s</summary>\n\n", title)
	for _, s := range items {
		fmt.Fprintf(b, "- %s\n", escape(s))
	}
	b.WriteString("\n</details>\n")
}

// escape keeps a text from being anything but text: names of processes come
// from the programs themselves, and a comment of a robot must not mention
// people or link to places.
func escape(s string) string {
	var b strings.Builder
	for _, r := range event.Clean(s) {
		switch r {
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		case '&':
			b.WriteString("&amp;")
		case '@':
			b.WriteString("@<!-- -->")
		case '\\', '`', '*', '_', '[', ']', '|', '~', '#', '!':
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return strings.ReplaceAll(b.String(), "://", ":&#47;/")
}
