// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/io_uring.h.
const (
	uringSetupSQPoll   = 1 << 1
	uringOffSQRing     = 0
	uringOffCQRing     = 0x8000000
	uringOffSQEs       = 0x10000000
	uringOpConnect     = 16
	uringSQEFixedFile  = 1 << 0
	uringRegisterFiles = 2
	uringEnterGet      = 1 << 0
	uringEnterWakeup   = 1 << 1
	uringSQNeedWakeup  = 1 << 0
	uringSQESize       = 64
	uringCQESize       = 16
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type uring struct {
	fd           int
	p            uringParams
	sq, cq, sqes []byte
}

// URingUnavailable reports that a connect failed because this kernel has no
// io_uring, or forbids it (sysctl kernel.io_uring_disabled, seccomp).
func URingUnavailable(err error) bool {
	var e *uringError
	return errors.As(err, &e)
}

type uringError struct{ err error }

func (e *uringError) Error() string {
	return fmt.Sprintf("io_uring_setup: %v (the kernel needs CONFIG_IO_URING and kernel.io_uring_disabled=0)", e.err)
}

func (e *uringError) Unwrap() error { return e.err }

// uringConnect connects fd through a ring of its own and returns the errno of
// the connect, as connect(2) would.
func uringConnect(fd int, target netip.AddrPort, sqpoll bool) error {
	r, err := newURing(sqpoll)
	if err != nil {
		return err
	}
	defer r.close()
	sqe := r.sqes[:uringSQESize]
	sqe[0] = uringOpConnect
	file := uint32(fd)
	if sqpoll {
		// Up to 5.10 the SQPOLL thread knows registered files only.
		files := [1]int32{int32(fd)}
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), uringRegisterFiles,
			uintptr(unsafe.Pointer(&files)), 1, 0, 0); errno != 0 {
			return fmt.Errorf("io_uring_register: %w", errno)
		}
		sqe[1], file = uringSQEFixedFile, 0
	}
	raw := rawSockaddr(target)
	var pin runtime.Pinner
	pin.Pin(&raw[0])
	defer pin.Unpin()
	binary.NativeEndian.PutUint32(sqe[4:], file)
	binary.NativeEndian.PutUint64(sqe[8:], uint64(len(raw)))
	binary.NativeEndian.PutUint64(sqe[16:], uint64(uintptr(unsafe.Pointer(&raw[0]))))
	return r.submit(sqpoll)
}

func newURing(sqpoll bool) (*uring, error) {
	r := &uring{}
	if sqpoll {
		r.p.flags, r.p.sqThreadIdle = uringSetupSQPoll, 1000
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno != 0 {
		return nil, &uringError{errno}
	}
	r.fd = int(fd)
	unix.CloseOnExec(r.fd)
	for _, m := range []struct {
		mem  *[]byte
		off  int64
		size uint32
	}{
		{&r.sq, uringOffSQRing, r.p.sq.array + 4*r.p.sqEntries},
		{&r.cq, uringOffCQRing, r.p.cq.cqes + uringCQESize*r.p.cqEntries},
		{&r.sqes, uringOffSQEs, uringSQESize * r.p.sqEntries},
	} {
		var err error
		if *m.mem, err = unix.Mmap(r.fd, m.off, int(m.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			r.close()
			return nil, fmt.Errorf("mmap io_uring: %w", err)
		}
	}
	return r, nil
}

// submit hands over the first SQE and waits for its completion.
func (r *uring) submit(sqpoll bool) error {
	binary.NativeEndian.PutUint32(r.sq[r.p.sq.array:], 0)
	atomic.AddUint32(word(r.sq, r.p.sq.tail), 1)
	toSubmit, flags := uintptr(1), uintptr(uringEnterGet)
	if sqpoll {
		toSubmit = 0
		if atomic.LoadUint32(word(r.sq, r.p.sq.flags))&uringSQNeedWakeup != 0 {
			flags |= uringEnterWakeup
		}
	}
	head := word(r.cq, r.p.cq.head)
	for atomic.LoadUint32(word(r.cq, r.p.cq.tail)) == atomic.LoadUint32(head) {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), toSubmit, 1, flags, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 && n > 0 {
			toSubmit = 0
		}
	}
	res := int32(binary.NativeEndian.Uint32(r.cq[r.p.cq.cqes+8:]))
	atomic.AddUint32(head, 1)
	if res < 0 {
		return unix.Errno(-res)
	}
	return nil
}

func (r *uring) close() {
	for _, mem := range [][]byte{r.sq, r.cq, r.sqes} {
		if mem != nil {
			_ = unix.Munmap(mem)
		}
	}
	_ = unix.Close(r.fd)
}

func word(mem []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&mem[off])) }

// rawSockaddr is struct sockaddr_in or sockaddr_in6.
func rawSockaddr(a netip.AddrPort) []byte {
	family := uint16(unix.AF_INET)
	if a.Addr().Is6() {
		family = unix.AF_INET6
	}
	b := binary.NativeEndian.AppendUint16(nil, family)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if a.Addr().Is4() {
		b = append(b, a.Addr().AsSlice()...)
		return append(b, make([]byte, 8)...) // sin_zero
	}
	b = append(b, 0, 0, 0, 0) // sin6_flowinfo
	b = append(b, a.Addr().AsSlice()...)
	return append(b, 0, 0, 0, 0) // sin6_scope_id
}
