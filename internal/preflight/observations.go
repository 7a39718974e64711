// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"slices"

	"github.com/twscope/twscope/internal/probe"
)

// known is every observation, in the order of the report, and what it sees.
func known() []Observation {
	of := func(o probe.Observation, sees string) Observation {
		return Observation{
			Name: string(o), Sees: sees, Rung: string(probe.None),
			Tried: []Attempt{}, MissingHooks: []string{},
		}
	}
	return []Observation{
		of(probe.TimeWait, "sockets that enter TIME_WAIT"),
		of(probe.Overflow, "sockets closed without TIME_WAIT because tcp_max_tw_buckets is reached"),
		of(probe.TimeWaitEnd, "when and why sockets leave TIME_WAIT"),
		of(probe.TWReuse, "connect() calls that take over a socket in TIME_WAIT"),
		of(probe.ConnectFail, "connect() calls that fail for want of a port"),
		of(probe.SYN, "SYNs (requests to connect) that arrive, with their timestamps"),
		of(probe.SYNRefused, "SYNs of this host that a peer refuses or ignores"),
		of(probe.PAWSTimeWait, "segments refused by PAWS on a socket in TIME_WAIT"),
		of(probe.SYNReject, "SYNs that a socket in TIME_WAIT refuses for their sequence number"),
		of(probe.PAWSEstablished, "segments refused by PAWS on an open connection"),
		of(probe.PAWSSYNRecv, "segments refused by PAWS during a handshake, as server"),
		of(probe.PAWSSYNSent, "segments refused by PAWS during a handshake, as client"),
		of(probe.Owner, "who opened a socket: pid, name, cgroup"),
		of(probe.Census, "sockets that are in TIME_WAIT already"),
	}
}

// observations describes every observation by the choice made for it. One
// without a choice would have come with another that has no rung.
func observations(in Input) []Observation {
	if len(in.Choices) == 0 {
		return []Observation{}
	}
	all := known()
	for i := range all {
		o := &all[i]
		at := slices.IndexFunc(in.Choices, func(c probe.Choice) bool { return string(c.Observation) == o.Name })
		if at < 0 {
			o.Lost = o.Sees
			continue
		}
		c := in.Choices[at]
		o.Rung, o.Lost = string(c.Rung), c.Lost
		for _, a := range c.Tried {
			// Two ways to use one rung mostly fail alike, but for random names
			// in the error.
			t := attempt(in, a)
			if !slices.ContainsFunc(o.Tried, func(u Attempt) bool {
				return u.Rung == t.Rung && u.Hook == t.Hook && u.Reason == t.Reason
			}) {
				o.Tried = append(o.Tried, t)
			}
		}
		o.MissingHooks = append(o.MissingHooks, c.Missing...)
		o.Best = in.Rung == "" && len(c.Tried) == 0 && c.Rung != probe.None && c.Rung != probe.Counter
	}
	return all
}

// rungs says in words what a rung is, best first.
func rungs() [][2]string {
	return [][2]string{
		{string(probe.Fentry), "a hook at the entry or exit of a kernel function"},
		{string(probe.Kprobe), "the same by a breakpoint, which costs more"},
		{string(probe.Tracepoint), "a fixed place that the kernel offers for observation"},
		{string(probe.Iterator), "a walk over what the kernel has now"},
		{string(probe.Timer), "computed by twscope from what the other rungs see"},
		{string(probe.Counter), "the kernel's own counters (MIB): how many, not who"},
		{string(probe.None), "it cannot be observed here"},
	}
}
