// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/twscope/twscope/internal/capture"
)

const (
	micro = 0xa1b2c3d4
	nano  = 0xa1b23c4d
)

var orders = map[string]binary.AppendByteOrder{"little-endian": binary.LittleEndian, "big-endian": binary.BigEndian}

// TestFormats reads one SYN, taken at 7.000008 s, from all kinds of files.
func TestFormats(t *testing.T) {
	syn := unhex(t, etherSYN)
	const ticks = 7_000_008 // µs
	u64 := func(f *file, v uint64) []byte { return f.AppendUint64(nil, v) }
	offset := int64(-93)
	tests := map[string]func(f *file){
		"pcap":             func(f *file) { f.pcap(micro, 1).record(7, 8, syn, 74) },
		"pcap nanoseconds": func(f *file) { f.pcap(nano, 1).record(7, 8000, syn, 74) },
		"pcap with a frame check sequence": func(f *file) {
			f.pcap(micro, 1|0x14000000).record(7, 8, append(syn[:74:74], 1, 2, 3, 4), 78)
		},
		"pcap of a writer that knows no wire length": func(f *file) {
			// nor is it in the IPv4 header, of which the length is 0
			f.pcap(micro, 1).record(7, 8, slices.Concat(syn[:16], []byte{0, 0}, syn[18:]), 0)
		},
		"pcapng":              func(f *file) { f.section().iface(1).packet(0, ticks, syn, 74) },
		"pcapng microseconds": func(f *file) { f.section().iface(1, f.option(9, []byte{6})).packet(0, ticks, syn, 74) },
		"pcapng nanoseconds":  func(f *file) { f.section().iface(1, f.option(9, []byte{9})).packet(0, ticks*1000, syn, 74) },
		"pcapng 10^-19 s": func(f *file) {
			f.section().iface(1, f.option(9, []byte{19}), f.option(14, u64(f, 7))).packet(0, 8e13, syn, 74)
		},
		"pcapng 2^-20 s": func(f *file) { f.section().iface(1, f.option(9, []byte{0x94})).packet(0, 7<<20|9, syn, 74) },
		"pcapng seconds": func(f *file) { f.section().iface(1, f.option(9, []byte{0})).packet(0, 7, syn, 74) },
		"pcapng, other options": func(f *file) {
			f.section().iface(1, f.option(1, []byte("a comment")), f.option(2, []byte("eth0")), f.option(11, bytes.Repeat([]byte{1}, 3000)),
				f.option(14, u64(f, uint64(offset)))).packet(0, ticks-uint64(offset*1e6), syn, 74)
		},
		"pcapng, the second interface": func(f *file) { f.section().iface(101).iface(1).packet(1, ticks, syn, 74) },
		"pcapng, obsolete packet block": func(f *file) {
			body := f.AppendUint16(f.AppendUint16(nil, 0), 3)
			f.section().iface(1).block(2, f.packetBody(body, ticks, syn, 74))
		},
		"pcapng, blocks of other kinds": func(f *file) {
			f.section().block(4, make([]byte, 40)).iface(1).block(5, make([]byte, 12)).block(0xbad, nil).packet(0, ticks, syn, 74).block(10, make([]byte, 300_000))
		},
		"pcapng, a second section of other interfaces": func(f *file) {
			f.section().iface(101).iface(101).section().iface(1).packet(0, ticks, syn, 74)
		},
	}
	// what the coarser clocks make of 8 µs
	rounded := map[string]int64{"pcapng 2^-20 s": 7_000_008_583, "pcapng seconds": 7_000_000_000}
	for name, build := range tests {
		for orderName, order := range orders {
			t.Run(name+"/"+orderName, func(t *testing.T) {
				f := file{AppendByteOrder: order}
				build(&f)
				segments, stats := readAll(t, iotest.OneByteReader(bytes.NewReader(f.b)))
				if stats != counted {
					t.Fatalf("%+v, want %+v", stats, counted)
				}
				s := &segments[0]
				if want, ok := rounded[name]; ok && s.Time == want {
					s.Time = ticks * 1000
				}
				checkSYN(t, s)
			})
		}
	}
}

// TestSectionOfTheOtherByteOrder joins two files.
func TestSectionOfTheOtherByteOrder(t *testing.T) {
	syn := unhex(t, etherSYN)
	little, big := file{AppendByteOrder: binary.LittleEndian}, file{AppendByteOrder: binary.BigEndian}
	little.section().iface(1).packet(0, 1, syn, 74)
	big.section().iface(1, big.option(9, []byte{9})).packet(0, 2, syn, 74)
	segments, _ := readAll(t, bytes.NewReader(append(little.b, big.b...)))
	if len(segments) != 2 || segments[0].Time != 1000 || segments[1].Time != 2 || segments[1].Packet != 2 {
		t.Errorf("%+v", segments)
	}
}

// TestPassedOver: packets that are counted, and no obstacle.
func TestPassedOver(t *testing.T) {
	syn := unhex(t, etherSYN)
	far := binary.LittleEndian.AppendUint64(nil, 1<<62)
	f := file{AppendByteOrder: binary.LittleEndian}
	f.section().iface(1).iface(105).iface(1, f.option(9, []byte{0})).iface(1, f.option(14, far))
	f.packet(1, 0, syn, 74)     // of IEEE 802.11
	f.packet(2, 1<<34, syn, 74) // in year 2514
	f.packet(3, 0, syn, 74)     // later still
	f.block(3, append(f.AppendUint32(nil, 74), syn...))
	f.packet(0, 0, syn[:20], 74)
	f.packet(0, 0, syn, 74)
	segments, stats := readAll(t, bytes.NewReader(f.b))
	want := capture.Stats{Packets: 6, Segments: 1, OtherLink: 1, Untimed: 3, Cut: 1}
	if stats != want || segments[0].Packet != 6 {
		t.Errorf("got  %+v\nwant %+v\n%+v", stats, want, segments)
	}
}

// TestDamaged: where, after how many packets, and why it cannot be read on.
func TestDamaged(t *testing.T) {
	syn := unhex(t, etherSYN)
	pcap := func() *file {
		f := &file{AppendByteOrder: binary.LittleEndian}
		return f.pcap(micro, 1).record(7, 8, syn, 74)
	}
	pcapng := func() *file {
		f := &file{AppendByteOrder: binary.LittleEndian}
		return f.section().iface(1).packet(0, 0, syn, 74)
	}
	const pcapLen, pcapngLen = 24 + 16 + 74, 28 + 20 + 32 + 76
	set := func(f *file, at int, b ...byte) *file {
		copy(f.b[at:], b)
		return f
	}
	raw := func(s string) *file { return &file{b: unhex(t, s)} }
	tests := []struct {
		name   string
		file   *file
		offset int64
		packet int64
		reason string
	}{
		{"empty", raw(""), 0, 0, "the capture is empty"},
		{"two bytes", raw("d4c3"), 0, 0, "cut short"},
		{"text", raw(strings.Repeat("7b227473", 9)), 0, 0, "neither pcap nor pcapng: it begins with the bytes 7b 22 74 73"},
		{"gzip", raw("1f8b08000000"), 0, 0, "unpack it first"},
		{"zstd", raw("28b52ffd0000"), 0, 0, "unpack it first"},
		{"xz", raw("fd377a585a00"), 0, 0, "unpack it first"},
		{"patched pcap", raw("34cdb2a1"), 0, 0, "editcap"},
		{"pcap of another version", set(pcap(), 4, 3), 0, 0, "pcap version 3.4, not 2.4"},
		{"pcap of another link", set(pcap(), 20, 105), 0, 0, "link type 105 is not supported"},
		{"pcap, length out of range", pcap().words(1, 2, 1<<18+1, 1<<18+1), pcapLen, 1, "a packet of 262145 bytes, though none is longer than 262144"},
		{"pcap, half a record header", pcap().words(1, 2), pcapLen, 1, "cut short"},
		{"pcap, no packet", pcap().words(1, 2, 74, 74), pcapLen, 1, "cut short"},

		{"no byte order", set(pcapng(), 8, 0), 0, 0, "without a byte-order magic: 00 3c 2b 1a"},
		{"section of another version", set(pcapng(), 12, 2), 0, 0, "pcapng version 2.0, not 1"},
		{"section too short", set(pcapng(), 4, 24), 0, 0, "a section header cannot be 24 bytes long"},
		{"block too short", pcapng().words(9, 8, 8, 8), pcapngLen, 1, "a block of type 0x9 cannot be 8 bytes long"},
		{"block of odd length", pcapng().words(9, 13, 0, 13), pcapngLen, 1, "a block of type 0x9 cannot be 13 bytes long"},
		{"block with two lengths", pcapng().words(9, 16, 0, 12), pcapngLen, 1, "a block of 16 bytes ends with the length 12"},
		{"interface too short", pcapng().words(1, 16, 1, 16), pcapngLen, 1, "an interface block cannot be 16 bytes long"},
		{"option beyond the block", pcapng().block(1, []byte{1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 5, 0, 1, 2, 3, 4}), pcapngLen, 1, "option 2 of an interface is 5 bytes long, but 4 are left"},
		{"resolution of two bytes", pcapng().iface(1, (&file{AppendByteOrder: binary.LittleEndian}).option(9, []byte{6, 0})), pcapngLen, 1, "option 9 of an interface cannot be 2 bytes long"},
		{"resolution of 10^-20", pcapng().iface(1, (&file{AppendByteOrder: binary.LittleEndian}).option(9, []byte{20})), pcapngLen, 1, "if_tsresol is 0x14"},
		{"resolution of 2^-64", pcapng().iface(1, (&file{AppendByteOrder: binary.LittleEndian}).option(9, []byte{0xc0})), pcapngLen, 1, "if_tsresol is 0xc0"},
		{"packet block too short", pcapng().block(6, make([]byte, 16)), pcapngLen, 1, "a packet block cannot be 28 bytes long"},
		{"packet of no interface", pcapng().packet(1, 0, syn, 74), pcapngLen, 1, "a packet of interface 1, of 1 that its section has"},
		{"interface of the section before", pcapng().section().packet(0, 0, syn, 74), pcapngLen + 28, 1, "a packet of interface 0, of 0"},
		{"packet longer than its block", set(pcapng(), 28+20+20, 77), 48, 0, "a packet of 77 bytes in a block of 108"},
		{"simple packet too short", pcapng().block(3, nil), pcapngLen, 1, "a simple packet block cannot be 12 bytes long"},
		{"simple packet of no interface", pcapng().section().block(3, make([]byte, 8)), pcapngLen + 28, 1, "a packet before any interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, stats, err := readUntil(bytes.NewReader(tt.file.b))
			var fault *capture.FormatError
			if !errors.As(err, &fault) {
				t.Fatalf("%v, want a FormatError", err)
			}
			if fault.Offset != tt.offset || fault.Packet != tt.packet || !strings.Contains(fault.Reason, tt.reason) {
				t.Errorf("byte %d, packet %d: %s\nwant byte %d, packet %d: %s", fault.Offset, fault.Packet, fault.Reason, tt.offset, tt.packet, tt.reason)
			}
			if stats.Segments != tt.packet {
				t.Errorf("%d segments, want %d", stats.Segments, tt.packet)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) != (tt.reason == "cut short") {
				t.Errorf("%v: is it io.ErrUnexpectedEOF?", err)
			}
		})
	}
}

// TestCutShort ends a capture at each of its bytes. What is whole is returned,
// and the end is io.EOF between records, io.ErrUnexpectedEOF inside of them.
func TestCutShort(t *testing.T) {
	syn := unhex(t, etherSYN)
	const packets = 3
	pcap, pcapng := file{AppendByteOrder: binary.BigEndian}, file{AppendByteOrder: binary.BigEndian}
	pcap.pcap(micro, 1)
	pcapng.section().iface(1, pcapng.option(9, []byte{9}))
	pcapEnds, pcapngEnds := map[int]bool{len(pcap.b): true}, map[int]bool{28: true, len(pcapng.b): true}
	for range packets {
		pcap.record(1, 2, syn, 74)
		pcapng.packet(0, 3, syn, 74)
		pcapEnds[len(pcap.b)], pcapngEnds[len(pcapng.b)] = true, true
	}
	for name, tt := range map[string]struct {
		whole []byte
		ends  map[int]bool
	}{"pcap": {pcap.b, pcapEnds}, "pcapng": {pcapng.b, pcapngEnds}} {
		t.Run(name, func(t *testing.T) {
			before := 0
			for n := 1; n <= len(tt.whole); n++ {
				segments, _, err := readUntil(bytes.NewReader(tt.whole[:n]))
				want := io.ErrUnexpectedEOF
				if tt.ends[n] {
					want = io.EOF
				}
				if !errors.Is(err, want) {
					t.Fatalf("%d of %d bytes: %v, want %v", n, len(tt.whole), err, want)
				}
				if len(segments) < before {
					t.Fatalf("%d of %d bytes: %d segments, of fewer bytes %d", n, len(tt.whole), len(segments), before)
				}
				before = len(segments)
			}
			if before != packets {
				t.Errorf("%d segments, want %d", before, packets)
			}
		})
	}
}

func TestInputFails(t *testing.T) {
	failure := errors.New("the disk is gone")
	f := file{AppendByteOrder: binary.LittleEndian}
	f.pcap(micro, 1).record(7, 8, unhex(t, etherSYN), 74)
	r, err := capture.NewReader(io.MultiReader(bytes.NewReader(f.b), iotest.ErrReader(failure)))
	if err != nil {
		t.Fatal(err)
	}
	var s capture.Segment
	if err := r.Next(&s); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and ever after
		if err := r.Next(&s); !errors.Is(err, failure) || !strings.Contains(err.Error(), "byte 114, after packet 1: the disk is gone") {
			t.Errorf("%v", err)
		}
	}
}

// repeat is an input that says the same n times.
type repeat struct {
	b    []byte
	n    int
	left []byte
}

func (r *repeat) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n, r.left = r.n-1, r.b
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// TestConstantMemory reads what makes other readers grow: names, secrets,
// sections with interfaces, comments, and packets of 200 KiB.
func TestConstantMemory(t *testing.T) {
	head, body := file{AppendByteOrder: binary.LittleEndian}, file{AppendByteOrder: binary.LittleEndian}
	head.section()
	for range 50 {
		body.block(4, []byte("\x01\x00\x12\x00\x0a\x00\x00\x01a.name.of.a.host\x00"))
	}
	body.block(10, make([]byte, 4096)).section()
	body.iface(1, body.option(1, bytes.Repeat([]byte("comment "), 1000)))
	body.packet(0, 0, append(unhex(t, etherSYN), make([]byte, 200<<10)...), 74+200<<10)
	const rounds = 1000
	in := io.MultiReader(bytes.NewReader(head.b), &repeat{b: body.b, n: rounds})

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r, err := capture.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	var s capture.Segment
	for err == nil {
		err = r.Next(&s)
	}
	runtime.ReadMemStats(&after)
	if stats := r.Stats(); !errors.Is(err, io.EOF) || stats.Segments != rounds {
		t.Fatalf("%v, %+v", err, stats)
	}
	if want := int64(len(head.b) + rounds*len(body.b)); r.Offset() != want {
		t.Errorf("offset %d, want %d", r.Offset(), want)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("allocated %d bytes for a capture of %d", grown, r.Offset())
	}
}

func TestTooManyInterfaces(t *testing.T) {
	head, body := file{AppendByteOrder: binary.LittleEndian}, file{AppendByteOrder: binary.LittleEndian}
	head.section()
	body.iface(1)
	_, _, err := readUntil(io.MultiReader(bytes.NewReader(head.b), &repeat{b: body.b, n: 1<<16 + 1}))
	if err == nil || !strings.Contains(err.Error(), "more than 65536 interfaces") {
		t.Errorf("%v", err)
	}
}
