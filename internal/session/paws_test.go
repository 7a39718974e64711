// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// natted is two clients with clocks of their own behind one gateway that
// forgets closed connections long before the server does.
type natted struct {
	name    string
	clients []*lab.Host
	server  *lab.Host
	outer   *lab.Link
	inner   []*lab.Link // by client
	target  netip.AddrPort
	capture *lab.Capture // on the server's end
	before  lab.Counters // of the server

	segments []lab.Segment
	after    lab.Counters
}

const (
	natPortLow, natPortHigh = 20000, 20099
	natRate                 = 40 // connections per second and client
)

func newNATted(t *testing.T, name string, which int) *natted {
	t.Helper()
	return makeNATted(t, name, which, 2, lab.MasqOptions{PortLow: natPortLow, PortHigh: natPortHigh, FullyRandom: true})
}

func makeNATted(t *testing.T, name string, which, clients int, masq lab.MasqOptions) *natted {
	t.Helper()
	l := testutil.Must1[*lab.Lab](t)(lab.New(t.Context(), "nat-"+name, lab.Named()))
	t.Cleanup(func() { testutil.Must(t, l.Close()) })
	names := []string{"gw", "server"}
	for i := range clients {
		names = append(names, fmt.Sprintf("client%d", i))
	}
	hosts := testutil.Must1[[]*lab.Host](t)(l.Hosts(names...))
	gw := hosts[0]
	n := &natted{name: name, server: hosts[1], clients: hosts[2:]}
	n.outer = testutil.Must1[*lab.Link](t)(l.Link(t.Context(), gw, n.server, "10.9.0.0/24", "fd00:9::/64"))
	testutil.Must(t, gw.Forward())
	testutil.Must(t, gw.Masquerade(&n.outer.A, masq))
	testutil.Must(t, gw.ConntrackTimeWait(time.Second))
	for i, c := range n.clients {
		inner := testutil.Must1[*lab.Link](t)(l.Link(t.Context(), c, gw,
			fmt.Sprintf("10.0.%d.0/24", i), fmt.Sprintf("fd00:a%d::/64", i)))
		testutil.Must(t, c.Route("0.0.0.0/0", inner.B.Addr4()))
		testutil.Must(t, c.Route("::/0", inner.B.Addr6()))
		n.inner = append(n.inner, inner)
	}
	f := families(&n.outer.A, &n.outer.B)[which]
	network := "tcp4"
	if f.name != "IPv4" {
		network = "tcp" // on [::], so that IPv4 connections have AF_INET6 sockets
	}
	sv := serve(t, n.server, lab.Server{ClosesFirst: true, Network: network, MPTCP: f.name == "mapped" && hasMPTCP()})
	n.target = netip.AddrPortFrom(f.server, sv.Addr().Port())
	n.capture = testutil.Must1[*lab.Capture](t)(n.outer.B.Capture())
	n.before = testutil.Must1[lab.Counters](t)(n.server.Netstat())
	return n
}

// run makes the connections and takes down what the kernel says of them.
func (n *natted) run(t *testing.T, connections int) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range n.clients {
		wg.Go(func() {
			res, err := c.Run(t.Context(), lab.Load{
				Targets: []netip.AddrPort{n.target}, Connections: connections, Concurrency: 10, Rate: natRate,
			})
			if err != nil || res.Connected == 0 {
				t.Errorf("%s: %+v, %v", c.Name(), res, err)
			}
		})
	}
	wg.Wait()
	got := testutil.Must1[lab.Captured](t)(n.capture.Finish())
	if got.Lost != 0 {
		t.Fatalf("the capture lost %d packets", got.Lost)
	}
	n.segments = got.Segments
	n.after = testutil.Must1[lab.Counters](t)(n.server.Netstat())
}

// refusal is a SYN that the server refused as an old duplicate.
type refusal struct {
	client          netip.AddrPort // as the server sees it
	tsval, tsRecent uint32
	age             time.Duration // since tsRecent was taken
}

func byClient(a, b refusal) int {
	return cmp.Or(a.client.Compare(b.client), cmp.Compare(a.tsval, b.tsval), cmp.Compare(a.tsRecent, b.tsRecent))
}

// tsClock is what a server remembers of one client's address and port.
type tsClock struct {
	recent uint32
	at     time.Time
}

// refusals are read from the capture: a SYN whose timestamp is older than the
// last one of the connection before, and which is not answered by a SYN-ACK.
func (n *natted) refusals() []refusal {
	var list []refusal
	clocks := map[netip.AddrPort]*tsClock{}
	for i, s := range n.segments {
		if s.Outgoing {
			continue
		}
		c := clocks[s.Src]
		if c == nil {
			c = &tsClock{}
			clocks[s.Src] = c
		}
		switch {
		case s.Has(lab.SYN) && !n.accepted(i):
			if s.Timestamps && int32(c.recent-s.TSval) > 0 {
				list = append(list, refusal{s.Src, s.TSval, c.recent, s.Time.Sub(c.at)})
			}
		case s.Timestamps && (s.Has(lab.SYN) || int32(s.TSval-c.recent) >= 0):
			*c = tsClock{s.TSval, s.Time}
		}
	}
	return list
}

// accepted tells whether the next answer to a SYN is a SYN-ACK.
func (n *natted) accepted(syn int) bool {
	for _, s := range n.segments[syn+1:] {
		if s.Outgoing && s.Dst == n.segments[syn].Src {
			return s.Has(lab.SYN | lab.ACK)
		}
	}
	return false
}

// pawsInTimeWait is the counter of segments refused by a TIME_WAIT socket:
// PAWSTimewait, which up to 6.15 was part of PAWSEstab.
func pawsInTimeWait(c lab.Counters) (string, uint64) {
	if v, ok := c["PAWSTimewait"]; ok {
		return "PAWSTimewait", v
	}
	return "PAWSEstab", c["PAWSEstab"]
}

func TestPAWSBehindNAT(t *testing.T) {
	var nets []*natted
	for which, name := range []string{"IPv4", "IPv6", "mapped"} {
		nets = append(nets, newNATted(t, name, which))
	}
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	w.matrix(probe.PAWSTimeWait)
	w.matrix(probe.SYNRefused)
	var wg sync.WaitGroup
	for _, n := range nets {
		wg.Go(func() { n.run(t, few(120, 80)) })
	}
	wg.Wait()
	l := w.stop()
	for _, n := range nets {
		t.Run(n.name, func(t *testing.T) {
			n.checkRejects(t, w, l)
			n.checkChallenges(t, l)
		})
	}
}

// checkRejects: as many lines as the kernel counted, each as on the wire.
func (n *natted) checkRejects(t *testing.T, w *watcher, l log) {
	t.Helper()
	counter, after := pawsInTimeWait(n.after)
	_, before := pawsInTimeWait(n.before)
	grown := after - before
	want := n.refusals()
	if grown == 0 || grown != uint64(len(want)) {
		t.Fatalf("the kernel counted %d %s, the capture shows %d: want the same, and some", grown, counter, len(want))
	}
	events := of(l, func(e *event.PAWSReject) bool { return uint64(e.NetNS) == n.server.Inode() })
	if w.rung(probe.PAWSTimeWait) == probe.Counter {
		checkCounted(t, events, counter, grown)
		return
	}
	got := make([]refusal, 0, len(events))
	for _, e := range events {
		got = append(got, refusal{e.Remote, e.TSval, e.TSRecent, time.Duration(e.AgeMS) * time.Millisecond})
		if e.Where != event.WhereTimeWait || e.Segment != event.SegmentSYN || e.Counter != counter ||
			e.Delta != int32(e.TSval-e.TSRecent) || e.Delta >= 0 || e.Reply != event.ReplyACK || !e.HasAge ||
			e.Local != n.target || e.Owner.PID != uint32(os.Getpid()) || e.Count > 1 {
			t.Errorf("%+v: want a SYN answered with an ACK in TIME_WAIT of %s", *e, n.target)
		}
	}
	slices.SortFunc(got, byClient)
	slices.SortFunc(want, byClient)
	lost := len(want) - len(got)
	if lost > 0 && uint64(lost) <= l.lost(event.KindPAWSReject) {
		want = slices.DeleteFunc(want, func(r refusal) bool {
			return !slices.ContainsFunc(got, func(g refusal) bool { return byClient(r, g) == 0 })
		})
	}
	// ts_recent_stamp, from which the age comes up to 6.13, is in whole seconds
	about := gocmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 1500*time.Millisecond })
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(refusal{}), about,
		gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("rejects (-capture +log):\n%s", diff)
	}
	if r := l.reconciled(t, n.server.Inode(), counter); r.Kernel != int64(grown) || r.Difference != int64(lost) {
		t.Errorf("%+v, want %d, and a difference of the %d lost", r, grown, lost)
	}
}

// checkCounted: on the counter rung an event tells how many, not who.
func checkCounted(t *testing.T, events []*event.PAWSReject, counter string, grown uint64) {
	t.Helper()
	var sum uint64
	for _, e := range events {
		if e.Counter != counter || e.Remote.IsValid() {
			t.Errorf("%+v, want only the counter %s", *e, counter)
		}
		sum += e.Count
	}
	if sum != grown {
		t.Errorf("the lines of %s sum up to %d, the kernel counted %d", counter, sum, grown)
	}
}

// checkChallenges: a bare ACK in SYN_SENT on the clients for each SYN that the
// server answered with one.
func (n *natted) checkChallenges(t *testing.T, l log) {
	t.Helper()
	want := 0
	for i, s := range n.segments {
		if s.Has(lab.SYN) && !s.Outgoing && !n.accepted(i) {
			want++
		}
	}
	var got int
	for _, c := range n.clients {
		events := of(l, func(e *event.SYNRefused) bool {
			return uint64(e.NetNS) == c.Inode() && e.Signature == event.SignatureChallengeACK
		})
		got += len(events)
		for _, e := range events {
			if e.Remote != n.target || !l.ours(e.Owner) || e.Attempts == 0 && e.Owner.PID != 0 {
				t.Errorf("%+v, want a refusal of %s", *e, n.target)
			}
		}
	}
	// An ACK that comes so late that the SYN repeated before it was accepted
	// finds the client no longer in SYN_SENT: on an emulated CPU only. Where the
	// kernel runs no program for a SYN that it refuses, it may run none for the
	// ACK that follows on the same CPU.
	allowed := few(0, 1+want/10) + int(l.lost(event.KindPAWSReject))
	if missing := want - got; missing < 0 || missing > allowed {
		t.Errorf("%d challenge_ack, the capture shows %d", got, want)
	}
}

// reject is what the log must tell of one forged segment.
type reject struct {
	Where           event.Where
	Segment         event.Segment
	Reply           event.Reply
	Counter         string
	TSval, TSRecent uint32
}

// places provokes rejects in every state of a socket, one at a time.
type places struct {
	link
	capture   *lab.Capture // on the server's end
	estab, tw string       // names of the counters
	has       lab.Counters // tells which counters the kernel has

	muted *lab.Rule // the client sends no RST

	want []reject
	by   []probe.Observation // that sees each of them
}

func newPlaces(t *testing.T) *places {
	t.Helper()
	p := &places{link: newLink(t, "places"), estab: "PAWSEstab"}
	p.capture = testutil.Must1[*lab.Capture](t)(p.b.Capture())
	p.has = testutil.Must1[lab.Counters](t)(p.server.Netstat())
	p.tw, _ = pawsInTimeWait(p.has)
	p.muted = p.mute(t)
	return p
}

// mute keeps the client from ending the server's sockets by answering the ACKs
// to forged segments.
func (p *places) mute(t *testing.T) *lab.Rule {
	return testutil.Must1[*lab.Rule](t)(p.client.Drop(lab.Match{Hook: lab.Output, FlagMask: lab.RST, Flags: lab.RST}))
}

func (p *places) wait(t *testing.T, match func(*lab.Segment) bool) lab.Segment {
	t.Helper()
	return testutil.Must1[lab.Segment](t)(p.capture.Wait(deadline, match))
}

// forge sends a segment to a host and waits until it has counted a reject.
func (p *places) forge(t *testing.T, from, to *lab.Host, s lab.RawSegment, o probe.Observation, r reject) {
	t.Helper()
	before := testutil.Must1[lab.Counters](t)(to.Netstat())[r.Counter]
	testutil.Must(t, from.SendSegment(s))
	testutil.Eventually(t, deadline, func() bool {
		return testutil.Must1[lab.Counters](t)(to.Netstat())[r.Counter] == before+1
	}, "one more %s for %+v", r.Counter, r)
	p.want, p.by = append(p.want, r), append(p.by, o)
}

// timeWait: the rate limit is for segments without data or FIN.
func (p *places) timeWait(t *testing.T) {
	before := testutil.Must1[lab.Counters](t)(p.server.Netstat())
	sv := serve(t, p.server, lab.Server{ClosesFirst: true})
	target := sv.Targets(p.b.Addr4())[0]
	testutil.Must1[*lab.Result](t)(p.client.Run(t.Context(), lab.Load{Targets: []netip.AddrPort{target}, Connections: 1}))
	eventuallyTW(t, p.server, 1)
	fin := p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Has(lab.FIN) })
	for _, f := range []struct {
		flags   uint8
		payload string
		segment event.Segment
		reply   event.Reply
	}{
		{lab.SYN, "", event.SegmentSYN, event.ReplyACK},
		{lab.SYN, "", event.SegmentSYN, event.ReplyRateLimited},
		{lab.ACK, "", event.SegmentACK, event.ReplyRateLimited},
		{lab.ACK, "x", event.SegmentData, event.ReplyACK},
		{lab.FIN | lab.ACK, "", event.SegmentFIN, event.ReplyACK},
		{lab.RST, "", event.SegmentRST, event.ReplyNone},
	} {
		if f.flags == lab.RST {
			testutil.Must(t, p.muted.Remove())
		}
		old := fin.TSval - 5000 - uint32(len(p.want))
		p.forge(t, p.client, p.server, lab.RawSegment{
			Src: fin.Src, Dst: fin.Dst, Flags: f.flags, Seq: fin.Seq + 1, Ack: fin.Ack,
			Options: lab.TimestampOption(old, fin.TSecr), Payload: []byte(f.payload),
		}, probe.PAWSTimeWait, reject{event.WhereTimeWait, f.segment, f.reply, p.tw, old, fin.TSval})
	}
	p.muted = p.mute(t)
	grown := testutil.Must1[lab.Counters](t)(p.server.Netstat()).Since(before)
	if grown["TCPACKSkippedTimeWait"] != 2 || grown[p.tw] != 6 {
		t.Errorf("the kernel held back %d ACKs of %d, want 2 of 6", grown["TCPACKSkippedTimeWait"], grown[p.tw])
	}
}

func (p *places) established(t *testing.T) {
	sv := serve(t, p.server, lab.Server{})
	target := sv.Targets(p.b.Addr4())[0]
	conn := testutil.Must1[*lab.Conn](t)(p.client.Connect(lab.Dial{}, target))
	defer conn.Close()
	ack := p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Flags == lab.ACK })
	old := lab.RawSegment{Src: ack.Src, Dst: ack.Dst, Flags: lab.ACK, Seq: ack.Seq, Ack: ack.Ack, Payload: []byte("x")}
	send := func(n uint32, segment event.Segment, reply event.Reply, counter string) {
		t.Helper()
		tsval := ack.TSval - 5000 - n
		old.Options = lab.TimestampOption(tsval, ack.TSecr)
		p.forge(t, p.client, p.server, old, probe.PAWSEstablished,
			reject{event.WhereEstablished, segment, reply, counter, tsval, ack.TSval})
	}
	send(0, event.SegmentData, event.ReplyACK, p.estab)
	old.Payload, old.Seq = nil, ack.Seq-1
	if _, ok := p.has["PAWSOldAck"]; ok {
		send(1, event.SegmentACK, event.ReplyNone, "PAWSOldAck")
		return
	}
	send(1, event.SegmentACK, event.ReplyACK, p.estab)
	send(2, event.SegmentACK, event.ReplyRateLimited, p.estab)
}

func (p *places) synRecv(t *testing.T) {
	sv := serve(t, p.server, lab.Server{})
	const iss, recent = 1000, 100000
	s := lab.RawSegment{
		Src: netip.AddrPortFrom(p.a.Addr4(), 4444), Dst: sv.Targets(p.b.Addr4())[0],
		Flags: lab.SYN, Seq: iss, Options: lab.TimestampOption(recent, 0),
	}
	testutil.Must(t, p.client.SendSegment(s))
	synAck := p.wait(t, func(x *lab.Segment) bool { return x.Outgoing && x.Dst == s.Src && x.Has(lab.SYN|lab.ACK) })
	s.Flags, s.Seq, s.Ack = lab.ACK, iss+1, synAck.Seq+1
	send := func(tsval, tsecr uint32, reply event.Reply, counter string) {
		t.Helper()
		s.Options = lab.TimestampOption(tsval, tsecr)
		p.forge(t, p.client, p.server, s, probe.PAWSSYNRecv,
			reject{event.WhereSYNRecv, event.SegmentACK, reply, counter, tsval, recent})
	}
	send(50000, synAck.TSval, event.ReplyACK, p.estab)
	send(50001, synAck.TSval, event.ReplyRateLimited, p.estab)
	if _, ok := p.has["TSEcrRejected"]; ok {
		send(recent+1, synAck.TSval+100000, event.ReplyRateLimited, "TSEcrRejected")
	}
}

func (p *places) synSent(t *testing.T) {
	sv := serve(t, p.server, lab.Server{})
	target := sv.Targets(p.b.Addr4())[0]
	testutil.Must1[*lab.Rule](t)(p.server.Drop(lab.Match{Hook: lab.Input, DstPort: target.Port(), FlagMask: lab.SYN, Flags: lab.SYN}))
	done := make(chan error, 1)
	go func() {
		_, err := p.client.Connect(lab.Dial{Timeout: time.Second}, target)
		done <- err
	}()
	syn := p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Flags == lab.SYN })
	const tsval = 4242
	p.forge(t, p.server, p.client, lab.RawSegment{
		Src: target, Dst: syn.Src, Flags: lab.SYN | lab.ACK, Seq: 777, Ack: syn.Seq + 1,
		Options: lab.TimestampOption(tsval, syn.TSval+1000000),
	}, probe.PAWSSYNSent, reject{event.WhereSYNSent, event.SegmentSYN, event.ReplyNone, "PAWSActive", tsval, 0})
	if err := <-done; err == nil {
		t.Error("connected although the server saw no SYN")
	}
}

// finWait2: no kernel counts a reject of this substate, only hooks on the
// function see it.
func (p *places) finWait2(t *testing.T, w *watcher) {
	sv := serve(t, p.server, lab.Server{NeverAccept: true})
	target := sv.Targets(p.b.Addr4())[0]
	before := len(testutil.Must1[[]lab.Socket](t)(p.client.TimeWaits()))
	testutil.Must(t, testutil.Must1[*lab.Conn](t)(p.client.Connect(lab.Dial{}, target)).Close())
	eventuallyTW(t, p.client, before+1)
	// the ACK of the FIN is the last that the client has taken
	fin := p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Has(lab.FIN) })
	last := p.wait(t, func(s *lab.Segment) bool { return s.Src == target && s.Ack == fin.Seq+1 })
	old := last.TSval - 5000
	testutil.Must(t, p.server.SendSegment(lab.RawSegment{
		Src: last.Src, Dst: last.Dst, Flags: lab.ACK, Seq: last.Seq, Ack: last.Ack,
		Options: lab.TimestampOption(old, last.TSecr),
	}))
	forged := false
	p.wait(t, func(s *lab.Segment) bool {
		forged = forged || s.Src == target && s.TSval == old
		return forged && s.Dst == target
	})
	if r := w.rung(probe.PAWSTimeWait); r == probe.Fentry || r == probe.Kprobe {
		p.want = append(p.want, reject{event.WhereFinWait2, event.SegmentACK, event.ReplyACK, "", old, last.TSval})
		p.by = append(p.by, probe.PAWSTimeWait)
	}
}

func TestPAWSPlaces(t *testing.T) {
	p := newPlaces(t)
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	for _, o := range []probe.Observation{
		probe.PAWSTimeWait, probe.PAWSEstablished, probe.PAWSSYNRecv, probe.PAWSSYNSent,
	} {
		w.matrix(o)
	}
	t.Run("time_wait", p.timeWait)
	t.Run("established", p.established)
	t.Run("syn_recv", p.synRecv)
	t.Run("syn_sent", p.synSent)
	t.Run("fin_wait2", func(t *testing.T) { p.finWait2(t, w) })
	l := w.stop()
	p.check(t, w, l)
}

// check: what a rung sees is told segment by segment, the rest is counted.
func (p *places) check(t *testing.T, w *watcher, l log) {
	t.Helper()
	var want, got []reject
	counted, wantCounted := map[string]uint64{}, map[string]uint64{}
	for i, r := range p.want {
		switch rung := w.rung(p.by[i]); {
		case r.Counter == "TSEcrRejected" && rung != probe.Tracepoint:
			// a counter of its own, seen only where the kernel names the reason
		case rung == probe.Counter:
			wantCounted[r.Counter]++
		default:
			if r.Where == event.WhereSYNRecv && rung == probe.Tracepoint {
				r.TSRecent, r.Reply = 0, event.ReplyUnknown // the request socket is out of reach
			}
			want = append(want, r)
		}
	}
	for _, e := range of[*event.PAWSReject](l, nil) {
		if n := uint64(e.NetNS); n != p.client.Inode() && n != p.server.Inode() {
			continue
		}
		if !e.Remote.IsValid() {
			counted[e.Counter] += e.Count
			continue
		}
		got = append(got, reject{e.Where, e.Segment, e.Reply, e.Counter, e.TSval, e.TSRecent})
		if name := reasonOf(e); w.rung(probe.PAWSTimeWait) == probe.Tracepoint && e.Where == event.WhereTimeWait &&
			e.Reason != name || e.Reason != "" && e.Reason != name {
			t.Errorf("reason %q, want %q: %+v", e.Reason, name, *e)
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("rejects (-forged +log):\n%s", diff)
	}
	if diff := gocmp.Diff(wantCounted, counted); diff != "" {
		t.Errorf("rejects that are only counted (-forged +log):\n%s", diff)
	}
}

// reasonOf is the kernel's name for the drop behind an event.
func reasonOf(e *event.PAWSReject) string {
	switch {
	case e.Where == event.WhereTimeWait:
		return "TCP_RFC7323_TW_PAWS"
	case e.Counter == "PAWSOldAck":
		return "TCP_RFC7323_PAWS_ACK"
	case e.Counter == "TSEcrRejected":
		return "TCP_RFC7323_TSECR"
	}
	return "TCP_RFC7323_PAWS"
}
