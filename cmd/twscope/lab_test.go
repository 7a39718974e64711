// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab/scenario"
	"github.com/twscope/twscope/internal/testutil"
)

func TestLabUsage(t *testing.T) {
	for args, text := range map[string]string{
		"lab walk":                     `unknown command "walk"`,
		"lab run":                      "requires at least 1 arg",
		"lab run exhaust":              "exhaust-no-timestamps",
		"lab run all reuse-works":      `no scenario "all"`,
		"lab run all --format xml":     "--format xml: want text or json",
		"lab list --format xml":        "--format xml: want text or json",
		"lab list all":                 "unknown command",
		"lab run all --rung ladder":    "want fentry, kprobe or tracepoint",
		"lab run reuse-works --no-tea": "unknown flag",
	} {
		t.Run(args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(args), &stdout, &stderr); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr.String(), text) || stdout.Len() > 0 {
				t.Errorf("%q and %q, want %q on standard error", stderr.String(), stdout.String(), text)
			}
		})
	}
}

func TestLabList(t *testing.T) {
	var text, lines, stderr bytes.Buffer
	if code := run([]string{"lab", "list"}, &text, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if code := run([]string{"lab", "list", "--format", "json"}, &lines, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	dec := json.NewDecoder(&lines)
	for _, want := range scenario.All() {
		var s struct {
			Name           string
			Cause, Control struct{ Setting string }
		}
		if err := dec.Decode(&s); err != nil || s.Name != want.Name || s.Control.Setting != want.Control.Setting {
			t.Errorf("%+v, %v: want %s", s, err, want.Name)
		}
		if !strings.Contains(text.String(), want.Name+"\n") {
			t.Errorf("no %s in\n%s", want.Name, &text)
		}
	}
}

// labProcess is a twscope lab with a directory for its files.
type labProcess struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	tmp            string
}

func startLab(t *testing.T, args ...string) *labProcess {
	t.Helper()
	testutil.Root(t)
	p := &labProcess{cmd: command(append([]string{"lab", "run"}, args...)...), tmp: t.TempDir()}
	p.cmd.Env = append(p.cmd.Env, "TMPDIR="+p.tmp)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// leaves fails the test if the process has left a namespace, a file or a
// process; veths go with their namespaces.
func (p *labProcess) leaves(t *testing.T) {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/run/netns/twscope-%d-*", p.cmd.Process.Pid))
	if err != nil || len(names) > 0 {
		t.Errorf("%v, %v: namespaces are left", names, err)
	}
	files, err := os.ReadDir(p.tmp)
	if err != nil || len(files) > 0 {
		t.Errorf("%v, %v: files are left", files, err)
	}
}

// TestLabInterrupted: at any time, by one signal or by several.
func TestLabInterrupted(t *testing.T) {
	for i, signals := range [][]unix.Signal{
		{unix.SIGINT}, {unix.SIGTERM}, {unix.SIGINT, unix.SIGINT}, {unix.SIGHUP, unix.SIGINT, unix.SIGTERM},
	} {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			p := startLab(t, "nat-port-reuse-two-hosts", "nat-recycle-server", "--pcap", t.TempDir())
			// from where nothing is set up yet to where connections fly
			after := time.Duration(rand.Int64N(int64(4 * time.Second)))
			if i == 0 {
				after /= 8
			}
			t.Logf("after %s", after)
			timer := time.NewTimer(after)
			defer timer.Stop()
			<-timer.C
			for _, s := range signals {
				if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
			}
			began := time.Now()
			err := p.cmd.Wait()
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it ended %s after the signal", took)
			}
			exit, ok := errors.AsType[*exec.ExitError](err)
			early := ok && exit.ExitCode() == -1 // before it has asked for signals
			if !early && (!ok || exit.ExitCode() != exitError || !strings.Contains(p.stderr.String(), "interrupted")) {
				t.Errorf("%v: %s\n%s", err, &p.stderr, &p.stdout)
			}
			p.leaves(t)
		})
	}
}

// TestLabRun: what a scenario tells a machine, and that its captures can be
// replayed.
func TestLabRun(t *testing.T) {
	dir := t.TempDir()
	p := startLab(t, "old-duplicate", "--format", "json", "--pcap", dir)
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s\n%s", err, &p.stderr, &p.stdout)
	}
	p.leaves(t)
	dec := json.NewDecoder(&p.stdout)
	for _, control := range []bool{false, true} {
		var r scenario.Result
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Outcome == scenario.Skip {
			testutil.SkipUnless(t, false, r.Reason)
		}
		if r.Control != control || r.Outcome != scenario.Pass || r.Verdict == nil || len(r.Captures) != 1 {
			t.Errorf("%+v, want it passed, control: %t", r, control)
		}
	}
	var stdout, stderr bytes.Buffer
	path := filepath.Join(dir, "old-duplicate-client-server.pcap")
	if code := run([]string{"replay", path}, &stdout, &stderr); code != exitOK || !strings.Contains(stderr.String(), "40 handshakes completed") {
		t.Errorf("exit code %d: %s\n%s", code, &stderr, &stdout)
	}
}

// TestLabReaderGone: a reader of the output that goes away kills nothing.
func TestLabReaderGone(t *testing.T) {
	testutil.Root(t)
	r, w, err := os.Pipe()
	must(err)
	must(r.Close())
	tmp := t.TempDir()
	cmd := command("lab", "run", "listen-overflow")
	cmd.Env, cmd.Stdout = append(cmd.Env, "TMPDIR="+tmp), w
	p := &labProcess{cmd: cmd, tmp: tmp}
	err = cmd.Run()
	must(w.Close())
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitError {
		t.Errorf("%v, want exit code %d", err, exitError)
	}
	p.leaves(t)
}
