// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/testutil"
)

func packetOf(t testing.TB, s RawSegment) []byte {
	t.Helper()
	p, err := s.packet()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func rawSYN(src, dst string) RawSegment {
	return RawSegment{
		Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Flags: SYN,
		Seq: 1 << 31, Ack: 7, TTL: 61, Window: 1000, Options: TimestampOption(0xfffffff0, 9),
	}
}

func TestParseSegment(t *testing.T) {
	for name, raw := range map[string]RawSegment{
		"IPv4": rawSYN("10.0.0.1:1000", "10.0.0.2:80"), "IPv6": rawSYN("[fd00::1]:1000", "[fd00::2]:80"),
	} {
		t.Run(name, func(t *testing.T) {
			raw.Payload = []byte("odd")
			p := packetOf(t, raw)
			padded := append(p, 0, 0, 0, 0) // as Ethernet does
			want := Segment{
				Src: raw.Src, Dst: raw.Dst, TTL: 61, Flags: SYN, Seq: 1 << 31, Ack: 7, Window: 1000, Len: 3,
				Timestamps: true, TSval: 0xfffffff0, TSecr: 9,
			}
			for _, b := range [][]byte{p, padded} {
				got, err := parseSegment(b, len(b))
				testutil.Must(t, err)
				if got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			}
			// Of a long segment the capture has the headers only.
			got, err := parseSegment(p[:len(p)-3], len(p))
			testutil.Must(t, err)
			if got != want {
				t.Errorf("cut to the headers: got  %+v\nwant %+v", got, want)
			}
			for n := range len(p) - 3 {
				if _, err := parseSegment(p[:n], len(p)); !errors.Is(err, errShort) {
					t.Errorf("cut to %d bytes: error %v, want %v", n, err, errShort)
				}
			}
		})
	}
}

func TestParseSegmentRejects(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(p []byte)
		want   error
	}{
		{"version 5", func(p []byte) { p[0] = 0x55 }, errNotTCP},
		{"UDP", func(p []byte) { p[9] = 17 }, errNotTCP},
		{"fragment", func(p []byte) { p[6] = 0x20 }, errNotTCP},
		{"IP header length 4", func(p []byte) { p[0] = 0x44 }, errBadHeader},
		{"TCP header length 16", func(p []byte) { p[32] = 0x40 }, errBadHeader},
		{"TCP header longer than the packet", func(p []byte) { p[32] = 0xf0 }, errBadHeader},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := packetOf(t, rawSYN("10.0.0.1:1000", "10.0.0.2:80"))
			tc.change(p)
			if _, err := parseSegment(p, len(p)); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestParseOptions(t *testing.T) {
	ts := TimestampOption(5, 6)
	for _, tc := range []struct {
		name    string
		options []byte
		ts, bad bool
	}{
		{"none", nil, false, false},
		{"timestamps", ts, true, false},
		{"after MSS and window scale", append([]byte{2, 4, 5, 0xb4, 3, 3, 7, 1}, ts...), true, false},
		{"after the end of the list", append([]byte{optEnd}, ts...), false, false},
		{"length 0", []byte{8, 0, 1, 1}, false, true},
		{"length 1", []byte{8, 1, 1, 1}, false, true},
		{"length beyond the header", []byte{8, 10, 0, 0}, false, true},
		{"no length", []byte{1, 1, 1, 8}, false, true},
		{"timestamps of length 9", []byte{8, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, false, false},
		{"broken after timestamps", append(append([]byte{}, ts...), 8, 40), true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s Segment
			s.parseOptions(tc.options)
			if s.Timestamps != tc.ts || s.BadOptions != tc.bad || (tc.ts && (s.TSval != 5 || s.TSecr != 6)) {
				t.Errorf("%+v, want timestamps %t, bad %t", s, tc.ts, tc.bad)
			}
		})
	}
}

func TestPacketRejects(t *testing.T) {
	for name, change := range map[string]func(*RawSegment){
		"two families":   func(s *RawSegment) { s.Src = netip.MustParseAddrPort("[fd00::1]:1") },
		"no destination": func(s *RawSegment) { s.Dst = netip.AddrPort{} },
		"long options":   func(s *RawSegment) { s.Options = make([]byte, 41) },
		"data offset":    func(s *RawSegment) { s.DataOffset = 16 },
		"long payload":   func(s *RawSegment) { s.Payload = make([]byte, 1<<15) },
	} {
		t.Run(name, func(t *testing.T) {
			s := rawSYN("10.0.0.1:1000", "10.0.0.2:80")
			change(&s)
			if _, err := s.packet(); err == nil {
				t.Error("no error")
			}
		})
	}
}

func FuzzParseSegment(f *testing.F) {
	f.Add(packetOf(f, rawSYN("10.0.0.1:1000", "10.0.0.2:80")), 52)
	f.Add(packetOf(f, rawSYN("[fd00::1]:1000", "[fd00::2]:80")), 2000)
	f.Fuzz(func(t *testing.T, packet []byte, wireLen int) {
		s, err := parseSegment(packet, wireLen)
		if err == nil && (s.Len < 0 || s.Len > 1<<16 || !s.Src.IsValid() || s.Src.Addr().Is4() != s.Dst.Addr().Is4()) {
			t.Errorf("accepted as %+v", s)
		}
	})
}
