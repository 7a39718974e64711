// SPDX-License-Identifier: Apache-2.0

package capture

import "time"

// The format of draft-ietf-opsawg-pcap: a header, and records of packets.
const (
	pcapMicroseconds = 0xa1b2c3d4
	pcapNanoseconds  = 0xa1b23c4d
	pcapPatched      = 0xa1b2cd34 // records with 8 more bytes
	pcapHeaderLen    = 24
	pcapRecordLen    = 16
	// maxSnapLen is the longest packet that libpcap writes; a capture may
	// name a higher limit of its own.
	maxSnapLen = 256 << 10
)

// pcapFile is what the header of a pcap file says.
type pcapFile struct {
	unit    int64 // of the fraction of a second, in nanoseconds
	link    uint16
	snapLen uint32
}

func (r *Reader) openPcap() error {
	b, err := r.begin(pcapHeaderLen)
	if err != nil {
		return err
	}
	f := &r.pcap
	f.unit = int64(time.Microsecond)
	if r.order.Uint32(b) == pcapNanoseconds {
		f.unit = int64(time.Nanosecond)
	}
	if major, minor := r.order.Uint16(b[4:]), r.order.Uint16(b[6:]); major != 2 || minor != 4 {
		return r.fail("pcap version %d.%d, not 2.4: convert it with `tcpdump -r OLD -w NEW`", major, minor)
	}
	f.snapLen = max(maxSnapLen, r.order.Uint32(b[16:]))
	// The upper half is reserved, or tells of frame check sequences.
	f.link = uint16(r.order.Uint32(b[20:]))
	if !linkKnown(f.link) {
		return r.fail("link type %d is not supported: capture on Ethernet, loopback or `any`", f.link)
	}
	return r.discard(pcapHeaderLen)
}

func (r *Reader) readPcap() (record, error) {
	b, err := r.begin(pcapRecordLen)
	if err != nil {
		return record{}, err
	}
	var (
		seconds, fraction = r.order.Uint32(b), r.order.Uint32(b[4:])
		captured, onWire  = r.order.Uint32(b[8:]), r.order.Uint32(b[12:])
	)
	if captured > r.pcap.snapLen {
		return record{}, r.fail("a packet of %d bytes, though none is longer than %d: the capture is damaged", captured, r.pcap.snapLen)
	}
	head := int(min(captured, headLen))
	if b, err = r.peek(pcapRecordLen + head); err != nil {
		return record{}, err
	}
	r.skip = pcapRecordLen + int64(captured)
	return record{
		time: int64(seconds)*int64(time.Second) + int64(fraction)*r.pcap.unit, timed: true,
		link: r.pcap.link, wireLen: wireLen(captured, onWire), head: b[pcapRecordLen:],
	}, nil
}

// wireLen returns the packet's length on the wire. Some writers do not know it.
func wireLen(captured, onWire uint32) int { return int(min(max(captured, onWire), 1<<31-1)) }
