// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/capture"
)

var (
	counted  = capture.Stats{Packets: 1, Segments: 1}
	notTCP   = capture.Stats{Packets: 1, NotTCP: 1}
	fragment = capture.Stats{Packets: 1, Fragments: 1}
	tooShort = capture.Stats{Packets: 1, Cut: 1}
	badLen   = capture.Stats{Packets: 1, Malformed: 1}
)

func TestDecode(t *testing.T) {
	const ethernet, null, raw, loop, sll, sll2 = 1, 0, 101, 108, 113, 276
	// behind is IPv6 with extension headers, the first of the given number
	behind := func(first, headers string) string {
		n := len(unhex(t, headers+tcpSYN))
		return fmt.Sprintf("60000000 %04x %s 40 %s", n, first, ipv6To) + headers + tcpSYN
	}
	tests := []struct {
		name    string
		link    uint32
		packet  string
		wireLen int // 0: all is captured
		want    capture.Stats
	}{
		{"Ethernet", ethernet, etherSYN, 0, counted},
		{"Ethernet, IPv6", ethernet, macs + "86dd" + ipv6SYN, 0, counted},
		{"Ethernet, padded", ethernet, etherSYN + "0000 0000", 0, counted},
		{"VLAN", ethernet, macs + "8100 0005 0800" + ipv4SYN, 0, counted},
		{"QinQ", ethernet, macs + "88a8 000a 8100 0014 86dd" + ipv6SYN, 0, counted},
		{"QinQ before the standard", ethernet, macs + "9100 000a 8100 0014 0800" + ipv4SYN, 0, counted},
		{"VLAN, cut inside of the tag", ethernet, macs + "8100 00", 90, tooShort},
		{"VLAN, not even a tag", ethernet, macs + "8100", 0, badLen},
		{"ARP", ethernet, macs + "0806 0001", 0, notTCP},
		{"802.3 with a length", ethernet, macs + "0026 4242 03", 0, notTCP},
		{"Ethernet, cut", ethernet, macs, 74, tooShort},
		{"Ethernet, no EtherType", ethernet, macs, 0, badLen},
		{"empty", ethernet, "", 0, badLen},
		{"none of it captured", ethernet, "", 74, tooShort},
		{"raw IPv4", raw, ipv4SYN, 0, counted},
		{"raw IPv6", raw, ipv6SYN, 0, counted},
		{"raw, BSD's number", 12, ipv4SYN, 0, counted},
		{"raw, OpenBSD's number", 14, ipv4SYN, 0, counted},
		{"IPv4 link", 228, ipv4SYN, 0, counted},
		{"IPv6 link", 229, ipv6SYN, 0, counted},
		{"raw, IP version 5", raw, "55" + ipv4SYN[2:], 0, badLen},
		{"loopback, little-endian", null, "02000000" + ipv4SYN, 0, counted},
		{"loopback, big-endian", null, "0000001e" + ipv6SYN, 0, counted},
		{"loopback, OpenBSD", loop, "00000018" + ipv6SYN, 0, counted},
		{"loopback, another family", null, "07000000" + ipv4SYN, 0, notTCP},
		{"loopback, no family", null, "02000200" + ipv4SYN, 0, notTCP},
		{"loopback, cut", null, "0200", 64, tooShort},
		{"Linux cooked", sll, "0000 0001 0006 0200000000010000 0800" + ipv4SYN, 0, counted},
		{"Linux cooked, VLAN", sll, "0000 0001 0006 0200000000010000 8100 0005 0800" + ipv4SYN, 0, counted},
		{"Linux cooked, cut", sll, "0000 0001", 76, tooShort},
		{"Linux cooked 2", sll2, "86dd 0000 00000002 0001 00 06 0200000000010000" + ipv6SYN, 0, counted},
		{"Linux cooked 2, ARP", sll2, "0806 0000 00000002 0001 00 06 0200000000010000", 0, notTCP},

		{"IPv4 with options", raw, "4600 0040 0000 4000 4006 0000 0a000001 0a000002 01010101" + tcpSYN, 0, counted},
		{"IPv4, cut inside of its options", raw, "4600 0040 0000 4000 4006 0000 0a000001 0a000002 0101", 64, tooShort},
		{"IPv4, UDP", raw, "4500 003c 0000 4000 4011 0000 0a000001 0a000002" + tcpSYN, 0, notTCP},
		{"IPv4, first fragment", raw, "4500 003c 0000 2000 4006 0000 0a000001 0a000002" + tcpSYN, 0, fragment},
		{"IPv4, last fragment", raw, "4500 003c 0000 0001 4006 0000 0a000001 0a000002" + tcpSYN, 0, fragment},
		{"IPv4, header of 16 bytes", raw, "4400 003c 0000 4000 4006 0000 0a000001 0a000002" + tcpSYN, 0, badLen},
		{"IPv4, shorter than its header", raw, "4500 0013 0000 4000 4006 0000 0a000001 0a000002" + tcpSYN, 0, badLen},
		{"IPv4, no room for TCP", raw, "4500 0027 0000 4000 4006 0000 0a000001 0a000002" + tcpSYN, 0, badLen},
		{"IPv4, length 0 of a packet not yet segmented", raw, "4500 0000 0000 4000 4006 0000 0a000001 0a000002" + tcpSYN, 70_000, counted},
		{"IPv4, cut", raw, "4500 003c", 60, tooShort},
		{"IPv4, nothing more on the wire", raw, "4500 003c", 0, badLen},

		{"IPv6, UDP", raw, "60000000 0028 11 40" + ipv6To + tcpSYN, 0, notTCP},
		{"IPv6, cut", raw, "60000000 0028 06 40", 80, tooShort},
		{"IPv6, length 0 of a packet not yet segmented", raw, "60000000 0000 06 40" + ipv6To + tcpSYN, 70_000, counted},
		{"hop-by-hop", raw, behind("00", "0600 0502 0000 0100"), 0, counted},
		{"destination options, routing", raw, behind("3c", "2b01 0000 0000 0000 0000 0000 0000 0000  0600 0000 0000 0000"), 0, counted},
		{"mobility, HIP, shim6", raw, behind("87", "8b00 0000 0000 0000  8c00 0000 0000 0000  0600 0000 0000 0000"), 0, counted},
		{"authentication", raw, behind("33", "0604 0000 00000001 00000001 000000000000000000000000"), 0, counted},
		{"authentication, shortest", raw, behind("33", "0600 0000 0000 0000"), 0, counted},
		{"atomic fragment", raw, behind("2c", "0600 0000 00000001"), 0, counted},
		{"first fragment", raw, behind("2c", "0600 0001 00000001"), 0, fragment},
		{"last fragment", raw, behind("2c", "0600 0008 00000001"), 0, fragment},
		{"encrypted", raw, behind("32", "0600 0000 0000 0000"), 0, notTCP},
		{"no next header", raw, behind("3b", ""), 0, notTCP},
		{"extension longer than the packet", raw, behind("00", "06ff 0000 0000 0000"), 0, badLen},
		{"extension in the padding", raw, "60000000 0004 00 40" + ipv6To + "1100 0502 0000 0100", 0, badLen},
		{"extension cut", raw, "60000000 0030 00 40" + ipv6To + "0600 05", 88, tooShort},

		{"TCP, header of 16 bytes", raw, ipv4TCP + strings.Replace(tcpSYN, "a002", "4002", 1), 0, badLen},
		{"TCP, header longer than the packet", raw, ipv4TCP + strings.Replace(tcpSYN, "a002", "f002", 1), 0, badLen},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			packet := unhex(t, tt.packet)
			wireLen := tt.wireLen
			if wireLen == 0 {
				wireLen = len(packet)
			}
			f := file{AppendByteOrder: binary.LittleEndian}
			f.pcap(0xa1b2c3d4, tt.link).record(7, 8, packet, wireLen)
			segments, stats := readAll(t, bytes.NewReader(f.b))
			if stats != tt.want {
				t.Fatalf("%+v, want %+v", stats, tt.want)
			}
			if stats.Segments == 1 {
				checkSYN(t, &segments[0])
			}
		})
	}
}

// checkSYN compares s with the SYN that all packets of this file hold.
func checkSYN(t *testing.T, s *capture.Segment) {
	t.Helper()
	src, dst := "10.0.0.1:40000", "10.0.0.2:80"
	if s.Src.Addr().Is6() {
		src, dst = "[2001:db8::1]:40000", "[2001:db8::2]:80"
	}
	want := capture.Segment{
		Time: 7_000_008_000, Packet: 1, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst),
		Seq: 1, Window: 64240, TTL: 64, Flags: capture.SYN, Len: s.Len,
	}
	want.Parse([]byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0x11, 0x22, 0x33, 0, 0, 0, 0, 1, 3, 3, 7})
	if *s != want {
		t.Errorf("got  %+v\nwant %+v", *s, want)
	}
	// packets whose length field is 0 were made 70,000 bytes long
	if s.Len != 0 && s.Len != 70_000-60 && s.Len != 70_000-80 {
		t.Errorf("%d bytes of payload", s.Len)
	}
}

// TestSnapLength cuts a SYN at each length that a capture may have been told.
func TestSnapLength(t *testing.T) {
	packet := unhex(t, etherSYN)
	for n := range len(packet) + 1 {
		f := file{AppendByteOrder: binary.LittleEndian}
		f.pcap(0xa1b2c3d4, 1).record(7, 8, packet[:n], len(packet))
		segments, stats := readAll(t, bytes.NewReader(f.b))
		if n < 54 {
			if stats != tooShort {
				t.Errorf("%d bytes: %+v, want %+v", n, stats, tooShort)
			}
			continue
		}
		if stats != counted {
			t.Fatalf("%d bytes: %+v, want %+v", n, stats, counted)
		}
		s := segments[0]
		if s.Malformed || s.OptionsCut != (n < len(packet)) || s.Timestamps != (n >= 70) || s.HasMSS != (n >= 58) || s.Len != 0 {
			t.Errorf("%d bytes: %+v", n, s)
		}
	}
}
