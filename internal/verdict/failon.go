// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

// Matched is a finding's code by which a --fail-on holds.
type Matched struct {
	Code     string
	Severity string
}

// Matches returns the codes of v that f is about, the worst first.
func (v *Verdict) Matches(f FailOn) []Matched {
	var list []Matched
	for _, c := range v.Codes {
		if f.has(c.Code, c.Severity) {
			list = append(list, Matched{c.Code, c.Severity})
		}
	}
	return list
}

// FailOn is the value of --fail-on. The zero FailOn matches nothing.
type FailOn struct {
	codes    map[string]bool
	severity int // rank of the least severity; 0: none
}

func (f FailOn) has(code, severity string) bool {
	return f.codes[code] || f.severity > 0 && severityRank(severity) >= f.severity
}

// severities are the names that --fail-on takes, with what they include.
func severities() []string {
	return []string{event.SeverityCritical.String(), event.SeverityWarning.String(), event.SeverityInfo.String()}
}

// ParseFailOn reads CODE[,CODE] or a severity, which includes those above it.
// The error lists what is valid.
func ParseFailOn(text string) (FailOn, error) {
	f := FailOn{codes: map[string]bool{}}
	if strings.TrimSpace(text) == "" {
		return f, errors.New("want a severity or a list of codes: " + validFailOn())
	}
	for part := range strings.SplitSeq(text, ",") {
		name := strings.ToLower(strings.TrimSpace(part))
		_, known := diagnose.Lookup(name)
		switch {
		case slices.Contains(severities(), name):
			if rank := severityRank(name); f.severity == 0 || rank < f.severity {
				f.severity = rank
			}
		case known:
			f.codes[name] = true
		default:
			return FailOn{}, fmt.Errorf("%q is neither a severity nor a code: want %s", event.Clean(strings.TrimSpace(part)), validFailOn())
		}
	}
	return f, nil
}

func validFailOn() string {
	names := severities()
	for _, c := range diagnose.Codes() {
		names = append(names, c.ID)
	}
	return strings.Join(names, ", ")
}
