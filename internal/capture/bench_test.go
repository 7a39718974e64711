// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"encoding/binary"
	"testing"

	"github.com/twscope/twscope/internal/capture"
)

// BenchmarkReader reads captures of SYNs, as of a filter on them, and of full
// segments. A packet is an operation.
func BenchmarkReader(b *testing.B) {
	syn := unhex(b, etherSYN)
	full := append(unhex(b, macs+"0800 4500 05dc"+ipv4TCP[9:]+tcpSYN), make([]byte, 1440)...)
	for _, bm := range []struct {
		name   string
		packet []byte
	}{{"SYN", syn}, {"full", full}} {
		head, body := file{AppendByteOrder: binary.LittleEndian}, file{AppendByteOrder: binary.LittleEndian}
		head.pcap(micro, 1)
		body.record(1, 2, bm.packet, len(bm.packet))
		b.Run("pcap/"+bm.name, func(b *testing.B) { benchmark(b, head.b, body.b) })

		head, body = file{AppendByteOrder: binary.LittleEndian}, file{AppendByteOrder: binary.LittleEndian}
		head.section().iface(1)
		body.packet(0, 3, bm.packet, len(bm.packet))
		b.Run("pcapng/"+bm.name, func(b *testing.B) { benchmark(b, head.b, body.b) })
	}
}

func benchmark(b *testing.B, head, body []byte) {
	b.Helper()
	const times = 1000 // so that the input costs little
	var many []byte
	for range times {
		many = append(many, body...)
	}
	in := &repeat{b: many, n: b.N/times + 1, left: head}
	r, err := capture.NewReader(in)
	if err != nil {
		b.Fatal(err)
	}
	var s capture.Segment
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := r.Next(&s); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if got := r.Stats(); got.Segments != int64(b.N) {
		b.Fatalf("%+v", got)
	}
}
