// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
)

// actorEnv makes the test binary play a part: the owner of sockets that is
// not the test itself.
const actorEnv = "TWSCOPE_TEST_ACTOR"

// actMain plays the part that the environment asks for, and exits; without
// one it returns.
func actMain() {
	part, ok := os.LookupEnv(actorEnv)
	if !ok {
		return
	}
	if err := act(strings.Fields(part)); err != nil {
		fmt.Fprintln(os.Stderr, "actor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func act(part []string) error {
	switch part[0] {
	case "parent": // of an obedient child, which has its input and output
		cmd := actor("obey")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	case "obey":
		return obey(os.Stdin)
	case "connect":
		return connectAndClose(part[1])
	case "accept": // so many connections from the inherited listener
		n, err := strconv.Atoi(part[1])
		if err != nil {
			return err
		}
		return acceptAndClose(n)
	}
	return fmt.Errorf("unknown part %q", part)
}

func actor(part ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), actorEnv+"="+strings.Join(part, " "))
	return cmd
}

// obey does what each line says and answers with the id of the process that
// did it.
func obey(orders io.Reader) error {
	for lines := bufio.NewScanner(orders); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		pid := os.Getpid()
		var err error
		switch verb {
		case "name": // in hex, for it may be any bytes
			var name []byte
			if name, err = hex.DecodeString(arg); err == nil {
				err = os.WriteFile("/proc/self/comm", name, 0)
			}
		case "self":
			err = connectAndClose(arg)
		case "fork":
			cmd := actor("connect", arg)
			cmd.Stderr = os.Stderr
			err = cmd.Run()
			pid = cmd.Process.Pid
		default:
			err = errors.New("unknown order")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println(pid)
	}
	return nil
}

// connectAndClose makes a connection and closes it first, so that it ends in
// TIME_WAIT.
func connectAndClose(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		return err
	}
	return c.Close()
}

func acceptAndClose(n int) error {
	const inherited = 3
	for range n {
		fd, _, err := unix.Accept(inherited)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// servant is an actor that obeys, or the parent of one.
type servant struct {
	t   testing.TB
	cmd *lab.Command
	in  io.WriteCloser
	out *bufio.Scanner
}

// hire starts an actor inside a host.
func hire(t testing.TB, h *lab.Host, part string) *servant {
	t.Helper()
	cmd := actor(part)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	testutil.Must(t, err)
	r, w, err := os.Pipe()
	testutil.Must(t, err)
	cmd.Stdout = w
	s := &servant{t: t, in: in, out: bufio.NewScanner(r)}
	s.cmd, err = h.Exec(context.Background(), cmd)
	testutil.Must(t, err)
	testutil.Must(t, w.Close())
	t.Cleanup(func() {
		_ = in.Close()
		_ = s.cmd.Wait() // the lab, which ends before, may have killed it
		_ = r.Close()
	})
	return s
}

// order has the servant do something and returns the process that did it.
func (s *servant) order(verb, arg string) int {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, verb, arg); err != nil {
		s.t.Fatal(err)
	}
	if !s.out.Scan() {
		s.t.Fatalf("the actor did not answer to %s %s: %v", verb, arg, s.out.Err())
	}
	pid, err := strconv.Atoi(s.out.Text())
	testutil.Must(s.t, err)
	return pid
}

// connect makes a connection and closes it first.
func (s *servant) connect(target netip.AddrPort) int {
	s.t.Helper()
	return s.order("self", target.String())
}
