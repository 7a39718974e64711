// SPDX-License-Identifier: Apache-2.0

// Package attach starts the command of `twscope attach`: held back until it is
// observed, in a process group of its own, with the terminal that it would have
// had, and waits for it.
package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The exit codes of a shell for a command that it cannot run.
const (
	CannotRun = 126
	NotFound  = 127
)

// StartError tells why a command cannot be run, and the exit code for it.
type StartError struct {
	Name string
	Err  error
	Code int // CannotRun, NotFound, or that of a signal
}

func (e *StartError) Error() string { return fmt.Sprintf("%s: %v", strconv.Quote(e.Name), e.Err) }
func (e *StartError) Unwrap() error { return e.Err }

// notFound explains why no command of that name was found.
func notFound(name string, err error) *StartError {
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return &StartError{name, errors.New("there is no such command in PATH"), NotFound}
	case errors.Is(err, exec.ErrDot):
		return &StartError{name, errors.New("it is in the current directory, which PATH names: write ./" + name), CannotRun}
	case errors.Is(err, unix.ENOENT):
		return &StartError{name, unix.ENOENT, NotFound}
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		err = e.Err // which names it too
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return &StartError{name, err, CannotRun}
}

// notRun explains what execve(2) says of a file that was found.
func notRun(name string, errno unix.Errno) *StartError {
	var err error = errno
	switch errno {
	case unix.ENOENT:
		err = errors.New("its interpreter, in the line #! or the ELF header, does not exist")
	case unix.ENOEXEC:
		err = fmt.Errorf("%w: a script begins with #! and its interpreter", errno)
	}
	return &StartError{name, err, CannotRun}
}

// Exit is how a command ended.
type Exit struct {
	Code   int         // its exit code, if Signal is 0
	Signal unix.Signal // that killed it
}

// Status is the exit code by which a shell tells of it.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Code
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return "killed by " + unix.SignalName(e.Signal)
	}
	return "exit code " + strconv.Itoa(e.Code)
}

// Command is a program that is held back, runs, or has ended.
type Command struct {
	name     string
	pid      int
	hold     *os.File // a byte lets the child go, its end ends the child
	errno    *os.File // what execve(2) said, nothing if it worked
	terminal *terminal

	mu   sync.Mutex // guards reaped: a pid that was waited for may be anybody's
	over bool
	exit Exit
	done chan struct{}
}

// The descriptors of the two pipes in the child.
const (
	holdFD  = 3
	errnoFD = 4
)

// Start starts the running executable again, with the arguments hold, then "--",
// the path of the command and argv; it must then call Hold. What the command
// will inherit is what the child has: standard input, output and error,
// environment, directory. If standard input is the terminal that this process is
// in the foreground of, the command's group is put there.
//
// An error is a *StartError if it is about the command.
func Start(argv []string, hold ...string) (*Command, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, notFound(argv[0], err)
	}
	c := &Command{name: argv[0], terminal: openTerminal(unix.Stdin), done: make(chan struct{})}
	held, letGo, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", argv[0], err), held.Close(), letGo.Close())
	}
	c.hold, c.errno = letGo, told
	args := append([]string{os.Args[0]}, hold...)
	args = append(append(args, "--", path), argv...)
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, held.Fd(), tell.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	if c.terminal != nil {
		attr.Sys.Foreground, attr.Sys.Ctty = true, c.terminal.fd
	}
	c.pid, err = syscall.ForkExec("/proc/self/exe", args, attr)
	err = errors.Join(err, held.Close(), tell.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", argv[0], err), letGo.Close(), told.Close())
	}
	if c.terminal != nil {
		c.terminal.leave()
	}
	go c.wait()
	return c, nil
}

// Hold is the child's side: it waits to be let go and runs args, a path and the
// arguments from the 0th. It returns, with an exit code, only if that fails.
func Hold(args []string) int {
	hold, errno := os.NewFile(holdFD, "hold"), os.NewFile(errnoFD, "errno")
	unix.CloseOnExec(holdFD)
	unix.CloseOnExec(errnoFD)
	if n, _ := hold.Read(make([]byte, 1)); n == 0 {
		return CannotRun // nobody wants it any more
	}
	err := syscall.Exec(args[0], args[1:], os.Environ())
	n, _ := errors.AsType[unix.Errno](err)
	_ = binary.Write(errno, binary.LittleEndian, uint32(n)) // else it looks as if it was killed
	return CannotRun
}

// PID is the process id of the command, before and after it is let go.
func (c *Command) PID() int { return c.pid }

// Run lets the command go. The error is a *StartError if it cannot be run.
func (c *Command) Run() error {
	_, err := c.hold.Write([]byte{1})
	err = errors.Join(err, c.hold.Close())
	var errno uint32
	rerr := binary.Read(c.errno, binary.LittleEndian, &errno)
	c.errno.Close()
	switch {
	case rerr == nil:
		return notRun(c.name, unix.Errno(errno))
	case err != nil:
		<-c.done
		return &StartError{c.name, errors.New(c.exit.String() + " before it could run"), c.exit.Status()}
	case !errors.Is(rerr, io.EOF):
		return fmt.Errorf("start %s: %w", c.name, rerr)
	}
	return nil
}

// Abandon ends a command that was not let go.
func (c *Command) Abandon() {
	c.hold.Close()
	c.errno.Close()
	<-c.done
}

// Signal sends a signal to the command's process group.
func (c *Command) Signal(sig unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = unix.Kill(-c.pid, sig) // it may have ended
	}
}

// Done is closed when the command has ended and the terminal is back.
func (c *Command) Done() <-chan struct{} { return c.done }

// Exit tells how it ended, once Done is closed.
func (c *Command) Exit() Exit { return c.exit }

// GiveBack takes the terminal back from a command that still runs.
func (c *Command) GiveBack() {
	if c.terminal != nil {
		c.terminal.take()
	}
}

// wait waits for the end, and does what a shell's job control would.
func (c *Command) wait() {
	defer close(c.done)
	for {
		var info unix.Siginfo
		// WNOWAIT: it is still ours, and nobody else's pid, until the lock is held
		err := unix.Waitid(unix.P_PID, c.pid, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		c.mu.Lock()
		var status unix.WaitStatus
		_, err = unix.Wait4(c.pid, &status, unix.WUNTRACED, nil)
		c.over = err != nil || !status.Stopped()
		c.mu.Unlock()
		if c.over {
			if status.Signaled() {
				c.exit.Signal = status.Signal()
			} else {
				c.exit.Code = status.ExitStatus()
			}
			c.GiveBack()
			return
		}
		if c.terminal != nil {
			c.suspend(status.StopSignal())
		}
	}
}

// suspend stops this process too when its command was stopped from the
// terminal, so that the shell gets it back, and goes on when the shell lets it.
func (c *Command) suspend(sig unix.Signal) {
	if sig != unix.SIGTSTP && sig != unix.SIGTTIN && sig != unix.SIGTTOU {
		return
	}
	c.terminal.take()
	c.terminal.stop()
	c.terminal.give(c.pid)
	c.Signal(unix.SIGCONT)
}
