// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/testutil"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func text(t *testing.T, r Report, verbose bool) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b, verbose); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTextGolden(t *testing.T) {
	tests := []struct {
		name    string
		in      Input
		verbose bool
	}{
		{"modern.txt", modern(), false},
		{"hardened.txt", hardened(), false},
		{"hardened_verbose.txt", hardened(), true},
		{"not_root.txt", notRoot(), false},
		{"no_btf.txt", noBTF(), false},
		{"forced.txt", forced(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := text(t, Build(tt.in), tt.verbose)
			testutil.Golden(t, *update, tt.name, got)
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > lineWidth {
					t.Errorf("a line is %d columns wide: %s", n, line)
				}
			}
		})
	}
}

func TestJSONGolden(t *testing.T) {
	for name, in := range map[string]Input{"hardened.json": hardened(), "not_root.json": notRoot()} {
		t.Run(name, func(t *testing.T) {
			report := Build(in)
			var b bytes.Buffer
			if err := report.WriteJSON(&b); err != nil {
				t.Fatal(err)
			}
			testutil.Golden(t, *update, name, b.String())
			dec := json.NewDecoder(&b)
			dec.DisallowUnknownFields()
			var back Report
			if err := dec.Decode(&back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(report, back); diff != "" {
				t.Errorf("JSON does not tell all (-report +read):\n%s", diff)
			}
		})
	}
}

// TestJSONForm holds that lists are never null, and names snake_case, also in
// an empty report.
func TestJSONForm(t *testing.T) {
	for name, in := range map[string]Input{"empty": {}, "modern": modern(), "no BTF": noBTF()} {
		var b bytes.Buffer
		if err := Build(in).WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkForm(t, name, v)
	}
}

func checkForm(t *testing.T, path string, v any) {
	t.Helper()
	switch v := v.(type) {
	case nil:
		t.Errorf("%s is null", path)
	case []any:
		for i, e := range v {
			checkForm(t, fmt.Sprintf("%s[%d]", path, i), e)
		}
	case map[string]any:
		for k, e := range v {
			if strings.ToLower(k) != k || strings.ContainsAny(k, "- ") {
				t.Errorf("%s.%s is not snake_case", path, k)
			}
			checkForm(t, path+"."+k, e)
		}
	}
}

func TestErr(t *testing.T) {
	unhooked := modern()
	unhooked.Choices = append([]probe.Choice{{Observation: probe.SYNRefused, Rung: probe.None}}, unhooked.Choices...)
	unhooked.Namespaces = nil
	recycle := modern()
	recycle.Namespaces = nil
	recycle.RecycleLines = []kernel.Line{{File: "/etc/sysctl.conf", No: 3, Text: "net.ipv4.tcp_tw_recycle=1"}}
	clean := modern()
	clean.RecycleLines = nil
	verifier := modern()
	verifier.ProbeErr = errors.New("create the BPF map tws_counts: no space left")
	lockdown := modern()
	lockdown.Kernel.Lockdown, lockdown.ProbeErr = "confidentiality", errPerm
	contained := modern()
	contained.ProbeErr = fmt.Errorf("create the BPF map tws_counts: %w", errPerm)
	dropped := notRoot()
	dropped.UID = 0
	blind := modern()
	blind.ProbeErr = fmt.Errorf("%w: %w", probe.ErrNothingToSee, errPerm)
	tests := []struct {
		name         string
		in           Input
		plain, tough string // part of the error; empty: none
	}{
		{"modern", clean, "", ""},
		{"sysctl warning", hardened(), "", "--strict: 4 warnings, first: net.ipv4.tcp_tw_reuse = 1 in"},
		{"no rung", unhooked, "", "--strict: 1 warning, first: syn_refused cannot be observed here"},
		{"tcp_tw_recycle", recycle, "", "first: /etc/sysctl.conf:3 still sets tcp_tw_recycle"},
		{"not root", notRoot(), "twscope lacks CAP_BPF (loads BPF programs) and CAP_PERFMON", "run as root, or in a systemd unit set AmbientCapabilities=CAP_BPF CAP_PERFMON "},
		{"root without capabilities", dropped, "start a container with --cap-add BPF --cap-add PERFMON", "CapabilityBoundingSet="},
		{"no BTF", noBTF(), "CONFIG_DEBUG_INFO_BTF=y", "no type information"},
		{"forced rung", forcedInVain(), "--rung kprobe does not work: this kernel is built without kprobes: leave out --rung", "--rung kprobe"},
		{"lockdown", lockdown, "lockdown is in mode confidentiality", "boot with"},
		{"container", contained, "refuses BPF although twscope has the capabilities", "--privileged"},
		{"blind", blind, "neither TIME_WAIT nor PAWS", "kernel of 5.8"},
		{"other", verifier, "tws_counts: no space left: twscope needs kernel 5.8", "no space left"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Build(tt.in)
			for strict, want := range map[bool]string{false: tt.plain, true: tt.tough} {
				err := r.Err(strict)
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("strict %t: got %v, want %q", strict, err, want)
				}
			}
			if r.Ready != (tt.plain == "") {
				t.Errorf("ready: %t", r.Ready)
			}
		})
	}
}

func TestCoverage(t *testing.T) {
	tests := []struct {
		name string
		in   Input
		want Coverage
	}{
		{"modern", modern(), Coverage{Total: 14, Observed: 14, Best: 14}},
		{"hardened", hardened(), Coverage{Total: 14, Observed: 14, Best: 8}},
		{"forced", forced(), Coverage{Total: 14, Observed: 14}},
		{"not root", notRoot(), Coverage{Total: 14}},
	}
	for _, tt := range tests {
		if got := Build(tt.in).Coverage; got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	// What would have come with an observation that has no rung is told too.
	in := hardened()
	var without []probe.Choice
	for _, c := range in.Choices {
		if c.Observation != probe.PAWSSYNSent {
			without = append(without, c)
		}
	}
	in.Choices = without
	r := Build(in)
	if want := (Coverage{Total: 14, Observed: 13, Best: 7}); r.Coverage != want {
		t.Errorf("%+v, want %+v", r.Coverage, want)
	}
	if !strings.HasSuffix(r.Summary, "; not to be seen here: paws_syn_sent") {
		t.Errorf("summary: %s", r.Summary)
	}
}

// TestForeignBytes holds the text to printable characters whatever names,
// files and the kernel say.
func TestForeignBytes(t *testing.T) {
	const evil = "\x1b[2J\u009b\u202e\r\n\x07\xff"
	in := notRoot()
	in.Kernel.Release, in.Kernel.Lockdown, in.Kernel.Cgroup2 = evil, evil, evil
	in.RecycleLines = []kernel.Line{{File: evil, No: 1, Text: evil}}
	in.Problems = []error{errors.New(evil)}
	in.ProbeErr = errors.New(evil)
	in.Missing = nil
	in.Namespaces = []Namespace{
		{Namespace: kernel.Namespace{Names: []string{evil}}, Sysctls: map[string]string{kernel.SysctlPortRange: evil}},
		{Namespace: kernel.Namespace{Names: []string{evil}}, Err: errors.New(evil)},
	}
	in.Choices = []probe.Choice{{
		Observation: probe.TimeWait, Rung: probe.Tracepoint,
		Tried: []probe.Attempt{{Rung: probe.Fentry, Err: errors.New("fentry/x: " + evil)}},
	}}
	for _, r := range text(t, Build(in), true) {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%U is in the text", r)
		}
	}
}

func TestManyNamespaces(t *testing.T) {
	in := modern()
	in.Namespaces = nil
	for i := range 20 {
		in.Namespaces = append(in.Namespaces, Namespace{
			Namespace: kernel.Namespace{Inode: uint32(4026532000 - i), PID: uint32(20 - i)},
			Own:       i == 5, Sysctls: defaults(),
		})
	}
	r := Build(in)
	if len(r.Sysctls) != 1 || len(r.Sysctls[0].Namespaces) != 20 {
		t.Fatalf("%d groups", len(r.Sysctls))
	}
	const want = "20 network namespaces: 4026531981 (init's), 4026531995 (ours), 4026531982, "
	if got := namespaceList(r.Sysctls[0].Namespaces); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, " and 12 more") {
		t.Errorf("got %s", got)
	}
}
