// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/testutil"
)

func TestOldTimestampIsRefusedByTimeWait(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			p := newPair(t)
			dst := p.link.B.Addr4()
			if family == "IPv6" {
				dst = p.link.B.Addr6()
			}
			sv := serve(t, p.server, Server{ClosesFirst: true})
			capture := testutil.Must1[*Capture](t)(p.link.B.Capture())
			res := run(t, p.client, Load{Targets: sv.Targets(dst), Connections: 1})
			if res.Connected != 1 {
				t.Fatalf("%+v, want 1 connected", res)
			}
			testutil.Eventually(t, waitLimit, func() bool {
				tw := timeWaits(t, p.server)
				return len(tw) == 1 && tw[0].State == TimeWait
			}, "server in TIME_WAIT")
			last := testutil.Must1[Segment](t)(capture.Wait(waitLimit, func(s *Segment) bool { return !s.Outgoing && s.Has(FIN) }))
			if !last.Timestamps {
				t.Fatalf("no timestamps were negotiated: %+v", last)
			}
			// Else the client's RST, its answer to the ACK, ends the TIME_WAIT.
			testutil.Must1[*Rule](t)(p.client.Drop(Match{Hook: Output, FlagMask: RST, Flags: RST}))
			before := pawsInTimeWait(netstat(t, p.server))
			old := RawSegment{
				Src: last.Src, Dst: last.Dst, Flags: SYN, Seq: last.Seq + 100000, TTL: 33,
				Options: TimestampOption(last.TSval-5000, 0),
			}
			testutil.Must(t, p.client.SendSegment(old))
			seen := false
			ack := testutil.Must1[Segment](t)(capture.Wait(waitLimit, func(s *Segment) bool {
				seen = seen || s.Has(SYN) && s.Seq == old.Seq
				return seen && s.Outgoing
			}))
			if ack.Flags != ACK || ack.Dst != last.Src {
				t.Errorf("answer %+v, want a bare ACK to %s", ack, last.Src)
			}
			if got := pawsInTimeWait(netstat(t, p.server)) - before; got != 1 {
				t.Errorf("the kernel counted %d PAWS refusals, want 1", got)
			}
			if tw := timeWaits(t, p.server); len(tw) != 1 {
				t.Errorf("%d sockets in TIME_WAIT, want still 1", len(tw))
			}
			got := testutil.Must1[Captured](t)(capture.Finish())
			for _, s := range got.Segments {
				if s.Seq == old.Seq && (s.TTL != 33 || s.TSval != last.TSval-5000 || s.Time.IsZero()) {
					t.Errorf("the forged SYN was captured as %+v", s)
				}
			}
			if got.Lost != 0 {
				t.Errorf("the capture lost %d", got.Lost)
			}
		})
	}
}

func TestMalformedSegments(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func(*RawSegment)
		answered bool   // with SYN ACK
		counter  string // else: the one that moves
	}{
		{"well formed", func(*RawSegment) {}, true, ""},
		{"option longer than the header", func(s *RawSegment) { s.Options = []byte{8, 40, 0, 0} }, true, ""},
		{"option of length 0", func(s *RawSegment) { s.Options = []byte{8, 0, 0, 0} }, true, ""},
		{"header of 12 bytes", func(s *RawSegment) { s.DataOffset = 3 }, false, "Tcp.InErrs"},
		{"wrong checksum", func(s *RawSegment) { s.BadChecksum = true }, false, "Tcp.InCsumErrors"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			sv := serve(t, p.server, Server{})
			capture := testutil.Must1[*Capture](t)(p.link.A.Capture())
			before := netstat(t, p.server)
			raw := RawSegment{
				Src: netip.AddrPortFrom(p.link.A.Addr4(), 4444), Dst: sv.Targets(p.link.B.Addr4())[0],
				Flags: SYN, Seq: 1000, Options: TimestampOption(1, 0),
			}
			tc.change(&raw)
			testutil.Must(t, p.client.SendSegment(raw))
			if tc.answered {
				testutil.Must1[Segment](t)(capture.Wait(waitLimit, func(s *Segment) bool {
					return !s.Outgoing && s.Has(SYN|ACK) && s.Ack == 1001
				}))
				return
			}
			testutil.Eventually(t, waitLimit, func() bool {
				return netstat(t, p.server).Since(before)[tc.counter] == 1
			}, "%s moves by one", tc.counter)
		})
	}
}

func TestCaptureOnLoopback(t *testing.T) {
	_, hosts := newHosts(t, "host")
	h := hosts[0]
	sv := serve(t, h, Server{ClosesFirst: true})
	capture := testutil.Must1[*Capture](t)(h.CaptureLoopback())
	before := netstat(t, h)
	for _, dst := range []netip.Addr{loopback4, loopback6} {
		run(t, h, Load{Targets: sv.Targets(dst), Connections: 100})
	}
	got := testutil.Must1[Captured](t)(capture.Finish())
	syns := map[bool]int{}
	for _, s := range got.Segments {
		if s.Flags == SYN {
			syns[s.Dst.Addr().Is4()]++
		}
		if s.BadOptions || !s.Timestamps {
			t.Errorf("captured %+v", s)
		}
	}
	if syns[true] != 100 || syns[false] != 100 || got.Lost != 0 {
		t.Errorf("captured %v SYNs and lost %d, want 100 of each family and 0", syns, got.Lost)
	}
	if grown := netstat(t, h).Since(before); uint64(len(got.Segments)) > grown["Tcp.InSegs"] {
		t.Errorf("captured %d segments, the kernel received %d", len(got.Segments), grown["Tcp.InSegs"])
	}
	if _, err := capture.Wait(0, func(*Segment) bool { return false }); err == nil {
		t.Error("a stopped capture waits without an error")
	}
}
