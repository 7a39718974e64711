// SPDX-License-Identifier: Apache-2.0

package diagnose_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/diagnose"
	"github.com/twscope/twscope/internal/event"
)

var (
	client   = netip.MustParseAddr("10.0.1.1")
	serverIP = netip.MustParseAddr("10.0.1.2")
)

func fromClient() event.Socket {
	return event.Socket{
		NetNS: netns, Local: netip.AddrPortFrom(serverIP, 8080), Remote: netip.AddrPortFrom(client, 20079),
		Owner: event.Owner{PID: 77, Comm: "nginx"},
	}
}

// refusal is a SYN of the client that PAWS refused.
func refusal(v event.Verdict) *event.PAWSReject {
	return &event.PAWSReject{
		Socket: fromClient(), Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSval: 831048308, TSRecent: 1248945992, Delta: -417897684,
		AgeMS: 1002, HasAge: true, Reply: event.ReplyACK, Reason: "TCP_RFC7323_TW_PAWS", Counter: "PAWSTimewait",
		Judgement: event.Judgement{Verdict: v, Odds: 6.25, OffsetS: -417898.686, HasOffset: true, Because: "the same ports had another clock"},
	}
}

// sequence is a SYN of the client that was refused for its sequence number.
func sequence() *event.SYNReject {
	return &event.SYNReject{
		Socket: fromClient(), Rule: event.RuleSequence, Seq: 1, RcvNxt: 2, AgeMS: 900, HasAge: true, Reply: event.ReplyACK,
		Judgement: event.Judgement{Verdict: event.VerdictSeqReject, Odds: 1, Because: "no timestamps"},
	}
}

// account is what a sources event says of the client.
func account(syns uint64, verdicts map[string]uint64) event.Source {
	s := event.Source{NetNS: netns, Raddr: client, Laddr: serverIP, SYNs: syns, Completed: syns, Verdicts: verdicts}
	for _, n := range verdicts {
		s.Refused += n
	}
	return s
}

func (r *run) sources(list ...event.Source) []*event.Finding {
	r.t.Helper()
	return r.feed(&event.Sources{List: list})
}

// times feeds the same refusal again and again.
func (r *run) times(n int, every time.Duration, next func() event.Event) *run {
	r.t.Helper()
	for range n {
		want(r.t, r.after(every).feed(next()), "")
	}
	return r
}

func refusals(v event.Verdict) func() event.Event {
	return func() event.Event { return refusal(v) }
}

func sequences() event.Event { return sequence() }

// number returns a fact of the evidence.
func number(t *testing.T, f *event.Finding, name string) float64 {
	t.Helper()
	i := slices.IndexFunc(f.Evidence, func(e event.Fact) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("%s: no %s in %v", f.ID, name, f.Evidence)
	}
	return f.Evidence[i].Number
}

// blamesNAT tells whether a finding says that a NAT did it.
func blamesNAT(f *event.Finding) bool {
	return f.Code == diagnose.NATPawsDrop || strings.Contains(f.Summary, "a NAT gave") || strings.Contains(f.Summary, "because hosts with")
}

// TestNATPawsDrop is the story of refused SYNs: one host behind a NAT whose
// ports come back too early.
func TestNATPawsDrop(t *testing.T) {
	r := newRun(t, map[string]string{"net.ipv4.tcp_rfc1337": "1"})
	r.times(147, 5*time.Millisecond, refusals(event.VerdictNATPortRewrite))
	r.times(1, 10*time.Millisecond, refusals(event.VerdictNATMultiClock))
	r.times(2, time.Millisecond, sequences)
	s := account(400, map[string]uint64{"nat-port-rewrite": 147, "nat-multi-clock": 1, "unknown": 4, "seq-reject": 2})
	s.Class, s.Strength, s.Rewritten = event.ClockRandomised, event.StrengthStrong, 290
	got := r.after(time.Millisecond).sources(s)
	want(t, got, "nat-paws-drop:open clock-randomised:open")
	f := got[0]
	const summary = "10.0.1.1: 148 of 400 SYNs to 10.0.1.2:8080 were refused on sockets in TIME_WAIT, " +
		"because a NAT gave their ports to connections with another timestamp clock"
	if f.Summary != summary || f.Severity != event.SeverityCritical || f.Confidence != 0.99 {
		t.Errorf("%s, %v: got\n%s\nwant\n%s", f.Severity, f.Confidence, f.Summary, summary)
	}
	if s := f.Subject; s.NetNS != netns || s.Laddr != serverIP || s.Lport != 8080 || s.Raddr != client || s.Rport != 0 || s.PID != 77 || s.Comm != "nginx" {
		t.Errorf("subject %+v", s)
	}
	for name, n := range map[string]float64{
		"refused": 148, "syns_of_source": 400, "share_of_source": 0.37, "nat_port_rewrite": 147, "nat_multi_clock": 1, "refused_for_sequence": 2, "verdict_unknown": 4,
		"log10_odds_least": 6.25, "log10_odds_median": 6.25, "offset_s_least": -417898.686, "age_ms_median": 1002, "reply_ack": 148,
	} {
		if v := number(t, f, name); v != n {
			t.Errorf("%s: got %v, want %v", name, v, n)
		}
	}
	contains(t, got[1].Summary, "one host or many", "a NAT has changed its ports is seen")
	if !strings.HasPrefix(f.Remedies[0].Do, "sysctl -w net.ipv4.tcp_rfc1337=0") {
		t.Errorf("the first remedy is %q", f.Remedies[0].Do)
	}
	off := remedy(f, "sysctl -w net.ipv4.tcp_timestamps=0")
	if off == nil || remedy(f, "sysctl -w net.ipv4.tcp_timestamps=2") == nil {
		t.Fatalf("%+v", f.Remedies)
	}
	contains(t, off.Caveat, "68 of 800")

	// More of it is told with the next account, and only then.
	r.times(50, 10*time.Millisecond, refusals(event.VerdictNATPortRewrite))
	s.SYNs, s.Verdicts = 500, map[string]uint64{"nat-port-rewrite": 197, "nat-multi-clock": 1}
	got = r.sources(s)
	want(t, got, "nat-paws-drop:update")
	contains(t, got[0].Changed, "SYNs refused: 148 -> 198")
	want(t, r.sources(s), "")
	want(t, r.feed(&event.Stats{}), "")

	r.set("net.ipv4.tcp_rfc1337", "0")
	for range 5 {
		want(t, r.after(10*time.Second).sources(s), "")
	}
	got = r.after(10 * time.Second).sources(s)
	want(t, got, "nat-paws-drop:close")
	contains(t, got[0].Changed, "net.ipv4.tcp_rfc1337: 1 -> 0")
	contains(t, got[0].Summary, "no SYN to 10.0.1.2:8080 has been refused for this reason since")
	r.check()
}

// TestRefusalFindings has each verdict make its own finding, and no other.
func TestRefusalFindings(t *testing.T) {
	rewrite, clocks, restart, late := event.VerdictNATPortRewrite, event.VerdictNATMultiClock, event.VerdictRestart, event.VerdictOldDuplicate
	tests := []struct {
		name     string
		n        int
		every    time.Duration
		make     func() event.Event
		want     string
		severity event.Severity
		summary  string
	}{
		{"rewritten ports", 3, time.Second, refusals(rewrite), "nat-paws-drop", event.SeverityCritical, "10.0.1.1: 3 SYNs to 10.0.1.2:8080 were refused on sockets in TIME_WAIT, because a NAT gave their ports"},
		{"two clocks", 3, time.Second, refusals(clocks), "nat-paws-drop", event.SeverityCritical, "because hosts with different timestamp clocks share the address, and a NAT passes ports"},
		{"both", 4, 100 * time.Millisecond, alternate(refusals(rewrite), refusals(clocks)), "nat-paws-drop", event.SeverityCritical, "4 SYNs"},
		{"two only", 2, time.Second, refusals(rewrite), "", 0, ""},
		{"too far apart", 9, 31 * time.Second, refusals(rewrite), "", 0, ""},
		{"restart", 3, time.Second, refusals(restart), "paws-drop-restart", event.SeverityWarning, "it was restarted, or its address went to another host; nothing points to a NAT"},
		{"old duplicates", 3, time.Second, refusals(late), "paws-drop-old-duplicate", event.SeverityInfo, "old duplicates, from the same timestamp clock, that came late; nothing points to a NAT"},
		{"sequence", 3, time.Second, sequences, "syn-seq-reject", event.SeverityWarning, "for the sequence number, which no counter shows: they carry no timestamps, and their ports are used again within 60 s"},
		{"randomised", 9, time.Second, refusals(event.VerdictClientRandomised), "", 0, ""},
		{"spoofed", 9, time.Second, refusals(event.VerdictSpoofSuspect), "", 0, ""},
		{"unknown", 9, time.Second, refusals(event.VerdictUnknown), "", 0, ""},
		{"not judged", 9, time.Second, refusals(event.VerdictNone), "", 0, ""},
		{"no SYN", 9, time.Second, func() event.Event { p := refusal(rewrite); p.Segment = event.SegmentACK; return p }, "", 0, ""},
		{"no address", 9, time.Second, func() event.Event { p := refusal(rewrite); p.Remote = netip.AddrPort{}; return p }, "", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, nil)
			r.times(tt.n, tt.every, tt.make)
			got := r.after(time.Millisecond).feed(&event.Stats{})
			if tt.want == "" {
				want(t, got, "")
				return
			}
			want(t, got, tt.want+":open")
			contains(t, got[0].Summary, tt.summary)
			if got[0].Severity != tt.severity {
				t.Errorf("%s", got[0].Severity)
			}
			if blamesNAT(got[0]) != (tt.want == "nat-paws-drop") {
				t.Errorf("a NAT is blamed, or is not: %s", got[0].Summary)
			}
			want(t, r.after(61*time.Second).feed(&event.Stats{}), tt.want+":close")
			r.check()
		})
	}
}

func alternate(a, b func() event.Event) func() event.Event {
	n := 0
	return func() event.Event {
		n++
		if n%2 == 0 {
			return a()
		}
		return b()
	}
}

// TestSequenceWithinNAT has SYNs refused for both reasons, in either order.
func TestSequenceWithinNAT(t *testing.T) {
	r := newRun(t, nil)
	r.times(3, time.Second, sequences)
	want(t, r.feed(&event.Stats{}), "syn-seq-reject:open")
	r.times(3, time.Second, refusals(event.VerdictNATPortRewrite))
	got := r.feed(&event.Stats{})
	want(t, got, "nat-paws-drop:open syn-seq-reject:close")
	contains(t, got[1].Summary, "see nat-paws-drop/1")
	if number(t, got[0], "refused_for_sequence") != 3 {
		t.Error("the sequence numbers are not in the evidence")
	}
	r.times(3, time.Second, sequences)
	want(t, r.feed(&event.Stats{}), "")
	r.check()
}

// TestWithoutAccount has neither a sources nor a stats event follow.
func TestWithoutAccount(t *testing.T) {
	r := newRun(t, nil)
	r.times(3, time.Second, refusals(event.VerdictRestart))
	want(t, r.after(900*time.Millisecond).feed(&event.TimeWait{}), "")
	want(t, r.after(200*time.Millisecond).feed(&event.TimeWait{}), "paws-drop-restart:open")
	want(t, r.after(200*time.Millisecond).feed(refusal(event.VerdictRestart)), "")
	want(t, r.after(5*time.Second).feed(&event.TimeWait{}), "")
	want(t, r.feed(&event.Stats{}), "paws-drop-restart:update")
	r.check()
}

// TestSeveralListeners tells the SYNs of one listener from those of others.
func TestSeveralListeners(t *testing.T) {
	r := newRun(t, nil)
	for range 3 {
		other := refusal(event.VerdictNATPortRewrite)
		other.Local = netip.AddrPortFrom(serverIP, 443)
		r.after(time.Second).feed(other)
		r.feed(refusal(event.VerdictNATPortRewrite))
	}
	got := r.sources(account(400, map[string]uint64{"nat-port-rewrite": 9}))
	want(t, got, "nat-paws-drop:open nat-paws-drop:open")
	contains(t, got[0].Summary, "10.0.1.1: 3 SYNs to 10.0.1.2:443, of 400 to all ports of 10.0.1.2, were refused")
	if got[0].Subject.Lport != 443 || got[1].Subject.Lport != 8080 {
		t.Errorf("%+v, %+v", got[0].Subject, got[1].Subject)
	}
	r.check()
}

// TestWithheld has the account of the source know of more than the log shows.
func TestWithheld(t *testing.T) {
	r := newRun(t, nil)
	r.times(3, time.Second, refusals(event.VerdictNATPortRewrite))
	got := r.sources(account(400, map[string]uint64{"nat-port-rewrite": 140, "nat-multi-clock": 8, "nonsense": 9}))
	want(t, got, "nat-paws-drop:open")
	contains(t, got[0].Summary, "148 of 400 SYNs")
	r.check()
}

func TestConfidenceOfRefusals(t *testing.T) {
	for _, tt := range []struct {
		odds, want float64
		lost       uint64
	}{{1.2, 0.941, 0}, {1.5, 0.969, 0}, {2, 0.99, 0}, {9, 0.99, 0}, {9, 0.495, 1000}, {1e300, 0.99, 0}} {
		r := newRun(t, nil)
		if tt.lost > 0 {
			r.feed(&event.Loss{Hop: "ring", Of: "paws_reject", Count: tt.lost})
		}
		r.times(3, time.Second, func() event.Event {
			p := refusal(event.VerdictNATPortRewrite)
			p.Odds = tt.odds
			return p
		})
		got := r.feed(&event.Stats{})
		want(t, got, "nat-paws-drop:open")
		if c := got[0].Confidence; c < tt.want-0.001 || c > tt.want+0.001 {
			t.Errorf("odds %v: confidence %v, want %v", tt.odds, c, tt.want)
		}
		r.check()
	}
}

// TestGuess is the odds without a fact: no finding is made of them alone.
func TestGuess(t *testing.T) {
	r := newRun(t, nil)
	guess := func() event.Event {
		p := refusal(event.VerdictNATPortRewrite)
		p.Odds = 1
		return p
	}
	r.times(20, time.Second, guess)
	want(t, r.feed(&event.Stats{}), "")
	r.times(1, time.Second, refusals(event.VerdictNATPortRewrite))
	got := r.feed(&event.Stats{})
	want(t, got, "nat-paws-drop:open")
	contains(t, got[0].Summary, "21 SYNs")
	r.check()
}

// TestNoNATInInnocentLogs is what must never happen: 100 logs of restarts,
// late duplicates and full queues, in which no NAT is found.
func TestNoNATInInnocentLogs(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		r := newRun(t, nil)
		found := map[string]bool{}
		for range 80 {
			r.after(time.Duration(rnd.IntN(2000)) * time.Millisecond)
			var got []*event.Finding
			switch rnd.IntN(6) {
			case 0:
				got = r.feed(refusal(event.VerdictRestart))
			case 1:
				got = r.feed(refusal(event.VerdictOldDuplicate))
			case 2:
				got = r.feed(drop(uint64(rnd.IntN(20))))
			case 3:
				got = r.feed(sequence())
			case 4:
				s := account(uint64(100+rnd.IntN(900)), map[string]uint64{"restart": 9, "old-duplicate": 9, "unknown": 1})
				s.Class, s.RecycleSYNs, s.Recycle2632 = event.ClockRestarted, 900, uint64(rnd.IntN(300))
				got = r.sources(s)
			default:
				got = r.feed(&event.Stats{})
			}
			for _, f := range got {
				found[f.Code] = true
				if blamesNAT(f) || f.Code == diagnose.SharedSource {
					t.Fatalf("seed %d: %s: %s", seed, f.ID, f.Summary)
				}
				if f.Code == diagnose.NATRecycleDrop && f.State != event.FindingClose {
					contains(t, f.Summary, "that needs no NAT")
				}
			}
		}
		for _, code := range []string{diagnose.PawsDropRestart, diagnose.PawsDropOldDuplicate, diagnose.ListenOverflow} {
			if !found[code] {
				t.Errorf("seed %d: no %s", seed, code)
			}
		}
		if seed%20 == 0 {
			r.check()
		}
	}
}

// TestSYNsBounded floods the engine with sources and destinations.
func TestSYNsBounded(t *testing.T) {
	e := diagnose.New()
	n := 0
	at := func(i int) (event.Header, netip.Addr) {
		return event.Header{Time: epoch.UnixNano() + int64(i)}, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	for i := range 5000 {
		h, a := at(i)
		for range 3 {
			p, d, f := refusal(event.VerdictNATPortRewrite), drop(9), refused(event.SignatureChallengeACK)
			p.Header, d.Header, f.Header = h, h, h
			p.Remote, d.Local, f.Remote = netip.AddrPortFrom(a, 1), netip.AddrPortFrom(a, 1), netip.AddrPortFrom(a, 1)
			n += len(e.Feed(p)) + len(e.Feed(d)) + len(e.Feed(f))
		}
	}
	h, _ := at(2e9)
	n += len(e.Feed(&event.Stats{Header: h}))
	if n != 4*4096 {
		t.Errorf("%d findings, want 4096 of each of three codes, and an update of the listeners'", n)
	}
	// All of it is over, and makes room.
	h.Time += int64(time.Hour)
	e.Feed(&event.Stats{Header: h})
	h.Time += int64(time.Hour)
	e.Feed(&event.Stats{Header: h})
	for range 3 {
		p := refusal(event.VerdictNATPortRewrite)
		p.Header = h
		e.Feed(p)
	}
	if got := states(e.Feed(&event.Stats{Header: h})); got != "nat-paws-drop:open" {
		t.Errorf("after the flood: %q", got)
	}
}

func TestRefusalsAllocateLittle(t *testing.T) {
	e := diagnose.New()
	p, s, f := refusal(event.VerdictUnknown), sequence(), refused(event.SignatureSilence)
	p.Time, s.Time, f.Time = epoch.UnixNano(), epoch.UnixNano(), epoch.UnixNano()
	for range 99 {
		e.Feed(p)
		e.Feed(s)
		e.Feed(f)
	}
	if n := testing.AllocsPerRun(100, func() { e.Feed(p); e.Feed(s); e.Feed(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// tameSYN makes random events about SYNs speak of few addresses.
func tameSYN(rnd *rand.Rand, ev event.Event, at int64) {
	few := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(2))}), port)
	}
	socket := func(s *event.Socket) {
		s.NetNS, s.Local, s.Remote = uint32(rnd.IntN(2)), few(80), few(uint16(rnd.IntN(2)))
	}
	switch ev := ev.(type) {
	case *event.PAWSReject:
		ev.Time = at
		socket(&ev.Socket)
		ev.Segment = event.SegmentSYN
	case *event.SYNReject:
		ev.Time = at
		socket(&ev.Socket)
	case *event.SYNRefused:
		ev.Time = at
		socket(&ev.Socket)
		ev.Remote = few(80)
	case *event.TimeWait:
		ev.Time, ev.Role = at, event.RoleClient
		socket(&ev.Socket)
		ev.Remote = few(80)
	case *event.ListenDrop:
		ev.Time = at
		socket(&ev.Socket)
		ev.Remote = netip.AddrPort{}
	case *event.Sources:
		ev.Time, ev.Omitted = at, uint64(rnd.IntN(2))
		for i := range ev.List {
			s := &ev.List[i]
			s.NetNS, s.Laddr, s.Raddr = uint32(rnd.IntN(2)), few(0).Addr(), few(0).Addr()
			s.RecycleSYNs, s.Recycle2632, s.Recycle310 = uint64(rnd.IntN(1000)), uint64(rnd.IntN(99)), uint64(rnd.IntN(99))
			s.Verdicts = map[string]uint64{event.Verdict(rnd.IntN(9)).String(): uint64(rnd.IntN(99))}
		}
	}
}

func ExampleCodes() {
	for _, c := range diagnose.Codes()[8:] {
		fmt.Println(c.ID)
	}
	// Output:
	// nat-paws-drop
	// syn-seq-reject
	// nat-recycle-drop
	// shared-source
	// peer-refuses-syn
	// paws-drop-restart
	// paws-drop-old-duplicate
	// clock-randomised
	// listen-overflow
}
