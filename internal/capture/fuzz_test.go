// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/twscope/twscope/internal/capture"
)

// FuzzReader: any bytes end, with all packets accounted for, and with the same
// result however they arrive.
func FuzzReader(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(captures, "*.pcap*"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no captures in %s: %v", captures, err)
	}
	for _, name := range files {
		if filepath.Ext(name) == ".txt" {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 1000)])
	}
	for _, order := range orders {
		c := file{AppendByteOrder: order}
		c.section().iface(1, c.option(9, []byte{0x94}), c.option(14, make([]byte, 8))).iface(113)
		c.packet(0, 1, unhex(f, etherSYN), 74).packet(1, 1<<60, nil, 0).block(3, make([]byte, 20)).block(2, make([]byte, 24))
		f.Add(c.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		segments, stats, err := readUntil(bytes.NewReader(b))
		var fault *capture.FormatError
		switch {
		case errors.As(err, &fault):
			if fault.Offset < 0 || fault.Offset > int64(len(b)) || fault.Packet != stats.Packets {
				t.Errorf("%+v of %d bytes, %+v", fault, len(b), stats)
			}
		case !errors.Is(err, io.EOF):
			t.Errorf("%v", err)
		}
		sum := stats.Segments + stats.NotTCP + stats.Fragments + stats.Cut + stats.Malformed + stats.OtherLink + stats.Untimed
		if sum != stats.Packets || stats.Segments != int64(len(segments)) {
			t.Errorf("%d segments, %+v", len(segments), stats)
		}
		last := int64(0)
		for _, s := range segments {
			if s.Packet <= last || s.Packet > stats.Packets {
				t.Errorf("packet %d after %d", s.Packet, last)
			}
			last = s.Packet
			checkSegment(t, &s)
		}
		slowly, slowStats, slowErr := readUntil(iotest.OneByteReader(bytes.NewReader(b)))
		if len(slowly) != len(segments) || slowStats != stats || slowErr.Error() != err.Error() {
			t.Errorf("a byte at a time: %d segments, %+v, %v; at once: %d, %+v, %v", len(slowly), slowStats, slowErr, len(segments), stats, err)
		}
	})
}

// checkSegment tests what is true of every segment.
func checkSegment(t *testing.T, s *capture.Segment) {
	t.Helper()
	src, dst := s.Src.Addr(), s.Dst.Addr()
	if !src.IsValid() || src.Is4() != dst.Is4() || s.Len < 0 || len(s.Kinds()) > capture.MaxKinds {
		t.Errorf("%+v", s)
	}
	if !s.Timestamps && s.TSval|s.TSecr != 0 || !s.HasMSS && s.MSS != 0 || !s.HasWScale && s.WScale != 0 {
		t.Errorf("an option that is not there: %+v", s)
	}
	if s.Malformed && s.OptionsCut {
		t.Errorf("malformed for want of a capture: %+v", s)
	}
}

// FuzzDecode fuzzes the headers of one packet, of any link type and length.
func FuzzDecode(f *testing.F) {
	for _, seed := range []struct {
		link   uint16
		packet string
	}{
		{1, etherSYN},
		{1, macs + "88a8 000a 8100 0014 86dd" + ipv6SYN},
		{101, "60000000 0038 00 40" + ipv6To + "3c00 0502 0000 0100 0600 0000 0000 0000" + tcpSYN},
		{101, "60000000 0038 2c 40" + ipv6To + "3300 0000 00000001 0600 0000 0000 0000" + tcpSYN},
		{0, "02000000" + ipv4SYN},
		{113, "0000 0001 0006 0200000000010000 0800" + ipv4SYN},
		{276, "86dd 0000 00000002 0001 00 06 0200000000010000" + ipv6SYN},
	} {
		f.Add(seed.link, unhex(f, seed.packet), uint32(74))
	}
	f.Fuzz(func(t *testing.T, link uint16, packet []byte, wireLen uint32) {
		c := file{AppendByteOrder: binary.LittleEndian}
		c.section().iface(link).packet(0, 1, packet, int(wireLen))
		segments, stats := readAll(t, bytes.NewReader(c.b))
		if stats.Packets != 1 {
			t.Fatalf("%+v", stats)
		}
		for _, s := range segments {
			checkSegment(t, &s)
			if n := len(packet); s.Len > max(int(wireLen), n, 1<<16) {
				t.Errorf("%d bytes of payload in %d, captured %d", s.Len, wireLen, n)
			}
		}
		// What was captured less of is the same segment, or none.
		if len(segments) == 0 || len(packet) == 0 {
			return
		}
		shorter := file{AppendByteOrder: binary.LittleEndian}
		shorter.section().iface(link).packet(0, 1, packet[:len(packet)-1], max(int(wireLen), len(packet)))
		less, lessStats := readAll(t, bytes.NewReader(shorter.b))
		if len(less) == 0 {
			if lessStats.Cut != 1 {
				t.Errorf("a byte less: %+v", lessStats)
			}
			return
		}
		less[0].Options, less[0].OptionsCut = segments[0].Options, segments[0].OptionsCut
		if less[0] != segments[0] {
			t.Errorf("a byte less: %+v, want %+v", less[0], segments[0])
		}
	})
}

// FuzzOptions: what is behind the end of the list, and behind a bad length,
// changes nothing; and an option more does not change those before.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		"", "020405b4 0402 080a 00112233 00000000 01 030307", "020405b4 00 080a", "0800", "0801", "feff", "0101 050a 00000001 00000002",
	} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var o, more capture.Options
		o.Parse(b)
		checkSegmentOptions(t, &o, b)
		if o.Malformed || o.EOLPad > 0 || bytes.HasSuffix(b, []byte{0}) {
			return // may be the end of the list
		}
		more.Parse(append(bytes.Clone(b), 4, 2))
		if !more.SACKPermitted || more.TSval != o.TSval || more.MSS != o.MSS || more.WScale != o.WScale {
			t.Errorf("% x: %+v; with SACK permitted: %+v", b, o, more)
		}
	})
}

func checkSegmentOptions(t *testing.T, o *capture.Options, b []byte) {
	t.Helper()
	if len(o.Kinds()) > min(len(b), capture.MaxKinds) || bytes.IndexByte(o.Kinds(), 0) >= 0 {
		t.Errorf("% x: kinds %v", b, o.Kinds())
	}
	for kind, seen := range map[uint8]bool{2: o.HasMSS, 3: o.HasWScale, 4: o.SACKPermitted, 8: o.Timestamps} {
		if seen && len(o.Kinds()) < capture.MaxKinds && bytes.IndexByte(o.Kinds(), kind) < 0 {
			t.Errorf("% x: kind %d without being named: %v", b, kind, o.Kinds())
		}
	}
}
