// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

func TestJudge(t *testing.T) {
	policy := func(reuse int) ReusePolicy { return ReusePolicy{TWReuse: reuse, Delay: time.Second} }
	long := ReusePolicy{TWReuse: 1, Delay: time.Minute}
	// old is a socket that nothing speaks against
	old := func(change func(*bpf.Census)) bpf.Census {
		c := bpf.Census{Timestamps: 1, TsRecentAgeS: 5, HasEntryAge: 1, EntryAgeMs: 5000}
		if change != nil {
			change(&c)
		}
		return c
	}
	for name, tt := range map[string]struct {
		policy ReusePolicy
		socket bpf.Census
		want   event.Reusable
		in     uint32
	}{
		"reusable":                 {policy(1), old(nil), event.ReusableNow, 0},
		"disabled":                 {policy(0), old(nil), event.ReuseRefusedDisabled, 0},
		"loopback only":            {policy(2), old(nil), event.ReuseRefusedLoopback, 0},
		"loopback":                 {policy(2), old(func(c *bpf.Census) { c.Loopback = 1 }), event.ReusableNow, 0},
		"no timestamps":            {policy(1), old(func(c *bpf.Census) { c.Timestamps = 0 }), event.ReuseRefusedNoTS, 0},
		"no timestamps, disabled":  {policy(0), old(func(c *bpf.Census) { c.Timestamps = 0 }), event.ReuseRefusedNoTS, 0},
		"no timestamps, not local": {policy(2), old(func(c *bpf.Census) { c.Timestamps = 0 }), event.ReuseRefusedLoopback, 0},
		"FIN_WAIT2":                {policy(1), old(func(c *bpf.Census) { c.Substate = bpf.Substate(event.SubstateFinWait2) }), event.ReuseRefusedFinWait2, 0},
		"young":                    {policy(1), old(func(c *bpf.Census) { c.EntryAgeMs = 400 }), event.ReuseRefusedTooYoung, 601},
		"at the delay":             {policy(1), old(func(c *bpf.Census) { c.EntryAgeMs = 1000 }), event.ReuseRefusedTooYoung, 1},
		"past the delay":           {policy(1), old(func(c *bpf.Census) { c.EntryAgeMs = 1001 }), event.ReusableNow, 0},
		"within a long delay":      {long, old(nil), event.ReuseRefusedTooYoung, 55001},
		"without a delay":          {ReusePolicy{TWReuse: 1}, old(func(c *bpf.Census) { c.EntryAgeMs = 1 }), event.ReusableNow, 0},
		"young, up to 6.13":        {policy(1), old(func(c *bpf.Census) { c.HasEntryAge, c.TsRecentAgeS = 0, 0 }), event.ReuseRefusedTooYoung, 1000},
		"next second, up to 6.13":  {policy(1), old(func(c *bpf.Census) { c.HasEntryAge, c.TsRecentAgeS = 0, 1 }), event.ReusableNow, 0},
		"stamp of the future":      {policy(1), old(func(c *bpf.Census) { c.HasEntryAge, c.TsRecentAgeS = 0, -1 }), event.ReuseRefusedTooYoung, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			if got, in := tt.policy.judge(&tt.socket); got != tt.want || in != tt.in {
				t.Errorf("%s in %d ms, want %s in %d ms", got, in, tt.want, tt.in)
			}
		})
	}
}

func TestEntered(t *testing.T) {
	s := Snapshot{boot: uint64(100 * time.Second)}
	for name, tt := range map[string]struct {
		socket bpf.Census
		want   time.Duration
	}{
		"by its timer":        {bpf.Census{RemainingMs: 50_000}, 90 * time.Second},
		"timer set anew":      {bpf.Census{RemainingMs: 50_000, HasEntryAge: 1, EntryAgeMs: 30_000}, 70 * time.Second},
		"timer too long":      {bpf.Census{RemainingMs: 70_000}, 100 * time.Second},
		"older than uptime":   {bpf.Census{HasEntryAge: 1, EntryAgeMs: 200_000}, 0},
		"entered just now":    {bpf.Census{RemainingMs: 60_000, HasEntryAge: 1}, 100 * time.Second},
		"about to be expired": {bpf.Census{RemainingMs: 0}, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := time.Duration(s.entered(&tt.socket)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestReadRecords(t *testing.T) {
	readCensus := func(r io.Reader) (found []bpf.Census, err error) {
		err = readRecords(r, func(c *bpf.Census) { found = append(found, *c) })
		return found, err
	}
	one, two := bpf.Census{RemainingMs: 1}, bpf.Census{RemainingMs: 2, Loopback: 1}
	both := append(sampleOf(one), sampleOf(two)...)
	found, err := readCensus(bytes.NewReader(both))
	if diff := cmp.Diff([]bpf.Census{one, two}, found); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
	if found, err := readCensus(bytes.NewReader(both[:len(both)-1])); err == nil || len(found) != 1 {
		t.Errorf("a record cut short: %v, %v", found, err)
	}
}

func TestSummary(t *testing.T) {
	s := Snapshot{policy: ReusePolicy{TWReuse: 1}, found: []bpf.Census{
		{Timestamps: 1, HasEntryAge: 1, EntryAgeMs: 5000}, {}, {},
	}}
	want := event.NamespaceCensus{NetNS: 3, TimeWait: 3, Reusable: 1, Refused: map[string]uint64{"no_timestamps": 2}}
	if diff := cmp.Diff(want, s.Summary(3)); diff != "" {
		t.Error(diff)
	}
}
