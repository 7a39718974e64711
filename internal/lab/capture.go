// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// snapLen holds the longest IP and TCP headers.
	snapLen = 192
	// captureBuffer is what the kernel may queue, about 40,000 packets.
	captureBuffer = 32 << 20
	// maxSegments bounds what one capture keeps; the rest counts as lost.
	maxSegments = 1 << 20
)

// Capture records the TCP segments that pass one interface.
type Capture struct {
	fd, stopFD int
	loopback   bool
	done       chan struct{}
	once       sync.Once
	forget     func()

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when segments are added
	segments []Segment
	lost     uint64
	ignored  uint64
	err      error
}

// Capture starts to record on one end of a link. It sees packets as they are
// on the wire: behind a gateway's NAT if the link is.
func (e *End) Capture() (*Capture, error) {
	return e.Host.capture(e.Index, false)
}

// CaptureLoopback records on the host's lo, each segment once.
func (h *Host) CaptureLoopback() (*Capture, error) { return h.capture(1, true) }

func (h *Host) capture(index int, loopback bool) (*Capture, error) {
	c := &Capture{fd: -1, stopFD: -1, loopback: loopback, done: make(chan struct{}), changed: make(chan struct{})}
	if err := h.Do(func() error { return c.open(index) }); err != nil {
		for _, fd := range []int{c.fd, c.stopFD} {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
		return nil, fmt.Errorf("host %s: capture: %w", h.name, err)
	}
	go c.run()
	c.forget = h.atClose(func() { _ = c.Stop() })
	return c, nil
}

func (c *Capture) open(index int) error {
	var err error
	if c.stopFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// SOCK_DGRAM: packets begin with the network header on every link type.
	// Protocol 0: nothing is queued until the socket is bound to the interface.
	c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return missing(fmt.Errorf("packet socket: %w", err), "CONFIG_PACKET, module af_packet")
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer); err != nil {
		return fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("set SO_TIMESTAMPNS: %w", err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return fmt.Errorf("bind to interface %d: %w", index, err)
	}
	return nil
}

func (c *Capture) run() {
	defer close(c.done)
	buf, oob := make([]byte, snapLen), make([]byte, unix.CmsgSpace(16))
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.stopFD), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			c.fail(fmt.Errorf("poll: %w", err))
			return
		}
		stopping := fds[1].Revents != 0
		// Also when stopping: what was sent before Stop is in the queue by now.
		if err := c.drain(buf, oob); err != nil {
			c.fail(err)
			return
		}
		if stopping {
			return
		}
	}
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.signal()
}

// signal wakes Wait. The caller holds mu.
func (c *Capture) signal() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Capture) drain(buf, oob []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	for {
		n, oobn, _, from, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		outgoing := ll.Pkttype == unix.PACKET_OUTGOING
		if outgoing && c.loopback {
			continue // comes again as PACKET_HOST
		}
		s, err := parseSegment(buf[:min(n, len(buf))], n)
		if err != nil {
			c.ignored++
			continue
		}
		if len(c.segments) == maxSegments {
			c.lost++
			continue
		}
		s.Outgoing, s.Time = outgoing, stampOf(oob[:oobn])
		c.segments = append(c.segments, s)
	}
}

func stampOf(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Time{}
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
	c.once.Do(func() {
		_, _ = unix.Write(c.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-c.done
		st, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.err = errors.Join(c.err, fmt.Errorf("read PACKET_STATISTICS: %w", err))
		} else {
			c.lost += uint64(st.Drops)
		}
		c.err = errors.Join(c.err, unix.Close(c.fd), unix.Close(c.stopFD))
		c.forget()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Finish stops the capture and returns all that it saw, in order.
func (c *Capture) Finish() (Captured, error) {
	err := c.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Captured{Segments: c.segments, Lost: c.lost, Ignored: c.ignored}, err
}

// Wait returns the first segment, since the capture began, for which match is
// true, and waits for it at most for the given time.
func (c *Capture) Wait(limit time.Duration, match func(*Segment) bool) (Segment, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	seen := 0
	for {
		c.mu.Lock()
		for ; seen < len(c.segments); seen++ {
			if match(&c.segments[seen]) {
				s := c.segments[seen]
				c.mu.Unlock()
				return s, nil
			}
		}
		changed, err := c.changed, c.err
		c.mu.Unlock()
		if err != nil {
			return Segment{}, err
		}
		select {
		case <-changed:
		case <-c.done:
			return Segment{}, errors.New("capture: stopped before the segment came")
		case <-timer.C:
			return Segment{}, fmt.Errorf("capture: no such segment among %d within %s", seen, limit)
		}
	}
}
