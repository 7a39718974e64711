// SPDX-License-Identifier: Apache-2.0

package capture

import "encoding/binary"

// The option kinds with a meaning of their own, RFC 9293 section 3.1 and
// RFC 7323 section 3.2.
const (
	kindEnd           = 0
	kindNOP           = 1
	kindMSS           = 2
	kindWindowScale   = 3
	kindSACKPermitted = 4
	kindTimestamps    = 8
)

// MaxKinds is how many options Options names, as many as the BPF programs do.
const MaxKinds = 24

// Options is what the options of a TCP header say. Numbers are in host byte
// order.
type Options struct {
	TSval, TSecr  uint32 // in the sender's and in the receiver's ticks
	MSS           uint16 // in bytes
	WScale        uint8  // window scale shift, as sent: above 14 is not valid
	Timestamps    bool   // TSval and TSecr were there
	HasMSS        bool
	HasWScale     bool
	SACKPermitted bool
	Malformed     bool  // a length below 2 or beyond the header
	EOLPad        uint8 // bytes behind the end-of-list option
	count         uint8
	kinds         [MaxKinds]uint8
}

// Kinds returns the option kinds in order of appearance, NOPs included, the
// end of the list not, at most MaxKinds of them. They are o's own memory.
func (o *Options) Kinds() []uint8 { return o.kinds[:o.count] }

// Parse reads the options of a TCP header, what lies between the 20th byte and
// the header's end, as tcp_parse_options() of net/ipv4/tcp_input.c does (read
// in 6.18): the end of the list or a bad length ends it, what came before
// counts, a value of the wrong length does not, and the last one of a kind
// wins.
func (o *Options) Parse(b []byte) {
	*o = Options{}
	for len(b) > 0 {
		kind := b[0]
		if kind == kindEnd {
			o.EOLPad = uint8(min(len(b)-1, 255))
			return
		}
		if o.count < MaxKinds {
			o.kinds[o.count] = kind
			o.count++
		}
		if kind == kindNOP {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			o.Malformed = true
			return
		}
		o.take(kind, b[2:b[1]])
		b = b[b[1]:]
	}
}

func (o *Options) take(kind uint8, value []byte) {
	switch {
	case kind == kindTimestamps && len(value) == 8:
		o.TSval, o.TSecr = binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:])
		o.Timestamps = true
	case kind == kindMSS && len(value) == 2:
		o.MSS, o.HasMSS = binary.BigEndian.Uint16(value), true
	case kind == kindWindowScale && len(value) == 1:
		o.WScale, o.HasWScale = value[0], true
	case kind == kindSACKPermitted && len(value) == 0:
		o.SACKPermitted = true
	}
}
