// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// signals handles those that come: to a run that joins a test the first SIGINT
// or SIGTERM is the end; one that has started a command passes them on, and ends
// when that does. The second leaves at once.
func (a *attachment) signals() (stop func()) {
	if a.command == nil {
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, unix.SIGHUP)
		a.session.Hangup = hangup
		end := onSignals(a.cancel)
		return func() {
			signal.Stop(hangup)
			end()
		}
	}
	came := make(chan os.Signal, 8)
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(sig) { // as by nohup: the command ignores it too
			signal.Notify(came, sig)
		}
	}
	go a.passOn(came)
	return func() {
		signal.Stop(came)
		close(came)
	}
}

func (a *attachment) passOn(came <-chan os.Signal) {
	ending := false
	for s := range came {
		sig, _ := s.(unix.Signal)
		a.command.Signal(sig)
		switch {
		case sig == unix.SIGUSR1 || sig == unix.SIGUSR2:
		case !ending:
			ending = true
			a.view.note(unix.SignalName(sig) + " is passed on: the verdict follows when the command has ended; once more to leave at once")
		default:
			a.leave(sig)
		}
	}
}

// leave ends this process by a signal.
func (a *attachment) leave(sig unix.Signal) {
	a.view.end()
	select {
	case <-a.command.Done():
	default:
		a.view.note(fmt.Sprintf("left without a verdict; the command (pid %d) may still run", a.command.PID()))
	}
	a.command.GiveBack()
	signal.Reset(sig)
	if unix.Kill(os.Getpid(), sig) != nil {
		os.Exit(128 + int(sig))
	}
}
