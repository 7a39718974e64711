// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
)

// programEnv carries a job from Spawn to Main in the child.
const programEnv = "TWSCOPE_LAB_PROGRAM"

// Program is work for a process of its own, so that sockets have an owner
// other than this process. Exactly one of Server, Load and HandOver is set.
type Program struct {
	Comm     string    `json:"comm"` // up to 15 bytes, of all its threads
	Server   *Server   `json:"server,omitempty"`
	Load     *Load     `json:"load,omitempty"`
	HandOver *HandOver `json:"hand_over,omitempty"`
}

// HandOver connects one socket, passes it to a child process by inheritance,
// closes it in the parent, and lets the child close it, which sends FIN. The
// server must close last.
type HandOver struct {
	Dial      Dial           `json:"dial"`
	Target    netip.AddrPort `json:"target"`
	ChildComm string         `json:"child_comm"`
}

// Report is what a Program has done.
type Report struct {
	Stats    ServerStats    `json:"stats"`     // of a Server
	Result   *Result        `json:"result"`    // of a Load
	ChildPID int            `json:"child_pid"` // of a HandOver: who closed the socket
	Local    netip.AddrPort `json:"local"`     // of a HandOver: the socket's address
}

// Process is a running Program.
type Process struct {
	*Command
	Addrs []netip.AddrPort // where a Server listens

	stdin    io.WriteCloser
	messages chan message
	stderr   *bytes.Buffer // complete when the command is done
}

// job is what a child is told to do: a Program or, as the child of a HandOver,
// to close the inherited descriptor.
type job struct {
	Program
	CloseFD int `json:"close_fd,omitempty"`
}

// message is one line from a child: first that it is ready, then its report.
type message struct {
	Addrs  []netip.AddrPort `json:"addrs,omitempty"`
	Report *Report          `json:"report,omitempty"`
	Error  string           `json:"error,omitempty"`
}

// Spawn starts the running executable again, inside the host, as the given
// Program; its main function, or TestMain, must call Main first. When Spawn
// returns the process has its comm, and a Server accepts connections. A Load
// or HandOver waits for Go.
func (h *Host) Spawn(ctx context.Context, p Program) (*Process, error) {
	n := 0
	for _, set := range []bool{p.Server != nil, p.Load != nil, p.HandOver != nil} {
		if set {
			n++
		}
	}
	if n != 1 || len(p.Comm) > 15 {
		return nil, fmt.Errorf("host %s: spawn %q: want one of Server, Load and HandOver and a comm of at most 15 bytes", h.name, p.Comm)
	}
	cmd, err := again(job{Program: p})
	if err != nil {
		return nil, err
	}
	proc := &Process{messages: make(chan message, 2), stderr: &bytes.Buffer{}}
	cmd.Stderr = proc.stderr
	if proc.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// Not StdoutPipe: Wait would close it under the reader.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	proc.Command, err = h.Exec(ctx, cmd)
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	go proc.read(r)
	m, err := proc.receive(ctx)
	if err != nil {
		_ = proc.Kill()
		return nil, fmt.Errorf("host %s: spawn %q: %w", h.name, p.Comm, err)
	}
	proc.Addrs = m.Addrs
	return proc, nil
}

// again is this executable once more, with a job in its environment.
func again(j job) (*exec.Cmd, error) {
	spec, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), programEnv+"="+string(spec))
	return cmd, nil
}

func (p *Process) read(r *os.File) {
	defer close(p.messages)
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			_ = r.Close()
			return
		}
		p.messages <- m
	}
}

func (p *Process) receive(ctx context.Context) (message, error) {
	select {
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	case m, ok := <-p.messages:
		if !ok {
			err := p.Wait()
			return m, fmt.Errorf("process ended early: %w: %s", err, bytes.TrimSpace(p.stderr.Bytes()))
		}
		if m.Error != "" {
			return m, errors.New(m.Error)
		}
		return m, nil
	}
}

// Go lets a Load or HandOver begin and waits for its report.
func (p *Process) Go(ctx context.Context) (Report, error) {
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		return Report{}, fmt.Errorf("process %d: %w", p.PID(), err)
	}
	return p.report(ctx)
}

// Stop ends a Server and returns its report.
func (p *Process) Stop(ctx context.Context) (Report, error) {
	if err := p.stdin.Close(); err != nil {
		return Report{}, fmt.Errorf("process %d: %w", p.PID(), err)
	}
	return p.report(ctx)
}

func (p *Process) report(ctx context.Context) (Report, error) {
	m, err := p.receive(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("process %d: %w", p.PID(), err)
	}
	if m.Report == nil {
		return Report{}, fmt.Errorf("process %d: message without a report", p.PID())
	}
	if err := p.Wait(); err != nil {
		return *m.Report, fmt.Errorf("process %d: %w: %s", p.PID(), err, bytes.TrimSpace(p.stderr.Bytes()))
	}
	return *m.Report, nil
}
