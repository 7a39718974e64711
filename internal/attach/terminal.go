// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the one that this process is in the foreground of.
type terminal struct {
	fd    int
	group int // our own process group
}

// openTerminal returns nil if fd is no terminal, or somebody else is in the
// foreground.
func openTerminal(fd int) *terminal {
	t := &terminal{fd: fd, group: unix.Getpgrp()}
	if !t.ours() {
		return nil
	}
	return t
}

func (t *terminal) ours() bool {
	group, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	return err == nil && group == t.group
}

// leave prepares for the background: whoever writes to the terminal from there,
// after `stty tostop`, or takes it back, is stopped by SIGTTOU, unless it is
// ignored. Commands would inherit that, so they are started before.
func (t *terminal) leave() { signal.Ignore(unix.SIGTTOU) }

// take puts our group into the foreground.
func (t *terminal) take() { t.set(t.group) }

// give puts a group into the foreground, if it is ours to give: after `bg` it is
// not.
func (t *terminal) give(group int) {
	if t.ours() {
		t.set(group)
	}
}

// stopTime is how long a group takes at most to stop; one that nobody could let
// go on again (an orphaned one) does not.
const stopTime = time.Second

// stop stops our group, of which a shell waits for all, and returns when it goes
// on.
func (t *terminal) stop() {
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, unix.SIGCONT)
	defer signal.Stop(goesOn)
	_ = unix.Kill(-t.group, unix.SIGTSTP) // if we cannot be stopped, so be it
	select {
	case <-goesOn:
	case <-time.After(stopTime):
	}
}

// A terminal that is gone has no foreground.
func (t *terminal) set(group int) { _ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group) }
