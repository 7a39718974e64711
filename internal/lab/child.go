// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inheritedFD is where the child of a HandOver finds the socket: the first of
// exec.Cmd.ExtraFiles.
const inheritedFD = 3

// Main turns the process into the Program that Spawn started it for, and exits.
// In a process that Spawn did not start it returns at once.
func Main() {
	spec, ok := os.LookupEnv(programEnv)
	if !ok {
		return
	}
	// Children of this process die with the thread that started them.
	runtime.LockOSThread()
	if err := runJob(spec); err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(message{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

func runJob(spec string) error {
	var j job
	if err := json.Unmarshal([]byte(spec), &j); err != nil {
		return fmt.Errorf("%s: %w", programEnv, err)
	}
	if err := os.Unsetenv(programEnv); err != nil {
		return err
	}
	if err := setComm(j.Comm); err != nil {
		return fmt.Errorf("set comm %q: %w", j.Comm, err)
	}
	c, err := newChild()
	if err != nil {
		return err
	}
	switch {
	case j.Server != nil:
		return c.serve(*j.Server)
	case j.Load != nil:
		return c.load(*j.Load)
	case j.HandOver != nil:
		return c.handOver(*j.HandOver)
	case j.CloseFD != 0:
		return c.closeFD(j.CloseFD)
	}
	return fmt.Errorf("%s: no work in %s", programEnv, spec)
}

// setComm names all threads: new ones take the name of whichever thread makes
// them, so it goes round until it has found none with another name.
func setComm(comm string) error {
	for again := comm != ""; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			path := "/proc/self/task/" + t.Name() + "/comm"
			now, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // the thread has ended
			}
			if err != nil {
				return err
			}
			if strings.TrimSuffix(string(now), "\n") == comm {
				continue
			}
			again = true
			if err := os.WriteFile(path, []byte(comm), 0); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// child is the other end of a Process.
type child struct {
	host *Host // the namespace it was started in
	in   *bufio.Reader
	out  *json.Encoder
}

func newChild() (*child, error) {
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	inode, err := inodeOf("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	h := &Host{name: "self", ns: ns, inode: inode, closers: map[int]func(){}}
	return &child{host: h, in: bufio.NewReader(os.Stdin), out: json.NewEncoder(os.Stdout)}, nil
}

// wait blocks until the parent says go (true) or closes the pipe (false).
func (c *child) wait() bool {
	_, err := c.in.ReadByte()
	return err == nil
}

func (c *child) serve(s Server) error {
	sv, err := c.host.Serve(s)
	if err != nil {
		return err
	}
	if err := c.out.Encode(message{Addrs: sv.addrs}); err != nil {
		return err
	}
	for c.wait() {
	}
	sv.Stop()
	return c.out.Encode(message{Report: &Report{Stats: sv.Stats()}})
}

func (c *child) load(l Load) error {
	if err := c.out.Encode(message{}); err != nil || !c.wait() {
		return err
	}
	res, err := c.host.Run(context.Background(), l)
	if err != nil {
		return err
	}
	return c.out.Encode(message{Report: &Report{Result: res}})
}

func (c *child) handOver(o HandOver) error {
	if err := c.out.Encode(message{}); err != nil || !c.wait() {
		return err
	}
	conn, err := c.host.Connect(o.Dial, o.Target)
	if err != nil {
		return err
	}
	r := Report{Local: conn.Local()}
	cmd, err := again(job{Program: Program{Comm: o.ChildComm}, CloseFD: inheritedFD})
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	socket := os.NewFile(uintptr(conn.fd), "socket")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start child: %w", err)
	}
	r.ChildPID = cmd.Process.Pid
	if err := socket.Close(); err != nil {
		return err
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		return fmt.Errorf("child %d: %w", r.ChildPID, err)
	}
	var m message
	if err := json.NewDecoder(out).Decode(&m); err != nil || m.Error != "" {
		return fmt.Errorf("child %d: %s: %w", r.ChildPID, m.Error, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("child %d: %w", r.ChildPID, err)
	}
	return c.out.Encode(message{Report: &r})
}

func (c *child) closeFD(fd int) error {
	if !c.wait() {
		return nil
	}
	if err := pinned(func() error { return unix.Close(fd) }); err != nil {
		return fmt.Errorf("close inherited socket: %w", err)
	}
	return c.out.Encode(message{Report: &Report{}})
}
