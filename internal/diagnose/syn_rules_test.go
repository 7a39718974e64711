// SPDX-License-Identifier: Apache-2.0

package diagnose_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// refused is a SYN of ours to 10.0.0.2:80.
func refused(s event.Signature) *event.SYNRefused {
	return &event.SYNRefused{
		Socket: event.Socket{
			NetNS: netns, Local: netip.MustParseAddrPort("10.0.0.1:40000"), Remote: netip.MustParseAddrPort("10.0.0.2:80"),
			Owner: event.Owner{PID: 4123, Comm: "wrk"},
		},
		Signature: s, Attempts: 1, DelayMS: 1020,
	}
}

// drop is an account of nginx[77] at 10.0.1.2:8080.
func drop(n uint64) *event.ListenDrop {
	s := fromClient()
	s.Remote = netip.AddrPort{}
	return &event.ListenDrop{Socket: s, Dropped: n, Overflows: n, Backlog: 129, Limit: 128}
}

// through is a connection to 10.0.0.2:80 that has ended well.
func through() *event.TimeWait {
	return &event.TimeWait{Role: event.RoleClient, Socket: event.Socket{
		NetNS: netns, Local: netip.MustParseAddrPort("10.0.0.1:40001"), Remote: netip.MustParseAddrPort("10.0.0.2:80"),
	}}
}

func TestPeerRefuses(t *testing.T) {
	ack, silence := event.SignatureChallengeACK, event.SignatureSilence
	ended := func(n uint64) *event.Destinations {
		return &event.Destinations{List: []event.Destination{{
			NetNS: netns, Laddr: netip.MustParseAddr("10.0.0.1"), Raddr: netip.MustParseAddr("10.0.0.2"), Rport: 80, ClosedThere: n, ExhaustedInS: -1,
		}}}
	}
	tests := []struct {
		name       string
		feed       func(r *run)
		confidence float64 // 0: no finding
		summary    string
	}{
		{
			"stale ACKs", func(r *run) {
				for range 12 {
					r.after(time.Second).feed(refused(ack))
				}
			}, 0.85,
			"10.0.0.2:80 answered 12 SYNs with a stale ACK: it still holds the old connection (TIME_WAIT or half-open); that does not prove PAWS",
		},
		{"two stale ACKs", func(r *run) { r.feed(refused(ack)); r.feed(refused(ack)) }, 0, ""},
		{
			"both", func(r *run) {
				for range 3 {
					r.feed(refused(ack))
					r.feed(refused(silence))
				}
			}, 0.85, "that does not prove PAWS; 3 SYNs got no answer",
		},
		{
			"a dead peer", func(r *run) {
				for range 50 {
					r.after(time.Second).feed(refused(silence))
				}
			}, 0, "",
		},
		{
			"silence while others get through", func(r *run) {
				for range 4 {
					r.after(time.Second).feed(refused(silence))
					again := refused(silence)
					again.Attempts = 2
					r.after(time.Second).feed(again)
					r.feed(through())
				}
			}, 0.5,
			"10.0.0.2:80 left 8 SYNs of 4 connect() calls unanswered, while 4 connections from other ports got through: it may refuse them silently",
		},
		{
			"others get through, by the budgets", func(r *run) {
				r.feed(refused(silence))
				r.feed(ended(100))
				r.feed(refused(silence))
				r.feed(refused(silence))
				r.after(time.Second).feed(ended(103))
			}, 0.5, "3 SYNs of 3 connect() calls unanswered, while 3 connections",
		},
		{
			"other namespaces get through", func(r *run) {
				for range 4 {
					r.after(100 * time.Millisecond).feed(refused(silence))
					other := through()
					other.NetNS++
					r.feed(other)
				}
			}, 0.4, "4 SYNs of 4 connect() calls unanswered, while 4 connections from other network namespaces of this host got through",
		},
		{
			"a few packets lost", func(r *run) {
				for range 3 {
					r.after(time.Second).feed(refused(silence))
					for range 30 {
						r.feed(through())
					}
				}
			}, 0, "",
		},
		{
			"others got through before", func(r *run) {
				r.feed(refused(silence))
				for range 9 {
					r.feed(through())
				}
				r.after(61 * time.Second)
				for range 3 {
					r.feed(refused(silence))
				}
			}, 0, "",
		},
		{
			"others get through elsewhere", func(r *run) {
				for range 3 {
					r.feed(refused(silence))
					other, served := through(), through()
					other.Remote = netip.MustParseAddrPort("10.0.0.2:81")
					served.Role = event.RoleServer
					r.feed(other)
					r.feed(served)
				}
			}, 0, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, nil)
			tt.feed(r)
			want(t, r.findings, map[bool]string{true: "peer-refuses-syn:open"}[len(r.findings) > 0]) // patience may be over
			r.feed(&event.Stats{})
			if tt.confidence == 0 {
				want(t, r.findings, "")
				return
			}
			f := r.findings[len(r.findings)-1]
			contains(t, f.Summary, tt.summary)
			if f.Confidence != tt.confidence || f.Severity == event.SeverityInfo != (tt.confidence < 0.5) || f.Subject.Rport != 80 || f.Subject.Comm != "wrk" {
				t.Errorf("confidence %v, %s, %+v", f.Confidence, f.Severity, f.Subject)
			}
			if offered := remedy(f, "sysctl -w net.ipv4.tcp_timestamps=1") != nil; offered {
				t.Error("timestamps are on already")
			}
			want(t, r.after(61*time.Second).feed(&event.Stats{}), "peer-refuses-syn:close")
			r.check()
		})
	}
}

func TestListenOverflow(t *testing.T) {
	r := newRun(t, map[string]string{"net.core.somaxconn": "4096", "net.ipv4.tcp_syncookies": "0", "net.ipv4.tcp_max_syn_backlog": "512"})
	want(t, r.feed(drop(0)), "")
	got := r.after(time.Second).feed(drop(4))
	want(t, got, "listen-overflow:open")
	const summary = "10.0.1.2:8080 (nginx[77]): the accept queue is full, 129 connections wait for accept(), the limit is 128; 4 SYNs and final ACKs of handshakes were dropped; no NAT has a part in it"
	if got[0].Summary != summary || got[0].Severity != event.SeverityWarning {
		t.Errorf("%s: %s", got[0].Severity, got[0].Summary)
	}
	if m := remedy(got[0], "give listen() a longer backlog"); m == nil || m.Buys != "bursts of up to 4,096 connections instead of 128, which is what net.core.somaxconn allows" {
		t.Errorf("%+v", got[0].Remedies)
	}
	if remedy(got[0], "sysctl -w net.ipv4.tcp_syncookies=1") == nil || remedy(got[0], "raise net.core.somaxconn") != nil {
		t.Errorf("%+v", got[0].Remedies)
	}
	want(t, r.after(time.Second).feed(drop(36)), "")
	got = r.feed(&event.Stats{})
	want(t, got, "listen-overflow:update")
	contains(t, got[0].Summary, "40 SYNs and final ACKs")
	contains(t, got[0].Changed, "dropped: 4 -> 40")
	if got[0].Severity != event.SeverityCritical || got[0].Subject.Lport != 8080 || got[0].Subject.PID != 77 {
		t.Errorf("%s %+v", got[0].Severity, got[0].Subject)
	}
	// On the same listener a NAT has its refusals, which are others.
	r.times(3, time.Second, refusals(event.VerdictNATPortRewrite))
	got = r.feed(&event.Stats{})
	want(t, got, "nat-paws-drop:open")
	if number(t, got[0], "refused") != 3 {
		t.Errorf("%v", got[0].Evidence)
	}
	contains(t, got[0].Evidence[len(got[0].Evidence)-1].Text, "listen-overflow/1")

	r.set("net.core.somaxconn", "8192")
	got = r.after(61 * time.Second).feed(&event.Stats{})
	want(t, got, "nat-paws-drop:close listen-overflow:close")
	contains(t, got[1].Changed, "net.core.somaxconn: 4096 -> 8192")
	// The next trouble has numbers of its own.
	contains(t, r.after(time.Second).feed(drop(2))[0].Summary, "2 SYNs and final ACKs")
	r.check()
}

func TestListenQueues(t *testing.T) {
	tests := []struct {
		name    string
		change  func(d *event.ListenDrop)
		summary string
		do      string
	}{
		{"listener unknown", func(d *event.ListenDrop) { d.Local, d.Owner, d.Limit = netip.AddrPort{}, event.Owner{}, 0 }, "a listener of network namespace 7 (program unknown): the accept queue is full; 1 SYN or final ACK", "raise net.core.somaxconn"},
		{"SYN queue", func(d *event.ListenDrop) { d.Overflows, d.SYNQueue, d.Backlog = 0, 9, 0 }, "10.0.1.2:8080 (nginx[77]): the SYN queue is full", "give listen()"},
		{"both queues", func(d *event.ListenDrop) { d.SYNQueue = 9 }, "the accept queue and the SYN queue are full, 129 connections wait", "call accept()"},
		{"cookies", func(d *event.ListenDrop) { d.Dropped, d.Overflows, d.Cookies, d.Backlog = 0, 0, 50, 3 }, "the SYN queue is full; 50 SYNs were answered with SYN cookies, none is known to be dropped", "open more listeners"},
		{"limit by sysctl", func(d *event.ListenDrop) { d.Limit = 4096 }, "accept queue is full", "raise net.core.somaxconn"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, map[string]string{"net.core.somaxconn": "4096"})
			d := drop(1)
			tt.change(d)
			got := r.feed(d)
			want(t, got, "listen-overflow:open")
			contains(t, got[0].Summary, tt.summary, "no NAT has a part in it")
			if remedy(got[0], tt.do) == nil {
				t.Errorf("%q is not offered: %+v", tt.do, got[0].Remedies)
			}
			r.check()
		})
	}
}

func TestSources(t *testing.T) {
	of := func(c event.ClockClass, s event.Strength, change func(*event.Source)) event.Source {
		y := account(400, nil)
		y.Class, y.Strength = c, s
		if change != nil {
			change(&y)
		}
		return y
	}
	recycle := func(n uint64) func(*event.Source) {
		return func(y *event.Source) { y.RecycleSYNs, y.Recycle2632, y.Recycle310 = 400, n, n+16 }
	}
	four := func(y *event.Source) { y.Clocks, y.Estimate, y.Low, y.High = 4, 4, 4, 6 }
	tests := []struct {
		name    string
		sysctls map[string]string
		source  event.Source
		want    string // the finding's code, severity and summary; empty: none
		level   event.Severity
		summary string
	}{
		{"one clock", nil, of(event.ClockOne, event.StrengthStrong, nil), "", 0, ""},
		{"shared", nil, of(event.ClockShared, event.StrengthStrong, four), "shared-source", event.SeverityInfo, "at least 4 timestamp clocks share 10.0.1.1 (estimate 4, 95 %: 4 to 6)"},
		{"shared, open", nil, of(event.ClockShared, event.StrengthStrong, func(y *event.Source) { four(y); y.Open = true }), "shared-source", event.SeverityInfo, "(estimate 4, 95 %: 4 or more)"},
		{"shared by one and others", nil, of(event.ClockShared, event.StrengthMedium, func(y *event.Source) { y.Clocks = 1 }), "shared-source", event.SeverityInfo, "at least 2 timestamp clocks share 10.0.1.1 (one is certain"},
		{"perhaps shared", nil, of(event.ClockShared, event.StrengthWeak, four), "", 0, ""},
		{"randomised", nil, of(event.ClockRandomised, event.StrengthStrong, nil), "", 0, ""},
		{"randomised and refused", nil, of(event.ClockRandomised, event.StrengthStrong, func(y *event.Source) { y.Refused = 3 }), "clock-randomised", event.SeverityInfo, "one host or many, which cannot be told, and no sign of a NAT by itself"},
		{"recycle", nil, of(event.ClockOne, event.StrengthStrong, recycle(148)), "nat-recycle-drop", event.SeverityInfo, "10.0.1.1: a server with tcp_tw_recycle would refuse 37 % of these SYNs (Linux 2.6.32; 3.10: 41 %), though one timestamp clock is seen: they came late, or have no timestamps; this kernel does not have it"},
		{"recycle, too few", nil, of(event.ClockOne, event.StrengthStrong, func(y *event.Source) { y.RecycleSYNs, y.Recycle2632 = 18, 9 }), "", 0, ""},
		{"recycle, too small a share", nil, of(event.ClockOne, event.StrengthStrong, func(y *event.Source) { y.RecycleSYNs, y.Recycle2632 = 2000, 19 }), "", 0, ""},
		{"recycle, off here", map[string]string{"net.ipv4.tcp_tw_recycle": "0"}, of(event.ClockRestarted, event.StrengthMedium, recycle(148)), "nat-recycle-drop", event.SeverityWarning, "that needs no NAT; it is off here"},
		{"recycle, on here", map[string]string{"net.ipv4.tcp_tw_recycle": "1"}, of(event.ClockNotEnough, event.StrengthWeak, recycle(148)), "nat-recycle-drop", event.SeverityWarning, "3.10: 41 %); it is on here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRun(t, tt.sysctls)
			got := r.after(time.Second).sources(tt.source)
			if tt.want == "" {
				want(t, got, "")
				return
			}
			want(t, got, tt.want+":open")
			contains(t, got[0].Summary, tt.summary)
			if s := got[0].Subject; got[0].Severity != tt.level || s.Raddr != client || s.Laddr != serverIP || s.Lport != 0 {
				t.Errorf("%s %+v", got[0].Severity, s)
			}
			want(t, r.after(10*time.Second).sources(tt.source), "")
			// Left out of a full list for a while, then not there at all.
			want(t, r.after(10*time.Second).feed(&event.Sources{Omitted: 1}), "")
			for range 40 {
				if got = r.after(10 * time.Second).sources(); len(got) > 0 {
					break
				}
			}
			want(t, got, tt.want+":close")
			r.check()
		})
	}
}

// TestRecycleOfRandomised needs no NAT.
func TestRecycleOfRandomised(t *testing.T) {
	r := newRun(t, nil)
	s := account(400, nil)
	s.Class, s.Strength, s.RecycleSYNs, s.Recycle2632, s.Recycle310 = event.ClockRandomised, event.StrengthStrong, 400, 190, 190
	got := r.sources(s)
	want(t, got, "nat-recycle-drop:open clock-randomised:open")
	contains(t, got[0].Summary, "48 % of these SYNs (Linux 2.6.32; 3.10: 48 %), because its timestamp clock differs from connection to connection; that needs no NAT; this kernel does not have it")
	if remedy(got[0], "sysctl -w net.ipv4.tcp_timestamps=2") == nil {
		t.Errorf("%+v", got[0].Remedies)
	}
	// It turns out to be several clocks.
	s.Class, s.Clocks, s.Estimate, s.Low, s.High = event.ClockShared, 3, 3, 3, 3
	got = r.after(10 * time.Second).sources(s)
	want(t, got, "nat-recycle-drop:update shared-source:open")
	contains(t, got[0].Summary, "because at least 3 timestamp clocks share the address")
	r.after(50 * time.Second).sources(s)
	want(t, r.after(10*time.Second).sources(s), "clock-randomised:close")
	r.check()
}

// TestRecycleHere is a kernel that still refuses.
func TestRecycleHere(t *testing.T) {
	passive := func(from netip.AddrPort, n uint64) *event.PAWSReject {
		p := refusal(event.VerdictNATMultiClock)
		p.Where, p.Remote, p.Count, p.Counter = event.WherePassive, from, n, "PAWSPassive"
		return p
	}
	r := newRun(t, map[string]string{"net.ipv4.tcp_tw_recycle": "1"})
	want(t, r.feed(passive(netip.AddrPortFrom(client, 1), 0)), "")
	s := account(400, nil)
	s.Class, s.Strength, s.Clocks = event.ClockShared, event.StrengthWeak, 2
	got := r.sources(s)
	want(t, got, "nat-recycle-drop:open")
	contains(t, got[0].Summary, "10.0.1.1: tcp_tw_recycle of this kernel has refused 1 SYN, because at least 2 timestamp clocks share the address")
	if got[0].Severity != event.SeverityCritical || got[0].Confidence != 0.97 || remedy(got[0], "sysctl -w net.ipv4.tcp_tw_recycle=0") == nil {
		t.Errorf("%+v", got[0])
	}
	// From the counter alone, nobody knows whose they were.
	p := passive(netip.AddrPort{}, 148)
	p.Local = netip.AddrPort{}
	want(t, r.after(time.Second).feed(p), "")
	got = r.feed(&event.Stats{})
	want(t, got, "nat-recycle-drop:open")
	contains(t, got[0].Summary, "network namespace 7: tcp_tw_recycle of this kernel has refused 148 SYNs")
	r.after(60 * time.Second).feed(&event.Stats{})
	want(t, r.after(60*time.Second).feed(&event.Stats{}), "nat-recycle-drop:close nat-recycle-drop:close")
	r.check()
}
