// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNamespaceGone says that a network namespace is no longer where it was
// found.
var ErrNamespaceGone = errors.New("the network namespace is gone")

// errNotReturned is what Do returns if fn left by runtime.Goexit.
var errNotReturned = errors.New("the function in the network namespace did not return")

// Do runs fn on a thread that is in the namespace, and returns its error. In
// fn, the calling thread's sockets, /proc/sys/net and /proc/thread-self/net
// are those of the namespace (/proc/net and /proc/self/net are not); a
// goroutine that fn starts is outside. If the namespace has vanished, or its
// path now leads to another one, fn is not run and the error is
// [ErrNamespaceGone]. Needs CAP_SYS_ADMIN, except for our own namespace.
func (n Namespace) Do(fn func() error) error {
	err := errNotReturned
	done := make(chan struct{})
	go onOtherThread(func() (clean bool) {
		defer close(done)
		clean = true
		own, err2 := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err2 != nil {
			err = fmt.Errorf("/proc/thread-self/ns/net: %w", err2)
			return clean
		}
		defer unix.Close(own)
		if err2 := n.enter(own); err2 != nil {
			err = err2
			return clean
		}
		clean = false
		// Deferred, so that the thread is restored even if fn leaves by Goexit.
		defer func() { clean = unix.Setns(own, unix.CLONE_NEWNET) == nil }()
		err = fn()
		return clean
	})
	<-done
	return err
}

// enter moves the calling thread, whose namespace is own, into n.
func (n Namespace) enter(own int) error {
	if inode, err := inodeOfFD(own); err == nil && inode == n.Inode {
		return nil
	}
	fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("netns %d at %s: %w", n.Inode, n.Path, ErrNamespaceGone)
	case err != nil:
		return fmt.Errorf("netns %d: open %s: %w", n.Inode, n.Path, err)
	}
	defer unix.Close(fd)
	// The descriptor cannot change its namespace, so there is no race between
	// this check and setns.
	inode, err := inodeOfFD(fd)
	if err != nil || inode != n.Inode {
		return fmt.Errorf("netns %d at %s: %w", n.Inode, n.Path, ErrNamespaceGone)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("netns %d: setns %s: %w: run with CAP_SYS_ADMIN", n.Inode, n.Path, err)
	case err != nil:
		return fmt.Errorf("netns %d: setns %s: %w", n.Inode, n.Path, err)
	}
	return nil
}

// onOtherThread runs fn on a locked thread that is not the main one, and ends
// the thread if fn leaves it tainted. The main thread is spared because it is
// what /proc/self stands for, and because it would not end.
func onOtherThread(fn func() (clean bool)) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// While this goroutine holds the main thread, another cannot get it.
		done := make(chan struct{})
		go func() {
			defer close(done)
			onOtherThread(fn)
		}()
		<-done
		runtime.UnlockOSThread()
		return
	}
	clean := false
	defer func() {
		// A goroutine that ends while locked takes its thread with it.
		if clean {
			runtime.UnlockOSThread()
		}
	}()
	clean = fn()
}

// inodeOf returns the inode of the network namespace at a path.
func inodeOf(path string) (uint32, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: `lsns -t net` lists the network namespaces", path, err)
	}
	defer unix.Close(fd)
	inode, err := inodeOfFD(fd)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: give a path such as /proc/PID/ns/net", path, err)
	}
	return inode, nil
}

// inodeOfFD returns the inode of an open network namespace.
func inodeOfFD(fd int) (uint32, error) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return 0, errors.New("not a network namespace")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return uint32(st.Ino), nil
}
