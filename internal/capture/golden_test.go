// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/capture"
)

const captures = "../../testdata/captures"

// readAll reads a capture, and fails the test if it does not end with io.EOF.
func readAll(tb testing.TB, in io.Reader) ([]capture.Segment, capture.Stats) {
	tb.Helper()
	segments, stats, err := readUntil(in)
	if !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	return segments, stats
}

func readUntil(in io.Reader) ([]capture.Segment, capture.Stats, error) {
	r, err := capture.NewReader(in)
	if err != nil {
		return nil, capture.Stats{}, err
	}
	var segments []capture.Segment
	for {
		var s capture.Segment
		if err := r.Next(&s); err != nil {
			return segments, r.Stats(), err
		}
		segments = append(segments, s)
	}
}

func readFile(tb testing.TB, name string) []capture.Segment {
	tb.Helper()
	f, err := os.Open(filepath.Join(captures, name))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	segments, stats := readAll(tb, f)
	if want := (capture.Stats{Packets: int64(len(segments)), Segments: int64(len(segments))}); stats != want {
		tb.Errorf("%s: stats %+v, want %+v", name, stats, want)
	}
	return segments
}

// TestTcpdumpReadsTheSame holds what we read in each capture against what
// tcpdump 4.99.3 printed of it.
func TestTcpdumpReadsTheSame(t *testing.T) {
	texts, err := filepath.Glob(filepath.Join(captures, "*.txt"))
	if err != nil || len(texts) == 0 {
		t.Fatalf("no texts in %s: %v", captures, err)
	}
	for _, text := range texts {
		name := strings.TrimSuffix(filepath.Base(text), ".txt")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, s := range readFile(t, name) {
				if s.Packet != int64(i+1) {
					t.Errorf("segment %d is packet %d", i, s.Packet)
				}
				got = append(got, likeTcpdump(s))
			}
			if diff := gocmp.Diff(wantLines(t, string(b)), got); diff != "" {
				t.Errorf("(-tcpdump +we):\n%s", diff)
			}
		})
	}
}

// wantLines brings the text of tcpdump -v into the form of likeTcpdump.
func wantLines(tb testing.TB, text string) []string {
	tb.Helper()
	line := regexp.MustCompile(`^(\S+) .*?(?:ttl|hlim) (\d+), .*?\) +(\S+ > \S+: .*)$`)
	noise := regexp.MustCompile(`cksum \S+ \((?:correct|incorrect -> \S+)\), `)
	cut := regexp.MustCompile(`options \[.*\[\|tcp\]>?$`)
	var lines []string
	for l := range strings.Lines(strings.ReplaceAll(text, "\n    ", " ")) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			tb.Fatalf("tcpdump's line %q", l)
		}
		rest := cut.ReplaceAllString(noise.ReplaceAllString(m[3], ""), "options cut")
		lines = append(lines, fmt.Sprintf("%s ttl %s %s", m[1], m[2], rest))
	}
	return lines
}

func likeTcpdump(s capture.Segment) string {
	var b strings.Builder
	// as tcpdump has it, the port follows an IPv6 address like an IPv4 one
	fmt.Fprintf(&b, "%d.%09d ttl %d %s.%d > %s.%d: Flags [%s]", s.Time/1e9, s.Time%1e9, s.TTL,
		s.Src.Addr(), s.Src.Port(), s.Dst.Addr(), s.Dst.Port(), flags(s.Flags))
	if s.Len > 0 {
		fmt.Fprintf(&b, ", seq %d:%d", s.Seq, s.Seq+uint32(s.Len))
	} else if s.Flags&(capture.SYN|capture.FIN|capture.RST) != 0 {
		fmt.Fprintf(&b, ", seq %d", s.Seq)
	}
	if s.Flags.Has(capture.ACK) {
		fmt.Fprintf(&b, ", ack %d", s.Ack)
	}
	fmt.Fprintf(&b, ", win %d", s.Window)
	if s.OptionsCut {
		return b.String() + ", options cut"
	}
	var options []string
	for _, kind := range s.Kinds() {
		options = append(options, map[uint8]string{
			1: "nop", 2: fmt.Sprint("mss ", s.MSS), 3: fmt.Sprint("wscale ", s.WScale), 4: "sackOK",
			8: fmt.Sprintf("TS val %d ecr %d", s.TSval, s.TSecr),
		}[kind])
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, ", options [%s]", strings.Join(options, ","))
	}
	fmt.Fprintf(&b, ", length %d", s.Len)
	return b.String()
}

func flags(f capture.Flags) string {
	var b strings.Builder
	for _, flag := range []struct {
		flag capture.Flags
		char byte
	}{{capture.FIN, 'F'}, {capture.SYN, 'S'}, {capture.RST, 'R'}, {capture.PSH, 'P'}, {capture.ACK, '.'}} {
		if f.Has(flag.flag) {
			b.WriteByte(flag.char)
		}
	}
	return b.String()
}

// TestMerged reads what tcpdump does not: one section of several interfaces,
// with a link type and a resolution each.
func TestMerged(t *testing.T) {
	var want []capture.Segment
	for _, name := range []string{"ethernet.pcap", "nano.pcap", "sll2.pcap"} {
		want = append(want, readFile(t, name)...)
	}
	slices.SortStableFunc(want, func(a, b capture.Segment) int { return cmp.Compare(a.Time, b.Time) })
	got := readFile(t, "merged.pcapng")
	if len(got) != len(want) {
		t.Fatalf("%d segments, want %d", len(got), len(want))
	}
	for i := range want {
		want[i].Packet = int64(i + 1)
		if got[i] != want[i] {
			t.Errorf("segment %d:\ngot  %+v\nwant %+v", i, got[i], want[i])
		}
	}
}
