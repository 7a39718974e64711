// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// The file format of draft-ietf-opsawg-pcap, version 2.4, in nanoseconds.
const (
	pcapMagic   = 0xa1b23c4d
	pcapSnapLen = 256 << 10
	// pcapRaw: packets begin with their IPv4 or IPv6 header.
	pcapRaw = 101
)

// tapeBuffer is what the kernel may queue between two reads.
const tapeBuffer = 32 << 20

// tape saves the packets that pass an interface to a file.
type tape struct {
	fd, stopFD int
	path       string
	file       *os.File
	done       chan error
}

// newTape begins to save what passes a host's end of a link, IPv4 and IPv6.
func newTape(e *lab.End, path string) (*tape, error) {
	t := &tape{fd: -1, stopFD: -1, path: path, done: make(chan error, 1)}
	err := e.Host.Do(func() error { return t.listen(e.Index) })
	if err == nil {
		t.file, err = os.Create(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--pcap: host %s: %w", e.Host.Name(), err), t.close())
	}
	go func() { t.done <- t.record() }()
	return t, nil
}

func (t *tape) listen(index int) error {
	var err error
	if t.stopFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	// Protocol 0: nothing is queued until it is bound.
	t.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w (the kernel needs CONFIG_PACKET, module af_packet)", err)
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapeBuffer); err != nil {
		return fmt.Errorf("set SO_RCVBUFFORCE: %w", err)
	}
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("set SO_TIMESTAMPNS: %w", err)
	}
	if err := unix.Bind(t.fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		return fmt.Errorf("bind to interface %d: %w", index, err)
	}
	return nil
}

// bigEndian is htons.
func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// record writes until it is told to stop.
func (t *tape) record() error {
	w := bufio.NewWriterSize(t.file, 1<<16)
	if _, err := w.Write(pcapHeader()); err != nil {
		return err
	}
	buf, oob := make([]byte, pcapSnapLen), make([]byte, unix.CmsgSpace(16))
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}, {Fd: int32(t.stopFD), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		stopping := fds[1].Revents != 0
		if err := t.drain(w, buf, oob); err != nil {
			return err
		}
		if stopping {
			return w.Flush()
		}
	}
}

// drain writes what is queued.
func (t *tape) drain(w io.Writer, buf, oob []byte) error {
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
		if !ok || ll.Protocol != bigEndian(unix.ETH_P_IP) && ll.Protocol != bigEndian(unix.ETH_P_IPV6) {
			continue
		}
		held := buf[:min(n, len(buf))]
		if _, err := w.Write(append(pcapRecord(stamp(oob[:oobn]), len(held), n), held...)); err != nil {
			return err
		}
	}
}

func pcapHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, pcapMagic)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // reserved
	b = binary.LittleEndian.AppendUint32(b, pcapSnapLen)
	return binary.LittleEndian.AppendUint32(b, pcapRaw)
}

func pcapRecord(at time.Time, held, wire int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(held))
	return binary.LittleEndian.AppendUint32(b, uint32(wire))
}

// stamp is the kernel's time of the packet.
func stamp(oob []byte) time.Time {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// stop ends the file after everything sent before the call is in it. A packet
// that was dropped for want of a buffer is an error.
func (t *tape) stop() error {
	_, _ = unix.Write(t.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	err := <-t.done
	st, statErr := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if statErr == nil && st.Drops > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets were lost", st.Drops))
	}
	if err = errors.Join(err, statErr, t.close()); err != nil {
		return fmt.Errorf("--pcap: %s: %w", t.path, err)
	}
	return nil
}

func (t *tape) close() error {
	var errs []error
	for _, fd := range []int{t.fd, t.stopFD} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	if t.file != nil {
		errs = append(errs, t.file.Close())
	}
	return errors.Join(errs...)
}
