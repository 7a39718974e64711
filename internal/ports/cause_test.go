// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
)

// fail is a connect() to server that found no port.
func fail(at int64) *event.ConnectFail {
	e := &event.ConnectFail{Header: event.Header{Time: at}, Errno: eADDRNOTAVAIL}
	e.NetNS, e.Local, e.Remote = netns, netipPort(0), server
	return e
}

// waits puts ports of the range from 10,000 on into TIME_WAIT.
func waits(b *Book, n int, change func(*event.TimeWait)) {
	for i := range n {
		e := timeWait(start, client, uint16(10_000+i), server)
		if change != nil {
			change(e)
		}
		b.Enter(e)
	}
}

// opens opens n connections from a port on.
func opens(b *Book, first uint16, n int, remote netip.AddrPort, bound bool) {
	var list []Open
	for i := range n {
		list = append(list, Open{Local: netipPort(first + uint16(i)), Remote: remote, Role: event.RoleClient, Bound: bound})
	}
	b.Opens(netns, start, list)
}

func timestamps(e *event.TimeWait) { e.Timestamps = true }

func portSet(first, last uint16) *PortSet {
	s := new(PortSet)
	s.Add(first, last)
	return s
}

// explained is what Fail fills in.
type explained struct {
	Cause                event.Cause
	Total, Waiting, Open uint32
	Refused              event.Refused
	Timestamps           event.TimestampUse
}

type causeCase struct {
	name  string
	facts Facts // of a range from 10,000 to 10,199 unless it has one
	setup func(b *Book)
	after int64                      // ns, when connect() fails
	fail  func(e *event.ConnectFail) // changes the failure
	want  explained
}

const minute = 60_000 * msPerNS

func causeCases() []causeCase {
	yes, no, mixed, unknown := event.TimestampsYes, event.TimestampsNo, event.TimestampsMixed, event.TimestampsUnknown
	all := func(change func(*event.TimeWait)) func(*Book) {
		return func(b *Book) { waits(b, 200, change) }
	}
	return []causeCase{
		{
			name: "no timestamps", facts: Facts{TWReuse: 1}, setup: all(nil), after: 5e9,
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{NoTimestamps: 200}, no},
		}, {
			name: "disabled", setup: all(timestamps), after: 5e9,
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{Disabled: 200}, yes},
		}, {
			name: "loopback only", facts: Facts{TWReuse: 2}, setup: all(timestamps), after: 5e9,
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{LoopbackOnly: 200}, yes},
		}, {
			name: "too young", facts: Facts{TWReuse: 1, ReuseDelayMS: 1000}, setup: all(timestamps), after: 0.9e9,
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{TooYoung: 200}, yes},
		}, {
			name: "old enough, by our count", facts: Facts{TWReuse: 1, ReuseDelayMS: 1000}, setup: all(timestamps), after: 1.1e9,
			want: explained{event.CauseOther, 200, 200, 0, event.Refused{}, yes},
		}, {
			name: "FIN_WAIT2", facts: Facts{TWReuse: 1}, after: 5e9,
			setup: func(b *Book) {
				for i := range 200 {
					e := &event.Census{Header: event.Header{Time: start}, Role: event.RoleClient, Substate: event.SubstateFinWait2, RemainingMS: 50_000, Timestamps: true}
					e.NetNS, e.Local, e.Remote = netns, netipPort(uint16(10_000+i)), server
					b.Census(e)
				}
			},
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{FinWait2: 200}, yes},
		}, {
			name: "of every kind", facts: Facts{TWReuse: 1, ReuseDelayMS: 1000}, after: 0.5e9,
			setup: func(b *Book) {
				waits(b, 120, nil)
				for i := 120; i < 200; i++ {
					e := timeWait(start, client, uint16(10_000+i), server)
					e.Timestamps = true
					b.Enter(e)
				}
			},
			want: explained{event.CauseTimeWaitNotReusable, 200, 200, 0, event.Refused{NoTimestamps: 120, TooYoung: 80}, mixed},
		}, {
			name: "in use", setup: func(b *Book) { waits(b, 50, nil); opens(b, 10_050, 150, server, false) }, after: 1e9,
			want: explained{event.CausePortsInUse, 200, 50, 150, event.Refused{NoTimestamps: 50}, no},
		}, {
			name: "in use, a few not seen yet", setup: func(b *Book) { opens(b, 10_000, 195, server, false) },
			want: explained{event.CausePortsInUse, 200, 0, 195, event.Refused{}, unknown},
		}, {
			name: "tiny range", facts: facts(10_000, 10_009), setup: func(b *Book) { waits(b, 10, nil) }, after: 1e9,
			want: explained{event.CauseRangeTiny, 10, 10, 0, event.Refused{NoTimestamps: 10}, no},
		}, {
			name: "range of one", facts: facts(10_000, 10_000), setup: func(b *Book) { waits(b, 1, nil) }, after: 1e9,
			want: explained{event.CauseRangeTiny, 1, 1, 0, event.Refused{NoTimestamps: 1}, no},
		}, {
			name: "range of the socket", setup: func(b *Book) { waits(b, 20, nil) }, after: 1e9,
			fail: func(e *event.ConnectFail) { e.RangeLow, e.RangeHigh = 10_000, 10_019 },
			want: explained{event.CauseRangeTiny, 20, 20, 0, event.Refused{NoTimestamps: 20}, no},
		}, {
			name: "reserved", facts: Facts{Reserved: portSet(10_010, 10_199)}, setup: func(b *Book) { waits(b, 10, nil) }, after: 1e9,
			want: explained{event.CauseReserved, 10, 10, 0, event.Refused{NoTimestamps: 10}, no},
		}, {
			name: "all reserved", facts: Facts{Reserved: portSet(1, 65535)},
			want: explained{event.CauseReserved, 0, 0, 0, event.Refused{}, unknown},
		}, {
			name: "half reserved, but that is not the cause", facts: Facts{Reserved: portSet(10_100, 10_199)},
			setup: func(b *Book) { waits(b, 100, nil) }, after: 1e9,
			want: explained{event.CauseTimeWaitNotReusable, 100, 100, 0, event.Refused{NoTimestamps: 100}, no},
		}, {
			name: "bound to another destination", setup: func(b *Book) { opens(b, 10_000, 200, port(server, 99), true) },
			want: explained{event.CauseBoundWithoutNoPort, 0, 0, 0, event.Refused{}, unknown},
		}, {
			name: "bound, in TIME_WAIT", facts: Facts{TWReuse: 1}, setup: all(func(e *event.TimeWait) { e.Bound, e.Timestamps = true, true }), after: 5e9,
			want: explained{event.CauseBoundWithoutNoPort, 200, 200, 0, event.Refused{}, yes},
		}, {
			name: "blocked by listeners and others", facts: Facts{Blocked: portSet(10_000, 10_149)},
			setup: func(b *Book) { opens(b, 10_150, 50, server, false) },
			want:  explained{event.CauseBoundWithoutNoPort, 50, 0, 50, event.Refused{}, unknown},
		}, {
			name: "explicit bind, in TIME_WAIT", setup: func(b *Book) { waits(b, 3, nil) }, after: 1e9,
			fail: func(e *event.ConnectFail) { e.Local = netipPort(10_001) },
			want: explained{event.CauseExplicitBindConflict, 200, 1, 0, event.Refused{NoTimestamps: 1}, no},
		}, {
			name: "explicit bind, in use", setup: func(b *Book) { opens(b, 500, 1, server, true) },
			fail: func(e *event.ConnectFail) { e.Local = netipPort(500) },
			want: explained{event.CauseExplicitBindConflict, 200, 0, 1, event.Refused{}, unknown},
		}, {
			name: "no route", setup: all(nil), fail: func(e *event.ConnectFail) { e.Errno = eNETUNREACH },
			want: explained{Cause: event.CauseNoRouteOrAddress},
		}, {
			name: "no IPv6 source address", fail: func(e *event.ConnectFail) {
				e.Local, e.Remote = netip.MustParseAddrPort("[::]:0"), netip.MustParseAddrPort("[2001:db8::1]:80")
			},
			want: explained{Cause: event.CauseNoRouteOrAddress},
		}, {
			name: "an error that is not about ports", setup: all(nil), fail: func(e *event.ConnectFail) { e.Errno = 13 },
			want: explained{Cause: event.CauseOther},
		}, {
			name: "ports are left", setup: func(b *Book) { waits(b, 150, nil) }, after: 1e9,
			want: explained{event.CauseOther, 200, 150, 0, event.Refused{NoTimestamps: 150}, no},
		}, {
			name: "nothing is known", facts: Facts{RangeLow: 2, RangeHigh: 1},
			want: explained{event.CauseOther, 0, 0, 0, event.Refused{}, unknown},
		}, {
			name: "TIME_WAIT is over", setup: all(nil), after: minute + 3e9,
			want: explained{event.CauseOther, 200, 0, 0, event.Refused{}, no},
		}, {
			name: "another source address", setup: all(nil), after: 1e9,
			fail: func(e *event.ConnectFail) { e.Local = netip.MustParseAddrPort("10.0.0.9:0") },
			want: explained{event.CauseOther, 200, 0, 0, event.Refused{}, unknown},
		}, {
			name: "an event without addresses", fail: func(e *event.ConnectFail) { e.Socket = event.Socket{} },
			want: explained{Cause: event.CauseOther},
		},
	}
}

func TestCause(t *testing.T) {
	for _, tt := range causeCases() {
		t.Run(tt.name, func(t *testing.T) {
			b := New(Options{HZ: 250})
			if tt.facts.RangeLow == 0 {
				tt.facts.RangeLow, tt.facts.RangeHigh = 10_000, 10_199
			}
			b.Namespace(netns, start, tt.facts)
			if tt.setup != nil {
				tt.setup(b)
			}
			e := fail(start + tt.after)
			// what it held before must not stay
			e.PortsTotal, e.PortsTimeWait, e.PortsInUse, e.Timestamps = 9, 9, 9, event.TimestampsMixed
			if tt.fail != nil {
				tt.fail(e)
			}
			b.Fail(e)
			got := explained{e.Cause, e.PortsTotal, e.PortsTimeWait, e.PortsInUse, e.Refused, e.Timestamps}
			if diff := gocmp.Diff(tt.want, got); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

// TestSurveyIsRare: a flood of failures in a range of their own does not have
// every port looked at again each time, but what changes is seen in time.
func TestSurveyIsRare(t *testing.T) {
	b := New(Options{HZ: 250})
	b.Namespace(netns, start, facts(10_000, 10_999))
	waits(b, 100, nil)
	own := func(at int64) *event.ConnectFail {
		e := fail(at)
		e.RangeLow, e.RangeHigh = 10_000, 10_099
		b.Fail(e)
		return e
	}
	if e := own(start + 1e9); e.PortsTimeWait != 100 || e.Cause != event.CauseTimeWaitNotReusable {
		t.Errorf("%d in TIME_WAIT, cause %d", e.PortsTimeWait, e.Cause)
	}
	leave := &event.TimeWaitEnd{Header: event.Header{Time: start + 1e9}}
	leave.NetNS, leave.Local, leave.Remote = netns, netipPort(10_000), server
	b.Leave(leave)
	if e := own(start + 1e9 + 100_000); e.PortsTimeWait != 100 {
		t.Errorf("looked again after 0.1 ms: %d", e.PortsTimeWait)
	}
	if e := own(start + 1e9 + 300_000); e.PortsTimeWait != 99 {
		t.Errorf("not looked again after 0.3 ms: %d", e.PortsTimeWait)
	}
	d := only(t, b, start+2e9)
	if len(d.Unknown) == 0 || d.ExhaustedInS == 0 {
		t.Errorf("the range of the socket is taken for that of the namespace: %+v", d)
	}
}

// TestChangedRange: the events of a change of the range, and what is told of
// the namespace, come in any order. Neither makes the range that was searched
// one of the socket's own.
func TestChangedRange(t *testing.T) {
	was, is := facts(10_000, 10_099), facts(10_000, 10_199)
	search := func(b *Book, f Facts, at int64) *event.ConnectFail {
		e := fail(at)
		e.RangeLow, e.RangeHigh = f.RangeLow, f.RangeHigh
		b.Fail(e)
		return e
	}
	for name, tt := range map[string]struct {
		searched Facts
		at       float64 // s after the start; the change is told at 1 s
		unknown  bool
	}{
		"early":    {is, 0.5, false},
		"late":     {was, 1.5, false},
		"its own":  {facts(10_000, 10_049), 0.5, true},
		"too late": {was, 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := New(Options{HZ: 250})
			b.Jiffies(start, 5)
			b.Namespace(netns, start, was)
			b.Opens(netns, start, nil)
			waits(b, 200, nil)
			told := start + seconds(1)
			at := start + seconds(tt.at)
			if at > told {
				b.Namespace(netns, told, is)
			}
			if e := search(b, tt.searched, at); e.Cause != event.CauseTimeWaitNotReusable {
				t.Errorf("%+v", *e)
			}
			b.Namespace(netns, max(at, told), is)
			if d := only(t, b, max(at, told)); (len(d.Unknown) > 0) != tt.unknown {
				t.Errorf("unknown: %q", d.Unknown)
			}
		})
	}
}

// TestFailedCalls: three failures of Go's net.Dial are one call.
func TestFailedCalls(t *testing.T) {
	b := New(Options{})
	b.Namespace(netns, start, facts(10_000, 10_999))
	for i := range 7 {
		e := fail(start + int64(i))
		e.PerCall = 3
		e.Owner = event.Owner{PID: 7, Comm: "dialer"}
		b.Fail(e)
	}
	b.Fail(fail(start + 8))
	d := only(t, b, start+9)
	if d.Failed != 8 || d.FailedCalls != 2 || d.PID != 7 || d.Comm != "dialer" {
		t.Errorf("%d failures, %d calls of %s[%d]", d.Failed, d.FailedCalls, d.Comm, d.PID)
	}
	if !b.Urgent(start+10) || b.Urgent(start+11) {
		t.Error("the first failure is urgent, and once")
	}
}
