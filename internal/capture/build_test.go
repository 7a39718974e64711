// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// unhex reads bytes written in hexadecimal, with spaces for the eye.
func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// A SYN of Linux from 10.0.0.1:40000 to 10.0.0.2:80, of 60 bytes.
const (
	tcpSYN = "9c40 0050 00000001 00000000 a002 faf0 0000 0000" +
		"020405b4 0402 080a 00112233 00000000 01 030307"
	ipv4TCP  = "4500 003c 0000 4000 4006 0000 0a000001 0a000002"
	ipv6To   = "20010db8000000000000000000000001 20010db8000000000000000000000002"
	ipv6TCP  = "60000000 0028 06 40" + ipv6To
	macs     = "020000000001 020000000002"
	ipv4SYN  = ipv4TCP + tcpSYN
	ipv6SYN  = ipv6TCP + tcpSYN
	etherSYN = macs + "0800" + ipv4SYN
)

// file builds captures in one byte order.
type file struct {
	binary.AppendByteOrder
	b []byte
}

func (f *file) words(words ...uint32) *file {
	for _, w := range words {
		f.b = f.AppendUint32(f.b, w)
	}
	return f
}

// pcap begins a pcap file.
func (f *file) pcap(magic, link uint32) *file {
	f.words(magic)
	f.b = f.AppendUint16(f.AppendUint16(f.b, 2), 4)
	return f.words(0, 0, 65535, link)
}

// record appends a packet to a pcap file.
func (f *file) record(seconds, fraction uint32, packet []byte, wireLen int) *file {
	f.words(seconds, fraction, uint32(len(packet)), uint32(wireLen))
	f.b = append(f.b, packet...)
	return f
}

// block appends a block to a pcapng file.
func (f *file) block(kind uint32, body []byte) *file {
	for len(body)%4 != 0 {
		body = append(slices.Clip(body), 0)
	}
	length := uint32(len(body)) + 12
	f.words(kind, length)
	f.b = append(f.b, body...)
	return f.words(length)
}

func (f *file) section() *file {
	body := f.AppendUint32(nil, 0x1a2b3c4d)
	body = f.AppendUint16(f.AppendUint16(body, 1), 0)
	return f.block(0x0a0d0d0a, f.AppendUint64(body, 1<<64-1))
}

func (f *file) option(code uint16, value []byte) []byte {
	b := append(f.AppendUint16(f.AppendUint16(nil, code), uint16(len(value))), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (f *file) iface(link uint16, options ...[]byte) *file {
	body := f.AppendUint16(f.AppendUint16(nil, link), 0)
	body = f.AppendUint32(body, 65535)
	for _, o := range options {
		body = append(body, o...)
	}
	if len(options) > 0 {
		body = append(body, 0, 0, 0, 0)
	}
	return f.block(1, body)
}

func (f *file) packet(iface uint32, ticks uint64, packet []byte, wireLen int) *file {
	return f.block(6, f.packetBody(f.AppendUint32(nil, iface), ticks, packet, wireLen))
}

func (f *file) packetBody(body []byte, ticks uint64, packet []byte, wireLen int) []byte {
	body = f.AppendUint32(f.AppendUint32(body, uint32(ticks>>32)), uint32(ticks))
	body = f.AppendUint32(f.AppendUint32(body, uint32(len(packet))), uint32(wireLen))
	return append(body, packet...)
}
