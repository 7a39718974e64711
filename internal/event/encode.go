// SPDX-License-Identifier: Apache-2.0

package event

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"
)

// MaxLine is the length of the longest line that an Encoder writes and a
// reader must accept, in bytes, the newline included.
const MaxLine = 64 << 10

// Encoder turns events into JSON lines. It allocates nothing for socket events
// and losses. An Encoder must not be used by two goroutines at once.
type Encoder struct {
	log  zerolog.Logger
	sink *sink
	s    scratch
}

// sink is the io.Writer below the logger: it collects what zerolog hands out
// once per line.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// NewEncoder returns an Encoder. It writes whatever zerolog's global level is,
// except with zerolog.Disabled, which no program that logs events may set.
func NewEncoder() *Encoder {
	s := new(sink)
	return &Encoder{log: zerolog.New(s), sink: s}
}

// Append appends ev as one line, newline included, to dst and returns the
// extended slice. No line is longer than MaxLine: texts are cut at 2 KiB, and
// when the lists and maps of a start, stats or stop event are too long their
// tails are left out and the line says "truncated": true. An event of another
// package that is too long is replaced by a loss event of the hop "encode".
func (e *Encoder) Append(dst []byte, ev Event) []byte {
	n, most := len(dst), MaxLine
	if r, ok := ev.(interface{ room() int }); ok {
		most = r.room()
	}
	dst = e.line(dst, ev)
	if len(dst)-n <= most {
		return dst
	}
	if s, ok := ev.(shortener); ok {
		for keep := 1 << 12; ; keep /= 2 {
			dst = e.line(dst[:n], s.shorten(keep))
			if len(dst)-n <= most {
				return dst
			}
			if keep == 0 {
				break
			}
		}
	}
	return e.line(dst[:n], &Loss{
		Header: Header{Time: ev.UnixNano()}, Hop: "encode", Of: ev.Kind().String(), Count: 1,
		Why: "the event does not fit into one line of 64 KiB",
	})
}

// shortener is an event with lists and maps of any length.
type shortener interface {
	// shorten returns a copy that keeps at most the first keep elements of
	// each list and map and is marked as truncated.
	shorten(keep int) Event
}

// memberWriter is what the events of this package have beside
// MarshalZerologObject: the same with the caller's scratch.
type memberWriter interface {
	members(e *zerolog.Event, s *scratch)
}

func (e *Encoder) line(dst []byte, ev Event) []byte {
	e.sink.buf = dst
	z := e.log.Log()
	if m, ok := ev.(memberWriter); ok {
		m.members(z, &e.s)
	} else {
		z.EmbedObject(ev)
	}
	z.Send()
	dst, e.sink.buf = e.sink.buf, nil
	return dst
}

// timeLen is the length of a quoted time: "2006-01-02T15:04:05.000000000Z".
const timeLen = 32

// scratch holds what is reused from event to event.
type scratch struct {
	second int64 // the one that text shows; valid if filled
	filled bool
	text   [timeLen]byte
	// the local and the remote address of the line before, which most lines
	// share
	addrs [2]addressText
	// Five names and numbers take at most 123 bytes.
	refused [128]byte
}

// addressText is an address as JSON.
type addressText struct {
	addr netip.Addr
	text [48]byte // a quoted IPv6 address takes at most 41 bytes
	n    int
}

// time returns t as JSON, RFC 3339 with 9 digits. Formatting a date costs more
// than the rest of a line's numbers together, and most lines share their
// second with the line before.
func (s *scratch) time(t int64) []byte {
	second, nano := t/1e9, t%1e9
	if nano < 0 {
		second, nano = second-1, nano+1e9
	}
	if !s.filled || second != s.second {
		b := append(s.text[:0], '"')
		b = time.Unix(second, 0).UTC().AppendFormat(b, "2006-01-02T15:04:05.")
		_ = append(b, `000000000Z"`...)
		s.second, s.filled = second, true
	}
	for i := timeLen - 3; i > timeLen-12; i-- {
		s.text[i] = byte('0' + nano%10)
		nano /= 10
	}
	return s.text[:]
}

// begin writes what every event starts with.
func (s *scratch) begin(e *zerolog.Event, t int64, k Kind) {
	e.RawJSON("time", s.time(t)).Str("event", k.String())
}

// address returns a as JSON: IPv4-mapped as IPv4, and without zone, which is
// foreign text and says nothing beside the network namespace. which tells
// whether it is the first or the second address of the line.
func (s *scratch) address(a netip.Addr, which int) []byte {
	c := &s.addrs[which]
	if c.n == 0 || c.addr != a {
		b := append(c.text[:0], '"')
		b = a.Unmap().WithZone("").AppendTo(b)
		b = append(b, '"')
		c.addr, c.n = a, len(b)
	}
	return c.text[:c.n]
}

func (s *scratch) socket(e *zerolog.Event, k *Socket) {
	if k.NetNS != 0 {
		e.Uint32("netns", k.NetNS)
	}
	if k.Local.Addr().IsValid() {
		e.RawJSON("laddr", s.address(k.Local.Addr(), 0))
	}
	if k.Local.Port() != 0 {
		e.Uint16("lport", k.Local.Port())
	}
	if k.Remote.Addr().IsValid() {
		e.RawJSON("raddr", s.address(k.Remote.Addr(), 1))
	}
	if k.Remote.Port() != 0 {
		e.Uint16("rport", k.Remote.Port())
	}
	if k.Owner.PID != 0 {
		e.Uint32("pid", k.Owner.PID)
	}
	optional(e, "comm", k.Owner.Comm)
	optional(e, "cgroup", k.Owner.Cgroup)
}

// optional writes a text that is left out when empty.
func optional(e *zerolog.Event, key, val string) {
	if val != "" {
		e.Str(key, text(val))
	}
}

// flag writes a boolean that is left out when false.
func flag(e *zerolog.Event, key string, on bool) {
	if on {
		e.Bool(key, true)
	}
}
