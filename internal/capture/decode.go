// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"net/netip"
)

// outcome is what a packet turned out to be.
type outcome uint8

const (
	tcp       outcome = iota
	notTCP            // another protocol
	fragment          // part of an IP packet
	cut               // the capture ends before the TCP header does
	malformed         // lengths that cannot be
	otherLink         // a link type that is not known here
	untimed           // it has no time
	outcomes
)

// The link types, by their numbers in the registry of
// https://www.tcpdump.org/linktypes.html.
const (
	linkNull      = 0 // BSD loopback: the address family in the writer's byte order
	linkEthernet  = 1
	linkRawBSD    = 12 // IP, as BSDs number it
	linkRawOther  = 14 // IP, as OpenBSD numbers it
	linkRaw       = 101
	linkLoop      = 108 // OpenBSD loopback: the address family in network byte order
	linkLinuxSLL  = 113
	linkIPv4      = 228
	linkIPv6      = 229
	linkLinuxSLL2 = 276
)

// linkKnown reports whether decode reads packets of the link type.
func linkKnown(link uint16) bool {
	switch link {
	case linkNull, linkEthernet, linkRawBSD, linkRawOther, linkRaw, linkLoop,
		linkLinuxSLL, linkIPv4, linkIPv6, linkLinuxSLL2:
		return true
	}
	return false
}

// packet is what is left of a packet while its headers are read: the captured
// bytes, and how many there were on the wire.
type packet struct {
	b       []byte
	wireLen int
}

// pull removes a header of n bytes, and returns false if it is not all there.
func (p *packet) pull(n int) bool {
	if len(p.b) < n {
		return false
	}
	p.b, p.wireLen = p.b[n:], p.wireLen-n
	return true
}

// limit takes n for the number of bytes on the wire; what follows is padding.
func (p *packet) limit(n int) {
	p.b, p.wireLen = p.b[:min(n, len(p.b))], n
}

// missing tells why a header of n bytes is not all there.
func (p *packet) missing(n int) outcome {
	if p.wireLen < n {
		return malformed
	}
	return cut
}

// decode reads a packet of the link type, wireLen bytes on the wire, of which b
// holds the beginning or all. It fills s, but for Time and Packet, if it returns
// tcp.
func decode(link uint16, b []byte, wireLen int, s *Segment) outcome {
	p := packet{b, wireLen}
	switch link {
	case linkEthernet:
		return s.parseLink(p, 14, 12)
	case linkLinuxSLL:
		return s.parseLink(p, 16, 14)
	case linkLinuxSLL2:
		return s.parseLink(p, 20, 0)
	case linkRaw, linkRawBSD, linkRawOther, linkIPv4, linkIPv6:
		return s.parseIP(p)
	case linkNull, linkLoop:
		return s.parseLoopback(p)
	}
	return otherLink
}

// EtherTypes, and the tags that stand before them (IEEE 802.1Q and 802.1ad,
// and the number that QinQ had before it was standard).
const (
	etherIPv4      = 0x0800
	etherIPv6      = 0x86dd
	etherVLAN      = 0x8100
	etherQinQ      = 0x88a8
	etherQinQOlder = 0x9100
	vlanLen        = 4
)

// parseLink reads a link header of n bytes, in which the EtherType is at the
// given offset, and the VLAN tags that follow it.
func (s *Segment) parseLink(p packet, n, typeAt int) outcome {
	head := p.b
	if !p.pull(n) {
		return p.missing(n)
	}
	etherType := binary.BigEndian.Uint16(head[typeAt:])
	for {
		switch etherType {
		case etherIPv4, etherIPv6:
			return s.parseIP(p)
		case etherVLAN, etherQinQ, etherQinQOlder:
		default:
			return notTCP
		}
		head = p.b
		if !p.pull(vlanLen) {
			return p.missing(vlanLen)
		}
		etherType = binary.BigEndian.Uint16(head[2:])
	}
}

// parseLoopback reads a link header that is nothing but an address family,
// whose byte order and, for IPv6, number depend on the writing system.
func (s *Segment) parseLoopback(p packet) outcome {
	const n = 4
	head := p.b
	if !p.pull(n) {
		return p.missing(n)
	}
	switch head[0] | head[3] {
	case 2, 10, 24, 28, 30: // AF_INET; AF_INET6 of Linux, NetBSD, FreeBSD, macOS
		if head[1]|head[2] == 0 {
			return s.parseIP(p)
		}
	}
	return notTCP
}

func (s *Segment) parseIP(p packet) outcome {
	if len(p.b) == 0 {
		return p.missing(1)
	}
	switch p.b[0] >> 4 {
	case 4:
		return s.parseIPv4(p)
	case 6:
		return s.parseIPv6(p)
	}
	return malformed
}

// The protocol numbers of TCP and of the IPv6 extension headers that may stand
// before it, from IANA's registry.
const (
	protoHopByHop   = 0
	protoTCP        = 6
	protoRouting    = 43
	protoFragment   = 44
	protoAuth       = 51
	protoDestOpts   = 60
	protoMobility   = 135
	protoHIP        = 139
	protoShim6      = 140
	ipv4MinLen      = 20
	ipv6Len         = 40
	ipv4Fragment    = 0x3fff // more fragments, or an offset
	ipv6Fragment    = 0xfff9
	ipv6ExtUnit     = 8
	ipv6AuthUnit    = 4
	ipv6ExtMinBytes = 8
)

func (s *Segment) parseIPv4(p packet) outcome {
	head := p.b
	if len(head) < ipv4MinLen {
		return p.missing(ipv4MinLen)
	}
	hdrLen, total := int(head[0]&0xf)*4, int(binary.BigEndian.Uint16(head[2:]))
	// 0: longer than 64 KiB, and not yet segmented (GSO, "BIG TCP")
	if total != 0 {
		p.limit(total)
	}
	if hdrLen < ipv4MinLen || p.wireLen < hdrLen {
		return malformed
	}
	if head[9] != protoTCP {
		return notTCP
	}
	if binary.BigEndian.Uint16(head[6:])&ipv4Fragment != 0 {
		return fragment
	}
	if !p.pull(hdrLen) {
		return cut
	}
	s.TTL = head[8]
	s.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(head[12:])), 0)
	s.Dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(head[16:])), 0)
	return s.parseTCP(p.b, p.wireLen)
}

func (s *Segment) parseIPv6(p packet) outcome {
	head := p.b
	if !p.pull(ipv6Len) {
		return p.missing(ipv6Len)
	}
	// 0: a jumbogram (RFC 2675), or not yet segmented
	if payload := int(binary.BigEndian.Uint16(head[4:])); payload != 0 {
		p.limit(payload)
	}
	if o := p.skipExtensions(head[6]); o != tcp {
		return o
	}
	s.TTL = head[7]
	s.Src = netip.AddrPortFrom(netip.AddrFrom16([16]byte(head[8:])), 0)
	s.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte(head[24:])), 0)
	return s.parseTCP(p.b, p.wireLen)
}

// skipExtensions removes the extension headers (RFC 8200 section 4) before a
// TCP header, the first of which has the number next.
func (p *packet) skipExtensions(next uint8) outcome {
	for next != protoTCP {
		head := p.b
		switch next {
		case protoHopByHop, protoRouting, protoFragment, protoAuth, protoDestOpts, protoMobility, protoHIP, protoShim6:
		default:
			return notTCP
		}
		if len(head) < ipv6ExtMinBytes {
			return p.missing(ipv6ExtMinBytes)
		}
		n := ipv6ExtMinBytes
		switch next {
		case protoFragment:
			// an atomic fragment (RFC 6946) is a whole packet
			if binary.BigEndian.Uint16(head[2:])&ipv6Fragment != 0 {
				return fragment
			}
		case protoAuth:
			n = (int(head[1]) + 2) * ipv6AuthUnit
		default:
			n = (int(head[1]) + 1) * ipv6ExtUnit
		}
		if !p.pull(n) {
			return p.missing(n)
		}
		next = head[0]
	}
	return tcp
}
