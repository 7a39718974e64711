// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Clock turns the kernel side's CLOCK_BOOTTIME into the time of events. The
// offset is taken once, so that event times do not jump with the wall clock.
type Clock struct {
	offset int64 // UTC minus CLOCK_BOOTTIME, in ns
}

// NewClock takes the offset from the wall clock as it stands.
func NewClock() Clock { return Clock{offset: wallOffset()} }

// UnixNano returns the event time of a CLOCK_BOOTTIME instant in ns.
func (c Clock) UnixNano(bootNS uint64) int64 { return c.offset + int64(bootNS) }

// Now returns the event time of now.
func (c Clock) Now() int64 { return c.UnixNano(bootNow()) }

// Step returns how far the wall clock has moved against event time since the
// clock was made: NTP's slewing moves both, a step moves the wall clock alone.
func (c Clock) Step() time.Duration { return time.Duration(wallOffset() - c.offset) }

// wallOffset measures UTC minus CLOCK_BOOTTIME. Of several tries the one that
// was interrupted least is best.
func wallOffset() int64 {
	const tries = 5
	var best, offset int64 = 1 << 62, 0
	for range tries {
		before := int64(bootNow())
		wall := time.Now().UnixNano()
		after := int64(bootNow())
		if after-before < best {
			best, offset = after-before, wall-(before+after)/2
		}
	}
	return offset
}

func bootNow() uint64 { return now(unix.CLOCK_BOOTTIME) }

func now(clock int32) uint64 {
	var ts unix.Timespec
	// cannot fail: both clocks exist since 2.6.39
	_ = unix.ClockGettime(clock, &ts)
	return uint64(ts.Nano())
}

// followSuspend tells the kernel side by how much CLOCK_BOOTTIME is ahead of
// the clock by which TCP notes when a segment came: the time that the host was
// suspended.
func (p *Probe) followSuspend() error {
	const noise = uint64(time.Millisecond)
	boot := bootNow()
	ahead := boot - min(boot, now(unix.CLOCK_MONOTONIC))
	if p.control.BoottimeOffset != 0 && ahead-p.control.BoottimeOffset+noise <= 2*noise {
		return nil
	}
	p.control.BoottimeOffset = ahead
	if err := p.putControl(); err != nil {
		return fmt.Errorf("tell the kernel side how long this host was suspended: %w", err)
	}
	return nil
}
