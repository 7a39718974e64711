// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// The format of draft-ietf-opsawg-pcapng: sections of blocks, each with its
// length before and behind it.
const (
	blockSectionHeader = 0x0a0d0d0a
	blockInterface     = 1
	blockPacket        = 2 // obsolete
	blockSimplePacket  = 3
	blockEnhanced      = 6

	blockHeadLen    = 8 // type and length
	blockMinLen     = 12
	byteOrderMagic  = 0x1a2b3c4d
	sectionMinLen   = 28
	interfaceMinLen = 20
	packetMinLen    = 32 // of enhanced and obsolete packet blocks
	simpleMinLen    = 16

	optionHeadLen      = 4
	optionEnd          = 0
	optionResolution   = 9  // if_tsresol
	optionOffset       = 14 // if_tsoffset
	defaultResolution  = 6
	resolutionIsBinary = 0x80

	maxInterfaces = 1 << 16
)

// pcapngSection is what the blocks of a section have said of its interfaces.
type pcapngSection struct {
	interfaces []pcapngInterface
}

type pcapngInterface struct {
	link   uint16
	second uint64 // how many units of its timestamps are a second
	offset int64  // what is to be added to them, in seconds
}

// readPcapng returns the next packet, past blocks that hold none.
func (r *Reader) readPcapng() (record, error) {
	for {
		kind, length, err := r.beginBlock()
		if err != nil {
			return record{}, err
		}
		switch kind {
		case blockSectionHeader:
			err = r.readSection(length)
		case blockInterface:
			err = r.readInterface(length)
		case blockEnhanced, blockPacket:
			return r.readPacket(kind, length)
		case blockSimplePacket:
			return r.readSimplePacket(length)
		default:
			r.skip = int64(length)
		}
		if err != nil {
			return record{}, err
		}
	}
}

// beginBlock leaves the last block and returns the next one's type and length.
// The block is still to be read from its start.
func (r *Reader) beginBlock() (kind, length uint32, err error) {
	if err := r.endBlock(); err != nil {
		return 0, 0, err
	}
	b, err := r.begin(blockMinLen)
	if err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint32(b) == blockSectionHeader {
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(b[8:]):
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]):
			r.order = binary.BigEndian
		default:
			return 0, 0, r.fail("a section header without a byte-order magic: % x", b[8:12])
		}
	}
	kind, length = r.order.Uint32(b), r.order.Uint32(b[4:])
	if length < blockMinLen || length%4 != 0 {
		return 0, 0, r.fail("a block of type %#x cannot be %d bytes long", kind, length)
	}
	return kind, length, nil
}

// endBlock reads what is left of a block, and its length again.
func (r *Reader) endBlock() error {
	if r.skip == 0 {
		return nil
	}
	end := r.offset + r.skip
	if err := r.discard(r.skip - 4); err != nil {
		return err
	}
	b, err := r.peek(4)
	if err != nil {
		return err
	}
	if length := r.order.Uint32(b); int64(length) != end-r.start {
		return r.fail("a block of %d bytes ends with the length %d", end-r.start, length)
	}
	return r.discard(4)
}

func (r *Reader) readSection(length uint32) error {
	if length < sectionMinLen {
		return r.fail("a section header cannot be %d bytes long", length)
	}
	b, err := r.peek(sectionMinLen)
	if err != nil {
		return err
	}
	if major, minor := r.order.Uint16(b[12:]), r.order.Uint16(b[14:]); major != 1 {
		return r.fail("pcapng version %d.%d, not 1: convert it with `editcap OLD NEW`", major, minor)
	}
	r.pcapng.interfaces = r.pcapng.interfaces[:0]
	r.skip = int64(length)
	return nil
}

func (r *Reader) readInterface(length uint32) error {
	if length < interfaceMinLen {
		return r.fail("an interface block cannot be %d bytes long", length)
	}
	if len(r.pcapng.interfaces) == maxInterfaces {
		return r.fail("a section of more than %d interfaces", maxInterfaces)
	}
	const fixedLen = interfaceMinLen - 4 // before the options
	b, err := r.peek(fixedLen)
	if err != nil {
		return err
	}
	i := pcapngInterface{link: r.order.Uint16(b[8:])}
	i.second, _ = unitsPerSecond(defaultResolution)
	if err := r.discard(fixedLen); err != nil {
		return err
	}
	r.skip = int64(length) - fixedLen
	if err := r.readOptions(&i); err != nil {
		return err
	}
	r.pcapng.interfaces = append(r.pcapng.interfaces, i)
	return nil
}

// readOptions reads the options of an interface block, of which r.skip bytes
// are left, the closing length included.
func (r *Reader) readOptions(i *pcapngInterface) error {
	const valueMax = 8 // of the options that matter
	for r.skip >= optionHeadLen+4 {
		left := r.skip
		b, err := r.peek(int(min(left-4, optionHeadLen+valueMax)))
		if err != nil {
			return err
		}
		code, n := r.order.Uint16(b), int64(r.order.Uint16(b[2:]))
		if code == optionEnd {
			return nil
		}
		padded := optionHeadLen + (n+3)&^3
		if padded > left-4 {
			return r.fail("option %d of an interface is %d bytes long, but %d are left", code, n, left-4-optionHeadLen)
		}
		if err := r.setOption(i, code, b[optionHeadLen:optionHeadLen+min(n, valueMax)], n); err != nil {
			return err
		}
		if err := r.discard(padded); err != nil {
			return err
		}
		r.skip = left - padded
	}
	return nil
}

// setOption takes the option of an interface of n bytes, of which value holds
// the first.
func (r *Reader) setOption(i *pcapngInterface, code uint16, value []byte, n int64) error {
	switch {
	case code == optionResolution && n == 1:
		second, ok := unitsPerSecond(value[0])
		if !ok {
			return r.fail("an interface counts time in units too small for 64 bits: if_tsresol is %#x", value[0])
		}
		i.second = second
	case code == optionOffset && n == 8:
		i.offset = int64(r.order.Uint64(value))
	case code == optionResolution, code == optionOffset:
		return r.fail("option %d of an interface cannot be %d bytes long", code, n)
	}
	return nil
}

// unitsPerSecond returns 10 or, with the highest bit set, 2 to the power of
// what if_tsresol says. It returns false if that exceeds 64 bits.
func unitsPerSecond(resolution uint8) (uint64, bool) {
	power := resolution &^ resolutionIsBinary
	if resolution&resolutionIsBinary != 0 {
		return 1 << (power & 63), power < 64
	}
	units := uint64(1)
	for range power {
		hi, lo := bits.Mul64(units, 10)
		if hi != 0 {
			return 0, false
		}
		units = lo
	}
	return units, true
}

// readPacket reads an enhanced packet block, or an obsolete packet block, which
// differs in how wide the number of the interface is.
func (r *Reader) readPacket(kind, length uint32) (record, error) {
	const fixedLen = packetMinLen - 4 // before the packet
	if length < packetMinLen {
		return record{}, r.fail("a packet block cannot be %d bytes long", length)
	}
	b, err := r.peek(fixedLen)
	if err != nil {
		return record{}, err
	}
	number := r.order.Uint32(b[8:])
	if kind == blockPacket {
		number = uint32(r.order.Uint16(b[8:]))
	}
	if int64(number) >= int64(len(r.pcapng.interfaces)) {
		return record{}, r.fail("a packet of interface %d, of %d that its section has", number, len(r.pcapng.interfaces))
	}
	captured, onWire := r.order.Uint32(b[20:]), r.order.Uint32(b[24:])
	if captured > length-packetMinLen {
		return record{}, r.fail("a packet of %d bytes in a block of %d", captured, length)
	}
	ticks := uint64(r.order.Uint32(b[12:]))<<32 | uint64(r.order.Uint32(b[16:]))
	head := int(min(captured, headLen))
	if b, err = r.peek(fixedLen + head); err != nil {
		return record{}, err
	}
	i := &r.pcapng.interfaces[number]
	rec := record{link: i.link, wireLen: wireLen(captured, onWire), head: b[fixedLen:]}
	rec.time, rec.timed = i.unixNano(ticks)
	r.skip = int64(length)
	return rec, nil
}

// unixNano returns the time of a timestamp, and false if it is not within the
// years that 64 bits of nanoseconds hold.
func (i *pcapngInterface) unixNano(ticks uint64) (int64, bool) {
	const years = 1 << 33 // seconds either way, about 272 years
	seconds, rest := ticks/i.second, ticks%i.second
	if seconds >= years || i.offset >= years || i.offset <= -years {
		return 0, false
	}
	whole := int64(seconds) + i.offset
	if whole >= years {
		return 0, false
	}
	hi, lo := bits.Mul64(rest, uint64(time.Second))
	nanoseconds, _ := bits.Div64(hi, lo, i.second)
	return whole*int64(time.Second) + int64(nanoseconds), true
}

// readSimplePacket passes over a packet that has no time.
func (r *Reader) readSimplePacket(length uint32) (record, error) {
	if length < simpleMinLen {
		return record{}, r.fail("a simple packet block cannot be %d bytes long", length)
	}
	if len(r.pcapng.interfaces) == 0 {
		return record{}, r.fail("a packet before any interface of its section")
	}
	r.skip = int64(length)
	return record{}, nil
}
