// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/event"
)

// segments is a capture in memory.
type segments []capture.Segment

func (s *segments) Next(g *capture.Segment) error {
	if len(*s) == 0 {
		return io.EOF
	}
	*g, *s = (*s)[0], (*s)[1:]
	return nil
}

var (
	clientAddr = netip.MustParseAddrPort("10.0.0.1:40000")
	serverAddr = netip.MustParseAddrPort("10.0.0.2:80")
)

// The beginnings of the sequence numbers on both sides.
const (
	cISN, sISN = 1000, 500_000
	clockAt0   = 100_000 // TSval of the client at 0 s
)

// scene writes a capture of one 4-tuple, as from the server's side.
type scene struct {
	list           segments
	client, server netip.AddrPort
	ms             int64 // now
	noTS           bool
	isn            uint32
	clock          uint32 // TSval of the client at 0 s
}

func newScene() *scene {
	return &scene{client: clientAddr, server: serverAddr, isn: cISN, clock: clockAt0}
}

// at sets the time.
func (s *scene) at(seconds float64) *scene {
	s.ms = int64(seconds * 1000)
	return s
}

func (s *scene) segment(fromClient bool, flags capture.Flags, seq, ack uint32, length int) *scene {
	g := capture.Segment{
		Time: s.ms * 1e6, Packet: int64(len(s.list) + 1), Src: s.client, Dst: s.server,
		Seq: seq, Ack: ack, Len: length, Flags: flags, TTL: 63, Window: 64240,
	}
	tsval := s.clock + uint32(s.ms)
	if !fromClient {
		g.Src, g.Dst, tsval = g.Dst, g.Src, 7777
	}
	var options []byte
	if flags&capture.SYN != 0 {
		options = append(options, 2, 4, 5, 0xb4, 4, 2)
	}
	if !s.noTS && flags&capture.RST == 0 {
		options = append(binary.BigEndian.AppendUint32(append(options, 8, 10), tsval), 0, 0, 0, 0)
	}
	if flags&capture.SYN != 0 {
		options = append(options, 1, 3, 3, 7)
	}
	g.Parse(options)
	s.list = append(s.list, g)
	return s
}

func (s *scene) syn() *scene    { return s.segment(true, capture.SYN, s.isn, 0, 0) }
func (s *scene) synAck() *scene { return s.segment(false, capture.SYN|capture.ACK, sISN, s.isn+1, 0) }
func (s *scene) ack() *scene    { return s.segment(true, capture.ACK, s.isn+1, sISN+1, 0) }

// data is 100 bytes of the client, acknowledged.
func (s *scene) data() *scene {
	return s.segment(true, capture.ACK|capture.PSH, s.isn+1, sISN+1, 100).segment(false, capture.ACK, sISN+1, s.isn+101, 0)
}

// close is the server's FIN, then the client's, both acknowledged.
func (s *scene) close() *scene {
	return s.segment(false, capture.FIN|capture.ACK, sISN+1, s.isn+101, 0).
		segment(true, capture.FIN|capture.ACK, s.isn+101, sISN+2, 0).
		segment(false, capture.ACK, sISN+2, s.isn+102, 0)
}

// oldACK is the ACK of a socket in TIME_WAIT.
func (s *scene) oldACK() *scene { return s.segment(false, capture.ACK, sISN+2, cISN+102, 0) }

// reset is the client's answer to that.
func (s *scene) reset() *scene { return s.segment(true, capture.RST, cISN+102, 0, 0) }

// staleReset is one with a timestamp.
func (s *scene) staleReset() *scene {
	s.reset()
	g := &s.list[len(s.list)-1]
	g.Timestamps, g.TSval = true, s.clock+uint32(s.ms)
	return s
}

// turned changes who is the client.
func (s *scene) turned() *scene {
	s.client, s.server = s.server, s.client
	return s
}

// closed is a connection that ends in TIME_WAIT with the server at 2 s.
func (s *scene) closed() *scene {
	return s.at(1).syn().synAck().ack().at(1.5).data().at(2).close()
}

// again is another connection on the 4-tuple, with another clock.
func (s *scene) again(isn uint32, clock int) *scene {
	s.isn, s.clock = isn, uint32(int64(clockAt0)+int64(clock))
	return s
}

// told is an event, as short as a test wants it.
func told(ev event.Event) string {
	at := fmt.Sprintf("%.3f ", float64(ev.UnixNano())/1e9)
	ts := func(have bool, v uint32) string {
		if !have {
			return " no timestamps"
		}
		return fmt.Sprint(" ", v)
	}
	switch e := ev.(type) {
	case *event.SYN:
		s := at + "syn" + ts(e.Timestamps, e.TSval)
		if e.Validated {
			s += " validated"
		}
		return s
	case *event.TimeWait:
		return at + "time_wait" + ts(e.Timestamps, e.TSRecent)
	case *event.PAWSReject:
		return at + fmt.Sprintf("paws %d after %d, %d, %d ms, %s", e.TSval, e.TSRecent, e.Delta, e.AgeMS, e.Reply)
	case *event.SYNReject:
		return at + fmt.Sprintf("reject %s%s after %d, seq %d rcv_nxt %d, %d ms, %s", e.Rule, ts(e.Timestamps, e.TSval), e.TSRecent, e.Seq, e.RcvNxt, e.AgeMS, e.Reply)
	}
	return fmt.Sprintf("%T", ev)
}

func newSource(tb testing.TB, in capture.Segments, o capture.SourceOptions) *capture.Source {
	tb.Helper()
	s, err := capture.NewSource(in, o)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// tellAll returns all events of a capture, checked for what is true of all.
func tellAll(tb testing.TB, s *capture.Source) ([]string, error) {
	tb.Helper()
	var list []string
	last := int64(-1 << 63)
	for {
		ev, err := s.Next()
		if err != nil {
			return list, err
		}
		if ev.UnixNano() < last || ev.UnixNano() > s.Now() {
			tb.Errorf("event %d is of %d, after one of %d, now is %d", len(list), ev.UnixNano(), last, s.Now())
		}
		last = ev.UnixNano()
		list = append(list, told(ev))
	}
}

func TestSource(t *testing.T) {
	const back = -50_000 // by how much a clock is behind the one before, in ms
	first := []string{"1.000 syn 101000 validated", "2.000 time_wait 102000"}
	tests := []struct {
		name  string
		scene *scene
		want  []string // after first
		stats func(s *capture.SourceStats)
	}{
		{
			"accepted: the clock is ahead", newScene().closed().again(9000, 0).at(10).syn().synAck().ack(),
			[]string{"10.000 syn 110000 validated"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed = 2, 2, 2 },
		},
		{
			"refused, and accepted after the client's RST",
			newScene().closed().again(9000, back).at(10).syn().oldACK().reset().at(10.01).syn().synAck().ack(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, ack", "10.010 syn 60010 validated"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 2, 2, 1
			},
		},
		{
			"refused by a server that ignores RST (RFC 1337)",
			newScene().closed().again(9000, back).at(10).syn().oldACK().reset().at(11).syn().oldACK().reset().at(13).syn().oldACK(),
			[]string{
				"10.000 paws 60000 after 102000, -42000, 8000 ms, ack", "11.000 paws 61000 after 102000, -41000, 9000 ms, ack",
				"13.000 paws 63000 after 102000, -39000, 11000 ms, ack",
			},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 2, 1, 1, 3
			},
		},
		{
			"refused in silence, then by an ACK",
			newScene().closed().again(9000, back).at(10).syn().at(11).syn().at(13).syn().oldACK(),
			[]string{
				"10.000 paws 60000 after 102000, -42000, 8000 ms, none", "11.000 paws 61000 after 102000, -41000, 9000 ms, none",
				"13.000 paws 63000 after 102000, -39000, 11000 ms, ack",
			},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 2, 1, 1, 3
			},
		},
		{
			"silence, and not repeated: not known", newScene().closed().again(9000, back).at(10).syn(),
			[]string{"10.000 syn 60000"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Answered, s.Completed, s.Unanswered, s.Undecided = 2, 1, 1, 1, 1
			},
		},
		{
			"no timestamps, sequence number behind",
			func() *scene { s := newScene(); s.noTS = true; return s }().closed().again(500, 0).at(10).syn().oldACK().reset().at(10.01).syn().synAck().ack(),
			[]string{"10.000 reject sequence no timestamps after 0, seq 500 rcv_nxt 1102, 8000 ms, ack", "10.010 syn no timestamps validated"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedOther = 2, 1, 2, 2, 1
			},
		},
		{
			"no timestamps, sequence number behind, silence",
			func() *scene { s := newScene(); s.noTS = true; return s }().closed().again(500, 0).at(10).syn().at(11).syn(),
			[]string{"10.000 reject sequence no timestamps after 0, seq 500 rcv_nxt 1102, 8000 ms, none", "11.000 syn no timestamps"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedOther, s.Unanswered, s.Undecided = 2, 1, 1, 1, 1, 1, 1
			},
		},
		{
			"same TSval, sequence number behind", newScene().closed().again(500, -8000).at(10).syn().oldACK(),
			[]string{"10.000 reject sequence 102000 after 102000, seq 500 rcv_nxt 1102, 8000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.RefusedOther = 2, 1, 1, 1 },
		},
		{
			"acceptable, but the old ACK comes", newScene().closed().again(9000, 0).at(10).syn().oldACK(),
			[]string{"10.000 reject unknown 110000 after 102000, seq 9000 rcv_nxt 1102, 8000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.RefusedOther = 2, 1, 1, 1 },
		},
		{
			"acceptable, but the listener is silent", newScene().closed().again(9000, 0).at(10).syn().at(11).syn().at(13).syn().synAck().ack(),
			[]string{"10.000 syn 110000 validated"},
			func(s *capture.SourceStats) { s.SYNs, s.Repeated, s.Answered, s.Completed = 2, 2, 2, 2 },
		},
		{
			"accepted all the same", newScene().closed().again(9000, back).at(10).syn().synAck().ack(),
			[]string{"10.000 syn 60000 validated"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.Anyway = 2, 2, 2, 1 },
		},
		{
			"silence after 60 s", newScene().closed().again(9000, -500_000).at(63).syn().at(64).syn().at(66).syn(),
			[]string{"66.000 syn 4294633296"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.Unanswered = 2, 2, 1, 1, 1
			},
		},
		{
			"refused after 60 s: by a system with a longer TIME_WAIT", newScene().closed().again(9000, -500_000).at(90).syn().oldACK(),
			[]string{"90.000 paws 4294657296 after 102000, -412000, 88000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1 },
		},
		{
			"PAWS begins the 60 s anew",
			newScene().closed().again(9000, -500_000).at(50).syn().oldACK().at(100).syn().at(101).syn().oldACK(),
			[]string{
				"50.000 paws 4294617296 after 102000, -452000, 48000 ms, ack", "100.000 paws 4294667296 after 102000, -402000, 98000 ms, none",
				"101.000 paws 4294668296 after 102000, -401000, 99000 ms, ack",
			},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 2, 1, 1, 3
			},
		},
		{
			"nobody listens", newScene().closed().again(9000, 0).at(100).syn().segment(false, capture.RST|capture.ACK, 0, 9001, 0),
			[]string{"100.000 syn 200000"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.Denied = 2, 1, 1, 1 },
		},
		{
			"a handshake within Hold, its SYN repeated", newScene().closed().again(9000, 0).at(300).syn().at(301).syn().synAck().at(302.5).synAck().ack(),
			[]string{"300.000 syn 400000 validated"},
			func(s *capture.SourceStats) { s.SYNs, s.Repeated, s.Answered, s.Completed = 2, 1, 2, 2 },
		},
		{
			"a late ACK", newScene().closed().again(9000, 0).at(70).syn().synAck().at(75).synAck().ack(),
			[]string{"70.000 syn 170000"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.Late = 2, 2, 2, 1 },
		},
		{
			"a SYN captured twice", newScene().closed().again(9000, back).at(10).syn().syn().oldACK(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.Copies, s.RefusedPAWS = 2, 1, 1, 1, 1 },
		},
		{
			"a SYN sent twice in a ms", newScene().closed().again(9000, back).at(10).syn().again(9000, back+1).syn().oldACK(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, none", "10.000 paws 60001 after 102000, -41999, 8000 ms, ack"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1, 2
			},
		},
		{
			"an ACK of something else", newScene().closed().again(9000, back).at(10).syn().segment(false, capture.ACK, sISN+2, cISN+50, 0),
			[]string{"10.000 syn 60000"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Answered, s.Completed, s.Unanswered, s.Undecided = 2, 1, 1, 1, 1
			},
		},
		{
			"a SYN-ACK of something else", newScene().closed().again(9000, 0).at(70).syn().segment(false, capture.SYN|capture.ACK, sISN, 5, 0),
			[]string{"70.000 syn 170000"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.Unanswered = 2, 1, 1, 1 },
		},
		{
			"acceptable, but the listener is silent for long", newScene().closed().again(9000, 0).at(10).syn().at(11).syn().at(15).segment(false, capture.SYN|capture.ACK, sISN, 5, 0).at(15.5).syn(),
			[]string{"10.000 syn 110000"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.Unanswered = 2, 2, 1, 1, 1
			},
		},
		{
			"an ACK begins the 60 s anew",
			newScene().closed().at(50).segment(true, capture.ACK, cISN+101, sISN+2, 0).again(9000, -500_000).at(100).syn().at(101).syn().oldACK(),
			[]string{
				"100.000 paws 4294667296 after 102000, -402000, 98000 ms, none", "101.000 paws 4294668296 after 102000, -401000, 99000 ms, ack",
			},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1, 2
			},
		},
		{
			"an RST with an old TSval kills nothing", newScene().closed().again(9000, back).at(10).staleReset().syn().at(11).syn().oldACK(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, none", "11.000 paws 61000 after 102000, -41000, 9000 ms, ack"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1, 2
			},
		},
		{
			"a stale ACK in TIME_WAIT is not taken",
			newScene().closed().again(9000, back).at(3).segment(true, capture.ACK, cISN+102, sISN+2, 0).at(10).syn().oldACK(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1 },
		},
		{
			"the server connects back from its port", newScene().closed().at(70).turned().syn().synAck().ack(),
			[]string{"70.000 syn 170000 validated"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed = 2, 2, 2 },
		},
		{
			"an ACK in TIME_WAIT is taken", newScene().closed().at(3).segment(true, capture.ACK, cISN+102, sISN+2, 0).again(9000, -2000).at(4).syn().oldACK(),
			[]string{"4.000 paws 102000 after 103000, -1000, 1000 ms, ack"},
			func(s *capture.SourceStats) { s.SYNs, s.Answered, s.Completed, s.RefusedPAWS = 2, 1, 1, 1 },
		},
		{
			"an RST of another sequence number kills nothing",
			newScene().closed().segment(true, capture.RST, cISN+90, 0, 0).again(9000, back).at(10).syn().at(11).syn(),
			[]string{"10.000 paws 60000 after 102000, -42000, 8000 ms, none", "11.000 syn 61000"},
			func(s *capture.SourceStats) {
				s.SYNs, s.Repeated, s.Answered, s.Completed, s.RefusedPAWS, s.Unanswered, s.Undecided = 2, 1, 1, 1, 1, 1, 1
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.Clone(tt.scene.list)
			s := newSource(t, &in, capture.SourceOptions{})
			got, err := tellAll(t, s)
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			want := slices.Concat(first, tt.want)
			if tt.scene.noTS {
				want[0], want[1] = "1.000 syn no timestamps validated", "2.000 time_wait no timestamps"
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			stats := s.Stats()
			wantStats := capture.SourceStats{
				Segments: int64(len(tt.scene.list)), FromClients: stats.FromClients, FromServers: stats.FromServers, TimeWaits: 1,
			}
			tt.stats(&wantStats)
			if diff := gocmp.Diff(wantStats, stats); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTimeWait is whose socket remains, and with what ts_recent.
func TestTimeWait(t *testing.T) {
	const ack, fin = capture.ACK, capture.FIN | capture.ACK
	begun := func() *scene { return newScene().at(1).syn().synAck().ack() }
	tests := []struct {
		name  string
		scene *scene
		want  string // empty: none
	}{
		{"the client first", begun().at(2).segment(true, fin, cISN+1, sISN+1, 0).segment(false, fin, sISN+1, cISN+2, 0).segment(true, ack, cISN+2, sISN+2, 0), ""},
		{
			"both at once, as seen by the server",
			begun().at(2).segment(false, fin, sISN+1, cISN+1, 0).segment(true, fin, cISN+1, sISN+1, 0).
				segment(false, ack, sISN+2, cISN+2, 0).at(2.1).segment(true, ack, cISN+2, sISN+2, 0),
			"2.100 time_wait 102100",
		},
		{
			"both at once, as seen by the client",
			begun().at(2).segment(true, fin, cISN+1, sISN+1, 0).segment(false, fin, sISN+1, cISN+1, 0).
				segment(true, ack, cISN+2, sISN+2, 0).at(2.1).segment(false, ack, sISN+2, cISN+2, 0),
			"2.100 time_wait 102000",
		},
		{"not acknowledged", begun().at(2).segment(false, fin, sISN+1, cISN+1, 0).segment(true, fin, cISN+1, sISN+2, 0), ""},
		{"half closed", begun().at(2).segment(false, fin, sISN+1, cISN+1, 0).segment(true, ack, cISN+1, sISN+2, 0), ""},
		{"reset by the client", begun().at(2).segment(true, capture.RST, cISN+1, 0, 0).close(), ""},
		{"reset by the server", begun().at(2).segment(false, capture.RST, sISN+1, 0, 0).close(), ""},
		{
			"FIN with data, repeated",
			begun().at(2).segment(false, fin, sISN+1, cISN+1, 10).segment(true, fin, cISN+1, sISN+1, 5).at(3).segment(false, fin, sISN+1, cISN+7, 10).
				segment(true, ack, cISN+7, sISN+12, 0),
			"3.000 time_wait 103000",
		},
		{
			"what came out of order does not count",
			begun().at(1.5).segment(true, ack, cISN+101, sISN+1, 100).at(1.6).segment(false, fin, sISN+1, cISN+1, 0).
				at(2).segment(true, fin, cISN+201, sISN+2, 0).segment(false, ack, sISN+2, cISN+202, 0),
			"2.000 time_wait 101000",
		},
		{
			"nor an old packet",
			begun().data().at(1.6).segment(true, ack, cISN+1, sISN+1, 50).at(1.7).segment(false, fin, sISN+1, cISN+101, 0).
				again(cISN, -400).segment(true, fin, cISN+101, sISN+2, 0).segment(false, ack, sISN+2, cISN+102, 0),
			"1.700 time_wait 101300",
		},
		{
			"nor an older TSval",
			begun().at(2).segment(false, fin, sISN+1, cISN+1, 0).again(cISN, -5000).segment(true, fin, cISN+1, sISN+2, 0).segment(false, ack, sISN+2, cISN+2, 0),
			"2.000 time_wait 101000",
		},
		{
			"the repeated SYN counts",
			newScene().at(1).syn().at(2).syn().synAck().again(cISN, -500).ack().data().close(),
			"2.000 time_wait 102000",
		},
		{
			"only the client offered timestamps",
			func() *scene {
				s := newScene().at(1).syn()
				s.noTS = true
				s.synAck().ack().data().close()
				return s
			}(),
			"1.000 time_wait no timestamps",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := slices.Clone(tt.scene.list)
			got, _ := tellAll(t, newSource(t, &in, capture.SourceOptions{}))
			want := []string{"1.000 syn 101000 validated"}
			if tt.want != "" {
				want = append(want, tt.want)
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// keep drops the segments of a scene that it is false for.
func (s *scene) keep(ok func(i int, g *capture.Segment) bool) segments {
	var list segments
	for i := range s.list {
		if ok(i, &s.list[i]) {
			list = append(list, s.list[i])
		}
	}
	return list
}

// TestPartial is what is told of captures that lack something, and of what
// they say they lack.
func TestPartial(t *testing.T) {
	full := func() *scene {
		return newScene().closed().again(9000, -50_000).at(10).syn().oldACK().reset().at(10.01).syn().synAck().ack()
	}
	fromClient := func(_ int, g *capture.Segment) bool { return g.Src == clientAddr }
	cut := slices.Clone(full().list)
	for i := range cut {
		cut[i].Options, cut[i].OptionsCut = capture.Options{}, true
	}
	tests := []struct {
		name string
		list segments
		want []string
		note string
	}{
		{"only clients", full().keep(fromClient), []string{"1.000 syn 101000 validated", "10.000 syn 60000"}, "no packets of the servers: refusals cannot be seen"},
		{
			"only clients, one of which sends an ACK that anybody could", full().again(20_000, 0).at(300).syn().ack().ack().keep(fromClient),
			[]string{"1.000 syn 101000 validated", "10.000 syn 60000", "300.000 syn 400000"},
			"no packets of the servers: refusals cannot be seen",
		},
		{
			"without a SYN-ACK", newScene().closed().again(9000, 0).at(300).syn().ack().data().segment(true, capture.ACK, 9101, sISN+50, 0).keep(func(_ int, _ *capture.Segment) bool { return true }),
			[]string{"1.000 syn 101000 validated", "2.000 time_wait 102000", "300.000 syn 400000"},
			"",
		},
		{"only servers", full().keep(func(i int, g *capture.Segment) bool { return !fromClient(i, g) }), nil, "the packets of the clients are missing"},
		{"from the middle", full().keep(func(i int, _ *capture.Segment) bool { return i > 0 }), []string{"10.010 syn 60010 validated"}, "1 SYNs were refused by connections that are not in the capture"},
		{"without the first FIN", full().keep(func(i int, _ *capture.Segment) bool { return i != 5 }), []string{"1.000 syn 101000 validated", "10.010 syn 60010 validated"}, ""},
		{"cut in the options", cut, nil, "3 SYNs hold too little of their options"},
		{"no SYN at all", full().keep(func(_ int, g *capture.Segment) bool { return g.Flags&capture.SYN == 0 }), nil, "no SYNs: nothing can be told"},
		{"empty", nil, nil, "no SYNs: nothing can be told"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSource(t, &tt.list, capture.SourceOptions{})
			got, err := tellAll(t, s)
			if diff := gocmp.Diff(tt.want, got); diff != "" || !errors.Is(err, io.EOF) {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			stats := s.Stats()
			if notes := strings.Join(stats.Notes(), "\n"); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
		})
	}
}

// TestOnOpenConnection: a SYN on a connection that is open gets a challenge ACK.
func TestOnOpenConnection(t *testing.T) {
	sc := newScene().at(1).syn().synAck().ack().data().again(9000, -50_000).at(5).syn().segment(false, capture.ACK, sISN+1, cISN+101, 0)
	s := newSource(t, &sc.list, capture.SourceOptions{})
	got, _ := tellAll(t, s)
	if want := []string{"1.000 syn 101000 validated"}; !slices.Equal(got, want) || s.Stats().OnOpen != 1 {
		t.Errorf("%q, %+v", got, s.Stats())
	}
	// another ACK is none
	sc = newScene().at(1).syn().synAck().ack().data().again(9000, -50_000).at(5).syn().segment(false, capture.ACK, sISN+1, cISN+50, 0)
	s = newSource(t, &sc.list, capture.SourceOptions{})
	got, _ = tellAll(t, s)
	if want := []string{"1.000 syn 101000 validated", "5.000 syn 55000"}; !slices.Equal(got, want) || s.Stats().OnOpen != 0 {
		t.Errorf("%q, %+v", got, s.Stats())
	}
}

// TestAddresses: events name the side that was connected to as local, IPv4 as
// IPv4, and take VLANs and IPv6 as they come.
func TestAddresses(t *testing.T) {
	f := file{AppendByteOrder: binary.LittleEndian}
	f.pcap(micro, 1)
	seconds := uint32(0)
	for _, packet := range []string{
		etherSYN,
		macs + "8100 0007 0800" + strings.Replace(ipv4SYN, "9c40", "9c41", 1),
		macs + "86dd" + ipv6SYN,
		macs + "86dd" + "60000000 0028 06 40" + "00000000000000000000ffff0a000001 00000000000000000000ffff0a000002" + strings.Replace(tcpSYN, "9c40", "9c42", 1),
	} {
		seconds++
		f.record(seconds, 0, unhex(t, packet), len(unhex(t, packet)))
	}
	r, err := capture.NewReader(bytes.NewReader(f.b))
	if err != nil {
		t.Fatal(err)
	}
	s := newSource(t, r, capture.SourceOptions{})
	type syn struct{ Remote, Local, Fingerprint string }
	var got []syn
	for {
		ev, err := s.Next()
		if err != nil {
			break
		}
		e := ev.(*event.SYN)
		got = append(got, syn{e.Remote.String(), e.Local.String(), e.Fingerprint})
	}
	want := []syn{
		{"10.0.0.1:40000", "10.0.0.2:80", "4:64:1460:64240:7:mss,sok,ts,nop,ws"},
		{"10.0.0.1:40001", "10.0.0.2:80", "4:64:1460:64240:7:mss,sok,ts,nop,ws"},
		{"[2001:db8::1]:40000", "[2001:db8::2]:80", "6:64:1460:64240:7:mss,sok,ts,nop,ws"},
		{"10.0.0.1:40002", "10.0.0.2:80", "6:64:1460:64240:7:mss,sok,ts,nop,ws"},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOrder: a little disorder is borne. A clock that was set back is an error,
// before which all is told.
func TestOrder(t *testing.T) {
	sc := newScene().at(1).syn().at(1.2).synAck().at(0.9).ack()
	s := newSource(t, &sc.list, capture.SourceOptions{})
	got, err := tellAll(t, s)
	if want := []string{"1.000 syn 101000 validated"}; !slices.Equal(got, want) || s.Stats().Disordered != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %+v, %v", got, s.Stats(), err)
	}
	// strays are passed over
	sc = newScene().at(30).syn().at(1).reset().at(10.9).reset().at(30).synAck().at(12).reset().at(30).ack()
	s = newSource(t, &sc.list, capture.SourceOptions{})
	got, err = tellAll(t, s)
	if want := []string{"30.000 syn 130000 validated"}; !slices.Equal(got, want) || s.Stats().Strays != 3 || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %+v, %v", got, s.Stats(), err)
	}
	// until they are the rule
	sc = newScene().at(30).syn().synAck().ack().at(5).reset().at(6).reset().at(15).reset().at(31).close()
	got, err = tellAll(t, newSource(t, &sc.list, capture.SourceOptions{}))
	var order *capture.OrderError
	if want := []string{"30.000 syn 130000 validated"}; !slices.Equal(got, want) || !errors.As(err, &order) || order.Packet != 4 || order.By != 25*time.Second {
		t.Errorf("%q, %v", got, err)
	}
}
