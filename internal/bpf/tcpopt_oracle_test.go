// SPDX-License-Identifier: Apache-2.0

package bpf

import "encoding/binary"

// tcpOptions is what the options of a TCP header say.
type tcpOptions struct {
	TSval, TSecr           uint32
	MSS                    uint16
	WScale                 uint8
	HasTS, HasMSS, HasWS   bool
	SACKPermitted          bool
	Malformed              bool    // a length below 2 or beyond the header
	Kinds                  []uint8 // in order of appearance, NOPs included, the end not; at most 24
	BytesBehindEndOfOption uint8
}

// The kinds with a meaning of their own, RFC 9293 section 3.1 and RFC 7323.
const (
	kindEnd           = 0
	kindNOP           = 1
	kindMSS           = 2
	kindWindowScale   = 3
	kindSACKPermitted = 4
	kindTimestamps    = 8
)

// parseTCPOptions reads the options of a SYN as tcp_parse_options() of
// net/ipv4/tcp_input.c does: the end of the list or a bad length ends it, what
// came before counts, a value of the wrong length does not, and the last one
// of a kind wins.
func parseTCPOptions(b []byte) tcpOptions {
	const kindsMax = 24

	var o tcpOptions
	for len(b) > 0 {
		kind := b[0]
		if kind == kindEnd {
			o.BytesBehindEndOfOption = uint8(len(b) - 1)
			return o
		}
		if len(o.Kinds) < kindsMax {
			o.Kinds = append(o.Kinds, kind)
		}
		if kind == kindNOP {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			o.Malformed = true
			return o
		}
		o.take(kind, b[2:b[1]])
		b = b[b[1]:]
	}
	return o
}

func (o *tcpOptions) take(kind uint8, value []byte) {
	switch {
	case kind == kindMSS && len(value) == 2:
		o.MSS, o.HasMSS = binary.BigEndian.Uint16(value), true
	case kind == kindWindowScale && len(value) == 1:
		o.WScale, o.HasWS = value[0], true
	case kind == kindSACKPermitted && len(value) == 0:
		o.SACKPermitted = true
	case kind == kindTimestamps && len(value) == 8:
		o.TSval, o.TSecr = binary.BigEndian.Uint32(value), binary.BigEndian.Uint32(value[4:])
		o.HasTS = true
	}
}
