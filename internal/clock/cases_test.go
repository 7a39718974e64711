// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/twscope/twscope/internal/clock"
)

const targetsHead = `# What the clocks of simulated source addresses are taken for

Made by ` + "`go test ./internal/clock -run '^TestTargets$' -timeout 60m -sim.runs=%d -sim.write`" + `: that many addresses for each
case, of an hour each. Hosts make visits, 20 an hour on average and log-normal, of some connections each; 1 %% of the SYNs come late, by 1 s on
average, and 1 %% are sent again; a NAT changes all ports at random; clocks are off by 20 ppm.

Shares are of address-hours. Precision is that of "shared" where two hosts or more sent SYNs, recall that where two clocks or more
with a line each sent two SYNs or more. The count is of the clocks with a line: exact is the share of estimates that are, error the mean of how far they are off, by
the mean of the truth, in interval how often the truth is in the interval of 95 %%, open how often that has no upper end, over how often more clocks were
claimed than there were.
`

// part is a table.
type part struct {
	title, text string
	cases       []try
}

func many(m model, n int) []model {
	list := make([]model, n)
	for i := range list {
		list[i] = m
	}
	return list
}

// draw makes a list of hosts by their shares.
func draw(rng *rand.Rand, n int, from ...weighted) []model {
	list := make([]model, n)
	for i := range list {
		x := rng.Float64()
		for _, w := range from {
			if x -= w.share; x < 0 {
				list[i] = w.model
				break
			}
		}
	}
	return list
}

type weighted struct {
	model
	share float64
}

// Populations. What is left over by rounding would be an empty model, so that
// the last share is more than enough.
func home() []weighted {
	return []weighted{{android, 0.30}, {linux, 0.15}, {apple, 0.20}, {linux7, 0.10}, {windows, 1}}
}

func legacy() []weighted { return []weighted{{hz100, 0.4}, {hz250, 0.3}, {linux, 1}} }

// behind makes an hour of so many hosts of a population.
func behind(n int, from ...weighted) func(seed uint64) *sim {
	return func(seed uint64) *sim {
		s := newSim(seed)
		return s.add(20, draw(s.rng, n, from...)...).run(hour)
	}
}

func parts() []part {
	return []part{
		{"One host", "False alarms, per address-hour.", oneHost()},
		{"Several hosts, by SYNs", "The first so many SYNs with timestamps of an address; those of which two clocks or more show two SYNs.", bySYNs()},
		{"Count", "All SYNs of an hour.", counts()},
		{"Populations", "Half of the addresses are one host, half two to eight, all of the population.", populations()},
		{"Offset per connection", "The first so many SYNs.", randomised()},
		{"Forged SYNs", "Without handshakes, with any TSval, beside those of true hosts.", forged()},
		{"Addresses that change hands", "One host until half past, then another; the control has both all the time.", handed()},
	}
}

func oneHost() []try {
	var list []try
	one := func(name string, most float64, f func(seed uint64) *sim) {
		list = append(list, try{name: name, sim: f, targets: []target{atMost(alarms, most)}})
	}
	for _, m := range []model{linux, hz100, hz250, linux7, apple, openbsd} {
		one(m.name, 0.001, func(seed uint64) *sim { return newSim(seed).add(20, m).run(hour) })
	}
	one("android", 0.005, func(seed uint64) *sim { return newSim(seed).add(20, android).run(hour) })
	for _, m := range []model{linux, hz100, linux7} {
		one(m.name+", restarts in half", 0.001, func(seed uint64) *sim { return newSim(seed).add(20, m).reboot(0.5, hour).run(hour) })
	}
	one("android, restarts in half", 0.005, func(seed uint64) *sim { return newSim(seed).add(20, android).reboot(0.5, hour).run(hour) })
	one("linux, TSval comes round", 0.001, func(seed uint64) *sim { return newSim(seed).add(20, linux).wrap(hour).run(hour) })
	one("linux, 10 % come 1 to 3 s late", 0.001, func(seed uint64) *sim {
		s := newSim(seed).add(20, linux)
		s.delays, s.tail = 0.1, true
		return s.run(hour)
	})
	one("linux, 20 % sent again", 0.001, func(seed uint64) *sim {
		s := newSim(seed).add(20, linux)
		s.resent = 0.2
		return s.run(hour)
	})
	one("linux, 400 visits", 0.001, func(seed uint64) *sim { return newSim(seed).add(400, linux).run(hour) })
	one("linux 7, 400 visits", 0.001, func(seed uint64) *sim { return newSim(seed).add(400, linux7).run(hour) })
	one("linux 7 without NAT, 400 visits", 0.001, func(seed uint64) *sim {
		s := newSim(seed).add(400, linux7)
		s.nat = false
		return s.run(hour)
	})
	one("linux 7 by 200 ports of a NAT, 400 visits", 0.001, func(seed uint64) *sim {
		s := newSim(seed).add(400, linux7)
		s.outer = 200
		return s.run(hour)
	})
	one("linux 7 with 2000 local ports, 40 visits", 0.001, func(seed uint64) *sim { return fewPorts(seed, 40) })
	// What cannot be told, see the package's documentation.
	list = append(list, try{
		name: "linux 7 with 2000 local ports, 400 visits", targets: []target{atMost(alarms, 0.001).missed(0.05)},
		sim: func(seed uint64) *sim { return fewPorts(seed, 400) },
	})
	one("apple with 200 local ports, 400 visits", 0.001, func(seed uint64) *sim {
		s := newSim(seed).add(400, apple)
		s.hosts[0].ports = 200
		return s.run(hour)
	})
	one("linux, 24 h", 0.001, func(seed uint64) *sim { return daily(seed, linux) })
	one("linux 7, 24 h", 0.001, func(seed uint64) *sim { return daily(seed, linux7) })
	one("android, 24 h", 0.005, func(seed uint64) *sim { return daily(seed, android) })
	list = append(list, try{
		name: "tcp_usec_ts, known", config: clock.Config{TickRate: 1_000_000}, targets: []target{atMost(alarms, 0.001)},
		sim: func(seed uint64) *sim { return newSim(seed).add(20, usec).run(hour) },
	})
	one("tcp_usec_ts, not known", 0.001, func(seed uint64) *sim { return newSim(seed).add(20, usec).run(hour) })
	return list
}

// daily is a day of one host, of which each hour is a run.
func daily(seed uint64, m model) *sim { return newSim(seed).add(20, m).run(24 * hour) }

// fewPorts is one host with a clock per 4-tuple that uses its few ports again
// and again, and a NAT that changes them: each port looks like a clock.
func fewPorts(seed uint64, visits float64) *sim {
	s := newSim(seed).add(visits, linux7)
	s.hosts[0].ports = 2000
	return s.run(hour)
}

func bySYNs() []try {
	var list []try
	for _, h := range []int{2, 4, 8, 16} {
		for _, n := range []int{8, 12, 20, 40} {
			c := try{name: fmt.Sprintf("%d linux, %d SYNs", h, n), sim: func(seed uint64) *sim {
				return eligible(newSim(seed).add(20, many(linux, h)...).run(hour).first(n), 8)
			}}
			if n >= 20 {
				c.targets = []target{atLeast(recall, 0.95), atLeast(inTurns, 0.95)}
			}
			// The rest came one after another, as restarts would.
			if held, ok := map[int]float64{2: 0.9, 4: 0.88, 8: 0.84, 16: 0.78}[h]; ok && n == 20 {
				c.targets[0] = c.targets[0].missed(held)
			}
			list = append(list, c)
		}
	}
	for _, c := range []struct {
		h, n int
		held float64
	}{{4, 20, 0.78}, {4, 40, 0.85}, {8, 20, 0.66}, {8, 40, 0.85}, {16, 20, 0.52}, {16, 40, 0.82}} {
		list = append(list, try{
			name:    fmt.Sprintf("%d of a home in 2026, %d SYNs", c.h, c.n),
			targets: []target{atLeast(recall, 0.85).missed(c.held), atLeast(inTurns, 0.85)},
			sim:     func(seed uint64) *sim { return eligible(behind(c.h, home()...)(seed).first(c.n), c.n) },
		})
	}
	return list
}

// eligible leaves out what cannot be told: fewer than two clocks with two SYNs.
func eligible(s *sim, least int) *sim {
	if is := s.truth(); is.twice < 2 || is.syns < least {
		return nil
	}
	return s
}

func counts() []try {
	var list []try
	add := func(name string, n int, from ...weighted) {
		c := try{name: fmt.Sprintf("%d %s", n, name), sim: behind(n, from...), targets: []target{atMost(meanError, 0.1), atLeast(interval, 0.9)}}
		if n <= 8 {
			c.targets = append(c.targets, atLeast(exact, 0.9))
		}
		list = append(list, c)
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		add("linux", n, weighted{linux, 1})
	}
	for _, n := range []int{8, 64} {
		add("of 100, 250 and 1000 Hz", n, legacy()...)
		add("android", n, weighted{android, 1})
		add("of a home in 2026", n, home()...)
	}
	return list
}

func populations() []try {
	var list []try
	add := func(name string, from []weighted, targets ...target) {
		list = append(list, try{name: name, targets: targets, sim: func(seed uint64) *sim {
			n := 1
			if seed%2 == 1 {
				n = 2 + int(seed/2%7)
			}
			return behind(n, from...)(seed)
		}})
	}
	add("linux", []weighted{{linux, 1}}, atLeast(precision, 0.99), atLeast(recall, 0.95))
	add("100, 250 and 1000 Hz", legacy(), atLeast(precision, 0.99), atLeast(recall, 0.95))
	add("android", []weighted{{android, 1}}, atLeast(precision, 0.99), atLeast(recall, 0.95))
	add("home in 2026", home(), atLeast(precision, 0.99), atLeast(recall, 0.95))
	add("offsets per connection", []weighted{{linux7, 0.4}, {apple, 0.4}, {openbsd, 1}}, atMost(alarms, 0.001))
	return list
}

func randomised() []try {
	var list []try
	for _, m := range []model{linux7, apple, openbsd} {
		for _, h := range []int{1, 4, 16} {
			for _, n := range []int{20, 40} {
				list = append(list, try{
					name: fmt.Sprintf("%d %s, %d SYNs", h, m.name, n), targets: []target{atLeast(random, 0.98), atMost(alarms, 0.001)},
					sim: func(seed uint64) *sim {
						s := newSim(seed).add(40, many(m, h)...).run(hour).first(n)
						if s.truth().syns < n {
							return nil
						}
						return s
					},
				})
			}
		}
	}
	return list
}

func forged() []try {
	var list []try
	for _, n := range []int{100, 1000, 10_000} {
		list = append(
			list,
			try{
				name: fmt.Sprintf("linux, %d forged", n), targets: []target{atMost(alarms, 0.001)},
				sim: func(seed uint64) *sim { return newSim(seed).add(20, linux).run(hour).forge(n, hour) },
			},
			try{
				name: fmt.Sprintf("4 linux, %d forged", n), targets: []target{atLeast(recall, 0.95)},
				sim: func(seed uint64) *sim { return newSim(seed).add(20, many(linux, 4)...).run(hour).forge(n, hour) },
			},
			try{
				name: fmt.Sprintf("linux 7, %d forged", n), targets: []target{atMost(alarms, 0.001)},
				sim: func(seed uint64) *sim { return newSim(seed).add(20, linux7).run(hour).forge(n, hour) },
			},
		)
	}
	return list
}

func handed() []try {
	var list []try
	for _, m := range []model{linux, hz250} {
		list = append(
			list,
			try{
				name: m.name + ", then " + m.name, targets: []target{atMost(alarms, 0.001), atLeast(restarts, 0.9)},
				sim: func(seed uint64) *sim {
					s := newSim(seed).add(40, m, m)
					s.hosts[0].until, s.hosts[1].from = hour/2, hour/2
					return s.run(hour)
				},
			},
			try{
				name: m.name + " and " + m.name, targets: []target{atLeast(recall, 0.95)},
				sim: func(seed uint64) *sim { return newSim(seed).add(40, m, m).run(hour) },
			},
		)
	}
	return list
}
