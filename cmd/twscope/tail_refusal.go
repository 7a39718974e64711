// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

// replyText says what the kernel answered to what it refused.
func replyText(r event.Reply) string {
	switch r {
	case event.ReplyACK:
		return "answered with an ACK"
	case event.ReplyRateLimited:
		return "answer held back by the rate limit"
	case event.ReplyNone:
		return "not answered"
	}
	return ""
}

// verdictText says why a SYN was refused, if somebody has looked.
func verdictText(j *event.Judgement) string {
	if j.Verdict == event.VerdictNone {
		return ""
	}
	odds, offset := "", ""
	if j.Odds != 0 {
		odds = fmt.Sprintf(", log10 odds %.3g", j.Odds)
	}
	if j.HasOffset {
		way := "ahead"
		if j.OffsetS < 0 {
			way = "behind"
		}
		offset = fmt.Sprintf(", clock %.4g s %s", max(j.OffsetS, -j.OffsetS), way)
	}
	return "verdict " + j.Verdict.String() + parenthesised(strings.TrimPrefix(prefixed(", ", j.Because)+odds+offset, ", "))
}

func synRejectFacts(r *event.SYNReject) string {
	why := map[event.Rule]string{
		event.RuleSequence:   fmt.Sprintf("for its sequence number %d, expected next was %d", r.Seq, r.RcvNxt),
		event.RuleFinWait2:   "in FIN_WAIT2, where no SYN is accepted",
		event.RuleNoListener: "because nobody listens any more",
	}[r.Rule]
	if why == "" {
		why = r.Rule.String()
	}
	age := ""
	if r.HasAge {
		age = duration(r.AgeMS) + " after it entered TIME_WAIT"
	}
	recent := ""
	if r.TSRecent != 0 {
		recent = timestampsText(true, "ts_recent", r.TSRecent)
	}
	return join("SYN refused in TIME_WAIT "+why, timestampsText(r.Timestamps, "TSval", r.TSval), recent, age, replyText(r.Reply),
		verdictText(&r.Judgement), cgroup(&r.Socket))
}

func listenDropFacts(l *event.ListenDrop) string {
	count := func(n uint64, what string) string {
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	queue := ""
	if l.Limit != 0 {
		queue = fmt.Sprintf("%d of at most %d wait for accept()", l.Backlog, l.Limit)
	}
	dropped := fmt.Sprintf("%d dropped", l.Dropped)
	if !l.Local.IsValid() {
		dropped = "a listener, which is not known: " + dropped
	}
	return join(dropped, queue, count(l.Overflows, "for a full accept queue in the namespace"),
		count(l.SYNQueue, "for a full SYN queue in the namespace"), count(l.Cookies, "SYN cookies sent in the namespace"), cgroup(&l.Socket))
}

// maxSources is how many a line shows.
const maxSources = 3

func sourcesFacts(y *event.Sources) string {
	n := uint64(len(y.List)) + y.Omitted
	parts := []string{fmt.Sprintf("%d sources", n)}
	if n == 1 {
		parts[0] = "1 source"
	}
	for i := range y.List[:min(len(y.List), maxSources)] {
		parts = append(parts, sourceText(&y.List[i]))
	}
	if y.Evicted > 0 {
		parts = append(parts, fmt.Sprintf("%d forgotten for want of room", y.Evicted))
	}
	if y.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d SYNs not looked at", y.Skipped))
	}
	return strings.Join(parts, "; ")
}

func sourceText(s *event.Source) string {
	class := strings.ReplaceAll(s.Class.String(), "_", " ")
	switch s.Class {
	case event.ClockNotEnough:
		class = "too few to tell"
	case event.ClockShared:
		class = fmt.Sprintf("%s by at least %d clocks (%s)", class, max(s.Clocks, 2), s.Strength)
	}
	var verdicts []string
	for _, v := range slices.Sorted(maps.Keys(s.Verdicts)) {
		verdicts = append(verdicts, fmt.Sprintf("%d %s", s.Verdicts[v], v))
	}
	refused := ""
	if n := s.Refused + s.Rejected; n > 0 {
		refused = fmt.Sprintf("%d refused%s", n, parenthesised(strings.Join(verdicts, ", ")))
	}
	recycle := ""
	if s.Recycle2632 > 0 || s.Recycle310 > 0 {
		recycle = fmt.Sprintf("tcp_tw_recycle would refuse %d of %d (Linux 3.10: %d)", s.Recycle2632, s.RecycleSYNs, s.Recycle310)
	}
	syns := "SYNs"
	if s.SYNs == 1 {
		syns = "SYN"
	}
	return join(fmt.Sprintf("%s -> %s: %d %s", address(s.Raddr), address(s.Laddr), s.SYNs, syns), class, refused, recycle)
}

// address shows an address, "*" for one that is not known.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return "*"
	}
	return a.String()
}
