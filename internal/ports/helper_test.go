// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"net/netip"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// start is when tests begin.
const start = int64(1_800_000_000e9)

var (
	client = netip.MustParseAddr("10.0.0.1")
	server = netip.MustParseAddrPort("10.0.0.2:8080")
)

const netns = 1

func seconds(s float64) int64 { return int64(s * float64(time.Second)) }

// port returns an address, or that of an address and port, with another port.
func port[A netip.Addr | netip.AddrPort](a A, p uint16) netip.AddrPort {
	switch a := any(a).(type) {
	case netip.Addr:
		return netip.AddrPortFrom(a, p)
	case netip.AddrPort:
		return netip.AddrPortFrom(a.Addr(), p)
	}
	panic("unreachable")
}

// timeWait is the event of a client that closes first, without timestamps.
func timeWait(at int64, local netip.Addr, lport uint16, remote netip.AddrPort) *event.TimeWait {
	e := &event.TimeWait{Header: event.Header{Time: at}, Role: event.RoleClient, TimeoutMS: timeWaitLen}
	e.NetNS, e.Local, e.Remote = netns, netip.AddrPortFrom(local, lport), remote
	return e
}

// only returns the budget of the one destination.
func only(t *testing.T, b *Book, at int64) *event.Destination {
	t.Helper()
	l := b.Budgets(at, 10).List
	if len(l) != 1 {
		t.Fatalf("%d destinations, want 1", len(l))
	}
	return &l[0]
}

// facts are those of a range.
func facts(low, high uint16) Facts {
	return Facts{RangeLow: low, RangeHigh: high, ReuseDelayMS: 1000}
}

// netipPort is the client with a port.
func netipPort(p uint16) netip.AddrPort { return netip.AddrPortFrom(client, p) }
