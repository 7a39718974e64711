// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// RawSegment is a TCP segment to forge. Any source address will do.
type RawSegment struct {
	Src, Dst netip.AddrPort
	Flags    uint8
	Seq, Ack uint32
	Window   uint16 // 0 is 65535
	TTL      uint8  // 0 is 64
	// Options is sent as it is, well formed or not, padded with zeros to a
	// multiple of four bytes; at most 40 bytes.
	Options []byte
	// DataOffset replaces the header length, in 32-bit words, 1 to 15; 0 is
	// the true one.
	DataOffset uint8
	// BadChecksum sends a wrong TCP checksum.
	BadChecksum bool
	Payload     []byte
}

// TimestampOption is a timestamps option (RFC 7323, 3.2) with two NOPs before
// it, as Linux sends it.
func TimestampOption(tsval, tsecr uint32) []byte {
	b := []byte{optNop, optNop, optTimestamps, optTSLen}
	b = binary.BigEndian.AppendUint32(b, tsval)
	return binary.BigEndian.AppendUint32(b, tsecr)
}

const maxOptions = 40

// SendSegment sends a forged segment from the host, through its routes and its
// netfilter rules.
func (h *Host) SendSegment(s RawSegment) error {
	packet, err := s.packet()
	if err != nil {
		return fmt.Errorf("host %s: forge segment: %w", h.name, err)
	}
	return h.Do(func() error {
		family := unix.AF_INET
		if s.Dst.Addr().Is6() {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) // implies IP_HDRINCL
		if err != nil {
			return fmt.Errorf("host %s: raw socket: %w", h.name, err)
		}
		// Raw sockets take no port.
		err = unix.Sendto(fd, packet, 0, sockaddr(netip.AddrPortFrom(s.Dst.Addr(), 0)))
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("host %s: send %s to %s: %w", h.name, s.Src, s.Dst, err)
		}
		return nil
	})
}

func (s *RawSegment) packet() ([]byte, error) {
	src, dst := s.Src.Addr(), s.Dst.Addr()
	switch {
	case !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4():
		return nil, fmt.Errorf("source %s and destination %s: want two addresses of one family", src, dst)
	case len(s.Options) > maxOptions:
		return nil, fmt.Errorf("options: %d bytes, the header holds %d", len(s.Options), maxOptions)
	case s.DataOffset > 15:
		return nil, fmt.Errorf("data offset %d: want 0 to 15", s.DataOffset)
	case len(s.Payload) > 1<<14:
		return nil, fmt.Errorf("payload: %d bytes, want at most %d", len(s.Payload), 1<<14)
	}
	tcp := s.tcp()
	sum := checksum(pseudoHeader(src, dst, len(tcp)), tcp)
	if s.BadChecksum {
		sum ^= 0x5555
	}
	binary.BigEndian.PutUint16(tcp[16:], sum)
	ttl := s.TTL
	if ttl == 0 {
		ttl = 64
	}
	if src.Is4() {
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, ttl, unix.IPPROTO_TCP, 0, 0} // DF; the kernel fills in length, id and checksum
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4MinLen+len(tcp)))
		ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
		return append(ip, tcp...), nil
	}
	ip := []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_TCP, ttl}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	ip = append(append(ip, src.AsSlice()...), dst.AsSlice()...)
	return append(ip, tcp...), nil
}

// tcp is the TCP header with a checksum of 0, and the payload.
func (s *RawSegment) tcp() []byte {
	options := append([]byte(nil), s.Options...)
	for len(options)%4 != 0 {
		options = append(options, optEnd)
	}
	offset := s.DataOffset
	if offset == 0 {
		offset = uint8((tcpMinLen + len(options)) / 4)
	}
	window := s.Window
	if window == 0 {
		window = 65535
	}
	b := binary.BigEndian.AppendUint16(nil, s.Src.Port())
	b = binary.BigEndian.AppendUint16(b, s.Dst.Port())
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, offset<<4, s.Flags)
	b = binary.BigEndian.AppendUint16(b, window)
	b = append(b, 0, 0, 0, 0) // checksum, urgent pointer
	b = append(b, options...)
	return append(b, s.Payload...)
}

// pseudoHeader is that of RFC 9293, 3.1 and RFC 8200, 8.1.
func pseudoHeader(src, dst netip.Addr, tcpLen int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		b = append(b, 0, unix.IPPROTO_TCP)
		return binary.BigEndian.AppendUint16(b, uint16(tcpLen))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(tcpLen))
	return append(b, 0, 0, 0, unix.IPPROTO_TCP)
}

// checksum is the Internet checksum (RFC 1071) of the parts, each but the last
// of even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
