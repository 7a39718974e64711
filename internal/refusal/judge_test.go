// SPDX-License-Identifier: Apache-2.0

package refusal_test

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/refusal"
)

const netns = 4026531840

func newJudge(t testing.TB, o refusal.Options) *refusal.Judge {
	t.Helper()
	j, err := refusal.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// story tells a Judge what happens to one source, at times in ms.
type story struct {
	*refusal.Judge
	source string
}

func tell(t testing.TB) *story {
	t.Helper()
	return &story{newJudge(t, refusal.Options{Sources: 64, Seed: [2]uint64{1, 2}}), "192.0.2.1"}
}

func (s *story) socket(port int) event.Socket {
	return event.Socket{
		NetNS: netns, Local: netip.MustParseAddrPort("198.51.100.1:80"),
		Remote: netip.AddrPortFrom(netip.MustParseAddr(s.source), uint16(port)),
	}
}

func head(at int) event.Header { return event.Header{Time: epoch + int64(at)*ms} }

// connects completes a handshake with the clock of a host, its TSval at 0.
func (s *story) connects(at, port int, clock uint32) {
	s.SYN(&event.SYN{
		Header: head(at), Socket: s.socket(port), Timestamps: true, TSval: clock + uint32(at), Validated: true,
		TTL: 60, Fingerprint: linuxPrint,
	})
}

func (s *story) closes(at, port int, clock uint32) {
	s.TimeWait(&event.TimeWait{
		Header: head(at), Socket: s.socket(port), Role: event.RoleServer, Timestamps: true, TSRecent: clock + uint32(at),
	})
}

// reject is a SYN with TSval v on a socket that remembers a clock since a time.
func (s *story) reject(at, port int, v, clock uint32, since int) *event.PAWSReject {
	recent := clock + uint32(since)
	return &event.PAWSReject{
		Header: head(at), Socket: s.socket(port), Where: event.WhereTimeWait, Segment: event.SegmentSYN,
		TSval: v, TSRecent: recent, Delta: int32(v - recent), HasAge: true, AgeMS: uint32(at - since),
		TTL: 60, Fingerprint: linuxPrint,
	}
}

func (s *story) refused(at, port int, v, clock uint32, since int) event.Judgement {
	e := s.reject(at, port, v, clock, since)
	s.PAWS(e)
	return e.Judgement
}

// Clocks far apart, each behind the one before.
const (
	clockA = 4_000_000_000
	clockB = 3_000_000_000
	clockC = 2_000_000_000
)

// TestFeed: events of the log come to be known by their kind, each of those that
// prove a connection by one of its own, and refusals get a judgement.
func TestFeed(t *testing.T) {
	s := tell(t)
	late := s.reject(500, 7, clockA-5000, clockA+100, 100)
	behind := &event.SYNReject{Header: head(600), Socket: s.socket(7), Rule: event.RuleSequence, Seq: 1 << 30, RcvNxt: 1<<30 + 5<<20}
	for i, step := range []struct {
		ev      event.Event
		refused bool
	}{
		{&event.Stats{Header: head(0)}, false},
		{&event.Census{Header: head(0), Socket: s.socket(6), Role: event.RoleServer, Substate: event.SubstateTimeWait, RemainingMS: 60_000}, false},
		{&event.SYN{Header: head(0), Socket: s.socket(5), Timestamps: true, TSval: clockA, Validated: true, TTL: 60, Fingerprint: linuxPrint}, false},
		{&event.TimeWait{Header: head(100), Socket: s.socket(7), Role: event.RoleServer, Timestamps: true, TSRecent: clockA + 100}, false},
		{late, true},
		{behind, true},
		{&event.PAWSReject{Header: head(700)}, false}, // from a counter: no addresses
	} {
		if got := s.Feed(step.ev); got != step.refused {
			t.Errorf("step %d: %v, want %v", i, got, step.refused)
		}
	}
	if late.Verdict != event.VerdictOldDuplicate || behind.Verdict != event.VerdictSeqReject {
		t.Errorf("%s and %s", late.Verdict, behind.Verdict)
	}
	list := s.Sources(head(800).Time, 10).List
	if len(list) != 1 || list[0].Completed != 3 {
		t.Errorf("%+v", list)
	}
}

func TestPAWS(t *testing.T) {
	cases := map[string]struct {
		tell    func(*story) event.Judgement
		verdict event.Verdict
		because string
	}{
		"one change": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			return s.refused(5000, 1, clockB+5000, clockA, 0)
		}, event.VerdictUnknown, "one restart"},
		"two changes that share an instant": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.connects(10, 2, clockA)
			s.refused(5000, 1, clockB+5000, clockA, 0)
			return s.refused(6000, 2, clockC+6000, clockA, 10)
		}, event.VerdictUnknown, "one restart"},
		"two changes apart": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.connects(2000, 1, clockB)
			s.connects(3000, 2, clockC)
			s.refused(5000, 2, clockC-1_000_000_000+5000, clockC, 3000)
			s.connects(6000, 2, clockC-1_000_000_000)
			s.connects(6500, 3, clockA)
			return s.refused(9000, 3, clockB+9000, clockA, 6500)
		}, event.VerdictNATPortRewrite, "no restart explains"},
		"two refusals apart, not completed": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.refused(2000, 1, clockB+2000, clockA, 0)
			s.connects(3000, 2, clockA)
			return s.refused(5000, 2, clockC+5000, clockA, 3000)
		}, event.VerdictUnknown, "one restart"},
		"a clock returns": {func(s *story) event.Judgement {
			s.connects(0, 1, clockC)
			s.connects(10_000, 1, clockB)
			return s.refused(20_000, 1, clockC+20_000, clockB, 10_000)
		}, event.VerdictNATPortRewrite, "came back"},
		"a SYN of the clock before is late": {func(s *story) event.Judgement {
			s.connects(0, 1, clockC)
			s.connects(1000, 1, clockB)
			return s.refused(5000, 1, clockC+200, clockB, 1000)
		}, event.VerdictOldDuplicate, "before the old connection"},
		"a 4-tuple keeps its clock through a change": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.connects(1000, 2, clockB)
			s.connects(2000, 3, clockB)
			s.connects(3000, 2, clockB+500_000_000)
			s.connects(4000, 1, clockA)
			s.connects(4500, 4, clockB)
			s.refused(5000, 3, clockC+5000, clockB, 2000)
			return s.refused(8000, 4, clockC+8000, clockB, 4500)
		}, event.VerdictNATPortRewrite, "no restart explains"},
		"late, of the same clock": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.closes(3000, 1, clockA)
			return s.refused(6000, 1, clockA+1000, clockA, 3000)
		}, event.VerdictOldDuplicate, "behind"},
		"half a second late": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.closes(3000, 1, clockA)
			return s.refused(3600, 1, clockA+2984, clockA, 3000)
		}, event.VerdictOldDuplicate, "less than a second behind"},
		"the same SYN, much later": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.closes(100_000, 1, clockA)
			return s.refused(110_000, 1, clockA, clockA, 100_000)
		}, event.VerdictOldDuplicate, "was seen"},
		"40 s behind": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			return s.refused(10_000, 1, clockA-30_000, clockA, 0)
		}, event.VerdictUnknown, "too near"},
		"no ts_recent": {func(s *story) event.Judgement {
			e := s.reject(0, 1, 1000, 0, 0)
			e.TSRecent = 0
			s.PAWS(e)
			return e.Judgement
		}, event.VerdictUnknown, "not known"},
		"restart of a host with one clock": {func(s *story) event.Judgement {
			for i := range 20 {
				s.connects(i*1000, 100+i, clockA)
			}
			s.connects(30_000, 1, clockB)
			s.connects(33_000, 2, clockB)
			s.connects(36_000, 3, clockB)
			return s.refused(37_000, 119, clockB+37_000, clockA, 19_000)
		}, event.VerdictRestart, "not seen again"},
		"restart, a clock per 4-tuple": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			s.connects(10, 2, clockB)
			s.connects(20, 3, clockA)
			s.connects(5000, 1, clockC)
			s.connects(5100, 4, clockA)
			s.connects(5200, 5, clockB)
			s.connects(7000, 4, clockA)
			s.connects(7100, 5, clockB)
			return s.refused(8000, 3, clockB-12345, clockA, 20)
		}, event.VerdictRestart, "keep their clock"},
		"two clocks in turns": {func(s *story) event.Judgement {
			for i := range 20 {
				s.connects(i*1000, 100+i, clockA)
				s.connects(i*1000+500, 200+i, clockB)
			}
			return s.refused(20_000, 119, clockB+20_000, clockA, 19_000)
		}, event.VerdictNATMultiClock, "both go on"},
		"OpenBSD": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			e := s.reject(5000, 1, clockB, clockA, 0)
			e.Fingerprint = openbsdPrint
			s.PAWS(e)
			return e.Judgement
		}, event.VerdictClientRandomised, "with or without"},
		"a system not known": {func(s *story) event.Judgement {
			s.connects(0, 1, clockA)
			e := s.reject(5000, 1, clockB, clockA, 0)
			e.Fingerprint = "4:64:1460:1024:*:mss,ts"
			s.PAWS(e)
			return e.Judgement
		}, event.VerdictUnknown, "not known to keep"},
		"tcp_tw_recycle, a clock per connection": {func(s *story) event.Judgement {
			for i := range 30 {
				s.connects(i*100, 100+i, uint32(i*i)*104_729_000)
			}
			e := s.reject(4000, 1, clockB, clockA, 3000)
			e.Where = event.WherePassive
			s.PAWS(e)
			return e.Judgement
		}, event.VerdictClientRandomised, "connection to connection"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := c.tell(tell(t))
			if got.Verdict != c.verdict || !strings.Contains(got.Because, c.because) {
				t.Errorf("got %s (%s), want %s (%s)", got.Verdict, got.Because, c.verdict, c.because)
			}
			if unknown := got.Verdict == event.VerdictUnknown; unknown != (got.Odds == 0) || got.Odds < 0 || got.Odds > 12 {
				t.Errorf("odds of %s are %g", got.Verdict, got.Odds)
			}
		})
	}
}

func TestOffset(t *testing.T) {
	s := tell(t)
	e := s.reject(7000, 1, clockA-1_000_000, clockA, 2000)
	s.PAWS(e)
	if want := -1007.0; !e.HasOffset || e.OffsetS != want {
		t.Errorf("the offset is %g s (known: %t), want %g", e.OffsetS, e.HasOffset, want)
	}
	e = s.reject(7000, 2, clockA-1_000_000, clockA, 2000)
	e.HasAge = false
	s.PAWS(e)
	if e.HasOffset {
		t.Errorf("an offset of %g s without an age", e.OffsetS)
	}
}

func TestPAWSLeavesAlone(t *testing.T) {
	s := tell(t)
	for name, change := range map[string]func(*event.PAWSReject){
		"no SYN":      func(e *event.PAWSReject) { e.Segment = event.SegmentACK },
		"established": func(e *event.PAWSReject) { e.Where = event.WhereEstablished },
		"counter":     func(e *event.PAWSReject) { e.Socket = event.Socket{NetNS: netns} },
	} {
		e := s.reject(0, 1, clockB, clockA, 0)
		change(e)
		before := *e
		if s.PAWS(e); !cmp.Equal(before, *e, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
			t.Errorf("%s: %+v", name, e.Judgement)
		}
	}
}

func TestSpoofed(t *testing.T) {
	s := tell(t)
	s.connects(0, 1, clockA) // so that handshakes are seen to complete
	s.source = "192.0.2.66"
	flood := func(from int) {
		for i := from; i < from+200; i++ {
			s.SYN(&event.SYN{
				Header: head(i), Socket: s.socket(1000 + i), Timestamps: true, TSval: uint32(i*i) * 2_654_435, TTL: 60,
			})
		}
	}
	if got := s.refused(100, 9, clockB, clockA, 50); got.Verdict != event.VerdictUnknown {
		t.Errorf("before the flood: %s", got.Verdict)
	}
	flood(1000)
	if got := s.refused(2000, 10, clockB, clockA, 1900); got.Verdict != event.VerdictSpoofSuspect {
		t.Errorf("a source that only floods: %s (%s)", got.Verdict, got.Because)
	}
	s.connects(2100, 11, clockA)
	flood(3000)
	if got := s.refused(4000, 12, clockC, clockA, 3900); got.Verdict != event.VerdictUnknown || !strings.Contains(got.Because, "forged") {
		t.Errorf("a true source in whose name others flood: %s (%s)", got.Verdict, got.Because)
	}
}

func TestReject(t *testing.T) {
	cases := map[string]struct {
		change  func(*event.SYNReject)
		verdict event.Verdict
		because string
	}{
		"no timestamps":                 {func(*event.SYNReject) {}, event.VerdictSeqReject, "no timestamps"},
		"equal timestamps":              {func(e *event.SYNReject) { e.Timestamps, e.TSval, e.TSRecent = true, 5, 5 }, event.VerdictSeqReject, "neither"},
		"just behind":                   {func(e *event.SYNReject) { e.Seq = e.RcvNxt - 500 }, event.VerdictOldDuplicate, "just behind"},
		"behind by more than a request": {func(e *event.SYNReject) { e.Seq = e.RcvNxt - 1_008_961 }, event.VerdictSeqReject, "no timestamps"},
		"just behind, too late": {func(e *event.SYNReject) {
			e.Seq, e.HasAge, e.AgeMS = e.RcvNxt-500, true, 20_000
		}, event.VerdictSeqReject, "no timestamps"},
		"FIN_WAIT2":        {func(e *event.SYNReject) { e.Rule = event.RuleFinWait2 }, event.VerdictUnknown, "FIN_WAIT2"},
		"no listener":      {func(e *event.SYNReject) { e.Rule = event.RuleNoListener }, event.VerdictUnknown, "nobody listens"},
		"a rule not known": {func(e *event.SYNReject) { e.Rule = event.RuleUnknown }, event.VerdictUnknown, "rule"},
		"late in FIN_WAIT2": {func(e *event.SYNReject) {
			e.Rule, e.Timestamps, e.TSval, e.TSRecent, e.HasAge, e.AgeMS = event.RuleFinWait2, true, 5000, 7000, true, 100
		}, event.VerdictOldDuplicate, "behind"},
		"duplicate of that SYN": {func(e *event.SYNReject) {
			e.Timestamps, e.TSval, e.TSRecent, e.Remote = true, clockA, clockA, netip.MustParseAddrPort("192.0.2.1:7")
		}, event.VerdictOldDuplicate, "was seen"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := tell(t)
			s.connects(0, 7, clockA)
			e := &event.SYNReject{
				Header: head(1000), Socket: s.socket(1), Rule: event.RuleSequence, Seq: 1 << 30, RcvNxt: 1<<30 + 5<<20,
			}
			c.change(e)
			s.Reject(e)
			if e.Verdict != c.verdict || !strings.Contains(e.Because, c.because) {
				t.Errorf("got %s (%s), want %s (%s)", e.Verdict, e.Because, c.verdict, c.because)
			}
		})
	}
}

// TestRecycle has two hosts with one address talk to a server with
// tcp_tw_recycle.
func TestRecycle(t *testing.T) {
	s := tell(t)
	for i := range 10 {
		s.connects(i*1000, 100+i, clockA)
		s.closes(i*1000+100, 100+i, clockA)
		s.connects(i*1000+500, 200+i, clockB)
	}
	got := s.Sources(head(10_000).Time, 10).List
	if len(got) != 1 || got[0].RecycleSYNs != 20 || got[0].Recycle2632 != 10 || got[0].Recycle310 != 10 {
		t.Errorf("got %+v", got)
	}
	// 60 s later the address is forgotten.
	s.connects(9100+61_000, 300, clockB)
	if got := s.Sources(head(80_000).Time, 10).List[0]; got.RecycleSYNs != 21 || got.Recycle2632 != 10 || got.Recycle310 != 10 {
		t.Errorf("after 61 s got %+v", got)
	}
}

func TestSources(t *testing.T) {
	s := tell(t)
	for i := range 3 {
		s.connects(i, 1+i, clockA)
	}
	s.source = "192.0.2.2"
	s.connects(10, 1, clockA)
	s.refused(5000, 1, clockB, clockA, 10)
	s.source = "192.0.2.3"
	s.connects(20, 1, clockA)
	var order []string
	all := s.Sources(head(6000).Time, 2)
	for _, x := range all.List {
		order = append(order, x.Raddr.String())
	}
	if want := []string{"192.0.2.2", "192.0.2.1"}; !cmp.Equal(order, want) || all.Omitted != 1 {
		t.Errorf("got %v and %d omitted, want %v and 1", order, all.Omitted, want)
	}
	first := all.List[0]
	if first.SYNs != 2 || first.Completed != 1 || first.Refused != 1 || first.Rewritten != 1 ||
		first.Verdicts["unknown"] != 1 || !cmp.Equal(first.Fingerprints, []string{linuxPrint}) {
		t.Errorf("got %+v", first)
	}
	s.Forget(netns)
	if left := s.Sources(head(7000).Time, 10).List; len(left) != 0 {
		t.Errorf("after Forget there are %d", len(left))
	}
}

// TestTwice has a SYN reported when it arrives and when it completes.
func TestTwice(t *testing.T) {
	s := tell(t)
	for i := range 5 {
		e := event.SYN{
			Header: head(i * 1000), Socket: s.socket(1 + i), Timestamps: true, TSval: clockA + uint32(i*1000),
			TTL: 60, Fingerprint: linuxPrint,
		}
		s.SYN(&e)
		e.Header, e.Validated, e.Fingerprint, e.TTL = head(i*1000+1), true, "", 0
		s.SYN(&e)
	}
	if got := s.Sources(head(9000).Time, 1).List[0]; got.SYNs != 5 || got.Completed != 5 || got.Repeated != 0 || got.OnLine != 5 {
		t.Errorf("got %+v", got)
	}
}

// TestOverlapping has handshakes complete, or TIME_WAIT prove them, after other
// SYNs of the clock came: each is one connection to the clocks.
func TestOverlapping(t *testing.T) {
	const n = 10
	for name, proves := range map[string]func(s *story, at, port int){
		"handshake": func(s *story, at, port int) {
			s.SYN(&event.SYN{Header: head(at), Socket: s.socket(port), Timestamps: true, TSval: clockA + uint32(1000*port), Validated: true})
		},
		"TIME_WAIT": func(s *story, at, port int) { s.closes(at, port, clockA) },
	} {
		t.Run(name, func(t *testing.T) {
			s := tell(t)
			s.connects(0, 0, clockA) // from here on the source is kept
			for port := 1; port < n; port++ {
				s.SYN(&event.SYN{
					Header: head(1000 * port), Socket: s.socket(port), Timestamps: true, TSval: clockA + uint32(1000*port),
					TTL: 60, Fingerprint: linuxPrint,
				})
			}
			for port := 1; port < n; port++ {
				proves(s, 1000*n+10*port, port)
			}
			got := s.Sources(head(1000*n+1000).Time, 1).List[0]
			if got.SYNs != n || got.Completed != n || got.OnLine != n || got.OffLine != 0 {
				t.Errorf("%d SYNs, %d completed, %d on a line, %d off, want %d, %d, %d and 0",
					got.SYNs, got.Completed, got.OnLine, got.OffLine, n, n, n)
			}
		})
	}
}

// TestRepeated has a SYN refused twice before it is accepted: each is one that
// was looked at, so that those refused are among them.
func TestRepeated(t *testing.T) {
	s := tell(t)
	s.connects(0, 1, clockA)
	s.closes(10, 1, clockA)
	s.refused(5000, 1, clockB+5000, clockA, 10)
	s.refused(6000, 1, clockB+6000, clockA, 10)
	s.connects(8000, 1, clockB)
	got := s.Sources(head(9000).Time, 1).List[0]
	if got.SYNs != 4 || got.Refused != 2 || got.Completed != 2 || got.Rewritten != 1 {
		t.Errorf("%d SYNs, %d refused, %d completed, %d rewritten, want 4, 2, 2 and 1", got.SYNs, got.Refused, got.Completed, got.Rewritten)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]refusal.Options{
		"sources":   {Sources: -1},
		"tuples":    {Tuples: math.MaxInt32},
		"tick rate": {TickRate: 3},
	} {
		if _, err := refusal.New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
