// SPDX-License-Identifier: Apache-2.0

package capture

import "encoding/binary"

// SniffLen is how many bytes Sniff needs.
const SniffLen = 4

// Sniff tells whether a file that begins with head is a capture, if need be
// one that NewReader refuses with a remedy, such as a compressed one. Those in
// gzip format are not among them.
func Sniff(head []byte) bool {
	if len(head) < SniffLen {
		return false
	}
	big := binary.BigEndian.Uint32(head)
	for _, magic := range []uint32{big, binary.LittleEndian.Uint32(head)} {
		switch magic {
		case pcapMicroseconds, pcapNanoseconds, pcapPatched:
			return true
		}
	}
	switch big {
	case blockSectionHeader, 0x28b52ffd, 0xfd377a58: // the others are zstd and xz
		return true
	}
	return false
}
