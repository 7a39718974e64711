// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/testutil"
)

func TestAttachUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "what is there to watch?"},
		{[]string{"--"}, "no command behind --"},
		{[]string{"wrk", "-t2"}, "behind --"},
		{[]string{"wrk", "--", "x"}, `unexpected argument "wrk"`},
		{[]string{"--pid", "1", "--", "true"}, "--pid is for a test that runs already"},
		{[]string{"--comm", "x", "--format", "xml"}, `--format "xml"`},
		{[]string{"--comm", "x", "--live", "y"}, `--live "y"`},
		{[]string{"--comm", "x", "--out", "-"}, "standard output is for the verdict"},
		{[]string{"--comm", "x", "--out", ""}, "--out: want a file"},
		{[]string{"--comm", "x", "--verdict", ""}, "--verdict: want a file"},
		{[]string{"--comm", "x", "--fail-on", "nonsense"}, `--fail-on: "nonsense" is neither`},
		{[]string{"--comm", "x", "--fail-on", ""}, "--fail-on: want a severity"},
		{[]string{"--comm", "x", "--stats-interval", "0"}, "--stats-interval 0"},
		{[]string{"--comm", "x", "--events", "time_wait_end"}, "has no owner"},
		{[]string{"--color", "blue", "--", "true"}, `--color "blue"`},
		{[]string{"--pid", "4194304"}, "no process has the pid 4194304"},
	} {
		var out, diagnostics bytes.Buffer
		code := run(append([]string{"attach"}, tt.args...), &out, &diagnostics)
		if code != exitUsage || !strings.Contains(diagnostics.String(), tt.want) || out.Len() > 0 {
			t.Errorf("%q: exit code %d, %q, %q; want %q", tt.args, code, out.String(), diagnostics.String(), tt.want)
		}
	}
}

// TestAttachExitCode: it is that of the command, whose output is its own.
func TestAttachExitCode(t *testing.T) {
	testutil.Root(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/nonexistent\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		argv   []string
		code   int
		stdout string // with what it begins
		stderr string // what it contains
	}{
		{"missing", []string{"no-such-command"}, 127, "", "there is no such command in PATH"},
		{"missing path", []string{"./no-such-command"}, 127, "", "no such file or directory"},
		{"directory", []string{"/tmp"}, 126, "", "/tmp"},
		{"not executable", []string{"/etc/passwd"}, 126, "", "permission denied"},
		{"no interpreter", []string{script}, 126, "", "its interpreter"},
		{"at once", []string{"true"}, 0, "\n", ""},
		{"own code", []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, 7, "out\n\n", "\nerr\n"},
		{"killed", []string{"sh", "-c", "kill -KILL $$"}, 137, "\n", ""},
		{"its own flags", []string{"echo", "--format", "--", "-x"}, 0, "--format -- -x\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := attachTo(t, append([]string{"--fail-on", "info", "--"}, tt.argv...)...)
			if r.code != tt.code || !strings.HasPrefix(r.stdout, tt.stdout) || !strings.Contains(r.stderr, tt.stderr) {
				t.Errorf("exit code %d, want %d; %q; %q", r.code, tt.code, r.stdout, r.stderr)
			}
			// where it could not be run there is nothing to conclude from
			ran := tt.code != 126 && tt.code != 127
			if strings.Contains(r.stdout, "the command made no TCP connection") != ran || !ran && r.stdout != "" {
				t.Errorf("%q", r.stdout)
			}
		})
	}
}

// TestAttachInherits: the command has what it would have without us: no signal
// is blocked or ignored, no descriptor is left open, limits are as they were.
func TestAttachInherits(t *testing.T) {
	testutil.Root(t)
	const show = `grep -E '^(Sig(Blk|Ign|Cgt)|Cap...):' /proc/self/status; ulimit -n; ulimit -Hn; ulimit -l; ls -l /proc/$$/fd; cat`
	output := func(cmd *exec.Cmd) []byte {
		cmd.Stdin = strings.NewReader("from standard input\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := output(exec.Command("sh", "-c", show))
	got := output(attachCommand("--verdict", os.DevNull, "--", "sh", "-c", show))
	if len(want) < 300 || !bytes.HasSuffix(want, []byte("from standard input\n")) {
		t.Fatalf("%s", want)
	}
	// what descriptors lead to differs, which there are does not
	strip := func(b []byte) string {
		var list []string
		for line := range strings.Lines(string(b)) {
			text, _, descriptor := strings.Cut(line, " -> ")
			if descriptor {
				text = text[strings.LastIndexByte(text, ' ')+1:] // its number
			}
			list = append(list, strings.TrimSpace(text))
		}
		return strings.Join(list, "\n")
	}
	if strip(got) != strip(want) {
		t.Errorf("with attach\n%s\nwithout\n%s", got, want)
	}
}

// TestAttachDescendants: a child of another user and a daemon that outlives the
// command are its descendants too.
func TestAttachDescendants(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	const n = 50
	child := load{Target: s.target, N: n, NetNS: s.netns, UID: 65534}.argv(t)
	daemon := load{Target: s.target, N: n, NetNS: s.netns, Wait: time.Hour}.argv(t)
	const script = `"$1" "$2" "$3" >/dev/null & wait $!; setsid "$1" "$2" "$4" >/dev/null 2>&1 & echo $!; exit 5`
	r := attachTo(t, "--format", "json", "--", "sh", "-c", script, "sh", child[0], child[1], child[2], daemon[2])
	first, _, _ := strings.Cut(r.stdout, "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("%q, %q", r.stdout, r.stderr)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if v := r.verdict(t); r.code != 5 || v.Connections.Made != n {
		t.Errorf("exit code %d, %d made", r.code, v.Connections.Made)
	}
	if !strings.Contains(r.stderr, "1 process that the command has started goes on") {
		t.Errorf("the daemon is not told of: %q", r.stderr)
	}
}

// TestAttachInterrupt: the first signal is the command's, the verdict follows;
// the second leaves.
func TestAttachInterrupt(t *testing.T) {
	testutil.Root(t)
	t.Run("once", func(t *testing.T) {
		cmd := attachCommand("--", "sleep", "60")
		var out bytes.Buffer
		cmd.Stdout = &out
		p := startAttach(t, cmd)
		p.signal(t, syscall.SIGINT)
		if code := p.wait(); code != 128+int(syscall.SIGINT) || !strings.Contains(out.String(), "killed by SIGINT") {
			t.Errorf("exit code %d, %q, %s", code, out.String(), p.stderr)
		}
	})
	t.Run("handled", func(t *testing.T) {
		p := startAttach(t, attachCommand("--", "sh", "-c", `trap 'exit 9' INT; echo ready >&2; while :; do sleep 0.05; done`))
		p.until(t, "\nready\n")
		p.signal(t, syscall.SIGINT)
		if code := p.wait(); code != 9 {
			t.Errorf("exit code %d, %s", code, p.stderr)
		}
	})
	t.Run("twice", func(t *testing.T) {
		cmd := attachCommand("--", "sh", "-c", `trap '' INT; echo "pid $$" >&2; exec sleep 60`)
		var out bytes.Buffer
		cmd.Stdout = &out
		p := startAttach(t, cmd)
		text := p.until(t, "\npid ")
		_, rest, _ := strings.Cut(text, "\npid ")
		number, _, _ := strings.Cut(rest, "\n")
		pid, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(text)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		p.signal(t, syscall.SIGINT)
		p.until(t, "SIGINT is passed on")
		p.signal(t, syscall.SIGINT)
		p.ends(t)
		_ = syscall.Kill(pid, syscall.SIGKILL) // which holds standard error
		<-p.done
		status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != syscall.SIGINT || out.Len() > 0 {
			t.Errorf("%s, %q, %s", p.cmd.ProcessState, out.String(), p.stderr)
		}
	})
	t.Run("joined", func(t *testing.T) {
		cmd := attachCommand("--pid", strconv.Itoa(os.Getpid()))
		var out bytes.Buffer
		cmd.Stdout = &out
		p := startAttach(t, cmd)
		p.signal(t, syscall.SIGINT)
		if code := p.wait(); code != exitOK || !strings.Contains(out.String(), "SIGINT") {
			t.Errorf("exit code %d, %q, %s", code, out.String(), p.stderr)
		}
	})
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// until waits until standard error has a text, and returns all of it.
func (p *process) until(t *testing.T, text string) string {
	t.Helper()
	testutil.Eventually(t, deadline, func() bool { return strings.Contains(p.stderr.String(), text) }, "%q on standard error", text)
	return p.stderr.String()
}

// ends waits for the end of twscope itself, whose standard error a command may
// hold open.
func (p *process) ends(t *testing.T) {
	t.Helper()
	testutil.Eventually(t, deadline, func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		return err != nil || bytes.Contains(state, []byte(") Z "))
	}, "the end of twscope")
}

func TestAttachDuration(t *testing.T) {
	r := attachTo(t, "--duration", "300ms", "--", "sleep", "60")
	if r.code != 128+int(syscall.SIGTERM) || !strings.Contains(r.stderr, "SIGTERM to the command") {
		t.Errorf("exit code %d, %q", r.code, r.stderr)
	}
	r = attachTo(t, "--duration", "300ms", "--format", "json", "--netns", "/proc/self/ns/net")
	if v := r.verdict(t); r.code != exitOK || v.Run.Reason != "duration" {
		t.Errorf("exit code %d, %q", r.code, v.Run.Reason)
	}
}

// TestAttachToNothing: a selector that matches nothing says so, and waits.
func TestAttachToNothing(t *testing.T) {
	s := newScene(t)
	p := startAttach(t, attachCommand("--netns", s.netns))
	p.until(t, "no connection of --netns "+s.netns+" was seen yet; still waiting")
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(); code != exitOK {
		t.Errorf("exit code %d, %s", code, p.stderr)
	}
}

// TestAttachPIDEnds: the run ends with the last descendant of --pid.
func TestAttachPIDEnds(t *testing.T) {
	testutil.Root(t)
	for _, script := range []string{"read line", "read line; sleep 1 & exit"} {
		cmd := exec.Command("sh", "-c", script)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		a := attachCommand("--format", "json", "--pid", strconv.Itoa(cmd.Process.Pid))
		var out bytes.Buffer
		a.Stdout = &out
		p := startAttach(t, a)
		if err := stdin.Close(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // read fails at the end of its input
		if code := p.wait(); code != exitOK || !strings.Contains(out.String(), "the processes of --pid have ended") {
			t.Errorf("%s: exit code %d, %q, %s", script, code, out.String(), p.stderr)
		}
	}
}

// TestAttachStdoutCloses: nobody reads the verdict, which is an error and no
// death by SIGPIPE.
func TestAttachStdoutCloses(t *testing.T) {
	testutil.Root(t)
	for _, argv := range [][]string{{"--duration", "300ms", "--netns", "/proc/self/ns/net"}, {"--", "true"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := attachCommand(argv...)
		cmd.Stdout = w
		p := startAttach(t, cmd)
		if err := errors.Join(w.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		if code := p.wait(); code != exitError || !strings.Contains(p.stderr.String(), "write the verdict to standard output: ") {
			t.Errorf("%q: exit code %d, %s, %s", argv, code, p.cmd.ProcessState, p.stderr)
		}
	}
}

// TestAttachBesideOthers: a daemon and two attachments at a time, each of which
// sees its own.
func TestAttachBesideOthers(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	path := filepath.Join(t.TempDir(), "events.json")
	daemon := start(t, command("run", "--out", path, "--netns", s.netns))
	counts := [...]int{40, 70}
	var results [2]result
	var wg sync.WaitGroup
	for i, n := range counts {
		argv := load{Target: s.target, N: n, PerS: 100, NetNS: s.netns}.argv(t)
		wg.Go(func() { results[i] = attachTo(t, append([]string{"--format", "json", "--"}, argv...)...) })
	}
	wg.Wait()
	var closed uint64
	for i, n := range counts {
		v := results[i].verdict(t)
		closed += v.Connections.ClosedHere
		if v.Connections.Made != uint64(n) || results[i].code != exitOK {
			t.Errorf("%d made, want %d; exit code %d, %s", v.Connections.Made, n, results[i].code, results[i].stderr)
		}
	}
	daemon.signal(t, syscall.SIGTERM)
	if code := daemon.wait(); code != exitOK {
		t.Errorf("exit code %d, %s", code, daemon.stderr)
	}
	eventtest.ValidateFile(t, path)
	if n := count(lines(t, path), "time_wait"); uint64(n) != closed {
		t.Errorf("the daemon has seen %d, the others %d", n, closed)
	}
}

// TestAttachWithoutRights: nothing is started that cannot be watched.
func TestAttachWithoutRights(t *testing.T) {
	testutil.Root(t)
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := attachCommand("--", "touch", trace)
	cmd.Env = append(cmd.Env, dropEnv+"=1")
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitError || !strings.Contains(string(out), "missing CAP_BPF") {
		t.Errorf("exit code %d, %s", code, out)
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("the command has run")
	}
}
