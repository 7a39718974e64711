// SPDX-License-Identifier: Apache-2.0

package recycle_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/lab/recycle"
	"github.com/twscope/twscope/internal/testutil"
)

const limit = 20 * time.Second

// server is one behind the check, and a client whose addresses nobody has, so
// that no kernel answers for them.
type server struct {
	t       *testing.T
	client  *lab.Host
	capture *lab.Capture // on the client's end
	check   *recycle.Check
	serving *lab.Serving
	target  netip.AddrPort
	sent    uint16
}

func newServer(t *testing.T, mode recycle.Mode, s lab.Server) *server {
	t.Helper()
	testutil.Root(t)
	testutil.NoLeakedFDs(t)
	l := testutil.Must1[*lab.Lab](t)(lab.New(t.Context(), "recycle"))
	t.Cleanup(func() { testutil.Must(t, l.Close()) })
	hosts := testutil.Must1[[]*lab.Host](t)(l.Hosts("client", "server"))
	ln := testutil.Must1[*lab.Link](t)(l.Link(t.Context(), hosts[0], hosts[1], "10.1.0.0/24"))
	testutil.Must(t, hosts[1].Route("10.77.0.0/24", ln.A.Addr4()))
	s.Network = "tcp4"
	sv := testutil.Must1[*lab.Serving](t)(hosts[1].Serve(s))
	check := testutil.Must1[*recycle.Check](t)(recycle.Attach(&ln.B, mode))
	t.Cleanup(func() { testutil.Must(t, check.Close()) })
	return &server{
		t: t, client: hosts[0], capture: testutil.Must1[*lab.Capture](t)(ln.A.Capture()),
		check: check, serving: sv, target: sv.Targets(ln.B.Addr4())[0],
	}
}

func (s *server) send(src netip.AddrPort, flags uint8, seq, ack uint32, options []byte) {
	s.t.Helper()
	testutil.Must(s.t, s.client.SendSegment(lab.RawSegment{Src: src, Dst: s.target, Flags: flags, Seq: seq, Ack: ack, Options: options}))
}

// syn sends a SYN from a port of its own and returns the address.
func (s *server) syn(addr string, options []byte, payload ...byte) netip.AddrPort {
	s.t.Helper()
	s.sent++
	src := netip.AddrPortFrom(netip.MustParseAddr(addr), 1000+s.sent)
	testutil.Must(s.t, s.client.SendSegment(lab.RawSegment{
		Src: src, Dst: s.target, Flags: lab.SYN, Seq: uint32(s.sent) << 16, Options: options, Payload: payload,
	}))
	return src
}

// answered waits for the SYN-ACK to a SYN.
func (s *server) answered(src netip.AddrPort) lab.Segment {
	s.t.Helper()
	return testutil.Must1[lab.Segment](s.t)(s.capture.Wait(limit, func(x *lab.Segment) bool { return x.Dst == src && x.Has(lab.SYN|lab.ACK) }))
}

// connection makes one that ends, and remembers a TSval for the address if the
// server closes first.
func (s *server) connection(addr string, tsval uint32) {
	s.t.Helper()
	src := s.syn(addr, lab.TimestampOption(tsval, 0))
	sa := s.answered(src)
	ts := lab.TimestampOption(tsval, sa.TSval)
	s.send(src, lab.ACK, sa.Ack, sa.Seq+1, ts)
	fin := func(x *lab.Segment) bool { return x.Dst == src && x.Has(lab.FIN) }
	first := testutil.Must1[lab.Segment](s.t)(s.capture.Wait(limit, fin)) // close(2) after accept
	s.send(src, lab.FIN|lab.ACK, sa.Ack, first.Seq+1, ts)
	testutil.Must1[lab.Segment](s.t)(s.capture.Wait(limit, func(x *lab.Segment) bool { return x.Dst == src && x.Ack == sa.Ack+1 }))
}

// refuses tells whether the server drops a SYN; one behind it that passes in
// any case shows when it would have been answered.
func (s *server) refuses(addr string, options []byte, payload ...byte) bool {
	s.t.Helper()
	before := testutil.Must1[uint64](s.t)(s.check.Refused())
	src := s.syn(addr, options, payload...)
	s.answered(s.syn("10.77.0.250", nil))
	after := testutil.Must1[uint64](s.t)(s.check.Refused())
	if after > before+1 {
		s.t.Fatalf("%d refused at once", after-before)
	}
	_, err := s.capture.Wait(time.Millisecond, func(x *lab.Segment) bool { return x.Dst == src })
	if dropped := err != nil; dropped != (after > before) {
		s.t.Errorf("%s: answered: %t, counted as refused: %t", src, !dropped, after > before)
	}
	return after > before
}

// options with the timestamp at odd places.
func early(tsval uint32) []byte {
	return append([]byte{8, 10}, binary.BigEndian.AppendUint32(make([]byte, 0, 8), tsval)...)
}

func TestDrop(t *testing.T) {
	s := newServer(t, recycle.Drop, lab.Server{ClosesFirst: true})
	const a, b, recent = "10.77.0.1", "10.77.0.2", 0x80000000
	if s.refuses(a, lab.TimestampOption(recent-1000, 0)) {
		t.Error("a SYN was refused before any connection has ended")
	}
	s.connection(a, recent)
	linux := slices.Concat([]byte{2, 4, 5, 0xb4, 4, 2, 8, 10}, binary.BigEndian.AppendUint32(nil, recent-2), []byte{0, 0, 0, 0, 1, 3, 3, 7})
	for name, c := range map[string]struct {
		addr    string
		options []byte
		want    bool
	}{
		"older by 1":             {a, lab.TimestampOption(recent-1, 0), false},
		"older by 2":             {a, lab.TimestampOption(recent-2, 0), true},
		"older by much":          {a, lab.TimestampOption(recent-1<<30, 0), true},
		"ahead, across the wrap": {a, lab.TimestampOption(recent+1<<31-1, 0), false},
		"the same":               {a, lab.TimestampOption(recent, 0), false},
		"another address":        {b, lab.TimestampOption(recent-2, 0), false},
		"without timestamps":     {a, nil, false},
		"as Linux sends it":      {a, linux, true},
		"first":                  {a, append(early(recent-2), 0, 0, 0, 0, 0, 0), true},
		"cut short":              {a, []byte{1, 1, 8, 10}, false},
		"of a wrong length":      {a, []byte{8, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, false},
		"behind a broken one":    {a, append([]byte{3, 0, 1, 1}, lab.TimestampOption(recent-2, 0)...), false},
		"behind the end":         {a, append([]byte{0, 0, 0, 0}, lab.TimestampOption(recent-2, 0)...), false},
	} {
		if got := s.refuses(c.addr, c.options); got != c.want {
			t.Errorf("%s: refused: %t, want %t", name, got, c.want)
		}
	}
	old := binary.BigEndian.AppendUint32(nil, recent-2)
	if s.refuses(a, []byte{1, 1, 8, 10}, append(old, 0, 0, 0, 0)...) {
		t.Error("a SYN was refused for a timestamp in its data")
	}
	// the greatest clock wins
	s.connection(a, recent+5000)
	if !s.refuses(a, lab.TimestampOption(recent, 0)) {
		t.Error("a SYN of the clock that was remembered before passed")
	}
}

// TestClientClosesFirst: the server has no TIME_WAIT, so it remembers nothing.
func TestClientClosesFirst(t *testing.T) {
	s := newServer(t, recycle.Drop, lab.Server{})
	const a, recent = "10.77.0.1", 0x80000000
	src := s.syn(a, lab.TimestampOption(recent, 0))
	sa := s.answered(src)
	s.send(src, lab.FIN|lab.ACK, sa.Ack, sa.Seq+1, lab.TimestampOption(recent, sa.TSval))
	testutil.Must1[lab.Segment](t)(s.capture.Wait(limit, func(x *lab.Segment) bool { return x.Dst == src && x.Has(lab.FIN) }))
	if s.refuses(a, lab.TimestampOption(recent-1000, 0)) {
		t.Error("a SYN was refused for a connection that the client closed first")
	}
}

// TestCount: what would be refused passes, and is counted.
func TestCount(t *testing.T) {
	s := newServer(t, recycle.Count, lab.Server{ClosesFirst: true})
	s.connection("10.77.0.1", 1<<20)
	s.connection("10.77.0.1", 1<<10) // counts, and is not remembered
	s.answered(s.syn("10.77.0.1", lab.TimestampOption(1<<15, 0)))
	refused, asked := testutil.Must1[uint64](t)(s.check.Refused()), testutil.Must1[uint64](t)(s.check.Asked())
	if refused != 2 || asked != 3 {
		t.Errorf("%d of %d SYNs refused, want 2 of 3", refused, asked)
	}
}
