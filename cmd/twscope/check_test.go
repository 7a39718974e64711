// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/preflight"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/testutil"
)

// runCheckCmd runs check as the command line does.
func runCheckCmd(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCheckCmd()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func readReport(t *testing.T, text string) preflight.Report {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var r preflight.Report
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return r
}

// TestCheck runs the real thing: on every kernel that twscope supports each
// observation has a rung, and nothing stays behind.
func TestCheck(t *testing.T) {
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	before, sysctls := bpfObjects(t), readSysctls(t)

	out, err := runCheckCmd(t, "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made := newObjects(t, before)
	r := readReport(t, out)
	if !r.Ready || r.Coverage.Observed != r.Coverage.Total || r.Coverage.Total == 0 {
		t.Errorf("ready: %t, coverage %+v: %s", r.Ready, r.Coverage, r.Summary)
	}
	for _, o := range r.Observations {
		if o.Rung == "" || o.Rung == string(probe.None) {
			t.Errorf("%s has no rung: %+v", o.Name, o.Tried)
		}
		for _, a := range o.Tried {
			if a.Reason == "" || a.Error == "" {
				t.Errorf("%s: no reason why not %s", o.Name, a.Rung)
			}
		}
	}
	own := slices.ContainsFunc(r.Sysctls, func(g preflight.SysctlGroup) bool {
		return len(g.Effects) >= 5 && slices.ContainsFunc(g.Namespaces, func(n preflight.NamespaceName) bool { return n.Own })
	})
	if !own {
		t.Errorf("the sysctls of our namespace are not told: %+v", r.Sysctls)
	}
	if r.Kernel.BTFBytes == 0 || r.Kernel.TWCounting == "unknown" || r.Kernel.TSOffset == "unknown" {
		t.Errorf("kernel: %+v", r.Kernel)
	}

	if diff := cmp.Diff(sysctls, readSysctls(t)); diff != "" {
		t.Errorf("sysctls have changed (-before +after):\n%s", diff)
	}
	// The kernel frees programs and links some time after they are closed. Maps
	// stay until the garbage collector has unmapped their constants; it would
	// also close what check forgot, so it may only run when the others are gone.
	const patience = 30 * time.Second
	testutil.Eventually(t, patience, func() bool {
		made = stillThere(t, made)
		return !slices.ContainsFunc(made, func(o string) bool { return !strings.HasPrefix(o, "map ") })
	}, "all programs and links that check made are gone; it made %v", made)
	testutil.Eventually(t, patience, func() bool {
		runtime.GC()
		made = stillThere(t, made)
		return len(made) == 0
	}, "all maps that check made are gone; left were %v", made)
}

func TestCheckRung(t *testing.T) {
	testutil.Root(t)
	out, err := runCheckCmd(t, "--json", "--rung", "tracepoint")
	if err != nil {
		t.Fatal(err)
	}
	r := readReport(t, out)
	if r.ForcedRung != "tracepoint" || !strings.Contains(r.Summary, "with --rung tracepoint") {
		t.Errorf("%s: %s", r.ForcedRung, r.Summary)
	}
	for _, o := range r.Observations {
		if o.Rung == string(probe.Fentry) || o.Rung == string(probe.Kprobe) {
			t.Errorf("%s is on %s", o.Name, o.Rung)
		}
	}
}

func TestCheckText(t *testing.T) {
	testutil.Root(t)
	out, err := runCheckCmd(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "ready: ") && !strings.HasPrefix(lines[len(lines)-2], "ready: ") {
		t.Errorf("no verdict at the end: %s", last)
	}
	if strings.Contains(out, "MEMLOCK") {
		t.Errorf("a misleading hint is shown:\n%s", out)
	}
}

func TestCheckUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"unknown rung", []string{"--rung", "uprobe"}, `--rung "uprobe": want fentry, kprobe or tracepoint`},
		{"lower rungs are no choice", []string{"--rung", "mib"}, "want fentry, kprobe or tracepoint"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := runCheckCmd(t, tt.args...)
			if _, usage := errors.AsType[usageError](err); !usage || !strings.Contains(err.Error(), tt.want) || out != "" {
				t.Errorf("got %v and %q, want %s", err, out, tt.want)
			}
		})
	}
}

const unprivilegedEnv = "TWSCOPE_TEST_CHECK_UNPRIVILEGED"

// TestCheckUnprivileged runs check as another user without any capability.
func TestCheckUnprivileged(t *testing.T) {
	if os.Getenv(unprivilegedEnv) != "" {
		out, err := runCheckCmd(t, "--json")
		fmt.Printf("%s\nerror: %v\nend\n", out, err)
		return
	}
	testutil.Root(t)
	// The link, since nobody may not walk to where the test was built.
	child := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), unprivilegedEnv+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, rest, _ := strings.Cut(string(out), "\nerror: ")
	message, _, _ := strings.Cut(rest, "\nend")
	if !strings.Contains(message, "twscope lacks CAP_BPF (loads BPF programs)") || !strings.Contains(message, "run as root") {
		t.Errorf("error: %s", message)
	}
	r := readReport(t, text)
	if r.Ready || len(r.Observations) != 0 || r.Error == "" {
		t.Errorf("ready: %t, %d observations, error %q", r.Ready, len(r.Observations), r.Error)
	}
	if r.Kernel.Release == "" || r.Kernel.BTFBytes == 0 || r.Kernel.TWCounting == "unknown" {
		t.Errorf("what needs no root is missing: %+v", r.Kernel)
	}
	if len(r.Missing) == 0 || !r.Missing[0].Required || r.HiddenProcesses == 0 {
		t.Errorf("what root would add is missing: %+v, %d", r.Missing, r.HiddenProcesses)
	}
	if len(r.Sysctls) == 0 || !r.Sysctls[0].Namespaces[0].Own || len(r.Sysctls[0].Effects) < 5 {
		t.Errorf("the sysctls of our own namespace are missing: %+v", r.Sysctls)
	}
}

// bpfObjects returns the ids of all BPF programs, maps and links.
func bpfObjects(t *testing.T) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	var err error
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); err != nil {
			break
		}
		ids[fmt.Sprintf("program %d", id)] = true
	}
	mustEnd(t, err)
	for id := ebpf.MapID(0); ; {
		if id, err = ebpf.MapGetNextID(id); err != nil {
			break
		}
		ids[fmt.Sprintf("map %d", id)] = true
	}
	mustEnd(t, err)
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		ids[fmt.Sprintf("link %d", it.ID)] = true
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// stillThere returns those objects that exist now.
func stillThere(t *testing.T, objects []string) []string {
	t.Helper()
	now := bpfObjects(t)
	return slices.DeleteFunc(objects, func(o string) bool { return !now[o] })
}

func mustEnd(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func newObjects(t *testing.T, before map[string]bool) []string {
	t.Helper()
	var list []string
	for o := range bpfObjects(t) {
		if !before[o] {
			list = append(list, o)
		}
	}
	return list
}

// readSysctls reads every sysctl of TCP and IPv4 that is no list per
// interface, and those about BPF.
func readSysctls(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, pattern := range []string{"/proc/sys/net/ipv4/*", "/proc/sys/net/core/*", "/proc/sys/kernel/*bpf*", "/proc/sys/kernel/perf*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			// Some cannot be read, or not by us; they cannot be compared.
			if text, err := os.ReadFile(file); err == nil {
				values[file] = string(text)
			}
		}
	}
	if len(values) < 50 {
		t.Fatalf("only %d sysctls can be read", len(values))
	}
	return values
}
