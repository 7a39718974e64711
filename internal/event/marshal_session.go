// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/rs/zerolog"
)

// Kind returns KindStart.
func (*Start) Kind() Kind { return KindStart }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (t *Start) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *Start) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindStart)
	e.Str("schema", SchemaVersion).
		Str("version", text(t.Version)).Str("host", text(t.Host)).Str("kernel", text(t.Kernel)).
		Str("arch", text(t.Arch)).Str("boot_id", text(t.BootID)).
		Int("pid", t.PID).Int("part", t.Part).
		Dict("coverage", textMap(e, t.Coverage, text)).
		Array("lost", textList(e, t.Lost)).
		Array("sysctls", sysctlList(e, t.Sysctls))
	filters := e.CreateDict()
	for _, k := range slices.Sorted(maps.Keys(t.Filters)) {
		filters.Array(text(k), textList(e, t.Filters[k]))
	}
	e.Dict("filters", filters).Array("census", censusList(e, t.Census))
	if len(t.Recycle) > 0 {
		e.Array("tw_recycle_lines", configLines(e, t.Recycle))
	}
	flag(e, "truncated", t.Truncated)
}

func (t *Start) shorten(keep int) Event {
	c := *t
	c.Truncated = true
	c.Coverage, c.Lost, c.Filters = firstKeys(t.Coverage, keep), first(t.Lost, keep), firstKeys(t.Filters, keep)
	for k, v := range c.Filters {
		c.Filters[k] = first(v, keep)
	}
	c.Sysctls = slices.Clone(first(t.Sysctls, keep))
	for i := range c.Sysctls {
		n := &c.Sysctls[i]
		n.Names, n.Values = first(n.Names, keep), firstKeys(n.Values, keep)
	}
	c.Census = slices.Clone(first(t.Census, keep))
	for i := range c.Census {
		c.Census[i].Refused = firstKeys(c.Census[i].Refused, keep)
	}
	c.Recycle = first(t.Recycle, keep)
	return &c
}

// Kind returns KindSysctlChange.
func (*SysctlChange) Kind() Kind { return KindSysctlChange }

// MarshalZerologObject writes the members of the JSON object.
func (c *SysctlChange) MarshalZerologObject(e *zerolog.Event) { c.members(e, new(scratch)) }

func (c *SysctlChange) members(e *zerolog.Event, s *scratch) {
	s.begin(e, c.Time, KindSysctlChange)
	if c.NetNS != 0 {
		e.Uint32("netns", c.NetNS)
	}
	e.Str("name", text(c.Name))
	optional(e, "old", sysctlText(c.Old))
	optional(e, "new", sysctlText(c.New))
}

// Kind returns KindStats.
func (*Stats) Kind() Kind { return KindStats }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (t *Stats) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *Stats) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindStats)
	t.totals(e)
}

func (t *Stats) totals(e *zerolog.Event) {
	reconcile := e.CreateArray()
	for i := range t.Reconcile {
		r := &t.Reconcile[i]
		d := e.CreateDict().Uint32("netns", r.NetNS).Str("counter", text(r.Counter)).
			Int64("kernel", r.Kernel).Int64("twscope", r.TWScope).Int64("difference", r.Difference)
		optional(d, "why", r.Why)
		reconcile.Dict(d)
	}
	e.Uint64("uptime_ms", t.UptimeMS).
		Dict("seen", countMap(e, t.Seen)).Dict("written", countMap(e, t.Written)).Dict("lost", countMap(e, t.Lost)).
		Array("reconcile", reconcile)
	if t.TimeWait != nil {
		e.Uint64("time_wait", *t.TimeWait)
	}
	e.Int64("clock_step_ms", t.ClockStepMS)
	flag(e, "truncated", t.Truncated)
}

func (t *Stats) shorten(keep int) Event {
	c := *t
	c.Truncated = true
	c.Seen, c.Written, c.Lost = firstKeys(t.Seen, keep), firstKeys(t.Written, keep), firstKeys(t.Lost, keep)
	c.Reconcile = first(t.Reconcile, keep)
	return &c
}

// Kind returns KindStop.
func (*Stop) Kind() Kind { return KindStop }

// MarshalZerologObject writes the members of the JSON object, of any length;
// an Encoder bounds it.
func (t *Stop) MarshalZerologObject(e *zerolog.Event) { t.members(e, new(scratch)) }

func (t *Stop) members(e *zerolog.Event, s *scratch) {
	s.begin(e, t.Time, KindStop)
	e.Str("reason", text(t.Reason))
	t.totals(e)
	if len(t.Conclusion) <= MaxConclusion && isObject(t.Conclusion) {
		e.RawJSON("verdict", t.Conclusion)
	}
}

// isObject tells whether raw is a JSON object on one line.
func isObject(raw json.RawMessage) bool {
	return len(raw) > 0 && raw[0] == '{' && json.Valid(raw) && !bytes.ContainsAny(raw, "\n\r")
}

func (t *Stop) shorten(keep int) Event {
	return &Stop{Stats: *t.Stats.shorten(keep).(*Stats), Reason: t.Reason, Conclusion: t.Conclusion}
}

// room leaves as much as the conclusion may take to one that is still to be
// drawn.
func (t *Stop) room() int {
	if len(t.Conclusion) == 0 {
		return MaxLine - MaxConclusion
	}
	return MaxLine
}

// sysctlText joins the fields of a sysctl by one space, as sysctl(8) is
// written in files; the kernel separates them by tabs.
func sysctlText(s string) string {
	if s = cut(s, maxText); strings.ContainsAny(s, "\t\n") {
		s = strings.Join(strings.Fields(s), " ")
	}
	return text(s)
}

func sysctlList(e *zerolog.Event, list []NamespaceSysctls) *zerolog.Array {
	a := e.CreateArray()
	for i := range list {
		n := &list[i]
		a.Dict(e.CreateDict().Uint32("netns", n.NetNS).
			Array("names", textList(e, n.Names)).
			Dict("values", textMap(e, n.Values, sysctlText)))
	}
	return a
}

func censusList(e *zerolog.Event, list []NamespaceCensus) *zerolog.Array {
	a := e.CreateArray()
	for i := range list {
		n := &list[i]
		a.Dict(e.CreateDict().Uint32("netns", n.NetNS).
			Uint64("time_wait", n.TimeWait).Uint64("reusable", n.Reusable).
			Dict("refused", countMap(e, n.Refused)))
	}
	return a
}

func configLines(e *zerolog.Event, list []ConfigLine) *zerolog.Array {
	a := e.CreateArray()
	for i := range list {
		l := &list[i]
		a.Dict(e.CreateDict().Str("file", text(l.File)).Uint32("line", l.Line).Str("text", text(l.Text)))
	}
	return a
}

func textList(e *zerolog.Event, list []string) *zerolog.Array {
	a := e.CreateArray()
	for _, s := range list {
		a.Str(text(s))
	}
	return a
}

func textMap(e *zerolog.Event, m map[string]string, value func(string) string) *zerolog.Event {
	d := e.CreateDict()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		d.Str(text(k), value(m[k]))
	}
	return d
}

func countMap(e *zerolog.Event, m map[string]uint64) *zerolog.Event {
	d := e.CreateDict()
	for _, k := range slices.Sorted(maps.Keys(m)) {
		d.Uint64(text(k), m[k])
	}
	return d
}

func first[T any](list []T, keep int) []T { return list[:min(len(list), keep)] }

// firstKeys returns a copy with the first keep keys in their order of writing.
func firstKeys[V any](m map[string]V, keep int) map[string]V {
	c := make(map[string]V, min(len(m), keep))
	for _, k := range first(slices.Sorted(maps.Keys(m)), keep) {
		c[k] = m[k]
	}
	return c
}
