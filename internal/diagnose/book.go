// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"math"
	"strconv"

	"github.com/twscope/twscope/internal/event"
)

// state is what a rule says.
type state uint8

const (
	unclear state = iota // neither: a finding stays as it is
	bad
	good
)

// judgement is the answer of a rule. The zero judgement is unclear.
type judgement struct {
	state      state
	severity   event.Severity
	summary    string
	evidence   []event.Fact
	confidence float64
	remedies   []event.Remedy
	// An update is due when sign is another than was told, or when one of the
	// measures has left its tolerance.
	sign     string
	measures [3]measure
	now      snapshot
	// With good: since when, in ns, 0: since it is seen; and how long it must
	// be so before the finding closes.
	since, calm int64
}

// measure is a number, and by how much it may differ before it is told anew.
type measure struct{ value, tolerance float64 }

// roughly tolerates a tenth.
func roughly(v float64) measure { return measure{v, 0.1 * math.Abs(v)} }

// subjectKey tells subjects apart; what does not apply is zero.
type subjectKey struct {
	destination key
	netns       uint32
	file        string
	line        uint32
	lane        lane
}

// subject is what a finding is about.
type subject struct {
	key subjectKey
	event.Subject
}

type findingKey struct {
	code    string
	subject subjectKey
}

// finding is one that is open.
type finding struct {
	id     string
	opened int64 // ns
	told   judgement
	first  snapshot // when it opened
	calmed int64    // ns: since when the cause seems gone; 0: it is not
	times  uint     // how often it was open shortly before
}

// past is a finding that has closed.
type past struct {
	at    int64 // ns
	times uint
}

// book keeps the findings.
type book struct {
	findings map[findingKey]*finding
	past     map[findingKey]past
	count    map[string]int // by code, all of the run
}

func newBook() book {
	return book{findings: map[findingKey]*finding{}, past: map[findingKey]past{}, count: map[string]int{}}
}

const (
	// recently is how long a closed finding is remembered.
	recently = 600 * second
	// maxPast bounds how many are.
	maxPast = 4096
	// maxDoublings bounds how often a repeated finding's calm is doubled.
	maxDoublings = 4
)

// open returns a finding that is open, nil if it is not.
func (b *book) open(code string, k subjectKey) *finding { return b.findings[findingKey{code, k}] }

// concerns tells whether a finding about a destination is open.
func (b *book) concerns(k key) bool {
	for _, r := range destinationRules() {
		if b.open(r.code, subjectKey{destination: k}) != nil {
			return true
		}
	}
	return false
}

// settle does what a judgement asks for.
func (b *book) settle(e *Engine, code string, about subject, j judgement) {
	k := findingKey{code, about.key}
	f := b.findings[k]
	switch {
	case j.state == bad && f == nil:
		f = b.begin(k, e.now)
		f.first, f.told = j.now, j
		e.tell(f, code, about, event.FindingOpen, &j, "")
	case j.state == bad:
		f.calmed = 0
		if !j.differs(&f.told) {
			return
		}
		changed := j.now.since(&f.told.now, &f.first)
		f.told = j
		e.tell(f, code, about, event.FindingUpdate, &j, changed)
	case f == nil:
	case j.state == unclear:
		f.calmed = 0
	default:
		if f.calmed == 0 {
			f.calmed = e.now
			if j.since != 0 {
				f.calmed = j.since
			}
		}
		if e.now-f.calmed < j.calm<<min(f.times, maxDoublings) {
			return
		}
		j.severity = f.told.severity
		e.tell(f, code, about, event.FindingClose, &j, j.now.since(&f.told.now, &f.first))
		b.end(k, f, e.now)
	}
}

func (b *book) begin(k findingKey, now int64) *finding {
	b.count[k.code]++
	f := &finding{id: k.code + "/" + strconv.Itoa(b.count[k.code]), opened: now}
	if p, ok := b.past[k]; ok && now-p.at < recently {
		f.times = p.times + 1
	}
	b.findings[k] = f
	return f
}

func (b *book) end(k findingKey, f *finding, now int64) {
	if len(b.past) >= maxPast {
		clear(b.past)
	}
	b.past[k] = past{now, f.times}
	delete(b.findings, k)
}

// differs tells whether an update is due.
func (j *judgement) differs(told *judgement) bool {
	if j.sign != told.sign || j.severity != told.severity {
		return true
	}
	for i, m := range j.measures {
		if math.Abs(m.value-told.measures[i].value) > m.tolerance {
			return true
		}
	}
	return false
}

// tell adds a finding event to what Feed returns.
func (e *Engine) tell(f *finding, code string, about subject, s event.FindingState, j *judgement, changed string) {
	doc, _ := Lookup(code)
	e.out = append(e.out, &event.Finding{
		Header: event.Header{Time: e.now}, ID: f.id, Code: code, State: s, Severity: j.severity, Subject: about.Subject,
		Summary: j.summary, Changed: changed, Evidence: j.evidence, Confidence: j.confidence,
		WrongIf: doc.WrongIf, Remedies: j.remedies,
	})
}
