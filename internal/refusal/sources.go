// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"cmp"
	"slices"

	"github.com/twscope/twscope/internal/clock"
	"github.com/twscope/twscope/internal/event"
)

// Sources returns the n sources that matter most at a time, in ns since the
// Unix epoch: those whose SYNs were refused, the most refusals first; those
// with several clocks; the busiest. Skipped is left to the caller, who samples.
//
// Evicted counts those forgotten here or by the clock tracker, whichever forgot
// more.
func (j *Judge) Sources(now int64, n int) *event.Sources {
	list := make([]event.Source, 0, len(j.sources.index))
	for i := range j.sources.slots {
		if s := &j.sources.slots[i]; s.taken {
			list = append(list, j.describe(&s.key, &s.value, now))
		}
	}
	slices.SortFunc(list, compare)
	stats := j.clocks.Stats()
	total := uint64(max(len(list), stats.Sources))
	list = list[:min(max(n, 0), len(list))]
	return &event.Sources{
		Header: event.Header{Time: now}, List: list,
		Omitted: total - uint64(len(list)), Evicted: max(j.sources.evicted, stats.Evicted),
	}
}

// compare is a total order.
func compare(a, b event.Source) int {
	return cmp.Or(
		cmp.Compare(b.Refused+b.Rejected, a.Refused+a.Rejected),
		cmp.Compare(max(b.Clocks, 1), max(a.Clocks, 1)),
		cmp.Compare(b.SYNs, a.SYNs),
		cmp.Compare(a.NetNS, b.NetNS),
		a.Raddr.Compare(b.Raddr),
		a.Laddr.Compare(b.Laddr),
	)
}

func (j *Judge) describe(k *sourceKey, s *source, now int64) event.Source {
	key := k.clock()
	out := event.Source{
		NetNS: k.netns, Raddr: key.Source, Laddr: key.Local,
		SYNs: s.syns, Completed: s.completed,
		Repeated: s.repeated, Rewritten: s.rewritten, Refused: s.refused, Rejected: s.rejected,
		RecycleSYNs: s.asked, Recycle2632: s.recycle[0], Recycle310: s.recycle[1],
		Verdicts: map[string]uint64{}, Fingerprints: []string{},
	}
	for v, n := range s.verdicts {
		if n > 0 {
			out.Verdicts[event.Verdict(v).String()] = n
		}
	}
	for _, p := range s.prints {
		if p != "" {
			out.Fingerprints = append(out.Fingerprints, p)
		}
	}
	if c, ok := j.clocks.Find(key, now); ok {
		out.Class, out.Strength = class(c.Class), strength(c.Strength)
		out.Clocks, out.Open = uint32(c.Clocks), c.Open
		out.Estimate, out.Low, out.High = uint32(c.Estimate), uint32(c.Low), uint32(c.High)
		out.OnLine, out.OffLine = uint32(c.OnLine), uint32(c.OffLine)
	}
	return out
}

func class(c clock.Class) event.ClockClass {
	return [...]event.ClockClass{
		clock.NotEnough: event.ClockNotEnough, clock.OneClock: event.ClockOne, clock.Shared: event.ClockShared,
		clock.Randomised: event.ClockRandomised, clock.Restarted: event.ClockRestarted,
	}[c]
}

func strength(s clock.Strength) event.Strength {
	return [...]event.Strength{
		clock.Weak: event.StrengthWeak, clock.Medium: event.StrengthMedium, clock.Strong: event.StrengthStrong,
	}[s]
}
