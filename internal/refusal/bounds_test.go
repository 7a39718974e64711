// SPDX-License-Identifier: Apache-2.0

package refusal_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/refusal"
)

func forged(i int) event.SYN {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a000000+uint32(i))
	return event.SYN{
		Header: head(i / 1000),
		Socket: event.Socket{
			NetNS: netns, Local: netip.MustParseAddrPort("198.51.100.1:80"),
			Remote: netip.AddrPortFrom(netip.AddrFrom4(a), uint16(i)),
		},
		Timestamps: true, TSval: uint32(i) * 2_654_435_761, TTL: 60,
	}
}

// TestFlood has forged sources drive out no true one, nor its 4-tuples.
func TestFlood(t *testing.T) {
	s := &story{newJudge(t, refusal.Options{Sources: 256, Tuples: 512, Seed: [2]uint64{1, 2}}), "192.0.2.1"}
	s.connects(0, 1, clockC)
	s.connects(10_000, 1, clockB)
	const n = 200_000
	for i := range n {
		e := forged(i)
		e.Time += 10_000 * ms
		s.SYN(&e)
	}
	if got := s.refused(20_000, 1, clockC+20_000, clockB, 10_000); got.Verdict != event.VerdictNATPortRewrite {
		t.Errorf("after the flood a clock that returns is judged %s (%s)", got.Verdict, got.Because)
	}
	all := s.Sources(head(20_000).Time, 1000)
	if len(all.List) != 1 || all.Evicted == 0 {
		t.Errorf("there are %d sources, %d evicted", len(all.List), all.Evicted)
	}
	for i := range 2000 { // true ones are bounded too
		e := forged(i)
		e.Time, e.Validated = head(20_000+i).Time, true
		s.SYN(&e)
	}
	if all := s.Sources(head(30_000).Time, 10_000); len(all.List) > 256 {
		t.Errorf("there are %d sources", len(all.List))
	}
}

// TestSame has the same events judged the same, whatever the order of maps.
func TestSame(t *testing.T) {
	r := lab(rig{hosts: 3, keys: perTuple, rate: 50, copies: 0.02, late: 5 * second, print: linuxPrint})
	var first *event.Sources
	for range 3 {
		j := newJudge(t, refusal.Options{Sources: 100, Tuples: 150, Seed: [2]uint64{4, 5}})
		r.into(j, 9)
		got := j.Sources(epoch+r.span, 10)
		if first == nil {
			first = got
		}
		if d := cmp.Diff(first, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
	}
}

// steady returns a step of a busy source: SYN, TIME_WAIT, and a refusal of a
// SYN on it.
func steady(s *story) func() {
	at := 0
	remote, local := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.1:80")
	syn := event.SYN{Timestamps: true, TTL: 60, Fingerprint: linuxPrint}
	wait := event.TimeWait{Role: event.RoleServer, Timestamps: true}
	paws := event.PAWSReject{
		Where: event.WhereTimeWait, Segment: event.SegmentSYN, HasAge: true, AgeMS: 5, TTL: 60, Fingerprint: linuxPrint,
	}
	return func() {
		at += 10
		socket := event.Socket{NetNS: netns, Local: local, Remote: netip.AddrPortFrom(remote, uint16(1000+at/10%200))}
		clock := uint32(at/10) * 2_654_435_761
		syn.Header, syn.Socket, syn.TSval, syn.Validated = head(at), socket, clock, false
		s.SYN(&syn)
		syn.Validated = true
		s.SYN(&syn)
		wait.Header, wait.Socket, wait.TSRecent = head(at+1), socket, clock+1
		s.TimeWait(&wait)
		paws.Header, paws.Socket, paws.TSval, paws.TSRecent = head(at+6), socket, clock-1e9, clock+1
		s.PAWS(&paws)
	}
}

func TestAllocs(t *testing.T) {
	step := steady(tell(t))
	for range 5000 {
		step()
	}
	if n := testing.AllocsPerRun(2000, step); n != 0 {
		t.Errorf("%g allocations per connection", n)
	}
}

// BenchmarkConnection is four events: a SYN, its completion, its TIME_WAIT and
// a refusal on that.
func BenchmarkConnection(b *testing.B) {
	step := steady(tell(b))
	for range 5000 {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

func BenchmarkForgedSYN(b *testing.B) {
	j := newJudge(b, refusal.Options{Sources: 1 << 14})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		e := forged(i & (1<<22 - 1))
		j.SYN(&e)
		i++
	}
}

// FuzzJudge feeds any events in any order: it must not panic, every judgement
// is whole, and the counts add up.
func FuzzJudge(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 1, 1, 2, 3, 4, 5, 6, 7, 2, 1, 2, 3, 4, 5, 6, 7, 3, 1, 9, 3, 4, 5, 6, 7})
	f.Add([]byte("time goes back, and a clock goes everywhere else"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j := newJudge(t, refusal.Options{Sources: 3, Tuples: 5})
		at, refusals := 0, uint64(0)
		for ; len(raw) >= 8; raw = raw[8:] {
			at += int(int16(binary.LittleEndian.Uint16(raw[2:])))
			s := story{j, netip.AddrFrom4([4]byte{192, 0, 2, raw[1] % 5}).String()}
			socket, v := s.socket(int(raw[1]>>4)), binary.LittleEndian.Uint32(raw[4:])
			switch raw[0] % 6 {
			case 0:
				j.SYN(&event.SYN{Header: head(at), Socket: socket, Timestamps: raw[0]&8 != 0, TSval: v, Validated: raw[0]&16 != 0})
			case 1:
				j.TimeWait(&event.TimeWait{Header: head(at), Socket: socket, Role: event.Role(raw[0] / 6 % 3), Substate: event.Substate(raw[0] / 32 % 2), Timestamps: raw[0]&8 != 0, TSRecent: v})
			case 2:
				j.Census(&event.Census{Header: head(at), Socket: socket, Timestamps: raw[0]&8 != 0, TSRecent: v, RemainingMS: v >> 8})
			case 3:
				e := s.reject(at, int(raw[1]>>4), v, v<<7, at-int(raw[0]))
				e.Where = event.WhereTimeWait + event.Where(raw[0]/6%2)
				j.PAWS(e)
				whole(t, e.Judgement)
				refusals++
			case 4:
				e := &event.SYNReject{Header: head(at), Socket: socket, Rule: event.Rule(raw[0] / 6 % 4), Timestamps: raw[0]&8 != 0, TSval: v, TSRecent: v << 7, Seq: v, RcvNxt: v >> 3, HasAge: true, AgeMS: uint32(raw[0])}
				j.Reject(e)
				whole(t, e.Judgement)
				refusals++
			case 5:
				if raw[0] > 250 {
					j.Forget(netns)
				}
			}
		}
		sum := uint64(0)
		for _, s := range j.Sources(head(at).Time, 10).List {
			for _, n := range s.Verdicts {
				sum += n
			}
			if n := s.Refused + s.Rejected; s.RecycleSYNs > s.SYNs || n > s.SYNs {
				t.Errorf("counts do not add up: %+v", s)
			}
		}
		if sum > refusals {
			t.Errorf("%d verdicts of %d refusals", sum, refusals)
		}
	})
}

func whole(t *testing.T, v event.Judgement) {
	t.Helper()
	if v.Verdict == event.VerdictNone || v.Because == "" || v.Odds < 0 || v.Odds > 12 || (v.Verdict == event.VerdictUnknown) != (v.Odds == 0) {
		t.Errorf("a judgement is not whole: %+v", v)
	}
}
