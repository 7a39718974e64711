// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

func newExplainCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "explain [CODE]",
		Short: "Explain a finding",
		Long: "Explain the findings of one code: what is the case, how it is detected, how sure that is,\n" +
			"what would prove it wrong, what helps and what does not. Without CODE, list the codes.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExplain(cmd.OutOrStdout(), format, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var ids []string
			for _, c := range diagnose.Codes() {
				if len(args) == 0 {
					ids = append(ids, c.ID+"\t"+c.Title)
				}
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "write text or markdown; markdown without CODE is the whole reference (`FORMAT`)")
	return cmd
}

func runExplain(out io.Writer, format string, args []string) error {
	if format != "text" && format != "markdown" {
		return usageError{fmt.Errorf("--format %q: want text or markdown", event.Clean(format))}
	}
	codes := diagnose.Codes()
	if len(args) > 0 {
		c, ok := diagnose.Lookup(strings.ToLower(args[0]))
		if !ok {
			return usageError{unknownCode(args[0], codes)}
		}
		codes = []diagnose.Code{c}
	}
	var b strings.Builder
	switch {
	case format == "markdown":
		for i := range codes {
			explainMarkdown(&b, &codes[i])
		}
	case len(args) > 0:
		explainText(&b, &codes[0])
	default:
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, c := range codes {
			fmt.Fprintf(w, "%s\t%s\n", c.ID, c.Title)
		}
		_ = w.Flush() // into a Builder, which does not fail
		b.WriteString("\n'twscope explain CODE' tells all about one.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// unknownCode names the codes that look like the one that was asked for.
func unknownCode(got string, codes []diagnose.Code) error {
	const far = 5
	type match struct {
		id       string
		distance int
	}
	var near []match
	low := strings.ToLower(got)
	for _, c := range codes {
		d := distance(low, c.ID)
		if len(low) >= 3 && strings.Contains(c.ID, low) {
			d = 0
		}
		if d <= far && d < utf8.RuneCountInString(low) {
			near = append(near, match{c.ID, d})
		}
	}
	slices.SortStableFunc(near, func(a, b match) int { return a.distance - b.distance })
	var ids []string
	for _, m := range near {
		ids = append(ids, m.id)
	}
	if len(ids) == 0 {
		return fmt.Errorf("unknown code %q: 'twscope explain' lists the codes", event.Clean(got))
	}
	return fmt.Errorf("unknown code %q, did you mean: %s", event.Clean(got), strings.Join(ids, ", "))
}

// distance is the edit distance of Levenshtein, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// textWidth is how wide explanations are, in characters.
const textWidth = 88

func explainText(b *strings.Builder, c *diagnose.Code) {
	fmt.Fprintf(b, "%s: %s\n\n%s", c.ID, c.Title, wrap("", "", c.Meaning))
	section := func(title, text string) {
		fmt.Fprintf(b, "\n%s\n%s", title, wrap("  ", "  ", text))
	}
	section("How it is detected", c.Detected)
	section("Confidence", c.Confidence)
	section("What would prove it wrong", c.WrongIf)
	b.WriteString("\nWhat helps (a finding offers what applies to its host, with numbers)\n")
	for _, a := range c.Remedies {
		b.WriteString(wrap("  - ", "    ", a.Do))
		for _, line := range adviceLines(&a) {
			b.WriteString(wrap("      ", "        ", line[0]+": "+line[1]))
		}
	}
	b.WriteString("\nWhat does not help\n")
	for _, u := range c.Useless {
		b.WriteString(wrap("  - ", "    ", u.What+": "+u.Why))
	}
}

// adviceLines are what there is to a remedy, with titles.
func adviceLines(a *diagnose.Advice) [][2]string {
	lines := [][2]string{{"why", a.Why}, {"buys", a.Buys}, {"price", a.Caveat}, {"offered when", a.When}}
	return slices.DeleteFunc(lines, func(l [2]string) bool { return l[1] == "" })
}

func explainMarkdown(b *strings.Builder, c *diagnose.Code) {
	fmt.Fprintf(b, "## `%s`\n\n**%s.** %s\n", c.ID, c.Title, c.Meaning)
	fmt.Fprintf(b, "\n**How it is detected.** %s\n\n**Confidence.** %s\n\n**What would prove it wrong.** %s\n", c.Detected, c.Confidence, c.WrongIf)
	b.WriteString("\n**What helps** (a finding offers what applies to its host, with numbers):\n\n")
	for _, a := range c.Remedies {
		fmt.Fprintf(b, "- %s\n", a.Do)
		for _, line := range adviceLines(&a) {
			fmt.Fprintf(b, "  - %s: %s\n", line[0], line[1])
		}
	}
	b.WriteString("\n**What does not help:**\n\n")
	for _, u := range c.Useless {
		fmt.Fprintf(b, "- %s: %s\n", u.What, u.Why)
	}
	b.WriteString("\n")
}

// wrap breaks text into lines, the first of which begins with first and the
// others with rest.
func wrap(first, rest, text string) string {
	var b strings.Builder
	b.WriteString(first)
	at, begun := utf8.RuneCountInString(first), false
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case begun && at+1+n > textWidth:
			b.WriteString("\n" + rest)
			at = utf8.RuneCountInString(rest)
		case begun:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at, begun = at+n, true
	}
	b.WriteByte('\n')
	return b.String()
}
