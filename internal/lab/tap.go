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

// tapBuffer is what the kernel may queue, about 40,000 packets.
const tapBuffer = 32 << 20

// Packet is one packet that a Tap saw.
type Packet struct {
	Data     []byte // from the network header on, cut at the snap length; the Tap's own
	Length   int    // on the wire, in bytes
	Protocol uint16 // EtherType
	Outgoing bool
	Time     time.Time // when the kernel saw it; zero: not known
}

// Tap hands over the packets that pass one interface.
type Tap struct {
	fd, stopFD int
	snapLen    int
	take       func(*Packet)
	idle       func()
	done       chan struct{}
	err        error // once done
	stop       func() (lost uint64, err error)
}

// Tap gives packets to take, one by one and cut at snapLen bytes, and calls idle
// when there are none for now. Both are called by one goroutine.
func (e *End) Tap(snapLen int, take func(*Packet), idle func()) (*Tap, error) {
	return e.Host.tap(e.Index, snapLen, take, idle)
}

func (h *Host) tap(index, snapLen int, take func(*Packet), idle func()) (*Tap, error) {
	t := &Tap{fd: -1, stopFD: -1, snapLen: snapLen, take: take, idle: idle, done: make(chan struct{})}
	if err := h.Do(func() error { return t.open(index) }); err != nil {
		return nil, errors.Join(fmt.Errorf("host %s: capture: %w", h.name, err), t.close())
	}
	t.stop = sync.OnceValues(t.finish)
	go func() {
		defer close(t.done)
		t.err = t.run()
	}()
	return t, nil
}

func (t *Tap) open(index int) error {
	var err error
	if t.stopFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// SOCK_DGRAM: packets begin with the network header on every link type.
	// Protocol 0: nothing is queued until the socket is bound to the interface.
	t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return missing(fmt.Errorf("packet socket: %w", err), "CONFIG_PACKET, module af_packet")
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer); err != nil {
		return fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("set SO_TIMESTAMPNS: %w", err)
	}
	if err := unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: swapped(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		return fmt.Errorf("bind to interface %d: %w", index, err)
	}
	return nil
}

// swapped is htons and ntohs.
func swapped(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (t *Tap) run() error {
	buf, oob := make([]byte, t.snapLen), make([]byte, unix.CmsgSpace(16))
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.stopFD), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		stopping := fds[1].Revents != 0
		// Also when stopping: what was sent before Stop is in the queue by now.
		if err := t.drain(buf, oob); err != nil {
			return err
		}
		if stopping {
			return nil
		}
	}
}

func (t *Tap) drain(buf, oob []byte) error {
	defer t.idle()
	for {
		n, oobn, _, from, err := unix.Recvmsg(t.fd, buf, oob, unix.MSG_TRUNC)
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
		t.take(&Packet{
			Data: buf[:min(n, len(buf))], Length: n, Protocol: swapped(ll.Protocol),
			Outgoing: ll.Pkttype == unix.PACKET_OUTGOING, Time: stampOf(oob[:oobn]),
		})
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

// Stop ends it after everything sent before the call is taken, and tells how
// many packets were lost for want of a buffer. Later calls return the same.
func (t *Tap) Stop() (lost uint64, err error) { return t.stop() }

func (t *Tap) finish() (lost uint64, err error) {
	_, _ = unix.Write(t.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-t.done
	err = t.err
	st, statErr := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if statErr != nil {
		err = errors.Join(err, fmt.Errorf("read PACKET_STATISTICS: %w", statErr))
	} else {
		lost = uint64(st.Drops)
	}
	return lost, errors.Join(err, t.close())
}

// over tells whether nothing more will be taken.
func (t *Tap) over() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *Tap) close() error {
	var errs []error
	for _, fd := range []int{t.fd, t.stopFD} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
