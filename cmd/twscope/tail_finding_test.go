// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/event"
)

func TestDestinationsFacts(t *testing.T) {
	d := event.Destination{
		Laddr: netip.MustParseAddr("10.0.0.1"), Raddr: netip.MustParseAddr("10.0.0.2"), Rport: 8080,
		PortsTotal: 1000, TimeWait: 10, SustainableRate: 16.667, ExhaustedInS: -1,
	}
	const text = "10.0.0.1 -> 10.0.0.2:8080: 0 in use, 10 in TIME_WAIT of 1000 ports, 0 re-usable, 0 conn/s of 16.67 sustained"
	for _, tt := range []struct {
		name string
		in   event.Destinations
		want string
	}{
		{"none", event.Destinations{}, "0 destinations"},
		{"one", event.Destinations{List: []event.Destination{d}}, "1 destination; " + text},
		{"one that is left out", event.Destinations{Omitted: 1}, "1 destination"},
		{"more", event.Destinations{List: []event.Destination{d}, Omitted: 1, Evicted: 2}, "2 destinations; " + text + "; 2 forgotten for want of room"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := destinationsFacts(&tt.in); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
