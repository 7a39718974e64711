// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Segment is a TCP segment seen on a link. Numbers are in host byte order.
type Segment struct {
	Time       time.Time // wall clock, when the kernel took or sent the packet
	Outgoing   bool      // sent by the capturing host
	Src, Dst   netip.AddrPort
	TTL        uint8 // or the IPv6 hop limit
	Flags      uint8 // FIN, SYN, RST, PSH, ACK and the others of the header's 14th byte
	Seq, Ack   uint32
	Window     uint16
	Len        int    // bytes of payload
	Timestamps bool   // the timestamps option (RFC 7323, 3.2) is there and whole
	TSval      uint32 // 0 without Timestamps
	TSecr      uint32
	// BadOptions tells that the option list ended inside an option or had a
	// length below 2. What came before that is still reported.
	BadOptions bool
}

// Has reports whether all of the flags are set.
func (s *Segment) Has(flags uint8) bool { return s.Flags&flags == flags }

var (
	errNotTCP    = errors.New("not an unfragmented TCP packet")
	errShort     = errors.New("packet is cut short")
	errBadHeader = errors.New("header length is out of range")
)

const (
	ipv4MinLen = 20
	ipv6Len    = 40
	tcpMinLen  = 20
)

// parseSegment reads a packet that begins with its IPv4 or IPv6 header. wireLen
// is the packet's length on the wire, of which packet may hold the beginning
// only. IPv6 extension headers are not followed.
func parseSegment(packet []byte, wireLen int) (Segment, error) {
	var s Segment
	if len(packet) == 0 {
		return s, errShort
	}
	var (
		src, dst netip.Addr
		ipLen    int
	)
	switch packet[0] >> 4 {
	case 4:
		if len(packet) < ipv4MinLen {
			return s, errShort
		}
		fragment := binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 // MF or an offset
		if packet[9] != unix.IPPROTO_TCP || fragment {
			return s, errNotTCP
		}
		if ipLen = int(packet[0]&0xf) * 4; ipLen < ipv4MinLen {
			return s, errBadHeader
		}
		wireLen = min(wireLen, int(binary.BigEndian.Uint16(packet[2:]))) // without Ethernet padding
		s.TTL = packet[8]
		src, dst = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	case 6:
		if len(packet) < ipv6Len {
			return s, errShort
		}
		if packet[6] != unix.IPPROTO_TCP {
			return s, errNotTCP
		}
		ipLen = ipv6Len
		wireLen = min(wireLen, ipv6Len+int(binary.BigEndian.Uint16(packet[4:])))
		s.TTL = packet[7]
		src, dst = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
	default:
		return s, errNotTCP
	}
	if len(packet) < ipLen+tcpMinLen {
		return s, errShort
	}
	return s, s.parseTCP(packet[ipLen:], wireLen-ipLen, src, dst)
}

func (s *Segment) parseTCP(b []byte, wireLen int, src, dst netip.Addr) error {
	s.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	s.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	s.Seq, s.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	s.Flags, s.Window = b[13], binary.BigEndian.Uint16(b[14:])
	hdrLen := int(b[12]>>4) * 4
	switch {
	case hdrLen < tcpMinLen, hdrLen > wireLen:
		return errBadHeader
	case hdrLen > len(b):
		return errShort
	}
	s.Len = wireLen - hdrLen
	s.parseOptions(b[tcpMinLen:hdrLen])
	return nil
}

// TCP option kinds (RFC 9293, 3.2; RFC 7323, 3.2).
const (
	optEnd        = 0
	optNop        = 1
	optTimestamps = 8
	optTSLen      = 10
)

func (s *Segment) parseOptions(b []byte) {
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optNop {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			s.BadOptions = true
			return
		}
		if b[0] == optTimestamps && b[1] == optTSLen {
			s.Timestamps = true
			s.TSval, s.TSecr = binary.BigEndian.Uint32(b[2:]), binary.BigEndian.Uint32(b[6:])
		}
		b = b[b[1]:]
	}
}
