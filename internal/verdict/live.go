// SPDX-License-Identifier: Apache-2.0

package verdict

// Live is the state of a session at an instant.
type Live struct {
	UptimeS  float64
	PerS     float64 // connections made per second, lately
	TimeWait uint64  // sockets in TIME_WAIT, those of servers included
	Made     uint64  // as in Connections
	Accepted uint64
	Failures Failures
	Refusals Refusals
	Lost     uint64 // lines that are missing in the log
	// Destinations are the busiest, as of when their budgets were told last.
	Destinations []LiveDestination
	// Findings are those that are open, the worst first.
	Findings []Finding
}

// LiveDestination is the budget of a destination.
type LiveDestination struct {
	Target
	PortsLeft, PortsTotal uint32 // 0 of 0: not known
	// SecondsLeft until the ports are used up at the present rate; negative:
	// there is no forecast.
	SecondsLeft float64
	PerS        float64
	InUse       uint32
	TimeWait    uint32
	Failed      uint64 // connect() calls of the kernel, since the start
}

// budgetsAge is for how long the rates of the budgets hold, in ns: they are
// told every 10 s unless asked otherwise.
const budgetsAge = 15 * second

// Live tells the state at a time, in ns since the Unix epoch. A time before
// the last event counts as that of the last event.
func (c *Collector) Live(at int64) Live {
	at = max(at, c.now)
	accounts := c.accounts.sorted()
	n := c.connections(accounts)
	l := Live{
		PerS: c.flow.rate(at), TimeWait: c.flow.left(at), Made: n.Made, Accepted: n.Accepted,
		Failures: c.failed(accounts), Refusals: c.refused(),
	}
	if c.begun {
		l.UptimeS = float64(at-c.began) / 1e9
	}
	for _, one := range c.lost() {
		l.Lost = plus(l.Lost, one.Count)
	}
	if c.latest != nil {
		c.liveBudgets(&l, at)
	}
	for _, f := range c.findings.sorted() {
		if !f.Closed && len(l.Findings) < listedFindings {
			l.Findings = append(l.Findings, f.finding())
		}
	}
	return l
}

func (c *Collector) liveBudgets(l *Live, at int64) {
	age := at - c.latest.Time
	var perS float64
	var waiting uint64
	for i := range c.latest.List {
		d := &c.latest.List[i]
		perS, waiting = perS+d.Rate, plus(waiting, uint64(d.TimeWait))
		if i >= listedDestinations {
			continue
		}
		one := LiveDestination{
			Target:    Target{d.NetNS, d.Laddr, d.Raddr, d.Rport},
			PortsLeft: d.PortsTotal - occupied(d), PortsTotal: d.PortsTotal, SecondsLeft: -1,
			PerS: rounded(d.Rate), InUse: d.InUse, TimeWait: d.TimeWait, Failed: d.Failed,
		}
		if d.ExhaustedInS >= 0 {
			one.SecondsLeft = max(d.ExhaustedInS-float64(age)/1e9, 0)
		}
		l.Destinations = append(l.Destinations, one)
	}
	if age < budgetsAge {
		// The budgets know of connections too that leave no TIME_WAIT.
		l.PerS = max(l.PerS, rounded(perS))
	}
	if age < second {
		l.TimeWait = max(l.TimeWait, waiting)
	}
}
