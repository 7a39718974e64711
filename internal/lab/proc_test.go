// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

func TestLoadInAProcessOfItsOwn(t *testing.T) {
	p := newPair(t)
	sv := testutil.Must1[*Process](t)(p.server.Spawn(t.Context(), Program{Comm: "srv with space", Server: &Server{}}))
	targets := (&Serving{addrs: sv.Addrs}).Targets(p.link.B.Addr4())
	client := testutil.Must1[*Process](t)(p.client.Spawn(t.Context(), Program{
		Comm: "curl", Load: &Load{Targets: targets, Connections: 25, ClosesFirst: true},
	}))
	for proc, want := range map[*Process]string{sv: "srv with space", client: "curl"} {
		comms := testutil.Must1[[]string](t)(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", proc.PID())))
		if len(comms) == 0 {
			t.Errorf("process %d has no threads", proc.PID())
		}
		for _, path := range comms {
			if got := strings.TrimSpace(string(testutil.Must1[[]byte](t)(os.ReadFile(path)))); got != want {
				t.Errorf("%s is %q, want %q", path, got, want)
			}
		}
	}
	if got := testutil.Must1[uint64](t)(inodeOf(fmt.Sprintf("/proc/%d/ns/net", client.PID()))); got != p.client.Inode() {
		t.Errorf("the client runs in namespace %d, want %d", got, p.client.Inode())
	}
	if n := len(timeWaits(t, p.client)); n != 0 {
		t.Errorf("%d connections were made before Go", n)
	}
	r := testutil.Must1[Report](t)(client.Go(t.Context()))
	if r.Result == nil || r.Result.Connected != 25 {
		t.Errorf("report %+v, want 25 connected", r.Result)
	}
	if n := len(timeWaits(t, p.client)); n != 25 {
		t.Errorf("%d in TIME_WAIT, want 25", n)
	}
	if r := testutil.Must1[Report](t)(sv.Stop(t.Context())); r.Stats.Accepted != 25 {
		t.Errorf("server accepted %d, want 25", r.Stats.Accepted)
	}
}

func TestReusePortInTwoProcesses(t *testing.T) {
	p := newPair(t)
	var servers []*Process
	port := uint16(0)
	for i := range 2 {
		sv := testutil.Must1[*Process](t)(p.server.Spawn(t.Context(), Program{
			Comm: fmt.Sprintf("listener%d", i), Server: &Server{ReusePort: true, Port: port},
		}))
		port = sv.Addrs[0].Port()
		servers = append(servers, sv)
	}
	targets := (&Serving{addrs: servers[0].Addrs}).Targets(p.link.B.Addr4())
	run(t, p.client, Load{Targets: targets, Connections: 200, Concurrency: 2, ClosesFirst: true})
	sum := int64(0)
	for _, sv := range servers {
		r := testutil.Must1[Report](t)(sv.Stop(t.Context()))
		if r.Stats.Accepted == 0 {
			t.Errorf("process %d accepted nothing", sv.PID())
		}
		sum += r.Stats.Accepted
	}
	if sum != 200 {
		t.Errorf("both accepted %d, want 200", sum)
	}
}

func TestHandOver(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{})
	proc := testutil.Must1[*Process](t)(p.client.Spawn(t.Context(), Program{Comm: "parent", HandOver: &HandOver{
		Target: sv.Targets(p.link.B.Addr4())[0], ChildComm: "child",
	}}))
	r := testutil.Must1[Report](t)(proc.Go(t.Context()))
	if r.ChildPID == 0 || r.ChildPID == proc.PID() || r.ChildPID == os.Getpid() {
		t.Errorf("closed by %d, opened by %d", r.ChildPID, proc.PID())
	}
	testutil.Eventually(t, waitLimit, func() bool {
		tw := timeWaits(t, p.client)
		return len(tw) == 1 && tw[0].Local == r.Local && tw[0].State == TimeWait
	}, "TIME_WAIT after the child has closed")
}

func TestSpawnFails(t *testing.T) {
	p := newPair(t)
	for _, tc := range []struct {
		name, want string
		program    Program
	}{
		{"no work", "want one of", Program{Comm: "x"}},
		{"long comm", "at most 15", Program{Comm: "sixteen-bytes-xx", Server: &Server{}}},
		{"child's error", "want tcp, tcp4 or tcp6", Program{Comm: "x", Server: &Server{Network: "udp"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := p.client.Spawn(t.Context(), tc.program); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := p.client.Exec(t.Context(), exec.Command("/no/such/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want %v", err, os.ErrNotExist)
	}
}

func TestCommandsEndWithTheirContextAndTheLab(t *testing.T) {
	for _, end := range []string{"context", "lab"} {
		t.Run(end, func(t *testing.T) {
			l := newLab(t)
			h := testutil.Must1[*Host](t)(l.Host("host"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			proc := testutil.Must1[*Process](t)(h.Spawn(ctx, Program{Comm: "endless", Server: &Server{}}))
			if end == "context" {
				cancel()
			} else {
				testutil.Must(t, l.Close())
			}
			var exit *exec.ExitError
			if err := proc.Wait(); !errors.As(err, &exit) {
				t.Errorf("ended with %v, want by a signal", err)
			}
		})
	}
}

// killedEnv makes the test binary build a lab and wait to be killed.
const killedEnv = "TWSCOPE_LAB_TEST_KILLED"

func buildLabAndHang() {
	l, err := New(context.Background(), "killed")
	if err != nil {
		panic(err)
	}
	h, err := l.Host("host")
	if err != nil {
		panic(err)
	}
	p, err := h.Spawn(context.Background(), Program{Comm: "orphan", Server: &Server{}})
	if err != nil {
		panic(err)
	}
	fmt.Println(p.PID(), h.Inode())
	select {}
}

func TestNothingIsLeftAfterSIGKILL(t *testing.T) {
	testutil.Root(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killedEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	testutil.Must(t, err)
	testutil.Must(t, cmd.Start())
	var pid int
	var inode uint64
	_, err = fmt.Fscan(out, &pid, &inode)
	testutil.Must(t, errors.Join(err, cmd.Process.Kill()))
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("ended with %v, want by a signal", err)
	}
	testutil.Eventually(t, waitLimit, func() bool {
		now, err := inodeOf(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err != nil && (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)) || now != inode && err == nil
	}, "the lab's process has died too")
}
