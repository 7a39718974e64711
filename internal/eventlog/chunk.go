// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"math"
	"slices"

	"github.com/twscope/twscope/internal/event"
)

// chunkSize is how many bytes are collected before they are handed over: large
// enough that write(2) costs little per line, small enough to be written at
// once.
const chunkSize = 256 << 10

// mark is the end of one line of a chunk.
type mark struct {
	end  uint32
	kind event.Kind
}

// chunk is a batch of whole lines on the way to the output.
type chunk struct {
	buf   []byte
	marks []mark
	off   int // bytes that the output has taken
	next  int // first line that it has not taken as a whole
}

func newChunk() *chunk {
	return &chunk{buf: make([]byte, 0, chunkSize+event.MaxLine), marks: make([]mark, 0, chunkSize/128)}
}

func (c *chunk) reset() {
	c.buf, c.marks, c.off, c.next = c.buf[:0], c.marks[:0], 0, 0
}

// rest returns the lines that the output has not taken, as many as fit into
// room bytes.
func (c *chunk) rest(room int64) []byte {
	if int64(len(c.buf)-c.off) <= room {
		return c.buf[c.off:]
	}
	limit := uint32(min(int64(c.off)+max(room, 0), math.MaxUint32))
	i, found := slices.BinarySearchFunc(c.marks[c.next:], limit, func(m mark, limit uint32) int {
		return int(m.end) - int(limit)
	})
	if found {
		i++
	}
	if i == 0 {
		return nil
	}
	return c.buf[c.off:c.marks[c.next+i-1].end]
}

// line returns what is left of the first line that the output has not taken.
func (c *chunk) line() []byte { return c.buf[c.off:c.marks[c.next].end] }

// take notes that the output has taken n bytes more and counts the lines that
// it has now taken as a whole.
func (c *chunk) take(n int, written *[event.NumKinds]uint64) {
	c.off += n
	for c.next < len(c.marks) && int(c.marks[c.next].end) <= c.off {
		written[c.marks[c.next].kind]++
		c.next++
	}
}
