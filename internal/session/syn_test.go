// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"errors"
	"net/netip"
	"os"
	"regexp"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/testutil"
)

// forgedSYN is a SYN that no Linux sends.
type forgedSYN struct {
	lab.RawSegment
	fingerprint string
}

func forgedSYNs(a, b *lab.End, port uint16) []forgedSYN {
	var list []forgedSYN
	add := func(src, dst netip.Addr, ttl uint8, options []byte, fingerprint string) {
		list = append(list, forgedSYN{lab.RawSegment{
			Src: netip.AddrPortFrom(src, uint16(4000+len(list))), Dst: netip.AddrPortFrom(dst, port),
			Flags: lab.SYN, Seq: 1, TTL: ttl, Options: options,
		}, fingerprint})
	}
	add(a.Addr4(), b.Addr4(), 33, lab.TimestampOption(77, 0), "4:64:*:65535:*:nop,nop,ts")
	add(a.Addr6(), b.Addr6(), 200, lab.TimestampOption(78, 0), "6:255:*:65535:*:nop,nop,ts")
	add(a.Addr4(), b.Addr4(), 128, nil, "4:128:*:65535:*:")
	add(a.Addr4(), b.Addr4(), 64, []byte{2, 4, 1, 2, 8, 40, 0, 0}, "4:64:258:65535:*:mss,ts,bad")
	return list
}

// linuxSYN is the fingerprint of a SYN over Ethernet.
var linuxSYN = regexp.MustCompile(`^(4:64:1460|6:64:1440):[0-9]+:[0-9]+:mss,sok,ts,nop,ws$`)

func TestSYN(t *testing.T) {
	ln := newLink(t, "syn")
	capture := testutil.Must1[*lab.Capture](t)(ln.b.Capture())
	plain := serve(t, ln.server, lab.Server{})
	listeners := []*lab.Serving{plain}
	if sv := serve(t, ln.server, lab.Server{MPTCP: true}); sv != nil {
		listeners = append(listeners, sv)
	}
	w := watch(t, nil)
	w.matrix(probe.SYN)
	for _, sv := range listeners {
		for _, f := range families(ln.a, ln.b) {
			res := testutil.Must1[*lab.Result](t)(ln.client.Run(t.Context(), lab.Load{
				Targets: sv.Targets(f.dial), Connections: 5, ClosesFirst: true,
			}))
			if res.Connected != 5 {
				t.Fatalf("%s: %+v, want 5 connected", f.name, res)
			}
		}
	}
	forged := forgedSYNs(ln.a, ln.b, plain.Addr().Port())
	for _, s := range forged {
		testutil.Must(t, ln.client.SendSegment(s.RawSegment))
		testutil.Must1[lab.Segment](t)(capture.Wait(deadline, func(x *lab.Segment) bool { return x.Outgoing && x.Dst == s.Src }))
	}
	got := testutil.Must1[lab.Captured](t)(capture.Finish())
	events := of(w.stop(), func(e *event.SYN) bool { return uint64(e.NetNS) == ln.server.Inode() })
	if w.rung(probe.SYN) == probe.Tracepoint {
		checkValidated(t, events, got.Segments, 15*len(listeners))
		return
	}
	checkSYNs(t, events, got.Segments, forged)
}

// checkSYNs: one line for each SYN on the wire, in its order.
func checkSYNs(t *testing.T, events []*event.SYN, segments []lab.Segment, forged []forgedSYN) {
	t.Helper()
	var syns []lab.Segment
	for _, s := range segments {
		if s.Flags == lab.SYN && !s.Outgoing {
			syns = append(syns, s)
		}
	}
	if len(events) != len(syns) {
		t.Fatalf("%d syn, the capture shows %d", len(events), len(syns))
	}
	prints := map[netip.AddrPort]string{}
	for _, f := range forged {
		prints[f.Src] = f.fingerprint
	}
	for i, s := range syns {
		e := events[i]
		if e.Remote != s.Src || e.Local != s.Dst || e.Timestamps != s.Timestamps || e.TSval != s.TSval ||
			e.TTL != s.TTL || e.Validated || e.Owner.PID != uint32(os.Getpid()) {
			t.Errorf("%+v, the capture shows %+v", *e, s)
		}
		want, ok := prints[s.Src]
		if ok && e.Fingerprint != want || !ok && !linuxSYN.MatchString(e.Fingerprint) {
			t.Errorf("fingerprint %q, want %q or one of Linux", e.Fingerprint, want)
		}
	}
}

// checkValidated: one line for each handshake, with the timestamp of its SYN or
// of the ACK that completed it.
func checkValidated(t *testing.T, events []*event.SYN, segments []lab.Segment, handshakes int) {
	t.Helper()
	if len(events) != handshakes {
		t.Errorf("%d syn, want %d", len(events), handshakes)
	}
	for _, e := range events {
		found := false
		for _, s := range segments {
			found = found || s.Src == e.Remote && s.Dst == e.Local && s.Timestamps && s.TSval == e.TSval && !s.Has(lab.FIN)
		}
		if !found || !e.Validated || !e.Timestamps || e.Fingerprint != "" || e.Owner.PID != uint32(os.Getpid()) {
			t.Errorf("%+v is not as the capture shows it", *e)
		}
	}
}

func TestSilence(t *testing.T) {
	ln := newLink(t, "silence")
	const repeats = 1 // after 1 s, given up after 2 s more
	testutil.Must(t, ln.client.Sysctl("net.ipv4.tcp_syn_retries", "1"))
	const linear = "net.ipv4.tcp_syn_linear_timeouts" // since 6.5, added to the repeats
	if _, err := ln.client.ReadSysctl(linear); err == nil {
		testutil.Must(t, ln.client.Sysctl(linear, "0"))
	}
	sv := serve(t, ln.server, lab.Server{})
	testutil.Must1[*lab.Rule](t)(ln.server.Drop(lab.Match{
		Hook: lab.Input, DstPort: sv.Addr().Port(), FlagMask: lab.SYN | lab.ACK, Flags: lab.SYN,
	}))
	capture := testutil.Must1[*lab.Capture](t)(ln.a.Capture())
	before := testutil.Must1[lab.Counters](t)(ln.client.Netstat())
	w := watch(t, nil)
	w.matrix(probe.SYNRefused)
	var wg sync.WaitGroup
	list := families(ln.a, ln.b)
	for _, f := range list {
		wg.Go(func() {
			_, err := ln.client.Connect(lab.Dial{}, sv.Targets(f.dial)[0])
			if !errors.Is(err, unix.ETIMEDOUT) {
				t.Errorf("%s: %v, want ETIMEDOUT", f.name, err)
			}
		})
	}
	wg.Wait()
	refused := netip.AddrPortFrom(ln.b.Addr4(), 9) // nobody listens: an RST, which is an answer
	if _, err := ln.client.Connect(lab.Dial{}, refused); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v, want ECONNREFUSED", err)
	}
	got := testutil.Must1[lab.Captured](t)(capture.Finish())
	grown := testutil.Must1[lab.Counters](t)(ln.client.Netstat()).Since(before)
	l := w.stop()
	events := of(l, func(e *event.SYNRefused) bool { return uint64(e.NetNS) == ln.client.Inode() })
	missing := 0
	for _, local := range sources(got.Segments, sv.Addr().Port()) {
		missing += checkSilence(t, events, got.Segments, local)
	}
	// On a busy emulated CPU the kernel may leave out a program.
	if missing > few(0, 1) {
		t.Errorf("%d lines are missing", missing)
	}
	if n := grown["TCPSynRetrans"]; n != uint64(repeats*len(list)) || len(events)+missing != int(n)+len(list) {
		t.Errorf("%d syn_refused, the kernel repeated %d SYNs, want %d and one more line for each connect()",
			len(events), n, repeats*len(list))
	}
}

// sources are who sent SYNs to a port.
func sources(segments []lab.Segment, port uint16) []netip.AddrPort {
	var list []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	for _, s := range segments {
		if s.Dst.Port() == port && s.Flags == lab.SYN && !seen[s.Src] {
			seen[s.Src] = true
			list = append(list, s.Src)
		}
	}
	return list
}

// checkSilence: a line when a SYN is repeated, and one when the last is given
// up. It returns how many are missing at the end.
func checkSilence(t *testing.T, events []*event.SYNRefused, segments []lab.Segment, local netip.AddrPort) (missing int) {
	t.Helper()
	var syns []lab.Segment
	for _, s := range segments {
		if s.Src == local && s.Flags == lab.SYN {
			syns = append(syns, s)
		}
	}
	n := 0
	var last uint32
	for _, e := range events {
		if e.Local != local {
			continue
		}
		n++
		if e.Signature != event.SignatureSilence || int(e.Attempts) != n || e.DelayMS <= last ||
			e.Remote != syns[0].Dst || e.Owner.PID != uint32(os.Getpid()) {
			t.Errorf("line %d of %s: %+v, want silence of %s, later than %d ms", n, local, *e, syns[0].Dst, last)
		}
		last = e.DelayMS
		if n >= len(syns) {
			continue
		}
		at := uint32(syns[n].Time.Sub(syns[0].Time).Milliseconds())
		if near := uint32(few(50, 500)); e.DelayMS+near < at || e.DelayMS > at+near {
			t.Errorf("%s after %d ms, the SYN was repeated after %d ms", local, e.DelayMS, at)
		}
	}
	if n > len(syns) {
		t.Errorf("%d lines of %s, want one for each of %d SYNs", n, local, len(syns))
	}
	return len(syns) - n
}
