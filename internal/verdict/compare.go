// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"math"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

// The values of Row.Change, ComparedFinding.Change and Comparison.Change.
const (
	ChangeSame   = "same"
	ChangeBetter = "better"
	ChangeWorse  = "worse"
	ChangeMixed  = "mixed" // of a Comparison: as much that is better as is worse
	ChangeOther  = "other" // another number that is neither good nor bad in itself
	ChangeGone   = "gone"
	ChangeNew    = "new"
)

// Comparison is two verdicts side by side.
type Comparison struct {
	Schema string `json:"schema"`
	// Change is what changed most: failures, refusals and critical findings
	// count for more than warnings. ChangeMixed if that is better and worse.
	Change string `json:"change"`
	// Better and Worse are all that changed, in words.
	Better   []string          `json:"better"`
	Worse    []string          `json:"worse"`
	Before   Side              `json:"before"`
	After    Side              `json:"after"`
	Rows     []Row             `json:"rows"`
	Findings []ComparedFinding `json:"findings"`
}

// Side is one of the two.
type Side struct {
	Answer   string   `json:"answer"`
	Basis    string   `json:"basis"`
	Severity string   `json:"severity"`
	Doubts   []string `json:"doubts"`
}

// Row is one number of both.
type Row struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"` // "s", "/s", "%" or "" for a count
	Before float64 `json:"before"`
	After  float64 `json:"after"`
	Change string  `json:"change"`
	// Known tells that both have the number.
	Known bool `json:"known"`
}

// ComparedFinding is a code and subject of which one or both have findings.
type ComparedFinding struct {
	Code     string `json:"code"`
	Subject  string `json:"subject"`
	Severity string `json:"severity"` // the worse one
	Before   string `json:"before"`   // severity before, "none" if there was none
	After    string `json:"after"`
	Change   string `json:"change"`  // gone, new, same, better or worse
	Summary  string `json:"summary"` // of the latter that has it
}

// noise is by how much a share may grow before it is worse, as a part of what
// it was.
const noise = 0.1

// Compare puts two verdicts side by side.
func Compare(before, after Verdict) Comparison {
	c := Comparison{
		Schema: Schema, Change: ChangeSame, Better: []string{}, Worse: []string{},
		Before: side(&before), After: side(&after), Rows: rows(&before, &after), Findings: compareFindings(&before, &after),
	}
	better, worse := 0, 0 // the highest rank of what changed
	note := func(change string, rank int, what string) {
		switch change {
		case ChangeWorse, ChangeNew:
			c.Worse, worse = append(c.Worse, what), max(worse, rank)
		case ChangeBetter, ChangeGone:
			c.Better, better = append(c.Better, what), max(better, rank)
		}
	}
	for _, r := range c.Rows {
		note(r.Change, severityRank(event.SeverityCritical.String()), r.Name+": "+r.value(r.Before)+" -> "+r.value(r.After))
	}
	for _, g := range groups(c.Findings) {
		// Something to know about is no harm.
		if rank := severityRank(g[0].Severity); rank > severityRank(event.SeverityInfo.String()) {
			note(g[0].Change, rank, named(g))
		}
	}
	switch {
	case worse > better:
		c.Change = ChangeWorse
	case better > worse:
		c.Change = ChangeBetter
	case better > 0:
		c.Change = ChangeMixed
	}
	return c
}

// groups puts together the findings of one code that changed alike.
func groups(list []ComparedFinding) [][]ComparedFinding {
	var all [][]ComparedFinding
	for _, f := range list {
		i := slices.IndexFunc(all, func(g []ComparedFinding) bool {
			return g[0].Code == f.Code && g[0].Change == f.Change && g[0].Severity == f.Severity
		})
		if i < 0 {
			i, all = len(all), append(all, nil)
		}
		all[i] = append(all[i], f)
	}
	return all
}

// named tells of findings of one code.
func named(group []ComparedFinding) string {
	f := &group[0]
	text := f.Code + " (" + f.Subject
	if n := uint64(len(group) - 1); n > 0 {
		text += " and " + several(n, "other", "others")
	}
	text += ")"
	switch f.Change {
	case ChangeNew:
		return "new " + f.Severity + " " + text
	case ChangeGone:
		return text + " gone"
	}
	return text + " now " + f.After
}

func side(v *Verdict) Side {
	doubts := append([]string{}, v.Doubts...)
	if v.FindingsOmitted > 0 {
		doubts = append(doubts, several(v.FindingsOmitted, "finding is", "findings are")+" not listed, so not compared")
	}
	return Side{Answer: v.Answer, Basis: v.Basis, Severity: v.Severity, Doubts: doubts}
}

// rows compares the numbers. Rates follow from the load too, so another rate
// is neither better nor worse; failures and refusals are held against the
// number of connections that were tried.
func rows(b, a *Verdict) []Row {
	plain := func(name, unit string, before, after float64) Row {
		r := Row{Name: name, Unit: unit, Before: rounded(before), After: rounded(after), Change: ChangeOther, Known: true}
		if r.Before == r.After {
			r.Change = ChangeSame
		}
		return r
	}
	bad := func(name string, before, after uint64) Row {
		r := plain(name, "", float64(before), float64(after))
		if r.Change != ChangeSame {
			r.Change = judge(share(before, b), share(after, a))
		}
		return r
	}
	ports := plain("port use at most", "%", 100*portShare(b), 100*portShare(a))
	if ports.Known = b.Ports != nil && a.Ports != nil; !ports.Known {
		ports.Change = ChangeOther
	}
	return []Row{
		plain("duration", "s", b.Run.DurationS, a.Run.DurationS),
		plain("connections made", "", float64(b.Connections.Made), float64(a.Connections.Made)),
		plain("connections accepted", "", float64(b.Connections.Accepted), float64(a.Connections.Accepted)),
		plain("rate on average", "/s", b.Connections.MeanPerS, a.Connections.MeanPerS),
		plain("rate at most", "/s", b.Connections.PeakPerS, a.Connections.PeakPerS),
		plain("TIME_WAIT at most", "", float64(b.TimeWait.Peak), float64(a.TimeWait.Peak)),
		plain("TIME_WAIT re-used", "", float64(b.TimeWait.Reused), float64(a.TimeWait.Reused)),
		ports,
		bad("connect() failed", b.Failures.Kernel, a.Failures.Kernel),
		bad("SYNs unanswered", b.Refusals.Unanswered, a.Refusals.Unanswered),
		bad("SYNs with a stale ACK", b.Refusals.StaleACKs, a.Refusals.StaleACKs),
		bad("SYNs refused here", b.Refusals.RefusedHere, a.Refusals.RefusedHere),
		bad("dropped by listeners", b.Refusals.ListenDrops, a.Refusals.ListenDrops),
	}
}

// share is how many of something there were for each connection tried.
func share(n uint64, v *Verdict) float64 {
	tried := plus(plus(v.Connections.Made, v.Connections.Accepted), plus(v.Failures.Kernel, v.Refusals.Unanswered))
	return float64(n) / float64(max(tried, 1))
}

func judge(before, after float64) string {
	switch {
	case after > before*(1+noise):
		return ChangeWorse
	case after < before*(1-noise):
		return ChangeBetter
	}
	return ChangeOther
}

func portShare(v *Verdict) float64 {
	if v.Ports == nil {
		return 0
	}
	return v.Ports.Share
}

// compareFindings finds the same findings by code and subject, and those that
// are left by code, if each has one: the subject may have another name in
// another run.
func compareFindings(before, after *Verdict) []ComparedFinding {
	was, is := worstByKey(before), worstByKey(after)
	list := []ComparedFinding{}
	pair := func(b, a *Finding) {
		f := ComparedFinding{Code: a.Code, Subject: a.Subject, Severity: a.Severity, Before: b.Severity, After: a.Severity, Summary: a.Summary, Change: ChangeSame}
		switch d := severityRank(a.Severity) - severityRank(b.Severity); {
		case d > 0:
			f.Change = ChangeWorse
		case d < 0:
			f.Change, f.Severity = ChangeBetter, b.Severity
		}
		list = append(list, f)
	}
	var gone, fresh []*Finding
	for _, b := range was {
		if i := slices.IndexFunc(is, func(a *Finding) bool { return a.Code == b.Code && a.Subject == b.Subject }); i >= 0 {
			pair(b, is[i])
			is = slices.Delete(is, i, i+1)
		} else {
			gone = append(gone, b)
		}
	}
	fresh = is
	for _, b := range gone {
		sameCode := func(f *Finding) bool { return f.Code == b.Code }
		if i := slices.IndexFunc(fresh, sameCode); i >= 0 && count(gone, sameCode) == 1 && count(fresh, sameCode) == 1 {
			pair(b, fresh[i])
			fresh = slices.Delete(fresh, i, i+1)
			continue
		}
		if after.mayHave(b.Code) {
			continue
		}
		list = append(list, ComparedFinding{Code: b.Code, Subject: b.Subject, Severity: b.Severity, Before: b.Severity, After: SeverityNone, Summary: b.Summary, Change: ChangeGone})
	}
	for _, a := range fresh {
		if before.mayHave(a.Code) {
			continue
		}
		list = append(list, ComparedFinding{Code: a.Code, Subject: a.Subject, Severity: a.Severity, Before: SeverityNone, After: a.Severity, Summary: a.Summary, Change: ChangeNew})
	}
	slices.SortStableFunc(list, func(x, y ComparedFinding) int { return severityRank(y.Severity) - severityRank(x.Severity) })
	return list
}

// mayHave tells whether findings of a code may be among those that are not
// listed.
func (v *Verdict) mayHave(code string) bool {
	return v.FindingsOmitted > 0 &&
		(v.Truncated || slices.ContainsFunc(v.Codes, func(c Code) bool { return c.Code == code }))
}

// worstByKey returns one finding for each code and subject.
func worstByKey(v *Verdict) []*Finding {
	var list []*Finding
	for i := range v.Findings {
		f := &v.Findings[i]
		if !slices.ContainsFunc(list, func(o *Finding) bool { return o.Code == f.Code && o.Subject == f.Subject }) {
			list = append(list, f)
		}
	}
	return list
}

func count[T any](list []T, is func(T) bool) (n int) {
	for _, v := range list {
		if is(v) {
			n++
		}
	}
	return n
}

// value writes a number of a row.
func (r *Row) value(v float64) string {
	switch r.Unit {
	case "s":
		return duration(v)
	case "%":
		return percent(v / 100)
	case "/s":
		return number(v) + "/s"
	}
	return group(uint64(min(max(math.Round(v), 0), math.MaxInt64/2)))
}

// row is a row of the table.
func (r *Row) row() []string {
	if !r.Known {
		return []string{r.Name, "", "", "not known of both"}
	}
	change := r.Change
	if change == ChangeOther {
		change = ""
	}
	return []string{r.Name, r.value(r.Before), r.value(r.After), change}
}

func (c *Comparison) table() (head []string, list [][]string) {
	for i := range c.Rows {
		r := &c.Rows[i]
		if r.Before == 0 && r.After == 0 {
			continue
		}
		list = append(list, r.row())
	}
	for i := range c.Findings {
		f := &c.Findings[i]
		list = append(list, []string{f.Code + " " + f.Subject, f.Before, f.After, f.Change})
	}
	return []string{"", "before", "after", "change"}, list
}

// JSON writes the comparison as a JSON object on one line.
func (c *Comparison) JSON() []byte {
	raw, err := plainJSON(c)
	if err != nil {
		panic(err) // unreachable: there is nothing in it that JSON has no form for
	}
	return append(raw, '\n')
}

// Text writes the comparison for people.
func (c *Comparison) Text(s Style) string {
	p := &page{style: s}
	part := map[string]Part{ChangeWorse: PartCritical, ChangeMixed: PartWarning, ChangeBetter: PartGood, ChangeSame: PartDim}[c.Change]
	p.paint("", c.headline(), func(line string) string { return s.paint(part, line) })
	p.WriteByte('\n')
	head, list := c.table()
	p.table(head, list)
	p.title("Before")
	p.para("  ", c.Before.Answer)
	p.title("After")
	p.para("  ", c.After.Answer)
	p.list("Doubts", c.doubts())
	return p.String()
}

// Markdown writes the comparison as a comment, in the dialect of GitHub.
func (c *Comparison) Markdown() string {
	var b strings.Builder
	b.WriteString("**" + escape(c.headline()) + "**\n\n")
	head, list := c.table()
	markdownTable(&b, head, list)
	b.WriteString("\n- before: " + escape(c.Before.Answer) + "\n- after: " + escape(c.After.Answer) + "\n")
	markdownList(&b, "Doubts", c.doubts())
	return b.String()
}

func (c *Comparison) headline() string {
	switch c.Change {
	case ChangeWorse:
		return "worse: " + strings.Join(c.Worse, "; ") + but(", though better: ", c.Better)
	case ChangeBetter:
		return "better: " + strings.Join(c.Better, "; ") + but(", though worse: ", c.Worse)
	case ChangeMixed:
		return "better and worse: " + strings.Join(c.Better, "; ") + but(", but ", c.Worse)
	}
	return "no better and no worse"
}

func but(word string, list []string) string {
	if len(list) == 0 {
		return ""
	}
	return word + strings.Join(list, "; ")
}

func (c *Comparison) doubts() []string {
	var list []string
	for _, d := range c.Before.Doubts {
		list = append(list, "before: "+d)
	}
	for _, d := range c.After.Doubts {
		list = append(list, "after: "+d)
	}
	return list
}
