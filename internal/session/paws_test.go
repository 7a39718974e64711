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
)

// natted is two clients with clocks of their own behind one gateway that
// forgets closed connections long before the server does.
type natted struct {
	name    string
	clients []*lab.Host
	server  *lab.Host
	outer   *lab.Link
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
	l := must1[*lab.Lab](t)(lab.New(t.Context(), "nat-"+name, lab.Named()))
	t.Cleanup(func() { must(t, l.Close()) })
	hosts := must1[[]*lab.Host](t)(l.Hosts("gw", "server", "client0", "client1"))
	gw := hosts[0]
	n := &natted{name: name, server: hosts[1], clients: hosts[2:]}
	n.outer = must1[*lab.Link](t)(l.Link(t.Context(), gw, n.server, "10.9.0.0/24", "fd00:9::/64"))
	must(t, gw.Forward())
	must(t, gw.Masquerade(&n.outer.A, lab.MasqOptions{PortLow: natPortLow, PortHigh: natPortHigh, FullyRandom: true}))
	must(t, gw.ConntrackTimeWait(time.Second))
	for i, c := range n.clients {
		inner := must1[*lab.Link](t)(l.Link(t.Context(), c, gw,
			fmt.Sprintf("10.0.%d.0/24", i), fmt.Sprintf("fd00:a%d::/64", i)))
		must(t, c.Route("0.0.0.0/0", inner.B.Addr4()))
		must(t, c.Route("::/0", inner.B.Addr6()))
	}
	f := families(&n.outer.A, &n.outer.B)[which]
	network := "tcp4"
	if f.name != "IPv4" {
		network = "tcp" // on [::], so that IPv4 connections have AF_INET6 sockets
	}
	sv := serve(t, n.server, lab.Server{ClosesFirst: true, Network: network, MPTCP: f.name == "mapped" && hasMPTCP()})
	n.target = netip.AddrPortFrom(f.server, sv.Addr().Port())
	n.capture = must1[*lab.Capture](t)(n.outer.B.Capture())
	n.before = must1[lab.Counters](t)(n.server.Netstat())
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
	got := must1[lab.Captured](t)(n.capture.Finish())
	if got.Lost != 0 {
		t.Fatalf("the capture lost %d packets", got.Lost)
	}
	n.segments = got.Segments
	n.after = must1[lab.Counters](t)(n.server.Netstat())
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
		wg.Go(func() { n.run(t, few(120, 60)) })
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
	// ts_recent_stamp, from which the age comes up to 6.13, is in whole seconds
	about := gocmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 1500*time.Millisecond })
	if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(refusal{}), about,
		gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("rejects (-capture +log):\n%s", diff)
	}
	if r := l.reconciled(t, n.server.Inode(), counter); r.Kernel != int64(grown) || r.Difference != 0 {
		t.Errorf("%+v, want %d and no difference", r, grown)
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
			if e.Remote != n.target || e.Attempts == 0 || e.Owner.PID != uint32(os.Getpid()) {
				t.Errorf("%+v, want a refusal of %s", *e, n.target)
			}
		}
	}
	if got != want {
		t.Errorf("%d challenge_ack, the capture shows %d", got, want)
	}
}
