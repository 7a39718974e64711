// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twscope/twscope/internal/probe"
)

// Check is one comparison.
type Check struct {
	OK      bool   `json:"ok"`
	What    string `json:"what"`
	Truth   string `json:"truth"`
	TWScope string `json:"twscope,omitempty"` // empty: it is about the truth alone
}

// checks gathers comparisons.
type checks []Check

func (c *checks) add(ok bool, what, truth, seen string) {
	*c = append(*c, Check{ok, what, truth, seen})
}

// same holds a count against the truth, which must be more than 0 exactly where
// some is set.
func (c *checks) same(what string, truth, seen uint64, some bool) {
	c.add(truth == seen && (truth > 0) == some, what, number(truth), number(seen))
}

// equal holds a count against the truth, whatever it is.
func (c *checks) equal(what string, truth, seen uint64) { c.same(what, truth, seen, truth > 0) }

// fact is about the truth alone: whether the situation is what it is meant to
// be.
func (c *checks) fact(ok bool, what string, truth uint64) { c.add(ok, what, number(truth), "") }

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// judge holds a performance to be what a side claims, whichever was acted.
func (p *performance) judge(cause bool) []Check {
	var c checks
	p.scene.check(&c, &p.seen, cause)
	c.codes(p.scenario.side(cause), &p.seen)
	return c
}

// codes holds the codes of findings against those that a side expects.
func (c *checks) codes(side *Side, seen *observed) {
	var got []string
	ok := true
	for _, code := range seen.verdict.Codes {
		got = append(got, code.Code)
		ok = ok && (slices.Contains(side.Expect, code.Code) || slices.Contains(side.Allow, code.Code))
	}
	for _, code := range side.Expect {
		ok = ok && slices.Contains(got, code)
	}
	c.add(ok, "findings", words(side.Expect), words(got))
}

func words(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// outcome sums comparisons up.
func outcome(list []Check) (Outcome, string) {
	var wrong []string
	for _, c := range list {
		switch {
		case c.OK:
		case c.TWScope == "":
			wrong = append(wrong, fmt.Sprintf("%s: %s", c.What, c.Truth))
		default:
			wrong = append(wrong, fmt.Sprintf("%s: the truth is %s, twscope says %s", c.What, c.Truth, c.TWScope))
		}
	}
	if len(wrong) == 0 {
		return Pass, ""
	}
	return Fail, strings.Join(wrong, "; ")
}

// rung is how an observation was made.
func (o *observed) rung(of probe.Observation) probe.Rung {
	for _, c := range o.report.Choices {
		if c.Observation == of {
			return c.Rung
		}
	}
	return probe.None
}
