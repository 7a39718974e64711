// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FormatError is a capture that cannot be read on. What came before is good.
// It wraps the error of the underlying reader, or io.ErrUnexpectedEOF if the
// capture ends inside of a record, which is what a capture looks like whose
// writer was killed, or is still at work.
type FormatError struct {
	Offset int64 // of the record at fault, in bytes from the start of the capture
	Packet int64 // how many packets came before
	Reason string
	err    error
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("capture: record at byte %d, after packet %d: %s", e.Offset, e.Packet, e.Reason)
}

// Unwrap returns what it wraps, or nil.
func (e *FormatError) Unwrap() error { return e.err }

// Stats counts the packets of a capture by what they are. Packets is the sum
// of the others.
type Stats struct {
	Packets   int64
	Segments  int64 // TCP: returned by Next
	NotTCP    int64 // of another protocol, tunnels included
	Fragments int64 // fragments of IP packets
	Cut       int64 // the capture holds too little of them to reach the TCP header's 20 bytes
	Malformed int64 // lengths in their headers that cannot be
	OtherLink int64 // of an interface whose link type is not supported
	Untimed   int64 // without a time, or with one out of range
}

const (
	bufferSize = 256 << 10
	// headLen is how much of a packet is looked at. All headers fit, but for
	// chains of IPv6 extension headers that no host lets pass.
	headLen = 4096
)

// Reader reads the segments of a capture. It needs about bufferSize bytes, and
// for pcapng 24 bytes for each interface of a section, of which it takes
// maxInterfaces.
type Reader struct {
	in     *bufio.Reader
	order  binary.ByteOrder       // of the file or the section
	read   func() (record, error) // returns the next packet
	start  int64                  // offset of the record that is being read
	offset int64                  // of what in returns next
	skip   int64                  // how much of the record is left from there
	err    error
	counts [outcomes]int64
	total  int64

	pcap   pcapFile
	pcapng pcapngSection
}

// record is a packet of the file, as far as this package looks at it.
type record struct {
	time    int64 // as in Segment
	timed   bool
	link    uint16
	wireLen int
	head    []byte // valid until the next record is read
}

// NewReader returns a Reader of r, which begins with a capture in pcap or
// pcapng format, of either byte order. It reads the file's header.
func NewReader(r io.Reader) (*Reader, error) {
	cr := &Reader{in: bufio.NewReaderSize(r, bufferSize)}
	head, err := cr.peek(4)
	if errors.Is(err, io.EOF) {
		return nil, cr.fail("the capture is empty")
	}
	if err != nil {
		return nil, err
	}
	if err := cr.open([4]byte(head)); err != nil {
		return nil, err
	}
	return cr, nil
}

// open finds out the format by the first bytes, which are those in the file.
func (r *Reader) open(magic [4]byte) error {
	big := binary.BigEndian.Uint32(magic[:])
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(magic[:]) {
		case pcapMicroseconds, pcapNanoseconds:
			r.order, r.read = order, r.readPcap
			return r.openPcap()
		case pcapPatched:
			return r.fail("a pcap file of a patched libpcap: convert it with `editcap -F pcap`")
		}
	}
	switch {
	case big == blockSectionHeader:
		r.order, r.read = binary.LittleEndian, r.readPcapng
		return nil
	case big>>16 == 0x1f8b, big == 0x28b52ffd, big == 0xfd377a58:
		return r.fail("the capture is compressed: unpack it first")
	}
	return r.fail("neither pcap nor pcapng: it begins with the bytes % x", magic)
}

// Next fills s with the next TCP segment. It passes over and counts other
// packets. It returns io.EOF at the end of the capture, or a *FormatError where
// it cannot be read on, and the same ever after; s is then of no use.
func (r *Reader) Next(s *Segment) error {
	for r.err == nil {
		rec, err := r.read()
		if err != nil {
			r.err = err
			break
		}
		r.total++
		o := untimed
		if rec.timed {
			o = decode(rec.link, rec.head, rec.wireLen, s)
		}
		r.counts[o]++
		if o == tcp {
			s.Time, s.Packet = rec.time, r.total
			return nil
		}
	}
	return r.err
}

// Stats returns what has been read so far.
func (r *Reader) Stats() Stats {
	return Stats{
		Packets:   r.total,
		Segments:  r.counts[tcp],
		NotTCP:    r.counts[notTCP],
		Fragments: r.counts[fragment],
		Cut:       r.counts[cut],
		Malformed: r.counts[malformed],
		OtherLink: r.counts[otherLink],
		Untimed:   r.counts[untimed],
	}
}

// Offset returns how many bytes of the capture have been read so far, records
// in whole.
func (r *Reader) Offset() int64 { return r.offset + r.skip }

// begin leaves the record that was read last and returns the first n bytes of
// the next. It returns io.EOF if there is none.
func (r *Reader) begin(n int) ([]byte, error) {
	if err := r.discard(r.skip); err != nil {
		return nil, err
	}
	r.start = r.offset
	return r.peek(n)
}

// peek returns the next n bytes, at most bufferSize, without reading them. It
// returns io.EOF if the capture ends where a record may begin.
func (r *Reader) peek(n int) ([]byte, error) {
	b, err := r.in.Peek(n)
	if err == nil {
		return b, nil
	}
	if errors.Is(err, io.EOF) && len(b) == 0 && r.offset == r.start {
		return nil, io.EOF
	}
	return nil, r.inputError(err)
}

// discard reads n bytes that are part of the current record.
func (r *Reader) discard(n int64) error {
	r.skip = 0
	for n > 0 {
		// less at a time than an int of 32 bits holds
		done, err := r.in.Discard(int(min(n, 1<<30)))
		n, r.offset = n-int64(done), r.offset+int64(done)
		if err != nil {
			return r.inputError(err)
		}
	}
	return nil
}

func (r *Reader) inputError(err error) error {
	if !errors.Is(err, io.EOF) {
		return &FormatError{Offset: r.start, Packet: r.total, Reason: err.Error(), err: err}
	}
	return &FormatError{
		Offset: r.start, Packet: r.total, err: io.ErrUnexpectedEOF,
		Reason: "the capture ends inside of this record: it was cut short, or is still being written",
	}
}

func (r *Reader) fail(format string, args ...any) error {
	return &FormatError{Offset: r.start, Packet: r.total, Reason: fmt.Sprintf(format, args...)}
}
