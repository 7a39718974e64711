// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event/eventtest"
)

// wire writes a pcap file of one client and one server, 10.0.0.1 and 10.0.0.2,
// as raw IP.
type wire struct {
	b        []byte
	ms       int64
	refusals int
}

func newWire() *wire {
	w := &wire{}
	for _, v := range []uint32{0xa1b2c3d4, 4<<16 | 2, 0, 0, 65535, 101} {
		w.b = binary.LittleEndian.AppendUint32(w.b, v)
	}
	return w
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
	wireStart          = 1_795_000_000 // s since the Unix epoch
)

// segment writes one with a TSval of tsval.
func (w *wire) segment(fromClient bool, port uint16, flags byte, seq, ackSeq, tsval uint32) {
	options := binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, tsval)
	options = append(options, 0, 0, 0, 0)
	if flags&syn != 0 {
		options = append(binary.BigEndian.AppendUint32([]byte{2, 4, 5, 0xb4, 4, 2, 8, 10}, tsval), 0, 0, 0, 0, 1, 3, 3, 7)
	}
	if flags&rst != 0 {
		options = nil
	}
	n := 40 + len(options)
	ip := []byte{0x45, 0, 0, byte(n), 0, 0, 0x40, 0, 63, 6, 0, 0}
	ends := [][]byte{{10, 0, 0, 1}, {10, 0, 0, 2}}
	ports := []uint16{port, 80}
	if !fromClient {
		ends[0], ends[1], ports[0], ports[1] = ends[1], ends[0], ports[1], ports[0]
	}
	ip = append(append(ip, ends[0]...), ends[1]...)
	tcp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(ip, ports[0]), ports[1])
	tcp = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(tcp, seq), ackSeq)
	tcp = append(tcp, byte(20+len(options))/4<<4, flags, 0xfa, 0xf0, 0, 0, 0, 0)
	tcp = append(tcp, options...)
	for _, v := range []uint32{uint32(wireStart + w.ms/1000), uint32(w.ms % 1000 * 1000), uint32(n), uint32(n)} {
		w.b = binary.LittleEndian.AppendUint32(w.b, v)
	}
	w.b = append(w.b, tcp...)
}

// connection is one that the server closes.
func (w *wire) connection(port uint16, isn, tsval uint32) {
	const server = 900_000
	w.segment(true, port, syn, isn, 0, tsval)
	w.segment(false, port, syn|ack, server, isn+1, 1)
	w.segment(true, port, ack, isn+1, server+1, tsval)
	w.segment(false, port, fin|ack, server+1, isn+1, 1)
	w.segment(true, port, fin|ack, isn+1, server+2, tsval)
	w.segment(false, port, ack, server+2, isn+2, 1)
}

// refused is a SYN that meets the end of such a connection.
func (w *wire) refused(port uint16, isn, oldISN, tsval uint32) {
	w.refusals++
	w.segment(true, port, syn, isn, 0, tsval)
	w.segment(false, port, ack, 900_002, oldISN+2, 1)
	w.segment(true, port, rst, oldISN+2, 0, 0)
}

// natWire is a host behind a NAT with 40 ports, whose clock differs by
// connection: where it is behind on a port, the SYN is refused, and comes
// again.
func natWire() *wire {
	const ports, connections, apart = 40, 160, 200 // ms from one connection to the next
	w := newWire()
	random := rand.New(rand.NewPCG(1, 2))
	var last, isns [ports]uint32
	for i := range uint32(connections) {
		w.ms = int64(i) * apart
		tsval, isn, p := random.Uint32()+uint32(w.ms), random.Uint32(), random.IntN(ports)
		port := uint16(20_000 + p)
		if last[p] != 0 && int32(tsval-last[p]) < 0 {
			w.refused(port, isn, isns[p], tsval)
			w.ms += 10
			tsval += 10
		}
		w.connection(port, isn, tsval)
		last[p], isns[p] = tsval, isn
	}
	return w
}

func pack(t *testing.T, b []byte) string {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return z.String()
}

// TestReplayCaptureText: each refusal is told, nearly all as what they are, and
// what follows, as tail does.
func TestReplayCaptureText(t *testing.T) {
	w := natWire()
	stdout, stderr, code := runCLI(t, string(w.b), "replay", "--utc", "-")
	account := fmt.Sprintf("1122 packets, 1122 TCP segments, 160 SYNs and %d repetitions: "+
		"160 handshakes completed, %[1]d refused by PAWS, 0 refused otherwise, 0 without an answer; ", w.refusals)
	if code != exitOK || !strings.HasPrefix(stderr, account) || strings.Contains(stderr, "note:") {
		t.Errorf("exit code %d: %s, want %s", code, stderr, account)
	}
	count := map[string]int{}
	explained := 0
	for line := range strings.Lines(stdout) {
		fields := strings.Fields(line)
		count[fields[1]]++
		if fields[1] == "paws_reject" && strings.Contains(line, "verdict nat-port-rewrite") {
			explained++
		}
	}
	if count["paws_reject"] != w.refusals || explained < w.refusals*9/10 || count["sources"] != 1 || count["finding"] == 0 || len(count) != 3 {
		t.Errorf("%d of %d explained, lines %v", explained, w.refusals, count)
	}
	if want := "10.0.0.2:80 -> 10.0.0.1:200"; !strings.Contains(stdout, want) {
		t.Errorf("no %s in %s", want, stdout)
	}
}

// TestReplayCaptureForms: the same from a file, packed, and as a stream; twice.
func TestReplayCaptureForms(t *testing.T) {
	b := natWire().b
	dir := t.TempDir()
	plain, packed := filepath.Join(dir, "capture"), filepath.Join(dir, "packed")
	writeFile(t, plain, string(b))
	writeFile(t, packed, pack(t, b))
	want, account, code := runCLI(t, string(b), "replay", "--format", "json", "-")
	if code != exitOK || !strings.Contains(want, `"verdict":"nat-port-rewrite"`) || !strings.Contains(want, `"code":"nat-paws-drop"`) {
		t.Fatalf("exit code %d, %s%s", code, want, account)
	}
	for line := range strings.Lines(want) {
		eventtest.Validate(t, []byte(line))
	}
	for name, in := range map[string][2]string{
		"file": {"", plain}, "packed file": {"", packed}, "packed stream": {pack(t, b), "-"}, "stream": {string(b), "-"},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runCLI(t, in[0], "replay", "--format", "json", in[1])
			if code != exitOK || stdout != want || stderr != account {
				t.Errorf("exit code %d: %s, want %s; as before: %v", code, stderr, account, stdout == want)
			}
		})
	}
}

// TestReplayCaptureAgain: what is written as JSON is a log from which the same
// follows.
func TestReplayCaptureAgain(t *testing.T) {
	log, _, _ := runCLI(t, string(natWire().b), "replay", "--format", "json", "-")
	_, stderr, code := runCLI(t, log, "replay", "--check", "-")
	if code != exitOK || strings.Contains(stderr, " 0 findings compared") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestReplayCaptureErrors(t *testing.T) {
	b := string(natWire().b)
	tests := []struct {
		name, stdin string
		args        []string
		want        string
		code        int
	}{
		{"cut", b[:len(b)-10], []string{"-"}, "the capture ends inside of this record", exitError},
		{"cut, packed", pack(t, []byte(b))[:2000], []string{"-"}, "unexpected EOF", exitError},
		{"zstd", "\x28\xb5\x2f\xfd....", []string{"-"}, "the capture is compressed: unpack it first", exitError},
		{"not gzip", "\x1f\x8b....", []string{"-"}, "standard input: not a complete gzip file", exitError},
		{"check", b, []string{"--check", "-"}, "--check is for event logs, and - is a packet capture", exitUsage},
		{"all", b, []string{"--all", "-"}, "--all is for event logs", exitUsage},
		{"no packets", b[:24], []string{"-"}, "no SYNs: nothing can be told", exitOK},
		{"a directory", "", []string{t.TempDir()}, "is a directory: name a file in it", exitError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, code := runCLI(t, tt.stdin, append([]string{"replay"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, stderr %s", code, stderr)
			}
		})
	}
	// all that was read before counts
	stdout, _, _ := runCLI(t, b[:len(b)-10], "replay", "--format", "json", "-")
	if !strings.Contains(stdout, `"code":"nat-paws-drop"`) {
		t.Errorf("no finding of a capture that lacks its end")
	}
}

// TestReplayCaptureSilence: a day of silence, and the age of the Earth, cost
// little.
func TestReplayCaptureSilence(t *testing.T) {
	w := newWire()
	for _, ms := range []int64{0, 5000, 24 * 3600e3, 2_000_000_000e3} {
		w.ms = ms
		w.connection(1000, uint32(ms), uint32(ms))
	}
	stdout, stderr, code := runCLI(t, string(w.b), "replay", "--format", "json", "-")
	if n := strings.Count(stdout, "\n"); code != exitOK || n > 3000 {
		t.Errorf("exit code %d, %d lines: %s", code, n, stderr)
	}
}

// TestProgress: five times a second at most, and out of the way of the output.
func TestProgress(t *testing.T) {
	var terminal bytes.Buffer
	now := time.Unix(1000, 0)
	p := &progress{terminal: &terminal, now: func() time.Time { return now }, line: func() string { return "50 %" }}
	for range 10 {
		p.show()
		now = now.Add(100 * time.Millisecond)
	}
	if got := strings.Count(terminal.String(), "\r50 %\x1b[K"); got != 5 {
		t.Errorf("shown %d times in a second: %q", got, terminal.String())
	}
	terminal.Reset()
	out := &above{&terminal, p}
	if _, err := io.WriteString(out, "line\n"); err != nil || terminal.String() != "\r\x1b[Kline\n" {
		t.Errorf("%q, %v", terminal.String(), err)
	}
	p.hide() // is hidden
	if terminal.String() != "\r\x1b[Kline\n" {
		t.Errorf("%q", terminal.String())
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	none := newProgress(file, nil)
	none.show()
	none.hide()
	if none != nil {
		t.Error("a file is no terminal")
	}
}
