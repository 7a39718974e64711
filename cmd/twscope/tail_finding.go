// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

func findingColor(ev event.Event) string {
	f, ok := ev.(*event.Finding)
	switch {
	case !ok:
		return sgrDim
	case f.State == event.FindingClose:
		return sgrGreen
	case f.Severity == event.SeverityCritical:
		return sgrRed
	case f.Severity == event.SeverityWarning:
		return sgrYellow
	}
	return sgrCyan
}

// findingFacts shows what a finding says; its remedies when it opens, because
// an update offers the same ones.
func findingFacts(f *event.Finding) string {
	var b strings.Builder
	state := map[event.FindingState]string{event.FindingUpdate: " update", event.FindingClose: " closed"}[f.State]
	fmt.Fprintf(&b, "%s %s%s: %s", f.Severity, f.ID, state, f.Summary)
	b.WriteString(prefixed("; changed: ", f.Changed))
	if f.State != event.FindingOpen {
		return b.String()
	}
	for i, r := range f.Remedies[:min(len(f.Remedies), maxRemedies)] {
		if i == 0 {
			b.WriteString("; what helps: ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(r.Do + parenthesised(r.Buys))
	}
	if n := len(f.Remedies) - maxRemedies; n > 0 {
		fmt.Fprintf(&b, "; and %d more", n)
	}
	fmt.Fprintf(&b, "; confidence %.0f %%, see 'twscope explain %s'", 100*f.Confidence, f.Code)
	return b.String()
}

// maxRemedies is how many a line shows.
const maxRemedies = 3

func parenthesised(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// maxDestinations is how many a line shows.
const maxDestinations = 3

func destinationsFacts(d *event.Destinations) string {
	what := "destinations"
	n := uint64(len(d.List)) + d.Omitted
	if n == 1 {
		what = "destination"
	}
	parts := []string{fmt.Sprintf("%d %s", n, what)}
	for i := range d.List[:min(len(d.List), maxDestinations)] {
		parts = append(parts, destinationText(&d.List[i]))
	}
	if d.Evicted > 0 {
		parts = append(parts, fmt.Sprintf("%d forgotten for want of room", d.Evicted))
	}
	return strings.Join(parts, "; ")
}

func destinationText(d *event.Destination) string {
	local := "*"
	if d.Laddr.IsValid() {
		local = d.Laddr.String()
	}
	fate := ""
	switch {
	case d.ExhaustedInS == 0:
		fate = "used up"
	case d.ExhaustedInS > 0:
		fate = "used up in " + strconv.FormatFloat(math.Round(d.ExhaustedInS), 'f', 0, 64) + " s"
	}
	failed := ""
	if d.Failed > 0 {
		failed = fmt.Sprintf("%d connect() failed", d.Failed)
	}
	return join(fmt.Sprintf("%s -> %s: %d in use, %d in TIME_WAIT of %d ports", local, endpoint(netip.AddrPortFrom(d.Raddr, d.Rport)), d.InUse, d.TimeWait, d.PortsTotal),
		fmt.Sprintf("%d re-usable", d.Reusable), fmt.Sprintf("%.4g conn/s of %.4g sustained", d.Rate, d.SustainableRate), fate, failed)
}

// causeText shows why connect() failed, if somebody has looked.
func causeText(c *event.ConnectFail) string {
	if c.Cause == event.CauseUnknown {
		return ""
	}
	text := strings.ReplaceAll(c.Cause.String(), "_", " ")
	if c.PortsTotal > 0 {
		text += fmt.Sprintf(" (%d of %d ports in TIME_WAIT, %d in use)", c.PortsTimeWait, c.PortsTotal, c.PortsInUse)
	}
	return text
}
