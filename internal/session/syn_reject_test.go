// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/probe"
	"github.com/twscope/twscope/internal/session"
	"github.com/twscope/twscope/internal/testutil"
)

// synReject is what the log must tell of one forged SYN.
type synReject struct {
	Rule            event.Rule
	TSval, TSRecent uint32
	Seq, RcvNxt     uint32
	Reply           event.Reply
}

// TestSYNReject: SYNs that a socket in TIME_WAIT refuses although PAWS lets
// them pass. No counter tells of them; what the server answers does.
func TestSYNReject(t *testing.T) {
	p := newPlaces(t)
	w := watch(t, func(o *session.Options) { o.Kinds = session.DefaultKinds() })
	w.matrix(probe.SYNReject)
	var want []synReject
	t.Run("sequence", func(t *testing.T) { want = append(want, p.oldSequence(t)...) })
	t.Run("no listener", func(t *testing.T) { want = append(want, p.noListener(t)) })
	t.Run("fin_wait2", func(t *testing.T) { want = append(want, p.inFinWait2(t)...) })
	l := w.stop()
	if w.rung(probe.SYNReject) == probe.None {
		return
	}
	var got []synReject
	for _, e := range of(l, func(e *event.SYNReject) bool {
		return uint64(e.NetNS) == p.client.Inode() || uint64(e.NetNS) == p.server.Inode()
	}) {
		got = append(got, synReject{e.Rule, e.TSval, e.TSRecent, e.Seq, e.RcvNxt, e.Reply})
		if !e.HasAge && e.TSRecent != 0 || e.TTL != 64 || e.Fingerprint == "" {
			t.Errorf("%+v, want an age, a TTL of 64 and a fingerprint", *e)
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("SYNs refused (-forged +log):\n%s", diff)
	}
}

// ended makes a connection that the server closes first, and returns the last
// segment of the client, its FIN.
func (p *places) ended(t *testing.T, sv *lab.Serving) lab.Segment {
	t.Helper()
	target := sv.Targets(p.b.Addr4())[0]
	before := len(testutil.Must1[[]lab.Socket](t)(p.server.TimeWaits()))
	testutil.Must1[*lab.Result](t)(p.client.Run(t.Context(), lab.Load{Targets: []netip.AddrPort{target}, Connections: 1}))
	eventuallyTW(t, p.server, before+1)
	return p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Has(lab.FIN) })
}

// answer sends a SYN and returns the next segment that goes back.
func (p *places) answer(t *testing.T, from *lab.Host, s lab.RawSegment) lab.Segment {
	t.Helper()
	testutil.Must(t, from.SendSegment(s))
	sent := false
	return p.wait(t, func(x *lab.Segment) bool {
		sent = sent || x.Src == s.Src && x.Dst == s.Dst && x.Seq == s.Seq && x.Has(lab.SYN)
		return sent && x.Src == s.Dst && x.Dst == s.Src
	})
}

func (p *places) oldSequence(t *testing.T) []synReject {
	fin := p.ended(t, serve(t, p.server, lab.Server{ClosesFirst: true}))
	old := lab.RawSegment{Src: fin.Src, Dst: fin.Dst, Flags: lab.SYN, Seq: fin.Seq - 1000}
	if a := p.answer(t, p.client, old); a.Flags != lab.ACK || a.Ack != fin.Seq+1 {
		t.Errorf("the server answered %+v, want the ACK of the old connection", a)
	}
	r := synReject{event.RuleSequence, 0, fin.TSval, old.Seq, fin.Seq + 1, event.ReplyACK}
	// A TSval that is not newer does not help. The kernel holds back the ACK.
	same := old
	same.Seq, same.Options = fin.Seq+1, lab.TimestampOption(fin.TSval, 0)
	testutil.Must(t, p.client.SendSegment(same))
	// A newer one does: that SYN is no reject.
	newer := same
	newer.Options = lab.TimestampOption(fin.TSval+1, 0)
	if a := p.answer(t, p.client, newer); !a.Has(lab.SYN | lab.ACK) {
		t.Errorf("the server answered %+v, want a SYN-ACK", a)
	}
	return []synReject{r, {event.RuleSequence, fin.TSval, fin.TSval, same.Seq, fin.Seq + 1, event.ReplyRateLimited}}
}

func (p *places) noListener(t *testing.T) synReject {
	sv := serve(t, p.server, lab.Server{ClosesFirst: true})
	fin := p.ended(t, sv)
	sv.Stop()
	fresh := lab.RawSegment{Src: fin.Src, Dst: fin.Dst, Flags: lab.SYN, Seq: fin.Seq + 100000}
	if a := p.answer(t, p.client, fresh); a.Flags != lab.ACK {
		t.Errorf("the server answered %+v, want an ACK", a)
	}
	return synReject{event.RuleNoListener, 0, fin.TSval, fresh.Seq, fin.Seq + 1, event.ReplyACK}
}

// inFinWait2: the client has closed, the server not yet; the SYNs are for the
// client, and RSTs must leave it.
func (p *places) inFinWait2(t *testing.T) []synReject {
	testutil.Must(t, p.muted.Remove())
	sv := serve(t, p.server, lab.Server{NeverAccept: true})
	target := sv.Targets(p.b.Addr4())[0]
	before := len(testutil.Must1[[]lab.Socket](t)(p.client.TimeWaits()))
	testutil.Must(t, testutil.Must1[*lab.Conn](t)(p.client.Connect(lab.Dial{}, target)).Close())
	eventuallyTW(t, p.client, before+1)
	fin := p.wait(t, func(s *lab.Segment) bool { return s.Dst == target && s.Has(lab.FIN) })
	last := p.wait(t, func(s *lab.Segment) bool { return s.Src == target && s.Ack == fin.Seq+1 })
	syn := lab.RawSegment{Src: last.Src, Dst: last.Dst, Flags: lab.SYN, Seq: last.Seq - 1000}
	if a := p.answer(t, p.server, syn); a.Flags != lab.ACK {
		t.Errorf("below the window the client answered %+v, want an ACK", a)
	}
	in := syn
	in.Seq = last.Seq
	if a := p.answer(t, p.server, in); !a.Has(lab.RST) {
		t.Errorf("in the window the client answered %+v, want an RST", a)
	}
	return []synReject{
		{event.RuleFinWait2, 0, last.TSval, syn.Seq, last.Seq, event.ReplyACK},
		{event.RuleFinWait2, 0, last.TSval, in.Seq, last.Seq, event.ReplyRST},
	}
}
