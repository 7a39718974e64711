// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"testing"
	"time"
)

func TestShedderGivesUpDetailAndComesBack(t *testing.T) {
	var s Shedder
	now := time.Unix(0, 0)
	look := func(full float64, want uint32) {
		t.Helper()
		now = now.Add(100 * time.Millisecond)
		if got, _ := s.Next(full, now); got != want {
			t.Fatalf("at %v, %v full: one in %d, want one in %d", now.Sub(time.Unix(0, 0)), full, got, want)
		}
	}
	look(0, 1)
	look(0.49, 1)
	look(0.5, 2)
	look(0.6, 4)
	look(0.9, 64)
	look(1, 1024)
	look(1, 1024) // never silence
	look(0.3, 1024)
	for range 10 { // not before it has been calm for 1 s
		look(0.05, 1024)
	}
	look(0.05, 512)
	look(0.2, 512) // the calm is over
	for range 10 {
		look(0, 512)
	}
	for want := uint32(256); want >= 1; want /= 2 {
		look(0, want)
		for range 9 {
			look(0, want)
		}
	}
	look(0, 1)
}

func TestShedderTellsOfChanges(t *testing.T) {
	var s Shedder
	now := time.Unix(0, 0)
	if _, changed := s.Next(0, now); changed {
		t.Error("a change without load")
	}
	if _, changed := s.Next(0.7, now); !changed {
		t.Error("no change at 0.7 full")
	}
}
