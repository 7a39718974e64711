// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
	"github.com/twscope/twscope/internal/verdict"
)

// scene is a client of few ports and a server that negotiates no timestamps.
type scene struct {
	client, server *lab.Host
	netns          string // path of the client's
	addr           netip.Addr
	target         netip.AddrPort
}

const scenePorts = 1000

func newScene(t *testing.T) *scene {
	t.Helper()
	testutil.Root(t)
	l, err := lab.New(t.Context(), "attach", lab.Named())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts, err := l.Hosts("client", "server")
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{client: hosts[0], server: hosts[1], netns: "/run/netns/" + l.Name() + "-client"}
	link, err := l.Link(t.Context(), s.client, s.server, "10.0.0.0/30")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = link.B.Addr4()
	for h, sysctls := range map[*lab.Host][][2]string{
		s.client: {{"net.ipv4.ip_local_port_range", fmt.Sprintf("20000 %d", 20000+scenePorts-1)}, {"net.ipv4.tcp_tw_reuse", "1"}},
		s.server: {{"net.ipv4.tcp_timestamps", "0"}},
	} {
		for _, c := range sysctls {
			if err := h.Sysctl(c[0], c[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// serve starts the server.
func (s *scene) serve(t *testing.T) {
	t.Helper()
	srv, err := s.server.Serve(lab.Server{Network: "tcp4"})
	if err != nil {
		t.Fatal(err)
	}
	s.target = netip.AddrPortFrom(s.addr, srv.Addr().Port())
}

// result is what a twscope attach has written and how it ended.
type result struct {
	code           int
	stdout, stderr string
}

func attachTo(t *testing.T, args ...string) result {
	t.Helper()
	testutil.Root(t)
	var out, diagnostics bytes.Buffer
	cmd := attachCommand(args...)
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	_ = cmd.Run() // its state tells
	return result{cmd.ProcessState.ExitCode(), out.String(), diagnostics.String()}
}

// attachCommand is command, which would put --rung behind the "--".
func attachCommand(args ...string) *exec.Cmd {
	args = append([]string{"attach"}, args...)
	if rung := os.Getenv(rungEnv); rung != "" {
		args = slices.Insert(args, 1, "--rung", rung)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), processEnv+"=1")
	return cmd
}

// verdict reads the verdict, the last line.
func (r *result) verdict(t *testing.T) verdict.Verdict {
	t.Helper()
	l := strings.Split(strings.TrimSpace(r.stdout), "\n")
	v, err := verdict.Parse([]byte(l[len(l)-1]))
	if err != nil {
		t.Fatalf("%v in %q; exit code %d, %s", err, r.stdout, r.code, r.stderr)
	}
	return v
}

// truth is what the load says it has done. The peer's RST may end a socket in
// TIME_WAIT now and then, whose port is used again.
func (r *result) truth(t *testing.T) (made, failed uint64) {
	t.Helper()
	if n, err := fmt.Sscanf(r.stdout, "made %d, failed %d\n", &made, &failed); n != 2 {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	return made, failed
}

// near tells whether a count is as planned, but for that.
func near(n, planned uint64) bool { return n+3 >= planned && n <= planned+3 }

func codes(v verdict.Verdict) []string {
	var list []string
	for _, c := range v.Codes {
		list = append(list, c.Code)
	}
	slices.Sort(list)
	return list
}

func exhausts(t *testing.T, v verdict.Verdict) {
	t.Helper()
	for _, want := range []string{"port-exhaustion", "tw-reuse-inert"} {
		if !slices.Contains(codes(v), want) {
			t.Errorf("codes %q, want %s", codes(v), want)
		}
	}
	if v.Ports == nil || v.Ports.Used != scenePorts || v.Ports.Total != scenePorts {
		t.Errorf("ports %+v, want all of %d", v.Ports, scenePorts)
	}
}

func TestAttachCommand(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	const n = scenePorts + 500
	log := filepath.Join(t.TempDir(), "events.json")
	args := []string{"--fail-on", "port-exhaustion", "--format", "json", "--out", log, "--"}
	r := attachTo(t, append(args, load{Target: s.target, N: n, PerS: 500, NetNS: s.netns}.argv(t)...)...)
	if r.code != exitMatch {
		t.Errorf("exit code %d, want %d: %s", r.code, exitMatch, r.stderr)
	}
	v := r.verdict(t)
	exhausts(t, v)
	made, failed := r.truth(t)
	if v.Connections.Made != made || v.Failures.Kernel != failed || !near(made, scenePorts) {
		t.Errorf("%d made, %d failed; in truth %d and %d", v.Connections.Made, v.Failures.Kernel, made, failed)
	}
	for _, want := range []string{"critical port-exhaustion", "--fail-on matches port-exhaustion (critical)"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in %q", want, r.stderr)
		}
	}
	eventtest.ValidateFile(t, log)
	var out, diagnostics bytes.Buffer
	if code := run([]string{"replay", "--check", log}, &out, &diagnostics); code != exitOK {
		t.Errorf("replay: exit code %d: %s", code, diagnostics.String())
	}
	t.Log(r.stderr)
	t.Log(v.Text(verdict.Style{}))
}

// TestAttachJoins: who comes late is told the same.
func TestAttachJoins(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	argv := load{Target: s.target, N: 3000, PerS: 500, NetNS: s.netns}.argv(t)
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	<-time.After(3 * time.Second) // it is the load that takes its time
	r := attachTo(t, "--pid", strconv.Itoa(cmd.Process.Pid), "--format", "json", "--fail-on", "critical")
	if r.code != exitMatch {
		t.Errorf("exit code %d, want %d: %s", r.code, exitMatch, r.stderr)
	}
	v := r.verdict(t)
	exhausts(t, v)
	if v.Run.Reason != "the processes of --pid have ended" {
		t.Errorf("reason %q", v.Run.Reason)
	}
	if !near(v.TimeWait.Peak, scenePorts) {
		t.Errorf("%d in TIME_WAIT at most, those from before included", v.TimeWait.Peak)
	}
}

// TestAttachSlowTarget: a server that takes its time is not the client's fault.
func TestAttachSlowTarget(t *testing.T) {
	s := newScene(t)
	listener, err := s.server.Listen(t.Context(), netip.AddrPortFrom(s.addr, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			time.AfterFunc(1500*time.Millisecond, func() {
				_, _ = conn.Write([]byte("x"))
				_ = conn.Close()
			})
		}
	}()
	args := []string{"--fail-on", "warning", "--format", "json", "--"}
	target := netip.AddrPortFrom(s.addr, 80)
	r := attachTo(t, append(args, load{Target: target, N: 80, Workers: 20, NetNS: s.netns}.argv(t)...)...)
	v := r.verdict(t)
	if r.code != exitOK || v.Basis != verdict.BasisSlow || !strings.Contains(v.Answer, "not your client") {
		t.Errorf("exit code %d, %s: %s; %s", r.code, v.Basis, v.Answer, r.stderr)
	}
	t.Log(v.Answer)
}

// TestAttachCountsForeignPorts: another program holds half of the ports. They
// count in the budget, and not as connections of the command.
func TestAttachCountsForeignPorts(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	connect(t, s.client, s.target, scenePorts/4) // before the start
	mine := load{Target: s.target, N: scenePorts/2 + 100, PerS: 400, NetNS: s.netns, Wait: 2 * time.Second}.argv(t)
	log := filepath.Join(t.TempDir(), "events.json")
	cmd := attachCommand(append([]string{"--format", "json", "--out", log, "--"}, mine...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	p := startAttach(t, cmd)
	connect(t, s.client, s.target, scenePorts/4) // while it runs
	r := result{code: p.wait(), stdout: out.String()}
	r.stderr = p.stderr.String()
	v := r.verdict(t)
	exhausts(t, v)
	made, failed := r.truth(t)
	if v.Connections.Made != made || v.Failures.Kernel != failed || !near(made, scenePorts/2) || len(v.Destinations) != 1 {
		t.Errorf("%d made, %d failed; in truth %d and %d: %+v", v.Connections.Made, v.Failures.Kernel, made, failed, v.Destinations)
	}
	eventtest.ValidateFile(t, log)
	l := lines(t, log)
	if n := count(l, "time_wait"); uint64(n) != v.Connections.ClosedHere || count(l, "census") != 0 {
		t.Errorf("%d time_wait and %d census lines, %d closed here", n, count(l, "census"), v.Connections.ClosedHere)
	}
	if strings.Contains(r.stdout, "other programs") {
		t.Errorf("the budget says that a part of it is not known: %s", r.stdout)
	}
}
