// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	c := NewClock()
	if off := time.Since(time.Unix(0, c.Now())).Abs(); off > time.Second {
		t.Errorf("event time is %s from the wall clock", off)
	}
	if c.UnixNano(5)-c.UnixNano(3) != 2 {
		t.Error("event time does not go on with the kernel's clock")
	}
	if step := c.Step().Abs(); step > 100*time.Millisecond {
		t.Errorf("a step of %s, although nobody stepped the clock", step)
	}
	for _, want := range []time.Duration{time.Hour, -time.Hour} {
		stepped := Clock{offset: c.offset - int64(want)}
		if off := (stepped.Step() - want).Abs(); off > 100*time.Millisecond {
			t.Errorf("a step of %s, want %s", stepped.Step(), want)
		}
	}
}
