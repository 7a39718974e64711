// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Listener is a TCP socket in LISTEN. That of an MPTCP listener is its first
// subflow, which is an ordinary one.
type Listener struct {
	Cookie  uint64         // the kernel's name for the socket, unique until the next boot
	Local   netip.AddrPort // unspecified address: any; never IPv4-mapped
	Backlog uint32         // sk_ack_backlog: connections that wait for accept()
	Limit   uint32         // sk_max_ack_backlog: it is full with one more than so many
	// Drops is sk_drops, modulo 2^32: what tcp_listendrop() counted, and
	// segments that were dropped before TCP looked at them (a socket filter,
	// IPsec, a wrong TCP-MD5 signature).
	Drops uint32
}

// ErrNoSockDiag says that this kernel does not list sockets.
var ErrNoSockDiag = errors.New("this kernel lists no TCP sockets by sock_diag (CONFIG_INET_DIAG, module tcp_diag)")

// From include/uapi/linux/sock_diag.h, inet_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily = 20
	diagSKMemInfo    = 7 // INET_DIAG_SKMEMINFO
	skMemInfoDrops   = 8 // SK_MEMINFO_DROPS
	tcpListen        = 10
	diagReqLen       = 56 // struct inet_diag_req_v2
	diagMsgLen       = 72 // struct inet_diag_msg
	diagBufferLen    = 1 << 15
)

// ReadListeners lists the listeners in the network namespace of the calling
// thread, see [Namespace.Do], by NETLINK_SOCK_DIAG. The kernel walks its table
// of the listeners of all namespaces, twice, and no other.
func ReadListeners() ([]Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return nil, ErrNoSockDiag
	case err != nil:
		return nil, fmt.Errorf("open a socket of NETLINK_SOCK_DIAG: %w", err)
	}
	defer unix.Close(fd)
	var list []Listener
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := dumpListeners(fd, family, &list)
		switch {
		case errors.Is(err, unix.ENOENT): // sock_diag_lock_handler(), inet_diag_lock_handler()
			if family == unix.AF_INET6 {
				continue // no IPv6
			}
			return nil, ErrNoSockDiag
		case err != nil:
			return nil, fmt.Errorf("list listeners by sock_diag: %w", err)
		}
	}
	return list, nil
}

// dumpListeners appends those of one address family.
func dumpListeners(fd int, family uint8, list *[]Listener) error {
	req := listenersRequest(family)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, diagBufferLen)
	for {
		n, _, flags, _, err := unix.Recvmsg(fd, buf, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("recvmsg", err)
		case flags&unix.MSG_TRUNC != 0:
			return fmt.Errorf("an answer is longer than %d bytes", len(buf))
		}
		done, err := parseListeners(buf[:n], list)
		if done || err != nil {
			return err
		}
	}
}

// listenersRequest is a netlink header and struct inet_diag_req_v2.
func listenersRequest(family uint8) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+diagReqLen)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := b[unix.NLMSG_HDRLEN:]
	body[0], body[1], body[2] = family, unix.IPPROTO_TCP, 1<<(diagSKMemInfo-1)
	binary.NativeEndian.PutUint32(body[4:], 1<<tcpListen)
	return b
}

// parseListeners appends the listeners in a datagram of an answer, and tells
// whether it is the last.
func parseListeners(b []byte, list *[]Listener) (done bool, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return false, fmt.Errorf("a netlink message of %d bytes", len(b))
		}
		size := uint64(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > uint64(len(b)) {
			return false, fmt.Errorf("a netlink message of %d bytes in %d", size, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, netlinkError(body)
		case sockDiagByFamily:
			l, err := parseListener(body)
			if err != nil {
				return false, err
			}
			*list = append(*list, l)
		}
		b = b[min(uint64(len(b)), netlinkAlign(size)):]
	}
	return false, nil
}

func netlinkAlign(size uint64) uint64 {
	return (size + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
}

// netlinkError is the errno of the last message: also NLMSG_DONE has one, with
// which netlink_dump() tells that a dump has failed.
func netlinkError(body []byte) error {
	if len(body) < 4 {
		return errors.New("the last netlink message is cut short")
	}
	if errno := int32(binary.NativeEndian.Uint32(body)); errno < 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// parseListener reads struct inet_diag_msg and the attributes behind it. Ports
// and addresses are in network byte order, all else in that of the host.
func parseListener(b []byte) (Listener, error) {
	if len(b) < diagMsgLen {
		return Listener{}, fmt.Errorf("inet_diag_msg of %d bytes, want %d", len(b), diagMsgLen)
	}
	var addr netip.Addr
	switch family := b[0]; family {
	case unix.AF_INET:
		addr = netip.AddrFrom4([4]byte(b[8:]))
	case unix.AF_INET6:
		addr = netip.AddrFrom16([16]byte(b[8:])).Unmap()
	default:
		return Listener{}, fmt.Errorf("inet_diag_msg of address family %d", family)
	}
	l := Listener{
		Cookie:  binary.NativeEndian.Uint64(b[44:]),
		Local:   netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:])),
		Backlog: binary.NativeEndian.Uint32(b[56:]),
		Limit:   binary.NativeEndian.Uint32(b[60:]),
	}
	info, err := attribute(b[diagMsgLen:], diagSKMemInfo)
	if err != nil {
		return Listener{}, err
	}
	if len(info) < 4*(skMemInfoDrops+1) {
		return Listener{}, fmt.Errorf("INET_DIAG_SKMEMINFO of %d bytes, want %d or more", len(info), 4*(skMemInfoDrops+1))
	}
	l.Drops = binary.NativeEndian.Uint32(info[4*skMemInfoDrops:])
	return l, nil
}

// attribute finds a netlink attribute; nil if it is not there.
func attribute(b []byte, kind uint16) ([]byte, error) {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlAttr {
			return nil, fmt.Errorf("a netlink attribute of %d bytes", len(b))
		}
		size := uint64(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > uint64(len(b)) {
			return nil, fmt.Errorf("a netlink attribute of %d bytes in %d", size, len(b))
		}
		if binary.NativeEndian.Uint16(b[2:]) == kind {
			return b[unix.SizeofNlAttr:size], nil
		}
		b = b[min(uint64(len(b)), netlinkAlign(size)):]
	}
	return nil, nil
}
