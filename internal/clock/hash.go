// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// sipKey keys SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012, with one
// and three rounds). Source addresses are chosen by whoever sends the SYN, so
// that a hash without a secret would let them share one probe sequence.
type sipKey [2]uint64

type sipState struct{ a, b, c, d uint64 }

func (k sipKey) start() sipState {
	return sipState{
		k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d,
		k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573,
	}
}

func (s *sipState) round() {
	s.a += s.b
	s.b = bits.RotateLeft64(s.b, 13) ^ s.a
	s.a = bits.RotateLeft64(s.a, 32)
	s.c += s.d
	s.d = bits.RotateLeft64(s.d, 16) ^ s.c
	s.a += s.d
	s.d = bits.RotateLeft64(s.d, 21) ^ s.a
	s.c += s.b
	s.b = bits.RotateLeft64(s.b, 17) ^ s.c
	s.c = bits.RotateLeft64(s.c, 32)
}

func (s *sipState) word(m uint64) {
	s.d ^= m
	s.round()
	s.a ^= m
}

// finish takes the last word, which holds the length in its top byte.
func (s *sipState) finish(last uint64) uint64 {
	s.word(last)
	s.c ^= 0xff
	s.round()
	s.round()
	s.round()
	return s.a ^ s.b ^ s.c ^ s.d
}

// hash returns the hash of a key. IPv4 and IPv4-mapped addresses are the same.
func (k sipKey) hash(key Key) uint64 {
	s := k.start()
	src, local := key.Source.As16(), key.Local.As16()
	if is4(key.Source) && is4(key.Local) {
		s.word(uint64(key.NetNS)<<32 | uint64(binary.BigEndian.Uint32(src[12:])))
		return s.finish(12<<56 | uint64(binary.BigEndian.Uint32(local[12:])))
	}
	s.word(binary.LittleEndian.Uint64(src[:8]))
	s.word(binary.LittleEndian.Uint64(src[8:]))
	s.word(binary.LittleEndian.Uint64(local[:8]))
	s.word(binary.LittleEndian.Uint64(local[8:]))
	return s.finish(36<<56 | uint64(key.NetNS))
}

// text returns the hash of a text.
func (k sipKey) text(b string) uint64 {
	s := k.start()
	n := uint64(len(b)) << 56
	for ; len(b) >= 8; b = b[8:] {
		var m uint64
		for i := range 8 {
			m |= uint64(b[i]) << (8 * i)
		}
		s.word(m)
	}
	for i := range len(b) {
		n |= uint64(b[i]) << (8 * i)
	}
	return s.finish(n)
}

func is4(a netip.Addr) bool { return a.Is4() || a.Is4In6() }
