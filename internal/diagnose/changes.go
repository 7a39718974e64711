// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"strings"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/kernel"
)

// ending is how connections end.
type ending uint8

const (
	endMixed ending = iota // or not known
	endHere
	endThere
	endReset
)

// snapshot is the numbers behind a judgement, to tell later what has changed.
type snapshot struct {
	at        int64 // ns
	budget    event.Destination
	load      float64
	failed    uint64 // calls of the kernel
	calls     uint64 // of programs
	knowCalls bool
	settings  [len(telling)]string
	// synSettings are those of findings about SYNs.
	synSettings [len(synSysctls)]string
	// endings is how most connections ended up to here, since the snapshot
	// before that was told.
	endings  ending
	foreseen float64 // Unix time in seconds at which the ports are to be used up
	held     uint64  // what a namespace's finding counts, or one about SYNs
	what     string  // of what
}

// telling are the sysctls whose change is told.
var telling = [...]string{
	kernel.SysctlTWReuse, kernel.SysctlTWReuseDelay, kernel.SysctlTimestamps,
	kernel.SysctlPortRange, kernel.SysctlReservedPorts, kernel.SysctlMaxTWBuckets,
}

func (n *namespace) settings() (s [len(telling)]string) {
	for i, name := range telling {
		s[i] = n.sysctls[name]
	}
	return s
}

func (v *view) snapshot() snapshot {
	s := snapshot{at: v.now, budget: v.budget, load: v.load(), failed: v.budget.Failed, settings: v.ns.settings()}
	s.calls, s.knowCalls = v.calls()
	b := &v.budget
	s.endings = dominant(b.ClosedHere, b.ClosedThere, b.ClosedReset)
	return s
}

// dominant returns how at least three in five of connections ended.
func dominant(here, there, reset uint64) ending {
	all := here + there + reset
	switch {
	case all < 5:
	case reset*5 >= all*3:
		return endReset
	case there*5 >= all*3:
		return endThere
	case here*5 >= all*3:
		return endHere
	}
	return endMixed
}

// since says what has changed since a finding was told last, in numbers, so
// that one can see what a remedy has done.
func (s *snapshot) since(told, first *snapshot) string {
	var parts []string
	add := func(text string) {
		if text != "" {
			parts = append(parts, text)
		}
	}
	for i, name := range telling {
		if was, is := told.settings[i], s.settings[i]; was != is {
			add(name + ": " + orNone(was) + " -> " + orNone(is))
		}
	}
	for i, name := range synSysctls {
		if was, is := told.synSettings[i], s.synSettings[i]; was != is {
			add(name + ": " + orNone(was) + " -> " + orNone(is))
		}
	}
	if s.what != "" {
		add(more(told.held, s.held, s.what))
		return strings.Join(parts, "; ")
	}
	add(s.failures(told))
	if was, is := told.budget.PortsTotal, s.budget.PortsTotal; was != is {
		add(fmt.Sprintf("usable ports: %s -> %s", group(was), group(is)))
	}
	if was, is := told.budget.Timestamps, s.budget.Timestamps; was != is && is != event.TimestampsUnknown {
		add("TCP timestamps: " + was.String() + " -> " + is.String())
	}
	add(s.ends(told, first))
	if n := grown(told.budget.Reused, s.budget.Reused); n > 0 {
		add(several(n, "socket in TIME_WAIT was taken over", "sockets in TIME_WAIT were taken over") + " by connect()")
	}
	add(s.pace(told))
	return strings.Join(parts, "; ")
}

func more(was, is uint64, what string) string {
	if was == is {
		return ""
	}
	return what + ": " + group(was) + " -> " + group(is)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// failures tells both numbers where both are known.
func (s *snapshot) failures(told *snapshot) string {
	n := grown(told.failed, s.failed)
	if n == 0 {
		return ""
	}
	if s.knowCalls {
		return fmt.Sprintf("%s failed (%s in the kernel)", several(grown(told.calls, s.calls), "more connect() call", "more connect() calls"), group(n))
	}
	return several(n, "more connect() has failed in the kernel", "more connect() have failed in the kernel")
}

// ends tells of a change in who closes, and notes it.
func (s *snapshot) ends(told, first *snapshot) string {
	b, t, f := &s.budget, &told.budget, &first.budget
	now := endings{grown(t.ClosedHere, b.ClosedHere), grown(t.ClosedThere, b.ClosedThere), grown(t.ClosedReset, b.ClosedReset)}
	was := endings{f.ClosedHere, f.ClosedThere, f.ClosedReset}
	if now.all() < 5 {
		s.endings = told.endings
		return ""
	}
	s.endings = dominant(now.here, now.there, now.reset)
	how := s.endings
	switch {
	case how == endMixed:
		how = now.risen(was)
	case how == told.endings && how == first.endings:
		how = endMixed
	}
	if how == endMixed {
		return ""
	}
	words := map[ending]string{endHere: "by this host's FIN first", endThere: "by the peer's FIN first", endReset: "by RST"}
	return fmt.Sprintf("%s of %s ended %s since %s (before: %s of %s)",
		group(now.of(how)), several(now.all(), "connection", "connections"), words[how], clock(told.at),
		group(was.of(how)), group(was.all()))
}

// endings counts connections by how they ended.
type endings struct{ here, there, reset uint64 }

func (n endings) all() uint64 { return n.here + n.there + n.reset }

func (n endings) of(e ending) uint64 {
	switch e {
	case endHere:
		return n.here
	case endThere:
		return n.there
	case endReset:
		return n.reset
	}
	return 0
}

// risen returns the ending whose share has grown the most, by a quarter of all
// at least: where a remedy was applied in the middle of what is counted, none
// dominates. It is endMixed if there is none.
func (n endings) risen(was endings) ending {
	best, most := endMixed, 0.25
	for _, e := range []ending{endHere, endThere, endReset} {
		up := float64(n.of(e))/float64(n.all()) - float64(was.of(e))/float64(max(was.all(), 1))
		if was.all() >= 5 && up >= most {
			best, most = e, up
		}
	}
	return best
}

// pace tells of a load that has at least halved or doubled.
func (s *snapshot) pace(told *snapshot) string {
	was, is := told.load, s.load
	switch {
	case was < 0.05 && is < 0.05:
		return ""
	case is < 0.05:
		return "no connection is begun any more (before: " + about(was) + " per second)"
	case is*2 <= was || was*2 <= is:
		return "load: " + about(was) + " -> " + about(is) + " conn/s"
	}
	return ""
}
