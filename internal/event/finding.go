// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
)

// FindingState tells where in its life a finding is.
type FindingState uint8

// The states.
const (
	FindingOpen   FindingState = iota // "open": the first event of a finding
	FindingUpdate                     // "update": its numbers have changed
	FindingClose                      // "close": its cause has gone
)

// Severity tells how bad a finding is.
type Severity uint8

// The severities.
const (
	SeverityInfo     Severity = iota // "info": nothing fails
	SeverityWarning                  // "warning": something is about to fail, or a setting does not do what it is set for
	SeverityCritical                 // "critical": connections fail
)

// Subject is what a finding is about: the members that apply, the others are
// zero and left out of JSON.
type Subject struct {
	NetNS uint32     `json:"netns"`
	Laddr netip.Addr `json:"laddr"`
	Lport uint16     `json:"lport"`
	Raddr netip.Addr `json:"raddr"`
	Rport uint16     `json:"rport"`
	PID   uint32     `json:"pid"`
	Comm  string     `json:"comm"`
	File  string     `json:"file"` // a configuration file
	Line  uint32     `json:"line"` // in it, from 1
}

// UnmarshalJSON reads a subject.
func (s *Subject) UnmarshalJSON(raw []byte) error {
	type plain Subject
	var p plain
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	*s = Subject(p)
	s.Laddr, s.Raddr = cleanAddr(s.Laddr), cleanAddr(s.Raddr)
	return nil
}

// Fact is one member of a finding's evidence: a text or, if that is empty, a
// number.
type Fact struct {
	Name   string
	Number float64
	Text   string
}

// Remedy is something that helps, checked against the host it is offered for.
type Remedy struct {
	Do     string `json:"do"`     // what to do
	Why    string `json:"why"`    // why it helps
	Buys   string `json:"buys"`   // how much, with the formula; empty: that cannot be told, left out of JSON
	Caveat string `json:"caveat"` // its price and precondition; empty: none, left out of JSON
}

// Finding is a conclusion from other events.
type Finding struct {
	Header
	ID         string // the same in all events of one finding
	Code       string // what kind of finding it is, as in `twscope explain`
	State      FindingState
	Severity   Severity
	Subject    Subject
	Summary    string  // one sentence
	Changed    string  // what has changed since the event before of this finding; empty: left out of JSON
	Evidence   []Fact  // in the order of writing
	Confidence float64 // 0 to 1
	WrongIf    string  // what would prove it wrong
	Remedies   []Remedy
	// Truncated: lists were cut so that the line stays below MaxLine.
	Truncated bool
}

// parseEvidence reads a JSON object that is known to be valid, in its order.
func parseEvidence(raw []byte) ([]Fact, error) {
	if raw[0] != '{' {
		return nil, fmt.Errorf("%s is not an object", raw)
	}
	facts := []Fact{}
	for m := (members{rest: raw[1:]}); m.next(); {
		name, err := parseString(bytes.Join([][]byte{nil, m.name, nil}, []byte(`"`)))
		if err != nil {
			return nil, err
		}
		f := Fact{Name: name}
		if m.value[0] == '"' {
			f.Text, err = parseString(m.value)
		} else {
			f.Number, err = parseNumber(m.value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}
