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

// sipState is passed by value, so that it stays in registers.
type sipState struct{ a, b, c, d uint64 }

func (k sipKey) start() sipState {
	return sipState{
		k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d,
		k[0] ^ 0x6c7967656e657261, k[1] ^ 0x7465646279746573,
	}
}

func (s sipState) round() sipState {
	s.a += s.b
	s.c += s.d
	s.b = bits.RotateLeft64(s.b, 13) ^ s.a
	s.d = bits.RotateLeft64(s.d, 16) ^ s.c
	s.a = bits.RotateLeft64(s.a, 32) + s.d
	s.c += s.b
	s.d = bits.RotateLeft64(s.d, 21) ^ s.a
	s.b = bits.RotateLeft64(s.b, 17) ^ s.c
	s.c = bits.RotateLeft64(s.c, 32)
	return s
}

func (s sipState) word(m uint64) sipState {
	s.d ^= m
	s = s.round()
	s.a ^= m
	return s
}

// finish takes the last word, which holds the length in its top byte.
func (s sipState) finish(last uint64) uint64 {
	s = s.word(last)
	s.c ^= 0xff
	s = s.round().round().round()
	return s.a ^ s.b ^ s.c ^ s.d
}

// hash returns the hash of a key. IPv4 and IPv4-mapped addresses are the same.
func (k sipKey) hash(key *Key) uint64 {
	s := k.start()
	if is4(key.Source) && is4(key.Local) {
		src, local := key.Source.As4(), key.Local.As4()
		s = s.word(uint64(key.NetNS)<<32 | uint64(binary.BigEndian.Uint32(src[:])))
		return s.finish(12<<56 | uint64(binary.BigEndian.Uint32(local[:])))
	}
	src, local := key.Source.As16(), key.Local.As16()
	s = s.word(binary.LittleEndian.Uint64(src[:8]))
	s = s.word(binary.LittleEndian.Uint64(src[8:]))
	s = s.word(binary.LittleEndian.Uint64(local[:8]))
	s = s.word(binary.LittleEndian.Uint64(local[8:]))
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
		s = s.word(m)
	}
	for i := range len(b) {
		n |= uint64(b[i]) << (8 * i)
	}
	return s.finish(n)
}

func is4(a netip.Addr) bool { return a.Is4() || a.Is4In6() }
