// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
)

// behindNAT is a capture on a server whose two clients share an address and
// few ports, and what the server's kernel counted.
type behindNAT struct {
	segments segments
	counted  lab.Counters
	sockets  int // in TIME_WAIT with the server at the end
}

func captureBehindNAT(t *testing.T, v6 bool, timestamps string) behindNAT {
	t.Helper()
	l := testutil.Must1[*lab.Lab](t)(lab.New(t.Context(), "capture"))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	hosts := testutil.Must1[[]*lab.Host](t)(l.Hosts("gw", "server", "client0", "client1"))
	gw, server, clients := hosts[0], hosts[1], hosts[2:]
	outer := testutil.Must1[*lab.Link](t)(l.Link(t.Context(), gw, server, "10.9.0.0/24", "fd00:9::/64"))
	ok := func(err error) { testutil.Must(t, err) }
	ok(gw.Forward())
	ok(gw.Masquerade(&outer.A, lab.MasqOptions{PortLow: 20000, PortHigh: 20049, FullyRandom: true}))
	ok(gw.ConntrackTimeWait(time.Second))
	for i, c := range clients {
		inner := testutil.Must1[*lab.Link](t)(l.Link(t.Context(), c, gw, fmt.Sprintf("10.0.%d.0/24", i), fmt.Sprintf("fd00:a%d::/64", i)))
		ok(c.Route("0.0.0.0/0", inner.B.Addr4()))
		ok(c.Route("::/0", inner.B.Addr6()))
		ok(c.Sysctl("net.ipv4.tcp_timestamps", timestamps))
	}
	sv := testutil.Must1[*lab.Serving](t)(server.Serve(lab.Server{ClosesFirst: true}))
	target := netip.AddrPortFrom(outer.B.Addr4(), sv.Addr().Port())
	if v6 {
		target = netip.AddrPortFrom(outer.B.Addr6(), sv.Addr().Port())
	}
	running := testutil.Must1[*lab.Capture](t)(outer.B.Capture())
	before := testutil.Must1[lab.Counters](t)(server.Netstat())
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			load := lab.Load{Targets: []netip.AddrPort{target}, Connections: 60, Concurrency: 5, Rate: 30}
			if res, err := c.Run(t.Context(), load); err != nil || res.Connected == 0 {
				t.Errorf("%s: %+v, %v", c.Name(), res, err)
			}
		})
	}
	wg.Wait()
	b := behindNAT{sockets: len(testutil.Must1[[]lab.Socket](t)(server.TimeWaits()))}
	got := testutil.Must1[lab.Captured](t)(running.Finish())
	if got.Lost != 0 {
		t.Fatalf("the capture lost %d packets", got.Lost)
	}
	b.counted = testutil.Must1[lab.Counters](t)(server.Netstat()).Since(before)
	for i := range got.Segments {
		b.segments = append(b.segments, fromLab(&got.Segments[i], int64(i+1)))
	}
	return b
}

func fromLab(s *lab.Segment, packet int64) capture.Segment {
	return capture.Segment{
		Time: s.Time.UnixNano(), Packet: packet, Src: s.Src, Dst: s.Dst, Seq: s.Seq, Ack: s.Ack, Len: s.Len,
		Window: s.Window, TTL: s.TTL, Flags: capture.Flags(s.Flags),
		Options: capture.Options{Timestamps: s.Timestamps, TSval: s.TSval, TSecr: s.TSecr},
	}
}

// TestLive: as many refusals as the kernel counts, and as many sockets in
// TIME_WAIT as it lists.
func TestLive(t *testing.T) {
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	for _, tt := range []struct {
		name       string
		v6         bool
		timestamps string
	}{{"IPv4", false, "1"}, {"IPv6", true, "1"}, {"without timestamps", false, "0"}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := captureBehindNAT(t, tt.v6, tt.timestamps)
			counter := "PAWSTimewait"
			if _, has := b.counted[counter]; !has {
				counter = "PAWSEstab" // up to 6.15
			}
			s := newSource(t, &b.segments, capture.SourceOptions{})
			refused, rejected, last := 0, 0, map[netip.AddrPort]bool{}
			for {
				ev, err := s.Next()
				if err != nil {
					break
				}
				switch e := ev.(type) {
				case *event.TimeWait:
					last[e.Remote] = true
				case *event.PAWSReject:
					refused++
					delete(last, e.Remote) // by the RST that answers the ACK
				case *event.SYNReject:
					rejected++
					delete(last, e.Remote)
					if e.Rule != event.RuleSequence {
						t.Errorf("%s", told(e))
					}
				}
			}
			stats := s.Stats()
			if uint64(refused) != b.counted[counter] || stats.Anyway != 0 || stats.Undecided != 0 || stats.Unknown != 0 || stats.OnUnseen != 0 {
				t.Errorf("%d refused by PAWS, the kernel counted %d; %+v", refused, b.counted[counter], stats)
			}
			if withTS := tt.timestamps == "1"; withTS && refused == 0 || !withTS && rejected == 0 {
				t.Errorf("%d refused, %d rejected: the scene is not the one to be tried", refused, rejected)
			}
			if len(last) != b.sockets {
				t.Errorf("%d 4-tuples were in TIME_WAIT, the kernel lists %d", len(last), b.sockets)
			}
			t.Logf("%d SYNs, %d refused by PAWS, %d otherwise, %d TIME_WAIT", stats.SYNs, refused, rejected, stats.TimeWaits)
		})
	}
}
