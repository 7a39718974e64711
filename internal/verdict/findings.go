// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

const (
	// maxFound bounds the findings that are kept, and maxCodes their codes.
	maxFound = 512
	maxCodes = 64
	// What a verdict lists at most.
	listedFindings = 20
	listedRemedies = 12
	maxEvidence    = 40
	maxRemedies    = 16 // of one finding
)

// found is what is kept of one finding.
type found struct {
	Finding
	severity event.Severity
	rank     int // of its code
	opened   int64
	remedies []event.Remedy
	load     float64 // the greatest of its evidence, 1/s
}

// findings keeps what was found.
type findings struct {
	by      map[string]*found
	codes   map[string]*codeCount
	omitted uint64 // events of findings for which there was no place
}

type codeCount struct {
	severity event.Severity
	findings uint64
}

// codeRanks gives the place of each code in the documentation.
func codeRanks() map[string]int {
	ranks := map[string]int{}
	for i, c := range diagnose.Codes() {
		ranks[c.ID] = i
	}
	return ranks
}

// take notes an event of a finding, as a reader of the log gets it.
func (l *findings) take(ev *event.Finding, ranks map[string]int) {
	f := l.by[ev.ID]
	l.code(ev, f == nil)
	if f == nil {
		if len(l.by) >= maxFound {
			l.omitted++
			return
		}
		if l.by == nil {
			l.by = map[string]*found{}
		}
		rank, known := ranks[ev.Code]
		if !known {
			rank = len(ranks)
		}
		f = &found{rank: rank, opened: ev.Time, severity: ev.Severity, Finding: Finding{
			ID: clip(ev.ID, maxName), Code: clip(ev.Code, maxName), Subject: subject(&ev.Subject), First: instant(ev.Time),
		}}
		l.by[ev.ID] = f
	}
	f.severity = max(f.severity, ev.Severity)
	f.Last, f.Closed = instant(ev.Time), ev.State == event.FindingClose
	if f.Closing = ""; f.Closed {
		f.Closing = clip(ev.Summary, maxText)
	}
	f.Evidence = evidence(ev.Evidence)
	if tells := f.tells(ev); f.Summary == "" || !f.Closed && tells {
		f.Summary, f.Confidence = clip(ev.Summary, maxText), ev.Confidence
		f.remedies = slices.Clone(ev.Remedies[:min(len(ev.Remedies), maxRemedies)])
	}
}

// tells is whether an event tells of the load that the finding is about: one
// at the end of the load would say how little is left of it, and offer
// remedies for that.
func (f *found) tells(ev *event.Finding) bool {
	i := slices.IndexFunc(ev.Evidence, func(f event.Fact) bool { return f.Name == "load" })
	if i < 0 {
		return true
	}
	load := ev.Evidence[i].Number
	f.load = max(f.load, load)
	return load >= f.load/2
}

func (l *findings) code(ev *event.Finding, first bool) {
	id := clip(ev.Code, maxName)
	c := l.codes[id]
	if c == nil {
		if len(l.codes) >= maxCodes {
			return
		}
		if l.codes == nil {
			l.codes = map[string]*codeCount{}
		}
		c = &codeCount{}
		l.codes[id] = c
	}
	c.severity = max(c.severity, ev.Severity)
	if first {
		c.findings++
	}
}

// sorted returns the findings, the worst first: by severity, then as they
// should be read, then by time.
func (l *findings) sorted() []*found {
	list := make([]*found, 0, len(l.by))
	for _, f := range l.by {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *found) int {
		return cmp.Or(cmp.Compare(b.severity, a.severity), cmp.Compare(a.rank, b.rank),
			cmp.Compare(a.opened, b.opened), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func (l *findings) listCodes(ranks map[string]int) []Code {
	list := []Code{}
	for id, c := range l.codes {
		list = append(list, Code{Code: id, Severity: c.severity.String(), Findings: c.findings})
	}
	slices.SortFunc(list, func(a, b Code) int {
		return cmp.Or(cmp.Compare(severityRank(b.Severity), severityRank(a.Severity)),
			cmp.Compare(rankOf(ranks, a.Code), rankOf(ranks, b.Code)), cmp.Compare(a.Code, b.Code))
	})
	return list
}

func rankOf(ranks map[string]int, code string) int {
	if r, ok := ranks[code]; ok {
		return r
	}
	return len(ranks)
}

// severityRank orders severities: 0 is none.
func severityRank(s string) int {
	for i := event.SeverityInfo; i <= event.SeverityCritical; i++ {
		if i.String() == s {
			return int(i) + 1
		}
	}
	return 0
}

// finding returns what the verdict says of it.
func (f *found) finding() Finding {
	out := f.Finding
	out.Severity = f.severity.String()
	return out
}

// remediesOf joins what helps, that of the worst finding first. What helps
// against several stands once. In the calm nothing is to be remedied because of
// mere infos.
func remediesOf(list []*found, calm bool) []Remedy {
	out := []Remedy{}
	for _, f := range list {
		if calm && f.severity == event.SeverityInfo {
			continue
		}
		for _, r := range f.remedies {
			do := clip(r.Do, maxText)
			i := slices.IndexFunc(out, func(o Remedy) bool { return o.Do == do })
			if i < 0 {
				out = append(out, Remedy{
					Remedy: event.Remedy{Do: do, Why: clip(r.Why, maxText), Buys: clip(r.Buys, maxText), Caveat: clip(r.Caveat, maxText)},
					Codes:  []string{f.Code},
				})
			} else if !slices.Contains(out[i].Codes, f.Code) && len(out[i].Codes) < maxCodes {
				out[i].Codes = append(out[i].Codes, f.Code)
			}
		}
	}
	return out
}

// Evidence is the numbers behind a finding, in the order of writing. Its JSON
// form is an object, as in finding events.
type Evidence []event.Fact

func evidence(facts []event.Fact) Evidence {
	out := Evidence{}
	seen := map[string]bool{}
	for _, f := range facts[:min(len(facts), maxEvidence)] {
		name := clip(f.Name, maxName)
		if !seen[name] {
			seen[name] = true
			out = append(out, event.Fact{Name: name, Number: f.Number, Text: clip(f.Text, maxText)})
		}
	}
	return out
}

// MarshalJSON writes an object.
func (e Evidence) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, f := range e {
		if i > 0 {
			b = append(b, ',')
		}
		var value any = f.Number
		if f.Text != "" {
			value = f.Text
		}
		for j, v := range []any{f.Name, value} {
			raw, err := plainJSON(v)
			if err != nil {
				return nil, err
			}
			if j > 0 {
				b = append(b, ':')
			}
			b = append(b, raw...)
		}
	}
	return append(b, '}'), nil
}

// plainJSON is json.Marshal without escapes for HTML.
func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// UnmarshalJSON reads an object in its order.
func (e *Evidence) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("evidence: %s is not an object", raw)
	}
	out := Evidence{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		value, err := dec.Token()
		if err != nil {
			return err
		}
		f := event.Fact{}
		f.Name, _ = name.(string)
		switch v := value.(type) {
		case string:
			f.Text = v
		case float64:
			f.Number = v
		default:
			return fmt.Errorf("evidence: %s is neither a number nor a text", f.Name)
		}
		out = append(out, f)
	}
	*e = out
	return nil
}
