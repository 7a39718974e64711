// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"time"
)

// Shedder decides how much detail to give up when more happens than can be
// written: records are sampled, so that the log goes on, and counts stay
// exact. It is pure: fed with how full the buffers are, and time.
type Shedder struct {
	level int       // one record in 2^level is emitted
	calm  time.Time // since when there has been room again; zero: there is none
}

const (
	shedMax   = 10  // one in 1024
	shedAt    = 0.5 // full: half of the detail at each look
	shedHard  = 0.8 // full: a sixteenth
	calmBelow = 0.1
	calmFor   = time.Second // before more detail is tried again
)

// Next takes how full the fullest buffer is, from 0 to 1, and reports how many
// records of the kernel side one stands for, and whether that is new.
func (s *Shedder) Next(full float64, now time.Time) (oneIn uint32, changed bool) {
	was := s.level
	switch {
	case full >= shedHard:
		s.level += 4
	case full >= shedAt:
		s.level++
	case full < calmBelow && s.level > 0:
		if s.calm.IsZero() {
			s.calm = now
		}
		if now.Sub(s.calm) >= calmFor {
			s.level--
			s.calm = now
		}
	}
	if full >= calmBelow {
		s.calm = time.Time{}
	}
	s.level = min(s.level, shedMax)
	return 1 << s.level, s.level != was
}

// Sample has the kernel side emit one record in oneIn, a power of two, of those
// that may be left out.
func (p *Probe) Sample(oneIn uint32) error {
	p.control.ShedMask = oneIn - 1
	if err := p.putControl(); err != nil {
		return fmt.Errorf("tell the kernel side to sample: %w", err)
	}
	return nil
}

func (p *Probe) putControl() error { return p.loader.maps["tws_control"].Put(uint32(0), p.control) }

// Backlog returns how full the ring is, from 0 to 1.
func (p *Probe) Backlog() float64 {
	return float64(p.reader.AvailableBytes()) / float64(p.reader.BufferSize())
}
