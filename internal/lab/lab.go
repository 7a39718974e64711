// SPDX-License-Identifier: Apache-2.0

// Package lab builds small networks out of network namespaces, drives real TCP
// connections through them and reads the truth about them from the kernel.
//
// It talks netlink itself and runs no external programs, so it works from a
// bare initramfs. It needs CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW.
//
// Namespaces are anonymous: only threads and file descriptors of this process
// hold them. They vanish with the process however it ends, SIGKILL included,
// and nothing is ever created in the namespace the process started in.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lab is a set of hosts and the links between them. Its methods may be called
// from several goroutines.
type Lab struct {
	name    string
	named   bool
	outside map[uint64]bool // namespaces that are not ours and never to be changed
	stop    func() bool

	mu     sync.Mutex
	hosts  []*Host
	closed bool

	closer   sync.Once
	closeErr error
}

// Option changes how New builds a lab.
type Option func(*Lab)

// Named also binds each namespace to /run/netns/twscope-PID-LAB-HOST, so that
// "ip netns exec" reaches it. Close removes the binds; after SIGKILL they stay.
func Named() Option {
	return func(l *Lab) { l.named = true }
}

// New makes an empty lab. It is closed when ctx ends, so a context from
// signal.NotifyContext removes everything on SIGINT; Close does it earlier.
func New(ctx context.Context, name string, opts ...Option) (*Lab, error) {
	if name == "" || strings.ContainsAny(name, "/ \n") {
		return nil, fmt.Errorf("lab name %q: want a non-empty word without / or spaces", name)
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("lab %s: effective uid is %d, run it as root", name, os.Geteuid())
	}
	l := &Lab{name: fmt.Sprintf("twscope-%d-%s", os.Getpid(), name), outside: map[uint64]bool{}}
	for _, opt := range opts {
		opt(l)
	}
	inode, err := inodeOf("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w (is /proc mounted?)", name, err)
	}
	l.outside[inode] = true
	// Often forbidden in containers; the check in Sysctl does not rest on it.
	if inode, err := inodeOf("/proc/1/ns/net"); err == nil {
		l.outside[inode] = true
	}
	l.stop = context.AfterFunc(ctx, func() { _ = l.Close() })
	return l, nil
}

// Name is unique among the labs of all processes as long as the caller gives
// its own labs different names.
func (l *Lab) Name() string { return l.name }

// Close kills what still runs in the lab and removes it. It may be called more
// than once; every call returns when all is gone, with what the first returned.
func (l *Lab) Close() error {
	l.closer.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Lab) close() error {
	l.mu.Lock()
	l.closed = true
	hosts := l.hosts
	l.hosts = nil
	l.mu.Unlock()

	l.stop()
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// Host adds a host: a new network namespace with lo up, duplicate address
// detection off and reverse path filtering off.
func (l *Lab) Host(name string) (*Host, error) {
	if name == "" || strings.ContainsAny(name, "/ \n") {
		return nil, fmt.Errorf("host name %q: want a non-empty word without / or spaces", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("%s: add host %s: the lab is closed", l.name, name)
	}
	for _, h := range l.hosts {
		if h.name == name {
			return nil, fmt.Errorf("%s: host %s exists already", l.name, name)
		}
	}
	h, err := newHost(l, name)
	if err != nil {
		return nil, fmt.Errorf("%s: host %s: %w", l.name, name, err)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Hosts adds several hosts, in the order of names.
func (l *Lab) Hosts(names ...string) ([]*Host, error) {
	hosts := make([]*Host, 0, len(names))
	for _, name := range names {
		h, err := l.Host(name)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// missing adds to err which part of the kernel is needed, if errno is one of
// those by which a kernel says that it lacks something.
func missing(err error, need string) error {
	for _, errno := range []unix.Errno{
		unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.ENOENT, unix.ENOSYS, unix.ENOPROTOOPT,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w (the kernel needs %s)", err, need)
		}
	}
	return err
}
