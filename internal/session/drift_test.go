// SPDX-License-Identifier: Apache-2.0

package session

import "testing"

// TestDrift: when the sockets in TIME_WAIT are counted anew.
func TestDrift(t *testing.T) {
	type visit struct {
		missing   int64
		timeWaits uint32
		entered   uint64
		recount   bool
	}
	for name, c := range map[string]struct {
		left   int64
		visits []visit
	}{
		"equal":                     {0, []visit{{0, 80, 80, false}, {0, 80, 80, false}, {0, 80, 80, false}, {0, 80, 80, false}}},
		"one missing at rest":       {0, []visit{{1, 80, 79, false}, {1, 80, 79, false}, {1, 80, 79, false}, {1, 80, 79, true}}},
		"one killed at rest":        {0, []visit{{-1, 79, 80, false}, {-1, 79, 80, false}, {-1, 79, 80, false}, {-1, 79, 80, true}}},
		"one missing under load":    {0, []visit{{1, 80, 79, false}, {1, 90, 89, false}, {1, 99, 98, false}, {1, 110, 109, false}}},
		"ends told late":            {0, []visit{{-5, 75, 80, false}, {0, 75, 80, false}, {-5, 70, 80, false}, {0, 70, 80, false}}},
		"many killed under load":    {0, []visit{{0, 1000, 1000, false}, {-900, 110, 1010, false}, {-900, 120, 1020, false}, {-900, 130, 1030, true}}},
		"what no count can mend":    {3, []visit{{3, 80, 80, false}, {3, 80, 80, false}, {3, 80, 80, false}, {3, 80, 80, false}}},
		"more than no count mended": {3, []visit{{4, 80, 80, false}, {4, 80, 80, false}, {4, 80, 80, false}, {4, 80, 80, true}}},
		"again what was mended":     {3, []visit{{0, 80, 80, false}, {3, 80, 80, false}, {3, 80, 80, false}, {3, 80, 80, true}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := drift{left: c.left}
			for i, v := range c.visits {
				if got := d.look(v.missing, v.timeWaits, v.entered); got != v.recount {
					t.Fatalf("visit %d: recount = %t, want %t", i, got, v.recount)
				}
			}
		})
	}
}

// TestDriftAfterCount: what a count leaves at rest is what no count can mend.
func TestDriftAfterCount(t *testing.T) {
	d := drift{looks: driftLooks, entered: 80}
	if d.recounted(3, 80); d != (drift{entered: 80, left: 3}) {
		t.Errorf("at rest: %+v", d)
	}
	if d.recounted(3, 90); d != (drift{entered: 90}) {
		t.Errorf("under load: %+v", d)
	}
}
