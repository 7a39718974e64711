// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/json"
	"maps"
	"slices"
)

// Schema returns the JSON Schema (draft 2020-12) of one line of the event
// log. Lines of a later minor version are valid too: members and kinds that
// it does not name are accepted.
func Schema() []byte { return schemaOf(false) }

// StrictSchema is Schema for tests of what writes the log: a member or a kind
// that it does not name makes a line invalid.
func StrictSchema() []byte { return schemaOf(true) }

func schemaOf(strict bool) []byte {
	defs := map[string]any{}
	var kinds []string
	var dispatch []any
	for _, d := range descriptions {
		kind := d.kind.String()
		isKind := map[string]any{"const": kind}
		kinds = append(kinds, kind)
		defs[kind] = object(d.doc, append(slices.Clone(d.members), inner(nameEvent, isKind)))
		dispatch = append(dispatch, map[string]any{
			"if":   map[string]any{"properties": map[string]any{nameEvent: isKind}},
			"then": map[string]any{"$ref": "#/$defs/" + kind},
		})
	}
	event := with(typed("string", "the kind of event"), "examples", kinds)
	if strict {
		event = map[string]any{"enum": kinds}
	}
	time := descriptions[0].members[0].schema
	s := object("one line of the event log of twscope; socket members that are not known are left out",
		[]member{inner(nameTime, time), inner(nameEvent, event)})
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = "urn:twscope:event:" + SchemaVersion
	s["title"] = "twscope event " + SchemaVersion
	s["allOf"], s["$defs"] = dispatch, defs
	if strict {
		s["$defs"] = closed(defs)
	}
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		// Unreachable: the tables hold nothing but strings, numbers and lists.
		panic(err)
	}
	return append(out, '\n')
}

// closed returns a copy of a schema in which no object accepts a member that
// it does not name.
func closed(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := maps.Clone(v)
		for k := range c {
			c[k] = closed(c[k])
		}
		if _, ok := c["properties"].(map[string]any); ok && c["type"] == "object" {
			c["additionalProperties"] = false
		}
		return c
	default:
		return v
	}
}
