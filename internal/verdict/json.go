// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

// Encode returns the verdict as a JSON object on one line. That of a Collector
// is at most event.MaxConclusion bytes long: what is longer has its lists cut,
// and says "truncated": true. The schema of stop events describes it.
func (v *Verdict) Encode() []byte {
	short := *v
	for keep := listedFindings; ; keep /= 2 {
		raw, err := plainJSON(&short)
		if err != nil {
			// Unreachable: there is nothing in it that JSON has no form for.
			panic(err)
		}
		if len(raw) <= event.MaxConclusion || keep == 0 {
			return raw
		}
		short = v.cut(keep / 2)
	}
}

// cut returns a copy whose lists have at most keep elements.
func (v *Verdict) cut(keep int) Verdict {
	c := *v
	c.Truncated = true
	c.Findings, c.Remedies = slices.Clone(first(v.Findings, keep)), first(v.Remedies, keep)
	for i := range c.Findings {
		c.Findings[i].Evidence = first(c.Findings[i].Evidence, 2*keep)
	}
	c.FindingsOmitted = plus(v.FindingsOmitted, uint64(len(v.Findings)-len(c.Findings)))
	c.RemediesOmitted = plus(v.RemediesOmitted, uint64(len(v.Remedies)-len(c.Remedies)))
	c.NotSeen, c.Lost, c.Unreconciled, c.Doubts = first(v.NotSeen, keep), first(v.Lost, keep), first(v.Unreconciled, keep), first(v.Doubts, keep)
	c.Codes = first(v.Codes, 2*keep)
	if keep == 0 {
		c.Run.Filters = map[string][]string{}
	}
	return c
}

func first[L ~[]T, T any](list L, keep int) L { return list[:min(len(list), keep)] }

// Parse reads what Encode has written, of this version or a later one of the
// same major version.
func Parse(raw []byte) (Verdict, error) {
	var v Verdict
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("not a verdict: %w", err)
	}
	major, _, _ := strings.Cut(Schema, ".")
	if !strings.HasPrefix(v.Schema, major+".") {
		return v, fmt.Errorf("a verdict of version %q: want %s, or a later %s.x", event.Clean(v.Schema), Schema, major)
	}
	if v.Answer == "" {
		return v, errors.New("not a verdict: member \"answer\" is missing")
	}
	return v, nil
}
