// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
)

// Command is a program that runs inside a host.
type Command struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Exec starts cmd inside the host. It is killed when ctx ends, when the lab is
// closed, and by the kernel when this process dies.
func (h *Host) Exec(ctx context.Context, cmd *exec.Cmd) (*Command, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// The child is a clone of the thread that starts it: same namespace.
	if err := h.onKeeper(cmd.Start); err != nil {
		return nil, fmt.Errorf("host %s: start %s: %w", h.name, cmd.Path, err)
	}
	c := &Command{cmd: cmd, done: make(chan struct{})}
	kill := func() { _ = cmd.Process.Kill() }
	stop := context.AfterFunc(ctx, kill)
	go func() {
		defer close(c.done)
		c.err = cmd.Wait()
		stop()
	}()
	forget := h.atClose(func() {
		kill()
		<-c.done
	})
	context.AfterFunc(ctx, forget)
	return c, nil
}

// PID is the command's process id.
func (c *Command) PID() int { return c.cmd.Process.Pid }

// Kill sends SIGKILL. Wait tells when the command has gone.
func (c *Command) Kill() error { return c.cmd.Process.Kill() }

// Wait waits for the command to end and returns what exec.Cmd.Wait would. It
// may be called more than once.
func (c *Command) Wait() error {
	<-c.done
	return c.err
}
