// SPDX-License-Identifier: Apache-2.0

package observe_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/observe"
)

func counters(tw, killed, paws uint64) kernel.Counters {
	return kernel.Counters{"TW": tw, "TWKilled": killed, "PAWSEstab": paws, "TWRecycled": 0}
}

func seen(tw, paws uint64) observe.Seen {
	return observe.Seen{TimeWait: tw, PAWS: map[string]uint64{"PAWSEstab": paws}}
}

func TestReconcile(t *testing.T) {
	all := observe.Coverage{TimeWait: true, PAWS: []string{"PAWSEstab"}, Counting: kernel.TWCountedAtCreation}
	atExpiry := all
	atExpiry.Counting = kernel.TWCountedAtExpiry
	tests := []struct {
		name     string
		coverage observe.Coverage
		younger  bool
		from, to kernel.Counters
		s0, s1   observe.Seen
		gone     bool
		want     []event.Reconciliation
		why      bool
	}{
		{
			name: "equal", coverage: all,
			from: counters(100, 0, 7), to: counters(150, 0, 9), s0: seen(3, 1), s1: seen(53, 3),
			want: []event.Reconciliation{
				{NetNS: 1, Counter: "TW", Kernel: 50, TWScope: 50},
				{NetNS: 1, Counter: "PAWSEstab", Kernel: 2, TWScope: 2},
			},
		},
		{
			name: "a missed reject shows, a still counter does not", coverage: all,
			from: counters(100, 0, 7), to: counters(100, 0, 8), s0: seen(0, 0), s1: seen(0, 0),
			want: []event.Reconciliation{
				{NetNS: 1, Counter: "TW"},
				{NetNS: 1, Counter: "PAWSEstab", Kernel: 1, Difference: 1},
			},
		},
		{
			name: "short-lived sockets are in TWKilled", coverage: all,
			from: counters(0, 0, 0), to: counters(5, 2, 0), s0: seen(0, 0), s1: seen(7, 0),
			want: []event.Reconciliation{{NetNS: 1, Counter: "TW", Kernel: 7, TWScope: 7}}, why: true,
		},
		{
			name: "counted at expiry", coverage: atExpiry,
			from: counters(0, 0, 0), to: counters(1, 0, 0), s0: seen(0, 0), s1: seen(10, 0),
			want: []event.Reconciliation{{NetNS: 1, Counter: "TW", Kernel: 1, TWScope: 10, Difference: -9}}, why: true,
		},
		{
			name: "a younger namespace counts from zero", coverage: all, younger: true,
			from: counters(4, 0, 0), to: counters(6, 0, 0), s0: seen(4, 0), s1: seen(6, 0),
			want: []event.Reconciliation{{NetNS: 1, Counter: "TW", Kernel: 6, TWScope: 6}},
		},
		{
			name: "an older one that was found late counts from then", coverage: all, younger: true,
			from: counters(400, 0, 0), to: counters(402, 0, 0), s0: seen(4, 0), s1: seen(6, 0),
			want: []event.Reconciliation{{NetNS: 1, Counter: "TW", Kernel: 2, TWScope: 2}}, why: true,
		},
		{
			name: "a vanished one keeps what was last read", coverage: all, gone: true,
			from: counters(0, 0, 0), to: counters(3, 0, 0), s0: seen(0, 0), s1: seen(3, 0),
			want: []event.Reconciliation{{NetNS: 1, Counter: "TW", Kernel: 3, TWScope: 3}}, why: true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := observe.NewAccount(test.coverage)
			a.Open(1, test.s0, test.from, test.s0, test.younger)
			a.Update(1, test.to, test.s1)
			if test.gone {
				a.Gone(1)
				a.Update(1, counters(999, 9, 9), seen(9, 9))
			}
			got := a.Reconcile()
			for i := range got {
				if (got[i].Why != "") != test.why {
					t.Errorf("why is %q", got[i].Why)
				}
				got[i].Why = ""
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("reconciliation (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMissingTimeWaits(t *testing.T) {
	a := observe.NewAccount(observe.Coverage{TimeWait: true, Counting: kernel.TWCountedAtCreation})
	for netns, saw := range map[uint32]uint64{1: 7, 2: 10, 3: 11} {
		a.Open(netns, seen(0, 0), counters(0, 0, 0), seen(0, 0), false)
		a.Update(netns, counters(10, 0, 0), seen(saw, 0))
	}
	if got := a.MissingTimeWaits(); got != 3 {
		t.Errorf("%d missing, want 3: those of namespace 1, and none for the one too many in 3", got)
	}
}

func TestMissingPAWS(t *testing.T) {
	a := observe.NewAccount(observe.Coverage{PAWS: []string{"PAWSTimewait"}})
	for netns, saw := range map[uint32]uint64{1: 7, 2: 10, 3: 11} {
		a.Open(netns, observe.Seen{}, kernel.Counters{"PAWSTimewait": 5, "PAWSEstab": 0}, observe.Seen{}, false)
		a.Update(netns, kernel.Counters{"PAWSTimewait": 15, "PAWSEstab": 9},
			observe.Seen{PAWS: map[string]uint64{"PAWSTimewait": saw}})
	}
	if got := a.MissingPAWS(); got != 3 {
		t.Errorf("%d missing, want 3: those of namespace 1, none for the one too many in 3, none of a counter that others move", got)
	}
}

func TestUnseenTellsGrowthOnce(t *testing.T) {
	a := observe.NewAccount(observe.Coverage{})
	told := map[uint32]int64{}
	a.Open(1, seen(0, 0), counters(0, 0, 10), seen(0, 0), false)
	a.Update(1, counters(0, 0, 15), seen(0, 2))
	if got := a.Unseen("PAWSEstab", told); got[1] != 3 {
		t.Errorf("unseen %v, want 3: five counted, two seen", got)
	}
	if got := a.Unseen("PAWSEstab", told); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
	a.Update(1, counters(0, 0, 16), seen(0, 2))
	if got := a.Unseen("PAWSEstab", told); got[1] != 1 {
		t.Errorf("unseen %v, want 1 more", got)
	}
	if got := a.Unseen("TSEcrRejected", told); len(got) != 0 {
		t.Errorf("a counter that the kernel lacks: %v", got)
	}
}

// A namespace may be found while it is busy: what happens between the looks
// must not seem to be missing.
func TestOpenUnderLoad(t *testing.T) {
	tests := []struct {
		name          string
		before, after uint64
		kernel        uint64
		want          event.Reconciliation
	}{
		{"from zero", 90, 110, 100, event.Reconciliation{Kernel: 1000, TWScope: 1000}},
		{"older than the run", 90, 110, 300, event.Reconciliation{Kernel: 700, TWScope: 910, Difference: -210}},
		{"not all was counted by the kernel", 90, 110, 80, event.Reconciliation{Kernel: 920, TWScope: 910, Difference: 10}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := observe.NewAccount(observe.Coverage{TimeWait: true, Counting: kernel.TWCountedAtCreation})
			a.Open(1, seen(test.before, 0), counters(test.kernel, 0, 0), seen(test.after, 0), true)
			a.Update(1, counters(1000, 0, 0), seen(1000, 0))
			got := a.Reconcile()[0]
			test.want.NetNS, test.want.Counter, test.want.Why = 1, "TW", got.Why
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
