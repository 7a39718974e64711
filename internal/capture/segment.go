// SPDX-License-Identifier: Apache-2.0

// Package capture reads the TCP segments of a packet capture, pcap or pcapng,
// in one pass and in memory that does not grow with the capture.
//
// A capture is hostile input. Whatever its bytes, a Reader returns segments,
// counts the packets that it cannot read as TCP, and ends with io.EOF or with
// a FormatError that names the place.
package capture

import (
	"encoding/binary"
	"net/netip"
)

// Flags is the 14th byte of a TCP header, RFC 9293 section 3.1.
type Flags uint8

// The flags.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Has reports whether all of the flags in all are set.
func (f Flags) Has(all Flags) bool { return f&all == all }

// Segment is a TCP segment of a capture. Numbers, ports too, are in host byte
// order.
type Segment struct {
	Time     int64 // nanoseconds since the Unix epoch, by the clock of the capturing host
	Packet   int64 // the packet's number in the capture, from 1
	Src, Dst netip.AddrPort
	Seq, Ack uint32
	Len      int    // bytes of payload on the wire, though they may not be captured
	Window   uint16 // as sent, not scaled
	TTL      uint8  // or the IPv6 hop limit
	Flags    Flags
	Options
	// OptionsCut tells that the capture holds only the beginning of the
	// options. Those that are missing are not known to be absent.
	OptionsCut bool
}

const tcpMinLen = 20

// parseTCP reads the TCP header at the start of b, of which wireLen bytes were
// on the wire. It leaves alone what it does not find in the header.
func (s *Segment) parseTCP(b []byte, wireLen int) outcome {
	if wireLen < tcpMinLen {
		return malformed
	}
	if len(b) < tcpMinLen {
		return cut
	}
	hdrLen := int(b[12]>>4) * 4
	if hdrLen < tcpMinLen || hdrLen > wireLen {
		return malformed
	}
	s.Src = netip.AddrPortFrom(s.Src.Addr(), binary.BigEndian.Uint16(b))
	s.Dst = netip.AddrPortFrom(s.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
	s.Seq, s.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	s.Flags, s.Window = Flags(b[13]), binary.BigEndian.Uint16(b[14:])
	s.Len = wireLen - hdrLen
	s.Parse(b[tcpMinLen:min(hdrLen, len(b))])
	if s.OptionsCut = len(b) < hdrLen; s.OptionsCut {
		s.Malformed = false // for all we know
	}
	return tcp
}
