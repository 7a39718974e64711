// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// defaultBacklog is enough for all connections of a fast load to wait; the
// kernel cuts it to net.core.somaxconn.
const defaultBacklog = 4096

// Server describes a TCP server that sends nothing.
type Server struct {
	Network     string     // "tcp" (IPv4 and IPv6, the default), "tcp4" or "tcp6"
	Addr        netip.Addr // listen on this address only; invalid = all
	Port        uint16     // 0 = chosen by the kernel
	Ports       int        // listeners on Port, Port+1, ...; 0 is 1
	ClosesFirst bool       // close(2) after accept; else after the client's FIN
	MPTCP       bool       // IPPROTO_MPTCP, as Go's listeners are by default
	ReusePort   bool       // SO_REUSEPORT
	Backlog     int        // 0 is 4096
	NeverAccept bool       // listen only, so that the backlog fills
	Threads     int        // that accept; 0 is 1
	Spread      bool       // let the threads run on all CPUs: see Load.Spread
}

// ServerStats counts what a server has done.
type ServerStats struct {
	Accepted int64 `json:"accepted"`
	Closed   int64 `json:"closed"`
	Resets   int64 `json:"resets"` // connections that ended with ECONNRESET
}

// Serving is a running server.
type Serving struct {
	addrs  []netip.AddrPort
	fds    []int
	stopFD int
	wg     sync.WaitGroup
	once   sync.Once
	forget func()

	first                    bool
	accepted, closed, resets atomic.Int64
}

// Serve starts a server in the host. It accepts connections when Serve returns,
// and stops with Stop or with the lab.
func (h *Host) Serve(s Server) (*Serving, error) {
	sv := &Serving{first: s.ClosesFirst, stopFD: -1}
	err := h.Do(func() error { return sv.listen(s) })
	if err == nil {
		err = sv.start(s)
	}
	if err != nil {
		sv.Stop()
		return nil, fmt.Errorf("host %s: server: %w", h.name, err)
	}
	sv.forget = h.atClose(sv.Stop)
	return sv, nil
}

// Addr is the address of the first listener. With a server on all addresses it
// is the unspecified one.
func (sv *Serving) Addr() netip.AddrPort { return sv.addrs[0] }

// Targets are the addresses at which to reach each of the listeners on each of
// addrs.
func (sv *Serving) Targets(addrs ...netip.Addr) []netip.AddrPort {
	var targets []netip.AddrPort
	for _, a := range addrs {
		for _, l := range sv.addrs {
			targets = append(targets, netip.AddrPortFrom(a, l.Port()))
		}
	}
	return targets
}

// Stats may be called at any time.
func (sv *Serving) Stats() ServerStats {
	return ServerStats{Accepted: sv.accepted.Load(), Closed: sv.closed.Load(), Resets: sv.resets.Load()}
}

// Stop closes the listeners and all connections still open.
func (sv *Serving) Stop() {
	sv.once.Do(func() {
		_, _ = unix.Write(sv.stopFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		sv.wg.Wait()
		for _, fd := range sv.fds {
			_ = unix.Close(fd)
		}
		if sv.stopFD >= 0 {
			_ = unix.Close(sv.stopFD)
		}
		if sv.forget != nil {
			sv.forget()
		}
	})
}

func (sv *Serving) listen(s Server) error {
	addr := s.Addr
	switch {
	case s.Network != "" && s.Network != "tcp" && s.Network != "tcp4" && s.Network != "tcp6":
		return fmt.Errorf("network %q: want tcp, tcp4 or tcp6", s.Network)
	case !addr.IsValid() && s.Network == "tcp4":
		addr = netip.IPv4Unspecified()
	case !addr.IsValid():
		addr = netip.IPv6Unspecified()
	}
	for i := range max(s.Ports, 1) {
		port := s.Port
		if port != 0 {
			port += uint16(i)
		}
		fd, err := tcpSocket(addr.Is6(), s.MPTCP)
		if err != nil {
			return err
		}
		sv.fds = append(sv.fds, fd)
		if err := listenOn(fd, s, netip.AddrPortFrom(addr, port)); err != nil {
			return err
		}
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return fmt.Errorf("getsockname: %w", err)
		}
		sv.addrs = append(sv.addrs, addrPort(sa))
	}
	return nil
}

func listenOn(fd int, s Server, addr netip.AddrPort) error {
	set := func(level, opt int, on bool) error {
		v := 0
		if on {
			v = 1
		}
		return unix.SetsockoptInt(fd, level, opt, v)
	}
	errs := []error{set(unix.SOL_SOCKET, unix.SO_REUSEADDR, true)}
	if addr.Addr().Is6() {
		errs = append(errs, set(unix.SOL_IPV6, unix.IPV6_V6ONLY, s.Network == "tcp6"))
	}
	if s.ReusePort {
		errs = append(errs, set(unix.SOL_SOCKET, unix.SO_REUSEPORT, true))
	}
	errs = append(errs, unix.SetNonblock(fd, true))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set socket options: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(addr)); err != nil {
		return fmt.Errorf("bind to %s: %w", addr, err)
	}
	backlog := s.Backlog
	if backlog == 0 {
		backlog = defaultBacklog
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	return nil
}

// start makes the accepting threads. An accepted socket belongs to the
// listener's namespace, whichever thread accepts it.
func (sv *Serving) start(s Server) error {
	var err error
	if sv.stopFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if s.NeverAccept {
		return nil
	}
	var loops []*acceptLoop
	for range max(s.Threads, 1) {
		a := &acceptLoop{sv: sv, conns: map[int]bool{}, listeners: map[int]bool{}}
		if a.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			err = fmt.Errorf("epoll_create1: %w", err)
			break
		}
		loops = append(loops, a)
		if err = a.watch(); err != nil {
			break
		}
	}
	if err != nil {
		for _, a := range loops {
			_ = unix.Close(a.epfd)
		}
		return err
	}
	errs := make(chan error, len(loops))
	for _, a := range loops {
		sv.wg.Add(1)
		onOwnThread(func() {
			defer sv.wg.Done()
			if s.Spread {
				errs <- nil
			} else {
				errs <- pin()
			}
			a.run()
		})
	}
	for range loops {
		err = errors.Join(err, <-errs)
	}
	return err
}

// acceptLoop is one thread of a server. Connections that are not closed at once
// wait in its epoll set for the client's FIN.
type acceptLoop struct {
	sv        *Serving
	epfd      int
	listeners map[int]bool
	conns     map[int]bool
}

func (a *acceptLoop) watch() error {
	add := func(fd int, events uint32) error {
		return unix.EpollCtl(a.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	}
	errs := []error{add(a.sv.stopFD, unix.EPOLLIN)}
	for _, fd := range a.sv.fds {
		a.listeners[fd] = true
		errs = append(errs, add(fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE))
	}
	return errors.Join(errs...)
}

func (a *acceptLoop) run() {
	defer func() {
		for fd := range a.conns {
			_ = unix.Close(fd)
		}
		_ = unix.Close(a.epfd)
	}()
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(a.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			switch {
			case fd == a.sv.stopFD:
				return
			case a.listeners[fd]:
				a.accept(fd)
			default:
				a.read(fd)
			}
		}
	}
}

// acceptBatch keeps one busy listener from starving the others and Stop.
const acceptBatch = 64

func (a *acceptLoop) accept(listener int) {
	for range acceptBatch {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		a.sv.accepted.Add(1)
		if a.sv.first {
			_ = unix.Close(fd)
			a.sv.closed.Add(1)
			continue
		}
		a.conns[fd] = true
		if a.read(fd) {
			continue
		}
		ev := &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(a.epfd, unix.EPOLL_CTL_ADD, fd, ev); err != nil {
			a.drop(fd)
		}
	}
}

// read discards what has come and reports whether the connection is over.
func (a *acceptLoop) read(fd int) bool {
	var buf [4096]byte
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case n > 0 || errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			a.sv.resets.Add(1)
		}
		a.drop(fd)
		return true
	}
}

func (a *acceptLoop) drop(fd int) {
	delete(a.conns, fd)
	_ = unix.Close(fd)
	a.sv.closed.Add(1)
}
