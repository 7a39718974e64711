// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"testing"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/event"
)

// flood is SYNs of as many addresses, a µs apart, and at regular distances
// among them bursts of other segments.
type flood struct {
	n, next int
	bursts  []segments
	now     segments // the burst at hand
	each    int      // how many SYNs from one to the next
	syn     capture.Segment
}

func newFlood(n int, bursts ...segments) *flood {
	f := &flood{n: n, bursts: bursts, each: max(n/(len(bursts)+1), 1)}
	f.syn = capture.Segment{Dst: serverAddr, Flags: capture.SYN, TTL: 50, Window: 1024}
	f.syn.Parse([]byte{2, 4, 5, 0xb4, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0})
	return f
}

func (f *flood) Next(g *capture.Segment) error {
	now := int64(f.next) * 1000
	if len(f.now) > 0 {
		err := f.now.Next(g)
		g.Time = now
		return err
	}
	if f.next == f.n {
		return io.EOF
	}
	f.next++
	if len(f.bursts) > 0 && f.next%f.each == 0 {
		f.now, f.bursts = f.bursts[0], f.bursts[1:]
	}
	*g = f.syn
	g.Time = now
	g.Seq = uint32(f.next) * 7
	g.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0b000000+uint32(f.next)))), 1234)
	return nil
}

// TestFlood: memory stays at its cap, the flood drives out itself, and what a
// connection in TIME_WAIT refused is known all the same.
func TestFlood(t *testing.T) {
	const n = 1_000_000
	sc := newScene().at(1).syn().synAck().ack()
	begin := sc.list
	sc.list = nil
	end := sc.data().close().list
	sc.list = nil
	late := sc.again(9000, -50_000).at(10).syn().oldACK().list
	o := capture.SourceOptions{Connections: 20_000, Pending: 5000}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := newSource(t, newFlood(n, begin, end, late), o)
	var refused, syns int
	var err error
	for err == nil {
		var ev event.Event
		if ev, err = s.Next(); err != nil {
			break
		}
		switch ev.(type) {
		case *event.PAWSReject:
			refused++
		case *event.SYN:
			syns++
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	stats := s.Stats()
	if !errors.Is(err, io.EOF) || refused != 1 || syns != n+1 || stats.SYNs != n+2 {
		t.Errorf("%v, %d refused, %d SYNs, %+v", err, refused, syns, stats)
	}
	if lost := n + 1 - int64(o.Connections); stats.Evicted != lost {
		t.Errorf("%d evicted, want %d", stats.Evicted, lost)
	}
	if stats.Hurried == 0 || stats.Hurried > n+1 {
		t.Errorf("%d hurried", stats.Hurried)
	}
	// the table, its index, and the queue, grown by doubling
	if kept, most := int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(o.Connections*600+o.Pending*800); kept > most {
		t.Errorf("%d bytes are kept, want at most %d", kept, most)
	}
	runtime.KeepAlive(s)
}

// TestCrowd: connections that were completed make room for new ones, the
// oldest first, and those without use are not missed.
func TestCrowd(t *testing.T) {
	var list segments
	const connections, room = 1000, 100
	for i := range connections {
		sc := newScene()
		sc.client = netip.AddrPortFrom(clientAddr.Addr(), uint16(10_000+i))
		list = append(list, sc.at(float64(i)).syn().synAck().ack().list...)
	}
	s := newSource(t, &list, capture.SourceOptions{Connections: room})
	got, _ := tellAll(t, s)
	if len(got) != connections || s.Stats().Evicted != connections-room || s.Stats().Completed != connections {
		t.Errorf("%d events, %+v", len(got), s.Stats())
	}
}

// TestDated: what is of no use any more is not missed.
func TestDated(t *testing.T) {
	for name, play := range map[string]func(*scene){
		"in TIME_WAIT": func(sc *scene) { sc.syn().synAck().ack().data().close() },
		"unanswered":   func(sc *scene) { sc.syn() },
		"closed by the client": func(sc *scene) {
			sc.syn().synAck().ack().segment(true, capture.RST, cISN+1, 0, 0)
		},
	} {
		for _, tt := range []struct {
			apart float64 // s
			lost  bool
		}{{0.5, true}, {2, false}} {
			var list segments
			for i := range 300 {
				sc := newScene()
				sc.client = netip.AddrPortFrom(clientAddr.Addr(), uint16(10_000+i))
				play(sc.at(float64(i) * tt.apart))
				list = append(list, sc.list...)
			}
			s := newSource(t, &list, capture.SourceOptions{Connections: 100})
			_, _ = tellAll(t, s)
			want := int64(0)
			if tt.lost {
				want = 200
			}
			if got := s.Stats().Evicted; got != want {
				t.Errorf("%s, %v s apart: %d evicted, want %d", name, tt.apart, got, want)
			}
		}
	}
}

// TestRoomForHandshakes: where connections take all the room, a handshake gets
// some even while others ask for it.
func TestRoomForHandshakes(t *testing.T) {
	var list segments
	play := func(port uint16, play func(*scene)) {
		sc := newScene()
		sc.client = netip.AddrPortFrom(clientAddr.Addr(), port)
		play(sc.at(float64(port) / 1000))
		list = append(list, sc.list...)
	}
	for i := range uint16(16) {
		play(1000+i, func(sc *scene) { sc.syn().synAck().ack() })
	}
	late := newScene().at(5)
	list = append(list, late.syn().list...)
	play(5001, func(sc *scene) { sc.syn() })
	late.list = nil
	list = append(list, late.at(5.002).synAck().ack().list...)
	s := newSource(t, &list, capture.SourceOptions{Connections: 16})
	_, _ = tellAll(t, s)
	if s.Stats().Completed != 17 || s.Stats().Evicted != 2 {
		t.Errorf("%+v", s.Stats())
	}
}

func TestSourceOptions(t *testing.T) {
	for _, o := range []capture.SourceOptions{{Connections: -1}, {Pending: -1}, {Connections: 1 << 30}} {
		if _, err := capture.NewSource(&segments{}, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// loop is a capture that is told again and again, each time a second later.
type loop struct {
	list segments
	i    int
	base int64
}

func (l *loop) Next(g *capture.Segment) error {
	if l.i == len(l.list) {
		l.i, l.base = 0, l.base+1e9
	}
	*g = l.list[l.i]
	g.Time += l.base
	l.i++
	return nil
}

// TestSourceAllocs: a segment costs no allocation.
func TestSourceAllocs(t *testing.T) {
	s := newSource(t, busy(), capture.SourceOptions{Connections: 1000, Pending: 1000})
	next := func() {
		if _, err := s.Next(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20_000 {
		next()
	}
	if n := testing.AllocsPerRun(5000, next); n > 0 {
		t.Errorf("%v allocations for an event", n)
	}
}

// busy is 500 connections at a time, of a SYN that is refused and another that
// is not, data, and the end.
func busy() *loop {
	l := &loop{}
	for i := range 500 {
		sc := newScene()
		sc.client = netip.AddrPortFrom(clientAddr.Addr(), uint16(10_000+i))
		sc.at(0.001).syn().synAck().ack().data().close().again(9000, -50_000).at(0.002).syn().oldACK().reset()
		l.list = append(l.list, sc.list...)
	}
	for i := range l.list {
		l.list[i].Time = int64(i) * 1000
	}
	return l
}

// BenchmarkSource: a segment is an operation. flood is SYNs alone, all of other
// sources.
func BenchmarkSource(b *testing.B) {
	run := func(b *testing.B, in capture.Segments) {
		b.Helper()
		s := newSource(b, in, capture.SourceOptions{})
		b.ReportAllocs()
		b.ResetTimer()
		for s.Stats().Segments < int64(b.N) {
			if _, err := s.Next(); err != nil {
				break
			}
		}
	}
	b.Run("connections", func(b *testing.B) { run(b, busy()) })
	b.Run("flood", func(b *testing.B) { run(b, newFlood(b.N)) })
}

// FuzzSource: any segments end, are told in order, and add up.
func FuzzSource(f *testing.F) {
	for _, sc := range []*scene{
		newScene().closed().again(9000, -50_000).at(10).syn().oldACK().reset().at(10.01).syn().synAck().ack(),
		newScene().closed().again(9000, 0).at(10).syn().at(11).syn().at(13).syn().synAck().ack(),
		newScene().at(1).syn().synAck().ack().data().again(9000, -50_000).at(5).syn().segment(false, capture.ACK, sISN+1, cISN+101, 0),
	} {
		var b []byte
		last := int64(0)
		for i := range sc.list {
			g := &sc.list[i]
			b = append(b, shape(g, last)...)
			last = g.Time
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list := shaped(b)
		n := int64(len(list))
		for _, o := range []capture.SourceOptions{{}, {Connections: 2, Pending: 2}} {
			in := append(segments(nil), list...)
			s := newSource(t, &in, o)
			got, err := tellAll(t, s)
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			c := s.Stats()
			if c.Segments != n || int64(len(got)) > n+c.TimeWaits {
				t.Errorf("%d events of %d segments, %+v", len(got), n, c)
			}
			if sum := c.FromClients + c.FromServers + c.Unknown + c.StraySYNACKs + c.SYNs + c.Repeated + c.Copies + c.CutSYNs + c.Strays; sum != n {
				t.Errorf("%d of %d segments, %+v", sum, n, c)
			}
			if c.Late > c.Completed+c.Inferred || c.Completed > c.Answered || c.Answered > c.SYNs+c.Repeated {
				t.Errorf("%+v", c)
			}
			_ = c.Notes()
		}
	})
}

const shapeLen = 8

// shape is a segment in 8 bytes, of which shaped makes one again.
func shape(g *capture.Segment, last int64) []byte {
	who := byte(0)
	if g.Src != clientAddr {
		who = 1
	}
	return []byte{
		byte((g.Time - last) / 100e6), who, byte(g.Flags), byte(g.Seq), byte(g.Ack), byte(g.Len), byte(g.TSval / 1000), 1,
	}
}

func shaped(b []byte) segments {
	var list segments
	now := int64(1e9)
	for ; len(b) >= shapeLen; b = b[shapeLen:] {
		now += int64(b[0]) * 100e6
		g := capture.Segment{
			Time: now, Packet: int64(len(list) + 1), Src: clientAddr, Dst: serverAddr, Flags: capture.Flags(b[2]),
			Seq: uint32(b[3]), Ack: uint32(b[4]), Len: int(b[5]),
		}
		if b[1]&1 != 0 {
			g.Src, g.Dst = g.Dst, g.Src
		}
		if b[1]&2 != 0 {
			g.Dst = g.Src
		}
		if b[1]&4 != 0 {
			g.Seq -= 1 << 31
		}
		if b[7] != 0 {
			g.Parse(append(binary.BigEndian.AppendUint32([]byte{8, 10}, uint32(b[6])*1000), 0, 0, 0, 0))
		}
		g.OptionsCut = b[7]&2 != 0
		list = append(list, g)
	}
	return list
}
