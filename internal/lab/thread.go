// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onOwnThread starts fn on an OS thread that ends with it, so that whatever fn
// does to the thread's namespaces reaches no other goroutine. It is never the
// first thread of the process: that one cannot end, and /proc/PID/ns shows it.
func onOwnThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn() // returning while locked ends the thread
			return
		}
		// While this goroutine occupies the first thread, another cannot get it.
		taken := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(taken)
			fn()
		}()
		<-taken
		runtime.UnlockOSThread()
	}()
}

var errGoexit = errors.New("function left by runtime.Goexit (a test's FailNow inside Do?)")

// pin ties the calling thread, which must be one of onOwnThread, to the first
// CPU that the process may use. Where both sides of a connection do so, their
// segments cannot overtake each other. On two CPUs now and then the ACK of a FIN
// arrives behind the FIN sent after it; TIME_WAIT answers it, the closed socket
// answers that with RST, and the TIME_WAIT socket is gone.
func pin() error {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(unix.Getpid(), &allowed); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	for cpu := range 8 * int(unsafe.Sizeof(allowed)) {
		if !allowed.IsSet(cpu) {
			continue
		}
		var one unix.CPUSet
		one.Set(cpu)
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
		return nil
	}
	return errors.New("sched_getaffinity: no CPU allowed")
}

// pinned runs fn on a thread tied to the CPU of pin, and waits for it.
func pinned(fn func() error) error {
	done := make(chan error, 1)
	onOwnThread(func() {
		if err := pin(); err != nil {
			done <- err
			return
		}
		done <- fn()
	})
	return <-done
}

// call runs fn and turns a panic into a value, to be raised again by the
// goroutine that asked for the call, whose deferred functions close the lab.
func call(fn func() error) (panicked any, err error) {
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
		}
	}()
	return nil, fn()
}
