// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
)

const (
	// processEnv turns the test binary into twscope.
	processEnv = "TWSCOPE_TEST_PROCESS"
	// dropEnv takes all capabilities from it first.
	dropEnv = "TWSCOPE_TEST_DROP"
	rungEnv = "TWSCOPE_RUNG"

	deadline = 60 * time.Second
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == loadArg {
		os.Exit(loadMain(os.Args[2]))
	}
	if os.Getenv(processEnv) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(dropEnv) != "" {
		dropCapabilities()
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// dropCapabilities begins again without any: execve gives root what is left in
// the bounding set.
func dropCapabilities() {
	runtime.LockOSThread()
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		_ = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) // an old kernel lacks the last ones
	}
	must(os.Unsetenv(dropEnv))
	must(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// process is a twscope in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *output // complete when done
	read   chan struct{}
	done   chan struct{}
}

// output is what a process has written up to now.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func command(args ...string) *exec.Cmd {
	if rung := os.Getenv(rungEnv); rung != "" {
		args = append(args, "--rung", rung)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), processEnv+"=1")
	return cmd
}

// start waits until twscope is attached.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	return startUntil(t, cmd, func(line string) bool { return strings.HasPrefix(line, "attached in") })
}

// startAttach is start for attach.
func startAttach(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	return startUntil(t, cmd, func(line string) bool { return strings.HasPrefix(line, "twscope: watching") })
}

func startUntil(t *testing.T, cmd *exec.Cmd, isAttached func(line string) bool) *process {
	t.Helper()
	testutil.Root(t)
	p := &process{t: t, cmd: cmd, stderr: &output{}, read: make(chan struct{}), done: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	attached := make(chan struct{})
	go func() {
		defer close(p.read)
		for lines := bufio.NewScanner(io.TeeReader(stderr, p.stderr)); lines.Scan(); {
			if isAttached(lines.Text()) {
				close(attached)
			}
		}
	}()
	go func() {
		<-p.read
		_ = cmd.Wait() // its state tells
		close(p.done)
	}()
	select {
	case <-attached:
	case <-p.done:
		t.Fatalf("twscope ended at once: %s: %s", cmd.ProcessState, p.stderr)
	case <-time.After(deadline):
		t.Fatal("twscope is not attached")
	}
	return p
}

// wait waits for the end and returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		p.t.Fatal("twscope does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// lines returns the whole lines of a log.
func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	for line := range bytes.Lines(b) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("%q is no whole line: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

func count(lines []map[string]any, kind string) int {
	n := 0
	for _, l := range lines {
		if l["event"] == kind {
			n++
		}
	}
	return n
}

func TestSignalsEndTheRun(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		name := unix.SignalName(sig)
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "events.json")
			p := start(t, command("run", "--out", path, "--netns", "/proc/self/ns/net"))
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(); code != exitOK {
				t.Errorf("exit code %d: %s", code, p.stderr)
			}
			eventtest.ValidateFile(t, path)
			l := lines(t, path)
			if last := l[len(l)-1]; last["event"] != "stop" || last["reason"] != name {
				t.Errorf("the last line is %v", last)
			}
		})
	}
}

// host is a network namespace whose client connects to a server in it.
func host(t *testing.T) (*lab.Host, netip.AddrPort) {
	t.Helper()
	testutil.Root(t)
	l, err := lab.New(t.Context(), "process", lab.Named())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := l.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	srv, err := h.Serve(lab.Server{Network: "tcp4"})
	if err != nil {
		t.Fatal(err)
	}
	return h, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), srv.Addr().Port())
}

func connect(t *testing.T, h *lab.Host, target netip.AddrPort, n int) {
	t.Helper()
	r, err := h.Run(t.Context(), lab.Load{Targets: []netip.AddrPort{target}, Connections: n, ClosesFirst: true})
	if err != nil || r.Connected != n {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestKilledUnderLoad(t *testing.T) {
	h, target := host(t)
	path := filepath.Join(t.TempDir(), "events.json")
	args := []string{"run", "--out", path, "--netns", strconv.FormatUint(h.Inode(), 10)}
	p := start(t, command(args...))
	const n = 2000
	connect(t, h, target, n)
	testutil.Eventually(t, deadline, func() bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Count(b, []byte(`"event":"time_wait"`)) == n
	}, "%d lines on disk while twscope runs: %s", n, path)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		_, _ = h.Run(t.Context(), lab.Load{Targets: []netip.AddrPort{target}, Connections: n, ClosesFirst: true})
	}()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.wait()
	<-loaded
	if got := count(lines(t, path), "time_wait"); got < n {
		t.Errorf("%d lines, want %d or more", got, n)
	}
	// the next run goes on in the same file
	p = start(t, command(append(args, "--duration", "100ms")...))
	if code := p.wait(); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	eventtest.ValidateFile(t, path)
	if l := lines(t, path); count(l, "start") != 2 || count(l, "stop") != 1 || l[len(l)-1]["reason"] != "duration" {
		t.Errorf("%d start, %d stop, last %v", count(l, "start"), count(l, "stop"), l[len(l)-1])
	}
}

func TestReaderOfStandardOutputGoesAway(t *testing.T) {
	h, target := host(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := command("run", "--out", "-", "--netns", strconv.FormatUint(h.Inode(), 10))
	cmd.Stdout = w
	p := start(t, cmd)
	if err := errors.Join(w.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	connect(t, h, target, 10)
	code := p.wait()
	if !p.cmd.ProcessState.Exited() {
		t.Errorf("twscope died of %s", p.cmd.ProcessState)
	}
	if code != exitOK && !strings.Contains(p.stderr.String(), "reader of the event log has gone") {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

func TestMissingCapabilities(t *testing.T) {
	testutil.Root(t)
	cmd := command("run", "--out", filepath.Join(t.TempDir(), "log"), "--duration", "1s")
	cmd.Env = append(cmd.Env, dropEnv+"=1")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitError {
		t.Errorf("exit code %d", code)
	}
	for _, text := range []string{"missing CAP_BPF (loads BPF programs)", "CAP_PERFMON", "run twscope as root"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("%q does not tell %q", out, text)
		}
	}
}

func TestSecondRunOnOneLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	p := start(t, command("run", "--out", path, "--netns", "/proc/self/ns/net"))
	cmd := command("run", "--out", path, "--duration", "1s")
	out, _ := cmd.CombinedOutput()
	want := fmt.Sprintf("(pid %d)", p.cmd.Process.Pid)
	if code := cmd.ProcessState.ExitCode(); code != exitError || !strings.Contains(string(out), path+": is written by") ||
		!strings.Contains(string(out), want) {
		t.Errorf("exit code %d, %s; want the path and %s", code, out, want)
	}
}
