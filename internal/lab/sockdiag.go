// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// State is a TCP state, numbered as in include/net/tcp_states.h.
type State uint8

// The states that the lab asks for.
const (
	Established State = 1
	SynSent     State = 2
	FinWait2    State = 5
	TimeWait    State = 6
	Listening   State = 10
)

// Socket is a TCP socket as sock_diag reports it.
type Socket struct {
	Local, Remote netip.AddrPort // addresses of an AF_INET6 socket may be IPv4-mapped
	State         State          // of a TIME_WAIT socket its substate: TimeWait or FinWait2
	TimeWait      bool           // a TIME_WAIT socket (struct inet_timewait_sock)
	Remaining     time.Duration  // until its timer fires, if it has one
	UID, Inode    uint32
	Cookie        uint64

	family uint8
	ifIdx  uint32
}

// From include/uapi/linux/sock_diag.h and inet_diag.h.
const (
	sockDiagByFamily = 20
	sockDestroy      = 21
	timerTimeWait    = 3 // idiag_timer of a TIME_WAIT socket
	diagReqLen       = 56
	diagMsgLen       = 72
	nlHdrLen         = unix.NLMSG_HDRLEN
)

// TimeWaits lists the host's sockets in TIME_WAIT, IPv4 and IPv6.
func (h *Host) TimeWaits() ([]Socket, error) {
	// The kernel filters by substate, so FIN_WAIT2 must be asked for too, and
	// brings the real FIN_WAIT2 sockets with it.
	all, err := h.Sockets(TimeWait, FinWait2)
	if err != nil {
		return nil, err
	}
	var tw []Socket
	for _, s := range all {
		if s.TimeWait {
			tw = append(tw, s)
		}
	}
	return tw, nil
}

// Sockets lists the host's TCP sockets in the given states, IPv4 and IPv6.
func (h *Host) Sockets(states ...State) ([]Socket, error) {
	var mask uint32
	for _, s := range states {
		mask |= 1 << s
	}
	var all []Socket
	err := h.withDiag(func(fd int) error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			req := diagRequest(sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, family, mask)
			err := diagExchange(fd, req, func(body []byte) error {
				s, err := parseDiag(body)
				if err == nil {
					all = append(all, s)
				}
				return err
			})
			if err != nil {
				return missing(fmt.Errorf("dump sockets: %w", err), "CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG, module tcp_diag")
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("host %s: sock_diag: %w", h.name, err)
	}
	return all, nil
}

// Destroy ends a socket as "ss -K" does. Kernels differ in what they do for
// TIME_WAIT sockets: EOPNOTSUPP is a possible answer.
func (h *Host) Destroy(s Socket) error {
	req := diagRequest(sockDestroy, unix.NLM_F_REQUEST|unix.NLM_F_ACK, s.family, 0)
	id := req[nlHdrLen+8:]
	binary.BigEndian.PutUint16(id, s.Local.Port())
	binary.BigEndian.PutUint16(id[2:], s.Remote.Port())
	copy(id[4:20], s.Local.Addr().AsSlice())
	copy(id[20:36], s.Remote.Addr().AsSlice())
	binary.NativeEndian.PutUint32(id[36:], s.ifIdx)
	binary.NativeEndian.PutUint64(id[40:], s.Cookie)
	err := h.withDiag(func(fd int) error {
		return diagExchange(fd, req, func([]byte) error { return nil })
	})
	if err != nil {
		return missing(fmt.Errorf("host %s: destroy %s to %s: %w", h.name, s.Local, s.Remote, err), "CONFIG_INET_DIAG_DESTROY")
	}
	return nil
}

// KillTimeWaits destroys all of the host's TIME_WAIT sockets and returns how
// many it has killed. One that expired meanwhile is not counted.
func (h *Host) KillTimeWaits() (int, error) {
	tw, err := h.TimeWaits()
	if err != nil {
		return 0, err
	}
	killed := 0
	for _, s := range tw {
		err := h.Destroy(s)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return killed, err
		}
		if err == nil {
			killed++
		}
	}
	return killed, nil
}

func (h *Host) withDiag(fn func(fd int) error) error {
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
		if err != nil {
			return missing(fmt.Errorf("netlink socket: %w", err), "CONFIG_INET_DIAG, module inet_diag")
		}
		return errors.Join(fn(fd), unix.Close(fd))
	})
}

// diagRequest is a netlink header and struct inet_diag_req_v2.
func diagRequest(kind, flags uint16, family uint8, states uint32) []byte {
	b := make([]byte, nlHdrLen+diagReqLen)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	b[nlHdrLen], b[nlHdrLen+1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[nlHdrLen+4:], states)
	return b
}

// diagExchange sends a request and hands each answer to take, until the dump is
// done or the request acknowledged.
func diagExchange(fd int, req []byte, take func(body []byte) error) error {
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 1<<17)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= nlHdrLen; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < nlHdrLen || size > len(b) {
				return fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
			}
			body := b[nlHdrLen:size]
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				return nlError(body)
			case sockDiagByFamily:
				if err := take(body); err != nil {
					return err
				}
			}
			b = b[min(len(b), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
}

// nlError is the errno of an NLMSG_ERROR; nil for 0, the acknowledgement.
func nlError(body []byte) error {
	if len(body) < 4 {
		return errors.New("netlink error message is cut short")
	}
	if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// parseDiag reads struct inet_diag_msg: ports and addresses in network byte
// order, all else in host byte order, times in milliseconds.
func parseDiag(b []byte) (Socket, error) {
	if len(b) < diagMsgLen {
		return Socket{}, fmt.Errorf("inet_diag_msg of %d bytes, want %d", len(b), diagMsgLen)
	}
	s := Socket{
		family: b[0], State: State(b[1]), TimeWait: b[2] == timerTimeWait,
		ifIdx:     binary.NativeEndian.Uint32(b[40:]),
		Cookie:    binary.NativeEndian.Uint64(b[44:]),
		Remaining: time.Duration(binary.NativeEndian.Uint32(b[52:])) * time.Millisecond,
		UID:       binary.NativeEndian.Uint32(b[64:]),
		Inode:     binary.NativeEndian.Uint32(b[68:]),
	}
	addr := func(b []byte) netip.Addr {
		if s.family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b))
		}
		return netip.AddrFrom16([16]byte(b))
	}
	s.Local = netip.AddrPortFrom(addr(b[8:]), binary.BigEndian.Uint16(b[4:]))
	s.Remote = netip.AddrPortFrom(addr(b[24:]), binary.BigEndian.Uint16(b[6:]))
	return s, nil
}
