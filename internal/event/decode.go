// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
)

// Unknown is an event of a kind that this version does not know: a later
// minor version wrote it.
type Unknown struct {
	Header
	Name string // value of "event"
	Line []byte // the JSON object as it was read
}

// Kind returns KindUnknown.
func (*Unknown) Kind() Kind { return KindUnknown }

// MarshalZerologObject writes time and event only: the other members have no
// meaning here, Line holds them as they were.
func (u *Unknown) MarshalZerologObject(e *zerolog.Event) {
	e.RawJSON(nameTime, new(scratch).time(u.Time)).Str(nameEvent, text(u.Name))
}

// errNotObject is the answer to a line that is JSON, but not an object.
var errNotObject = errors.New("not a JSON object")

// Decode returns the event of one line. Members that the kind does not have
// are passed over, so that lines of a later minor version can be read; an
// event of an unknown kind becomes an *Unknown. A member that is missing or
// has a value that it cannot have is an error that names it. Decode keeps no
// reference to line.
func Decode(line []byte) (Event, error) {
	line = bytes.TrimSpace(line)
	if !json.Valid(line) {
		return nil, invalidJSON(line)
	}
	if line[0] != '{' {
		return nil, errNotObject
	}
	d, name, err := describe(line)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return decodeUnknown(line, name)
	}
	ev := d.create()
	strangers, err := d.decode(ev, line)
	if h, ok := ev.(interface{ setStrangers(n int) }); ok {
		h.setStrangers(strangers)
	}
	return ev, err
}

// invalidJSON says what is wrong with a line that is not JSON.
func invalidJSON(line []byte) error {
	if len(line) == 0 {
		return errors.New("an empty line")
	}
	var v json.RawMessage
	err := json.Unmarshal(line, &v)
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON: %w at byte %d", err, s.Offset)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// describe returns the description of a line, nil for an unknown kind, and
// the kind's name.
func describe(line []byte) (*description, string, error) {
	for m := (members{rest: line[1:]}); m.next(); {
		if string(m.name) != nameEvent {
			continue
		}
		name, err := parseString(m.value)
		if err != nil {
			return nil, "", fmt.Errorf("member %q: %w", nameEvent, err)
		}
		for i := range descriptions {
			if kindNames[descriptions[i].kind] == name {
				return &descriptions[i], name, nil
			}
		}
		return nil, name, nil
	}
	return nil, "", fmt.Errorf("member %q is missing", nameEvent)
}

func decodeUnknown(line []byte, name string) (Event, error) {
	u := &Unknown{Name: name, Line: bytes.Clone(line)}
	d := description{members: []member{timeMember(func(u *Unknown) *Header { return &u.Header })}}
	_, err := d.decode(u, line)
	return u, err
}

// decode reads the members of line, a valid JSON object, into ev, and counts
// those that it passes over.
func (d *description) decode(ev Event, line []byte) (strangers int, err error) {
	var seen uint64 // bit i: members[i]; no kind has more than 64
	at := 0
	for m := (members{rest: line[1:]}); m.next(); {
		i := d.find(m.name, at)
		if i < 0 {
			if string(m.name) != nameEvent {
				strangers++
			}
			continue
		}
		if err := d.members[i].set(ev, m.value); err != nil {
			return strangers, fmt.Errorf("%s: member %q: %w", d.kind, m.name, err)
		}
		seen |= 1 << i
		at = i + 1
	}
	for i := range d.members {
		if seen&(1<<i) == 0 && !d.members[i].optional {
			return strangers, fmt.Errorf("%s: member %q is missing", d.kind, d.members[i].name)
		}
	}
	return strangers, nil
}

// find returns the index of the member of that name, or -1. It looks from
// index at on first: a line has its members in the order of the table.
func (d *description) find(name []byte, at int) int {
	for n := range d.members {
		i := (at + n) % len(d.members)
		if d.members[i].name == string(name) {
			return i
		}
	}
	return -1
}

// members walks over the members of a JSON object that is known to be valid.
type members struct {
	rest        []byte // after "{" or the last value
	name, value []byte // the name without quotes, as written; the value as written
}

// next goes to the next member and tells whether there is one.
func (m *members) next() bool {
	rest := bytes.TrimLeft(m.rest, " \t\r\n,")
	if rest[0] == '}' {
		return false
	}
	n := valueLen(rest)
	m.name = rest[1 : n-1]
	rest = bytes.TrimLeft(rest[n:], " \t\r\n:")
	n = valueLen(rest)
	m.value, m.rest = rest[:n], rest[n:]
	return true
}

// valueLen returns the length of the JSON value that b, known to be valid and
// inside of an object, starts with.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i // the end of the object around a number or a literal
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
}
