// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Via is the kernel interface that connects a socket.
type Via string

// The ways to connect.
const (
	ViaSyscall Via = ""       // connect(2)
	ViaURing   Via = "uring"  // IORING_OP_CONNECT, submitted by io_uring_enter(2)
	ViaSQPoll  Via = "sqpoll" // IORING_OP_CONNECT, submitted by the kernel's SQPOLL thread
)

// Dial says how a socket is prepared and connected. One Dial is one socket(2)
// and one connect: nothing is ever tried again.
type Dial struct {
	LocalAddr netip.Addr    // bind to it; invalid = no bind, unless LocalPort is set
	LocalPort uint16        // bind to it, with SO_REUSEADDR
	NoPort    bool          // IP_BIND_ADDRESS_NO_PORT: bind the address, pick the port in connect
	Linger    *int          // SO_LINGER in seconds; 0 closes with RST
	MPTCP     bool          // IPPROTO_MPTCP
	Timeout   time.Duration // when it passes, connect counts as failed with EINPROGRESS; 0 = the kernel's own. Not with io_uring
	Via       Via
}

// Conn is a connected socket without Go's poller around it.
type Conn struct {
	fd int
}

// Connect makes one connection from the host. An IPv4-mapped target is reached
// through an AF_INET6 socket. The error wraps the kernel's errno.
func (h *Host) Connect(d Dial, target netip.AddrPort) (*Conn, error) {
	c := &Conn{fd: -1}
	err := h.Do(func() error {
		fd, err := d.socket(target.Addr())
		if err != nil {
			return err
		}
		if err := d.connect(fd, target, new(atomic.Bool)); err != nil {
			return errors.Join(fmt.Errorf("host %s: connect to %s: %w", h.name, target, err), unix.Close(fd))
		}
		if err := setSendTimeout(fd, 0); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		c.fd = fd
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// socket opens and binds a blocking socket in the calling thread's namespace.
func (d *Dial) socket(target netip.Addr) (fd int, err error) {
	fd, err = tcpSocket(target.Is6(), d.MPTCP)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	slice := connectSlice
	if d.Timeout > 0 {
		slice = min(slice, d.Timeout)
	}
	if err := setSendTimeout(fd, slice); err != nil {
		return -1, err
	}
	if d.Linger != nil {
		l := &unix.Linger{Onoff: 1, Linger: int32(*d.Linger)}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, l); err != nil {
			return -1, fmt.Errorf("set SO_LINGER: %w", err)
		}
	}
	return fd, d.bind(fd, target)
}

func (d *Dial) bind(fd int, target netip.Addr) error {
	if !d.LocalAddr.IsValid() && d.LocalPort == 0 {
		return nil
	}
	if d.LocalPort != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("set SO_REUSEADDR: %w", err)
		}
	}
	if d.NoPort {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
	}
	local := d.LocalAddr
	switch {
	case !local.IsValid() && target.Is6():
		local = netip.IPv6Unspecified()
	case !local.IsValid():
		local = netip.IPv4Unspecified()
	case target.Is6() && local.Is4():
		local = netip.AddrFrom16(local.As16())
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(local, d.LocalPort))); err != nil {
		return fmt.Errorf("bind to %s port %d: %w", local, d.LocalPort, err)
	}
	return nil
}

// connectSlice is how long connect(2) itself may block (SO_SNDTIMEO). Then it
// goes on in the background and poll(2) waits, which unlike connect can be
// stopped: kernels with a pending waiter refuse to shut a SYN_SENT socket down.
const connectSlice = 100 * time.Millisecond

// connect returns the bare errno of a failed connect; EINPROGRESS if the
// Timeout has passed, ECANCELED if stopped was set meanwhile.
func (d *Dial) connect(fd int, target netip.AddrPort, stopped *atomic.Bool) error {
	switch d.Via {
	case ViaSyscall:
	case ViaURing, ViaSQPoll:
		return uringConnect(fd, target, d.Via == ViaSQPoll)
	default:
		return fmt.Errorf("via %q: want %q, %q or nothing", d.Via, ViaURing, ViaSQPoll)
	}
	start := time.Now()
	err := unix.Connect(fd, sockaddr(target))
	// EINTR: a signal of the Go runtime; like EINPROGRESS, not the end.
	if !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EINTR) {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for !stopped.Load() {
		wait := connectSlice
		if d.Timeout > 0 {
			if wait = min(wait, d.Timeout-time.Since(start)); wait <= 0 {
				return unix.EINPROGRESS
			}
		}
		n, err := unix.Poll(fds, int(wait.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n <= 0 {
			continue
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	}
	return unix.ECANCELED
}

// Local is the socket's own address; the zero AddrPort once it is closed.
func (c *Conn) Local() netip.AddrPort {
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

// CloseWrite sends FIN and keeps the socket.
func (c *Conn) CloseWrite() error {
	return pinned(func() error { return unix.Shutdown(c.fd, unix.SHUT_WR) })
}

// Write sends p, blocking.
func (c *Conn) Write(p []byte) (int, error) { return unix.Write(c.fd, p) }

// WaitEOF reads until the peer's FIN has come, at most for the given time.
func (c *Conn) WaitEOF(limit time.Duration) error {
	if err := setRecvTimeout(c.fd, limit); err != nil {
		return err
	}
	return readEOF(c.fd)
}

// Close closes the socket.
func (c *Conn) Close() error {
	fd := c.fd
	c.fd = -1
	return pinned(func() error { return unix.Close(fd) })
}

func setSendTimeout(fd int, limit time.Duration) error {
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return fmt.Errorf("set SO_SNDTIMEO: %w", err)
	}
	return nil
}

func setRecvTimeout(fd int, limit time.Duration) error {
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func readEOF(fd int) error {
	var buf [512]byte
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return nil
		}
	}
}

func tcpSocket(v6, mptcp bool) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_TCP
	if v6 {
		family = unix.AF_INET6
	}
	if mptcp {
		proto = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, proto)
	if err != nil && mptcp {
		return -1, missing(fmt.Errorf("socket: %w", err), "CONFIG_MPTCP, and net.mptcp.enabled=1")
	}
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
