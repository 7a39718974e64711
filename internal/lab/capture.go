// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// snapLen holds the longest IP and TCP headers.
	snapLen = 192
	// maxSegments bounds what one capture keeps; the rest counts as lost.
	maxSegments = 1 << 20
)

// Capture records the TCP segments that pass one interface.
type Capture struct {
	tap      *Tap
	loopback bool
	forget   func()

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when segments are added
	segments []Segment
	beyond   uint64 // more than maxSegments
	ignored  uint64
}

// Capture starts to record on one end of a link. It sees packets as they are
// on the wire: behind a gateway's NAT if the link is.
func (e *End) Capture() (*Capture, error) {
	return e.Host.capture(e.Index, false)
}

// CaptureLoopback records on the host's lo, each segment once.
func (h *Host) CaptureLoopback() (*Capture, error) { return h.capture(1, true) }

func (h *Host) capture(index int, loopback bool) (*Capture, error) {
	c := &Capture{loopback: loopback, changed: make(chan struct{})}
	var err error
	if c.tap, err = h.tap(index, snapLen, c.take, c.signal); err != nil {
		return nil, err
	}
	c.forget = h.atClose(func() { _, _ = c.tap.Stop() })
	return c, nil
}

func (c *Capture) take(p *Packet) {
	if p.Outgoing && c.loopback {
		return // comes again as PACKET_HOST
	}
	s, err := parseSegment(p.Data, p.Length)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.ignored++
	case len(c.segments) == maxSegments:
		c.beyond++
	default:
		s.Outgoing, s.Time = p.Outgoing, p.Time
		c.segments = append(c.segments, s)
	}
}

// signal wakes Wait.
func (c *Capture) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Captured is a finished capture.
type Captured struct {
	Segments []Segment
	Lost     uint64 // TCP or not, dropped for want of buffer
	Ignored  uint64 // packets that are no whole TCP segments
}

// Stop ends the capture after everything sent before the call is recorded.
// Later calls return nothing new.
func (c *Capture) Stop() error {
	_, err := c.tap.Stop()
	c.forget()
	return err
}

// Finish stops the capture and returns all that it saw, in order.
func (c *Capture) Finish() (Captured, error) {
	lost, err := c.tap.Stop()
	c.forget()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Captured{Segments: c.segments, Lost: lost + c.beyond, Ignored: c.ignored}, err
}

// Wait returns the first segment, since the capture began, for which match is
// true, and waits for it at most for the given time.
func (c *Capture) Wait(limit time.Duration, match func(*Segment) bool) (Segment, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	seen := 0
	for {
		over := c.tap.over()
		c.mu.Lock()
		for ; seen < len(c.segments); seen++ {
			if match(&c.segments[seen]) {
				s := c.segments[seen]
				c.mu.Unlock()
				return s, nil
			}
		}
		changed := c.changed
		c.mu.Unlock()
		if over {
			return Segment{}, errors.Join(c.tap.err, errors.New("capture: stopped before the segment came"))
		}
		select {
		case <-changed:
		case <-c.tap.done:
		case <-timer.C:
			return Segment{}, fmt.Errorf("capture: no such segment among %d within %s", seen, limit)
		}
	}
}
