// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// mib is the counters that tell of full queues.
func mib(drops, overflows, synQueue, cookies uint64) kernel.Counters {
	return kernel.Counters{
		"ListenDrops": drops, "ListenOverflows": overflows, "TCPReqQFullDrop": synQueue, "TCPReqQFullDoCookies": cookies,
	}
}

// at is a listener on a port, which is its cookie too.
func at(port uint16, drops uint32) kernel.Listener {
	return kernel.Listener{Cookie: uint64(port), Local: portOf(port), Backlog: 3, Limit: 2, Drops: drops}
}

func portOf(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }

// seen is a look that found listeners, and the counters afterwards, where SYN
// cookies are sent when needed.
func seen(counters kernel.Counters, list ...kernel.Listener) listenLook {
	return listenLook{listed: true, listeners: list, counters: counters, cookies: "1"}
}

func told(port uint16, dropped, overflows, synQueue, cookies uint64) event.ListenDrop {
	e := event.ListenDrop{Dropped: dropped, Overflows: overflows, SYNQueue: synQueue, Cookies: cookies}
	if port != 0 {
		e.Local, e.Backlog, e.Limit = portOf(port), 3, 2
	}
	return e
}

// looked is one look and what it must tell.
type looked struct {
	before kernel.Counters // nil: the same as afterwards
	look   listenLook
	want   []event.ListenDrop
	quiet  bool // there is no reason to look
}

func TestListenBook(t *testing.T) {
	start := listenBook{counters: mib(10, 10, 0, 0), told: mib(10, 10, 0, 0), drops: map[uint64]uint32{80: 10, 22: 4}}
	blind := start
	blind.drops = nil
	always := seen(mib(10, 10, 0, 50))
	always.listed, always.cookies = false, "2"
	never := seen(mib(13, 10, 0, 0), at(80, 13))
	never.cookies = "0"
	alwaysDropped := seen(mib(12, 12, 0, 90), at(80, 12))
	alwaysDropped.cookies = "2"
	tests := []struct {
		name  string
		book  listenBook
		looks []looked
	}{
		{"nothing has grown", start, []looked{{look: seen(mib(10, 10, 0, 0), at(80, 10)), quiet: true}}},
		{"one of two", start, []looked{
			{look: seen(mib(17, 15, 2, 0), at(80, 17), at(22, 4)), want: []event.ListenDrop{told(80, 7, 5, 2, 0)}},
			{look: seen(mib(18, 16, 2, 0), at(80, 18), at(22, 4)), want: []event.ListenDrop{told(80, 1, 1, 0, 0)}},
		}},
		{"both, by address", start, []looked{
			{look: seen(mib(17, 17, 0, 0), at(80, 12), at(22, 9)), want: []event.ListenDrop{told(22, 5, 7, 0, 0), told(80, 2, 7, 0, 0)}},
		}},
		{"a listener that is new", start, []looked{
			{look: seen(mib(13, 13, 0, 0), at(80, 10), at(443, 3)), want: []event.ListenDrop{told(443, 3, 3, 0, 0)}},
		}},
		{"a listener that is closed", start, []looked{
			{look: seen(mib(13, 13, 0, 0), at(22, 4)), want: []event.ListenDrop{told(0, 3, 3, 0, 0)}},
		}},
		{"one that is closed, one that is not", start, []looked{
			{look: seen(mib(15, 15, 0, 0), at(22, 6)), want: []event.ListenDrop{told(22, 2, 5, 0, 0), told(0, 3, 5, 0, 0)}},
		}},
		{"sk_drops wraps", listenBook{counters: mib(0, 0, 0, 0), told: mib(0, 0, 0, 0), drops: map[uint64]uint32{80: 1<<32 - 2}}, []looked{
			{look: seen(mib(5, 5, 0, 0), at(80, 3)), want: []event.ListenDrop{told(80, 5, 5, 0, 0)}},
		}},
		{"drops before TCP are no reason to look", start, []looked{
			{look: seen(mib(10, 10, 0, 0), at(80, 99)), quiet: true},
		}},
		{"nor are they told with others", start, []looked{
			{look: seen(mib(12, 12, 0, 0), at(80, 99)), want: []event.ListenDrop{told(80, 2, 2, 0, 0)}},
			{look: seen(mib(13, 13, 0, 0), at(80, 100)), want: []event.ListenDrop{told(80, 1, 1, 0, 0)}},
		}},
		{"dropped while the list was made, and in it", start, []looked{
			{before: mib(12, 12, 0, 0), look: seen(mib(15, 15, 0, 0), at(80, 15)), want: []event.ListenDrop{told(80, 5, 5, 0, 0)}},
			{look: seen(mib(15, 15, 0, 0), at(80, 15)), quiet: true},
		}},
		{"dropped while the list was made, and not in it", start, []looked{
			{before: mib(12, 12, 0, 0), look: seen(mib(15, 15, 0, 0), at(80, 12)), want: []event.ListenDrop{told(80, 2, 5, 0, 0)}},
			{look: seen(mib(15, 15, 0, 0), at(80, 15)), want: []event.ListenDrop{told(80, 3, 0, 0, 0)}},
			{look: seen(mib(15, 15, 0, 0), at(80, 15)), quiet: true},
		}},
		{"all of it while the list was made", start, []looked{
			{before: mib(10, 10, 0, 0), look: seen(mib(13, 12, 1, 0), at(80, 10))},
			{look: seen(mib(13, 12, 1, 0), at(80, 13)), want: []event.ListenDrop{told(80, 3, 2, 1, 0)}},
		}},
		{"the same, and then it is closed", start, []looked{
			{before: mib(10, 10, 0, 0), look: seen(mib(13, 12, 1, 0), at(80, 10))},
			{look: seen(mib(13, 12, 1, 0)), want: []event.ListenDrop{told(0, 3, 2, 1, 0)}},
		}},
		{"counters of before the last look", start, []looked{
			{look: seen(mib(9, 9, 0, 0), at(80, 10)), quiet: true},
		}},
		{"cookies of the only listener", start, []looked{
			{look: seen(mib(10, 10, 0, 6), at(80, 10)), want: []event.ListenDrop{told(80, 0, 0, 0, 6)}},
			{look: seen(mib(10, 10, 0, 7), at(80, 10)), want: []event.ListenDrop{told(80, 0, 0, 0, 1)}},
		}},
		{"cookies of one of two", start, []looked{
			{look: seen(mib(10, 10, 0, 6), at(80, 10), at(22, 4)), want: []event.ListenDrop{told(0, 0, 0, 0, 6)}},
		}},
		{"cookies, and final ACKs that are dropped", start, []looked{
			{look: seen(mib(14, 14, 0, 6), at(80, 14), at(22, 4)), want: []event.ListenDrop{told(80, 4, 4, 0, 6)}},
		}},
		{"cookies without need", start, []looked{
			{look: always},
			{look: alwaysDropped, want: []event.ListenDrop{told(80, 2, 2, 0, 0)}},
		}},
		{"dropped for another reason than a full queue", start, []looked{
			{look: seen(mib(13, 10, 0, 0), at(80, 13))},
			{look: seen(mib(13, 10, 0, 0), at(80, 13)), quiet: true},
			{look: seen(mib(15, 12, 0, 0), at(80, 13), at(22, 6)), want: []event.ListenDrop{told(22, 2, 2, 0, 0)}},
		}},
		{"dropped for the last quarter of the SYN queue", start, []looked{{look: never, want: []event.ListenDrop{told(80, 3, 0, 0, 0)}}}},
		{"listeners cannot be listed", blind, []looked{
			{look: listenLook{counters: mib(13, 12, 1, 0)}, want: []event.ListenDrop{told(0, 3, 2, 1, 0)}},
			{look: listenLook{counters: mib(13, 12, 1, 9)}, want: []event.ListenDrop{told(0, 0, 0, 0, 9)}},
		}},
		{"a list that failed once", start, []looked{
			{look: listenLook{counters: mib(13, 13, 0, 0)}, want: []event.ListenDrop{told(0, 3, 3, 0, 0)}},
			{look: seen(mib(15, 15, 0, 0), at(80, 15)), want: []event.ListenDrop{told(0, 2, 2, 0, 0)}},
			{look: seen(mib(16, 16, 0, 0), at(80, 16)), want: []event.ListenDrop{told(80, 1, 1, 0, 0)}},
		}},
		{"a kernel that lacks the counters of the SYN queue", listenBook{
			counters: kernel.Counters{"ListenDrops": 1, "ListenOverflows": 0}, told: kernel.Counters{"ListenDrops": 1, "ListenOverflows": 0}, drops: map[uint64]uint32{},
		}, []looked{
			{look: seen(kernel.Counters{"ListenDrops": 3, "ListenOverflows": 2}, at(80, 2)), want: []event.ListenDrop{told(80, 2, 2, 0, 0)}},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for i, l := range test.looks {
				if l.before == nil {
					l.before = l.look.counters
				}
				if got := !test.book.stirred(l.look.counters); got != l.quiet {
					t.Fatalf("look %d: quiet is %t, want %t", i, got, l.quiet)
				}
				if l.quiet {
					continue
				}
				got := test.book.account(l.before, l.look)
				if diff := cmp.Diff(l.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
					t.Fatalf("look %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}
