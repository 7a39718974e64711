// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
	"github.com/twscope/twscope/internal/testutil"
	"github.com/twscope/twscope/internal/verdict"
)

// record writes events as a run does, with the findings that follow.
func record(t *testing.T, events ...event.Event) string {
	t.Helper()
	engine, enc := diagnose.New(), event.NewEncoder()
	var log []byte
	for _, ev := range events {
		line := enc.Append(nil, ev)
		eventtest.Validate(t, line)
		log = append(log, line...)
		for _, f := range engine.Feed(ev) {
			log = enc.Append(log, f)
		}
	}
	return string(log)
}

// story is a run in which ports run out and the program then closes by RST.
func story() []event.Event {
	at := func(s float64) event.Header {
		start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		return event.Header{Time: start.UnixNano() + int64(s*1e9)}
	}
	sysctls := map[string]string{
		"net.ipv4.tcp_tw_reuse": "1", "net.ipv4.tcp_timestamps": "1", "net.ipv4.ip_local_port_range": "40000 40999", "net.ipv4.ip_local_reserved_ports": "",
	}
	namespaces := []event.NamespacePorts{{NetNS: 4026532000, Sysctls: sysctls, Listening: "22,8080", HasListening: true}}
	local, remote := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	fail := &event.ConnectFail{
		Header: at(2), Errno: 99, RangeLow: 40000, RangeHigh: 40999, Cause: event.CauseTimeWaitNotReusable,
		Socket: event.Socket{
			NetNS: 4026532000, Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(remote, 8080),
			Owner: event.Owner{PID: 4123, Comm: "python3"},
		},
		Refused: event.Refused{NoTimestamps: 1000}, PortsTotal: 1000, PortsTimeWait: 1000, Timestamps: event.TimestampsNo,
	}
	budget := func(s float64, change func(d *event.Destination)) event.Event {
		d := event.Destination{
			NetNS: 4026532000, Laddr: local, Raddr: remote, Rport: 8080, PortsTotal: 1000, TimeWait: 1000,
			Refused: event.Refused{NoTimestamps: 1000}, Timestamps: event.TimestampsNo, Rate: 900, SustainableRate: 1000.0 / 60,
			Failed: 1, ClosedHere: 1000, PID: 4123, Comm: "python3",
		}
		change(&d)
		return &event.Destinations{Header: at(s), List: []event.Destination{d}, Namespaces: namespaces, Omitted: 2}
	}
	cured := func(d *event.Destination) {
		d.TimeWait, d.Refused.NoTimestamps, d.Failed, d.ClosedReset, d.ExhaustedInS = 0, 0, 500, 36000, -1
	}
	return []event.Event{
		&event.Start{Header: at(0), Kernel: "6.18.44", Sysctls: []event.NamespaceSysctls{{NetNS: 4026532000, Values: sysctls}}},
		&event.TimeWait{Header: at(1), Socket: fail.Socket, Bound: true},
		fail,
		budget(2.01, func(*event.Destination) {}),
		budget(12, func(d *event.Destination) { d.Rate, d.Failed, d.ExhaustedInS = 0, 500, 0 }),
		&event.Loss{Header: at(13), Hop: "ring", Of: "time_wait", Count: 3},
		budget(42, cured), budget(52, cured),
		&event.Stop{Stats: event.Stats{Header: at(53)}, Reason: "SIGINT"},
	}
}

func TestReplayGolden(t *testing.T) {
	log := record(t, story()...)
	for name, args := range map[string][]string{
		"replay.txt":        {"replay", "--utc", "-"},
		"tail_findings.txt": {"tail", "--utc", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, log, args...)
			if code != exitOK {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
			testutil.Golden(t, *update, name, stdout)
		})
	}
}

// runCLI runs a command line with its standard input.
func runCLI(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCmd()
	root.SetIn(strings.NewReader(stdin))
	code = execute(root, args, &out, &errs)
	return out.String(), errs.String(), code
}

func TestReplayJSON(t *testing.T) {
	log := record(t, story()...)
	var recorded strings.Builder
	for line := range strings.Lines(log) {
		if strings.Contains(line, `"event":"finding"`) {
			recorded.WriteString(line)
		}
	}
	stranger := `{"time":"2026-11-22T12:00:00.000000000Z","event":"comet","tail":1}` + "\n"
	strange := strings.Replace(log, "\n", "\n"+stranger, 3)
	strange = strings.ReplaceAll(strange, `"event":"connect_fail"`, `"novel":{"a":[1]},"event":"connect_fail","later":2`)
	dir := t.TempDir()
	path, packed := filepath.Join(dir, "events.json"), filepath.Join(dir, "events.json.gz")
	writeFile(t, path, log)
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte(log)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	writeFile(t, packed, z.String())
	tests := []struct {
		name, stdin, path string
		account           string
	}{
		{"file", "", path, "14 events, 5 findings; passed over: 0 unknown events, 0 unknown members; missing in the log: 3\n"},
		{"packed", "", packed, "14 events, 5 findings"},
		{"standard input", log, "-", "14 events"},
		{"strangers", strange, "-", "17 events, 5 findings; passed over: 3 unknown events, 2 unknown members; missing in the log: 3\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, tt.stdin, "replay", "--format", "json", tt.path)
			if code != exitOK || !strings.HasPrefix(stderr, tt.account) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			last, found := strings.CutPrefix(stdout, recorded.String())
			if !found {
				t.Errorf("got\n%srecorded\n%s", stdout, recorded.String())
			}
			eventtest.Validate(t, []byte(last))
			if !strings.Contains(last, `"event":"stop"`) || !strings.Contains(last, `"verdict":{"schema":"1.0","answer":"10.0.0.2:8080: all 1,000 local ports`) {
				t.Errorf("the last line is %s", last)
			}
		})
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReplayCheck(t *testing.T) {
	log := record(t, story()...)
	events := story()
	r := verdict.NewReplay()
	for _, ev := range events {
		r.Feed(ev)
	}
	v := r.Verdict()
	events[len(events)-1].(*event.Stop).Conclusion = v.Encode()
	concluded := record(t, events...)
	lines := strings.SplitAfter(log, "\n")
	without := func(n int) string {
		return strings.Join(append(append([]string(nil), lines[:n]...), lines[n+1:]...), "")
	}
	var first int
	for i, line := range lines {
		if strings.Contains(line, `"event":"finding"`) {
			first = i
			break
		}
	}
	tests := []struct {
		name, log, want string
		code            int
	}{
		{"same", log, "5 findings compared", exitOK},
		{"cut before a finding", strings.Join(lines[:first], ""), "0 findings compared; note: the log ends without a stop event", exitOK},
		{"same verdict", concluded, "5 findings compared", exitOK},
		{"changed verdict", strings.Replace(concluded, `"made":`, `"made":7`, 1), "the replay differs from the log at the verdict, of event 14:\nrecorded: {", exitError},
		{"changed", strings.Replace(log, "the load is 900", "the load is 901", 1), "the replay differs from the log at finding 1, of event 5:\nrecorded: ", exitError},
		{"one more", strings.Join(append(append([]string(nil), lines[:len(lines)-2]...), lines[first], lines[len(lines)-2]), ""), "replayed: nothing", exitError},
		{"last one missing", without(len(lines) - 3), "recorded: nothing", exitError},
		{"first one missing", without(first), "differs from the log at finding 1", exitError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, tt.log, "replay", "--check", "-")
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit code %d, stdout %q, stderr %s", code, stdout, stderr)
			}
		})
	}
}

func TestReplayErrors(t *testing.T) {
	log := record(t, story()...)
	tests := []struct {
		name, stdin string
		args        []string
		want        string
		code        int
	}{
		{"cut in a line", log[:len(log)-20], []string{"-"}, "standard input:14: the line is not complete: the log was cut there, or is being written; 13 events were read before", exitError},
		{"binary", "\x7fELF\x02\x00\n", []string{"-"}, "standard input:1: not JSON", exitError},
		{"foreign JSON", `{"level":"info","msg":"x"}` + "\n", []string{"-"}, `standard input:1: member "event" is missing: is this an event log of twscope?`, exitError},
		{"foreign text in between", "hello\n" + log, []string{"-"}, "standard input:1: not JSON", exitError},
		{"bad later line", log + "{}\n", []string{"-"}, "standard input:15: member \"event\" is missing\n", exitError},
		{"empty", "", []string{"-"}, "the log is empty", exitError},
		{"no such file", "", []string{filepath.Join(t.TempDir(), "none")}, "no such file", exitError},
		{"no file", "", nil, "accepts 1 arg", exitUsage},
		{"bad format", "", []string{"--format", "xml", "-"}, `--format "xml": want text or json`, exitUsage},
		{"bad colour", "", []string{"--color", "red", "-"}, `--color "red"`, exitUsage},
		{"no beginning", log[strings.Index(log, "\n")+1:], []string{"-"}, "the log has no start event", exitOK},
		{"a later part", strings.Replace(log, `"part":0`, `"part":2`, 1), []string{"-"}, "the log begins with part 2 of its run, --all reads the files before", exitOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, code := runCLI(t, tt.stdin, append([]string{"replay"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, stderr %s", code, stderr)
			}
		})
	}
}
