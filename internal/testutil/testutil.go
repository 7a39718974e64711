// SPDX-License-Identifier: Apache-2.0

// Package testutil holds what the privileged tests share: skips that CI can
// tell from excuses, a check for leaked file descriptors, and waiting for a
// condition.
//
// A test may skip for two reasons only. It was not started as root, which CI
// never is; or this machine provably lacks what the test needs. The second
// kind starts with [MachineLimit], and with CI=true the test run fails on any
// skip that does not (see the command runtests).
package testutil

import (
	"os"
	"testing"
	"time"
)

// MachineLimit starts the message of every skip that CI accepts.
const MachineLimit = "machine limit: "

// Root skips the test unless it runs as root. With CI=true it fails instead:
// CI that lost its privileges must not look like CI that passed.
func Root(tb testing.TB) {
	tb.Helper()
	root(tb, os.Geteuid(), os.Getenv("CI") == "true")
}

func root(tb testing.TB, euid int, ci bool) {
	tb.Helper()
	switch {
	case euid == 0:
	case ci:
		tb.Fatalf("needs root, and CI=true promises it: run as root, not as uid %d", euid)
	default:
		tb.Skipf("needs root: run `make test` as root or with passwordless sudo")
	}
}

// SkipUnless skips the test unless ok. ok must be a fact about the machine,
// read from the machine (BTF, /proc), never the outcome of what is tested.
// reason completes the sentence "machine limit: ...".
func SkipUnless(tb testing.TB, ok bool, reason string) {
	tb.Helper()
	if !ok {
		tb.Skip(MachineLimit + reason)
	}
}

// Eventually polls cond until it holds, and fails the test if it does not
// within timeout. format and args say what was waited for. cond runs on the
// test's goroutine and at least once, also with a timeout of 0.
func Eventually(tb testing.TB, timeout time.Duration, cond func() bool, format string, args ...any) {
	tb.Helper()
	if !poll(timeout, cond) {
		tb.Fatalf("not within %v: "+format, append([]any{timeout}, args...)...)
	}
}

// poll returns whether cond came to hold within timeout. It starts with short
// pauses, so that what is nearly there costs nothing, and lengthens them, so
// that a slow condition does not take the processor from what it waits for.
func poll(timeout time.Duration, cond func() bool) bool {
	const first, longest = time.Millisecond, 50 * time.Millisecond

	deadline := time.Now().Add(timeout)
	for pause := first; ; pause = min(2*pause, longest) {
		if cond() {
			return true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		<-time.After(min(pause, left))
	}
}
