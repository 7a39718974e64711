// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"testing"

	"github.com/twscope/twscope/internal/event"
)

// TestForeign: the ports of other programs count, their connections do not, and
// neither do destinations that only they use.
func TestForeign(t *testing.T) {
	other := port(server, 9090)
	b := New(Options{Chosen: true})
	b.Namespace(netns, start, facts(20000, 20099))
	b.Foreign(timeWait(start+seconds(1), client, 20001, server))
	b.Foreign(timeWait(start+seconds(1), client, 20002, other))
	b.Census(&event.Census{Header: event.Header{Time: start + seconds(1)}, Socket: event.Socket{
		NetNS: netns, Local: netipPort(20003), Remote: server,
	}, Role: event.RoleClient, RemainingMS: 30_000})
	b.Opens(netns, start+seconds(1.2), []Open{{Local: netipPort(20004), Remote: server, Role: event.RoleClient, Foreign: true}})
	if l := b.Budgets(start+seconds(1.5), 10); len(l.List) != 0 || l.Omitted != 0 {
		t.Fatalf("%+v before there is a connection of the run", l)
	}
	b.Enter(timeWait(start+seconds(2), client, 20005, server))
	reuse := &event.TWReuse{Header: event.Header{Time: start + seconds(3)}}
	reuse.Socket = timeWait(0, client, 20001, server).Socket
	b.Foreign(reuse)
	d := only(t, b, start+seconds(4))
	// of 20001, 20003 and 20005 one was taken over, beside 20004
	if d.TimeWait != 2 || d.InUse != 2 || d.ClosedHere != 1 || d.Reused != 0 {
		t.Errorf("%+v", *d)
	}
}

// TestChosen: what tells that the run is about a destination.
func TestChosen(t *testing.T) {
	for name, tell := range map[string]func(*Book){
		"time_wait": func(b *Book) { b.Enter(timeWait(start+seconds(1), client, 20001, server)) },
		"re-use": func(b *Book) {
			e := &event.TWReuse{Header: event.Header{Time: start + seconds(1)}}
			e.Socket = timeWait(0, client, 20001, server).Socket
			b.Reuse(e)
		},
		"failure": func(b *Book) {
			e := &event.ConnectFail{Header: event.Header{Time: start + seconds(1)}, Errno: eADDRNOTAVAIL, RangeLow: 20000, RangeHigh: 20099}
			e.Socket = timeWait(0, client, 0, server).Socket
			b.Fail(e)
		},
		"open": func(b *Book) {
			b.Opens(netns, start+seconds(1), []Open{{Local: netipPort(20001), Remote: server, Role: event.RoleClient}})
		},
		"closed": func(b *Book) { b.Closed(netns, start+seconds(1), client, server, 1, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			b := New(Options{Chosen: true})
			b.Namespace(netns, start, facts(20000, 20099))
			b.Foreign(timeWait(start+seconds(0.5), client, 20007, server))
			tell(b)
			if d := only(t, b, start+seconds(2)); d.TimeWait == 0 {
				t.Errorf("%+v", *d)
			}
		})
	}
}

// TestForeignForecast: nobody is urged to look at what only others use.
func TestForeignForecast(t *testing.T) {
	for _, mine := range []bool{false, true} {
		b := New(Options{Chosen: true})
		b.Namespace(netns, start, facts(20000, 20999))
		urgent := false
		for i := range 900 {
			at := start + seconds(float64(i)/50)
			e := timeWait(at, client, uint16(20000+i), server)
			if mine {
				b.Enter(e)
			} else {
				b.Foreign(e)
			}
			urgent = b.Urgent(at) || urgent
		}
		if urgent != mine {
			t.Errorf("urgent %t, mine %t", urgent, mine)
		}
	}
}
