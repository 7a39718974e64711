// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"
)

// Text writes the verdict for people.
func (v *Verdict) Text(s Style) string {
	p := &page{style: s}
	part := v.part()
	p.paint("", v.Answer, func(line string) string { return s.paint(part, line) })
	p.title("Evidence")
	for _, f := range v.facts() {
		p.fact(f.name, f.text)
	}
	v.writeDestinations(p)
	v.writeFindings(p)
	v.writeRemedies(p)
	p.list("Doubts", v.Doubts)
	p.list("Not seen", v.unseen())
	p.list("Lost", v.lostTexts())
	if v.Truncated {
		p.list("Cut", []string{"lists were cut to fit into the event log"})
	}
	return p.String()
}

// part is how the answer is set off.
func (v *Verdict) part() Part {
	switch severityRank(v.Severity) {
	case 3:
		return PartCritical
	case 2:
		return PartWarning
	}
	switch v.Basis {
	case BasisFailures:
		return PartCritical
	case BasisRefused, BasisRefusedHere, BasisTaken, BasisNothing:
		return PartWarning
	}
	return PartGood
}

func severityPart(severity string) Part {
	switch severityRank(severity) {
	case 3:
		return PartCritical
	case 2:
		return PartWarning
	}
	return PartDim
}

func (p *page) list(title string, items []string) {
	if len(items) == 0 {
		return
	}
	p.title(title)
	for _, text := range items {
		p.para("  - ", text)
	}
}

func (p *page) more(text string) {
	if text != "" {
		p.para("  ", text)
	}
}

func (v *Verdict) writeDestinations(p *page) {
	if len(v.Destinations) == 0 {
		return
	}
	p.title("Busiest destinations")
	p.table(destinationHead(), v.rows())
	p.more(omitted(v.DestinationsOmitted, "destination", "destinations"))
}

func (v *Verdict) writeFindings(p *page) {
	if len(v.Findings) == 0 {
		return
	}
	p.title("Findings")
	for i := range v.Findings {
		f := &v.Findings[i]
		lead := fmt.Sprintf("%s %s, %s, confidence %s", f.Severity, f.ID, f.when(), percent(f.Confidence))
		p.paint("  ", lead, func(line string) string { return p.style.paint(severityPart(f.Severity), line) })
		p.para("    ", f.Summary)
		if f.Closing != "" {
			p.para("    closed: ", f.Closing)
		}
	}
	p.more(omitted(v.FindingsOmitted, "finding", "findings"))
	p.para("  ", "'twscope explain CODE' tells what they mean and what would prove them wrong")
}

func (v *Verdict) writeRemedies(p *page) {
	if len(v.Remedies) == 0 {
		return
	}
	p.title("What helps")
	for i := range v.Remedies {
		r := &v.Remedies[i]
		lead := fmt.Sprintf("  %d. ", i+1)
		p.para(lead, r.Do)
		indent := strings.Repeat(" ", len(lead))
		if r.Buys != "" {
			p.para(indent+"buys: ", r.Buys)
		}
		if r.Caveat != "" {
			p.para(indent+"price: ", r.Caveat)
		}
	}
	p.more(omitted(v.RemediesOmitted, "remedy", "remedies"))
}
