// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// The file format of draft-ietf-opsawg-pcap, version 2.4, in nanoseconds.
const (
	pcapMagic   = 0xa1b23c4d
	pcapSnapLen = 256 << 10
	// pcapRaw: packets begin with their IPv4 or IPv6 header.
	pcapRaw = 101
)

// tape saves the packets that pass an interface to a file.
type tape struct {
	path string
	file *os.File
	out  *bufio.Writer
	tap  *lab.Tap
}

// newTape begins to save what passes a host's end of a link, IPv4 and IPv6.
func newTape(e *lab.End, path string) (*tape, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("--pcap: %w", err)
	}
	t := &tape{path: path, file: file, out: bufio.NewWriterSize(file, 1<<16)}
	if _, err = t.out.Write(pcapHeader()); err == nil {
		t.tap, err = e.Tap(pcapSnapLen, t.record, func() {})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--pcap: %w", err), file.Close())
	}
	return t, nil
}

func (t *tape) record(p *lab.Packet) {
	if p.Protocol != unix.ETH_P_IP && p.Protocol != unix.ETH_P_IPV6 {
		return
	}
	at := p.Time
	if at.IsZero() {
		at = time.Now()
	}
	// Flush tells of the first error.
	_, _ = t.out.Write(append(pcapRecord(at, len(p.Data), p.Length), p.Data...))
}

func pcapHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, pcapMagic)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // reserved
	b = binary.LittleEndian.AppendUint32(b, pcapSnapLen)
	return binary.LittleEndian.AppendUint32(b, pcapRaw)
}

func pcapRecord(at time.Time, held, wire int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(held))
	return binary.LittleEndian.AppendUint32(b, uint32(wire))
}

// stop ends the file after everything sent before the call is in it. A packet
// that was dropped for want of a buffer is an error.
func (t *tape) stop() error {
	lost, err := t.tap.Stop()
	if lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets were lost", lost))
	}
	if err = errors.Join(err, t.out.Flush(), t.file.Close()); err != nil {
		return fmt.Errorf("--pcap: %s: %w", t.path, err)
	}
	return nil
}
