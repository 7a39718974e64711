// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

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

// call runs fn and turns a panic into a value, to be raised again by the
// goroutine that asked for the call, whose deferred functions close the lab.
func call(fn func() error) (err error, panicked any) {
	defer func() {
		if r := recover(); r != nil {
			panicked = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
		}
	}()
	return fn(), nil
}
