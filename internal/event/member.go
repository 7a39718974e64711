// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
)

// member describes one JSON member of an event: the schema is built from it
// and Decode reads by it.
type member struct {
	name     string
	optional bool
	schema   map[string]any
	set      func(ev Event, raw []byte) error
}

// opt makes members optional.
func opt(list ...member) []member {
	for i := range list {
		list[i].optional = true
	}
	return list
}

// field is a member whose value parse turns into *at(ev).
func field[E Event, V any](name string, schema map[string]any, at func(E) *V, parse func([]byte) (V, error)) member {
	return member{name: name, schema: schema, set: func(ev Event, raw []byte) error {
		v, err := parse(raw)
		if err == nil {
			*at(ev.(E)) = v
		}
		return err
	}}
}

func typed(typ, doc string) map[string]any {
	return map[string]any{"type": typ, "description": doc}
}

func with(schema map[string]any, key string, val any) map[string]any {
	schema[key] = val
	return schema
}

type unsigned interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

// count is an unsigned integer of the width of N.
func count[E Event, N unsigned](name, doc string, at func(E) *N) member {
	return field(name, countSchema[N](doc), at, parseCount[N])
}

func countSchema[N unsigned](doc string) map[string]any {
	return with(with(typed("integer", doc), "minimum", 0), "maximum", ^N(0))
}

func parseCount[N unsigned](raw []byte) (N, error) {
	v, err := strconv.ParseUint(string(raw), 10, 64)
	if most := ^N(0); err != nil || v > uint64(most) {
		return 0, fmt.Errorf("%s is not a whole number from 0 to %d", raw, most)
	}
	return N(v), nil
}

// integer is a signed integer of the width of N.
func integer[E Event, N ~int | ~int32 | ~int64](name, doc string, at func(E) *N) member {
	return field(name, typed("integer", doc), at, func(raw []byte) (N, error) {
		v, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || int64(N(v)) != v {
			return 0, fmt.Errorf("%s is not a whole number, or too great", raw)
		}
		return N(v), nil
	})
}

func parseNumber(raw []byte) (float64, error) {
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number, or too great", raw)
	}
	return v, nil
}

func boolean[E Event](name, doc string, at func(E) *bool) member {
	return field(name, typed("boolean", doc), at, parseBool)
}

func parseBool(raw []byte) (bool, error) {
	switch string(raw) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", raw)
}

func str[E Event](name, doc string, at func(E) *string) member {
	return field(name, typed("string", doc), at, parseString)
}

// parseString returns the text of a JSON string that is known to be valid.
func parseString(raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", fmt.Errorf("%s is not a string", raw)
	}
	for _, c := range raw[1 : len(raw)-1] {
		if c == '\\' || c >= 0x80 {
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err
		}
	}
	return string(raw[1 : len(raw)-1]), nil
}

// enum is a string with a fixed set of values.
func enum[E Event, V ~uint8](name, doc string, names []string, at func(E) *V) member {
	return field(name, enumSchema(doc, names), at, func(raw []byte) (V, error) {
		v, err := parseEnum(names, raw)
		return V(v), err
	})
}

func enumSchema(doc string, names []string) map[string]any {
	return map[string]any{"enum": names, "description": doc}
}

func parseEnum(names []string, raw []byte) (uint8, error) {
	s, err := parseString(raw)
	if err != nil {
		return 0, err
	}
	return parseName(names, s, "value")
}

// value is anything that encoding/json can read into a V by itself.
func value[E Event, V any](name string, schema map[string]any, at func(E) *V) member {
	return field(name, schema, at, func(raw []byte) (v V, err error) {
		err = json.Unmarshal(raw, &v)
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
			err = fmt.Errorf("%s: a %s cannot stand here", t.Field, t.Value)
		}
		return v, err
	})
}

// Schemas of members that hold more than one value.

func listOf(doc string, items map[string]any) map[string]any {
	return with(typed("array", doc), "items", items)
}

func mapOf(doc string, values map[string]any) map[string]any {
	return with(typed("object", doc), "additionalProperties", values)
}

// object is a JSON object with the given members.
func object(doc string, members []member) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, m := range members {
		properties[m.name] = m.schema
		if !m.optional {
			required = append(required, m.name)
		}
	}
	return with(with(typed("object", doc), "properties", properties), "required", required)
}

// inner is a member of an object that is itself a member's value: it has a
// schema only, its decoding is that of the whole value.
func inner(name string, schema map[string]any) member { return member{name: name, schema: schema} }

// The members that events share.

const timePattern = `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$`

func timeMember[E Event](at func(E) *Header) member {
	doc := "when it happened: RFC 3339 with nine fractional digits, in UTC"
	schema := with(with(typed("string", doc), "format", "date-time"), "pattern", timePattern)
	return field(nameTime, schema, func(ev E) *int64 { return &at(ev).Time }, parseTime)
}

// The span of time that nanoseconds in 64 bits can express.
var (
	minTime = time.Unix(0, math.MinInt64)
	maxTime = time.Unix(0, math.MaxInt64)
)

func parseTime(raw []byte) (int64, error) {
	s, err := parseString(raw)
	if err != nil {
		return 0, err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Before(minTime) || t.After(maxTime) {
		return 0, fmt.Errorf("%q is not a time of RFC 3339 between 1678 and 2262", s)
	}
	return t.UnixNano(), nil
}

func socketMembers[E Event](at func(E) *Socket) []member {
	list := []member{count(nameNetNS, "inode of the network namespace", func(ev E) *uint32 { return &at(ev).NetNS })}
	list = append(list, endpoint("l", "local", func(ev E) *netip.AddrPort { return &at(ev).Local })...)
	list = append(list, endpoint("r", "remote", func(ev E) *netip.AddrPort { return &at(ev).Remote })...)
	return opt(append(list,
		count("pid", "process that called connect(), or that listens, in the initial pid namespace",
			func(ev E) *uint32 { return &at(ev).Owner.PID }),
		str("comm", "name of that process, unprintable bytes as \\xNN or \\u{N}",
			func(ev E) *string { return &at(ev).Owner.Comm }),
		str("cgroup", "its path below the cgroup v2 mount, unprintable bytes as \\xNN or \\u{N}",
			func(ev E) *string { return &at(ev).Owner.Cgroup }))...)
}

func endpoint[E Event](prefix, side string, at func(E) *netip.AddrPort) []member {
	addr := with(typed("string", side+" address as seen from this host; IPv4-mapped addresses are shown as IPv4"),
		"anyOf", []any{map[string]any{"format": "ipv4"}, map[string]any{"format": "ipv6"}})
	port := with(with(typed("integer", side+" port"), "minimum", 1), "maximum", math.MaxUint16)
	return []member{
		{name: prefix + "addr", schema: addr, set: func(ev Event, raw []byte) error {
			s, err := parseString(raw)
			if err != nil {
				return err
			}
			a, err := netip.ParseAddr(s)
			if err != nil {
				return fmt.Errorf("%q is not an IP address", s)
			}
			p := at(ev.(E))
			*p = netip.AddrPortFrom(a.Unmap(), p.Port())
			return nil
		}},
		{name: prefix + "port", schema: port, set: func(ev Event, raw []byte) error {
			n, err := strconv.ParseUint(string(raw), 10, 16)
			if err != nil {
				return fmt.Errorf("%s is not a port", raw)
			}
			p := at(ev.(E))
			*p = netip.AddrPortFrom(p.Addr(), uint16(n))
			return nil
		}},
	}
}
