// SPDX-License-Identifier: Apache-2.0

// Package wire is what the test machine's first process and the runner say to each other: a plan that goes in with
// the initramfs, and records that come out of a serial port of their own, where no kernel message can mix in.
package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PlanPath is where the plan lies in the guest.
const PlanPath = "/plan.json"

// MaxOut is the most output, in bytes, that one record carries.
const MaxOut = 16 << 10

// maxLine is above the length of a record with MaxOut bytes in base64, and bounds what a broken guest can make us hold.
const maxLine = 1 << 20

// Plan says what the guest does: load modules in this order, then run these commands one after the other.
type Plan struct {
	Modules []string `json:"modules"`
	Runs    []Run    `json:"runs"`
}

// Run is one command.
type Run struct {
	Name       string   `json:"name"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	Dir        string   `json:"dir"`
	TimeoutSec int      `json:"timeout_sec"`
	// Vital ends the plan when this run fails: what follows would say nothing about the code under test.
	Vital bool `json:"vital"`
}

// The kinds of record, in the order in which they come.
const (
	KindHello = "hello" // the guest is up; Text is the kernel release
	KindWarn  = "warn"  // something is amiss in the guest, but it goes on; Text says what
	KindOut   = "out"   // Data is output of run Run
	KindExit  = "exit"  // run Run ended with Code, after Millis; Text says why if not by itself
	KindEnd   = "end"   // the plan is done; without it the boot has failed
)

// Record is one message of the guest.
type Record struct {
	Seq    uint64 `json:"seq"`
	Kind   string `json:"kind"`
	Run    int    `json:"run,omitempty"`
	Code   int    `json:"code,omitempty"`
	Millis int64  `json:"ms,omitempty"`
	Text   string `json:"text,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

// Writer numbers records and writes each as one line. It is for one goroutine.
type Writer struct {
	w   io.Writer
	seq uint64
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends r with the next sequence number.
func (w *Writer) Write(r Record) error {
	r.Seq = w.seq
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	w.seq++
	_, err = w.w.Write(append(line, '\n'))
	return err
}

// ErrLost is returned when a record is missing in the stream.
var ErrLost = errors.New("a record from the guest was lost")

// Reader takes records apart and proves that none is missing.
type Reader struct {
	s   *bufio.Scanner
	seq uint64
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	return &Reader{s: s}
}

// Read returns the next record; io.EOF at the end of the stream, ErrLost on a gap, another error on a line that is no record.
func (r *Reader) Read() (Record, error) {
	for r.s.Scan() {
		line := r.s.Bytes()
		if len(line) == 0 {
			continue
		}
		var rec Record
		if err := json.Unmarshal(line, &rec); err != nil {
			return Record{}, fmt.Errorf("malformed record %.80q from the guest: %w", line, err)
		}
		if rec.Seq != r.seq {
			return Record{}, fmt.Errorf("%w: number %d where %d was due", ErrLost, rec.Seq, r.seq)
		}
		r.seq++
		return rec, nil
	}
	if err := r.s.Err(); err != nil {
		return Record{}, fmt.Errorf("reading from the guest: %w", err)
	}
	return Record{}, io.EOF
}
