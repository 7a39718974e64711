// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"fmt"
	"math"

	"github.com/twscope/twscope/internal/event"
)

// A forecast is told when it is within soon, and as long as it is within
// later, in seconds.
const (
	soon  = 60
	later = 90
)

// exhaustionSoon judges whether connect() will fail. The forecast itself is
// made by the budget, which knows when each port comes back.
func (e *Engine) exhaustionSoon(v *view) judgement {
	j := judgement{now: v.snapshot()}
	b := &v.budget
	left := b.ExhaustedInS
	open := e.book.open(PortExhaustionSoon, subjectKey{destination: v.key})
	var doubts []event.Fact
	j.confidence, doubts = e.confidence(0.85, v, event.KindTimeWait)
	j.evidence = append(v.evidence(), doubts...)
	if gone := e.book.open(PortExhaustion, subjectKey{destination: v.key}); gone != nil {
		j.state = good
		if open != nil {
			j.summary = fmt.Sprintf("%s: the local ports are used up, as foreseen %s ahead: see %s",
				v.place(), span(float64(max(v.firstFail-open.opened, 0))/1e9), gone.id)
			j.evidence = append(j.evidence,
				rate("foreseen_s_ahead", float64(max(v.firstFail-open.opened, 0))/1e9),
				rate("first_forecast_off_by_s", float64(v.firstFail)/1e9-open.foreseen()))
		}
		return j
	}
	switch {
	case left == 0:
		return j // used up, but nobody has asked for one yet
	case left > 0 && (left <= soon || left <= later && open != nil):
		j.state = bad
	case left < 0:
		j.state, j.calm = good, 3*second
		j.summary = fmt.Sprintf("%s: nothing foretells any more that local ports run out: %s of %s used; %s",
			v.place(), group(v.used()), ports(b.PortsTotal), v.rates())
		return j
	default:
		j.state, j.calm = good, 3*second
		j.summary = fmt.Sprintf("%s: local ports now last for %s: %s of %s used; %s",
			v.place(), span(left), group(v.used()), ports(b.PortsTotal), v.rates())
		return j
	}
	at := v.now + int64(left*1e9)
	j.severity = event.SeverityWarning
	j.summary = fmt.Sprintf("%s: the local ports of %s will be used up in about %s, at %s: %s of %s %s taken (%s); %s",
		v.place(), addr(v.key.laddr), span(left), clock(at), group(v.used()), group(b.PortsTotal), be(v.used()), v.program(), v.rates())
	j.evidence = append(j.evidence, rate("exhausted_in_s", left), txt("exhausted_at", clock(at)))
	j.remedies = v.remedies()
	j.measures = [3]measure{{float64(at) / 1e9, math.Max(3, left/5)}, roughly(v.load())}
	j.now.foreseen = float64(at) / 1e9
	return j
}

// foreseen is when the ports were to be used up, in seconds of Unix time, as
// the finding said when it opened.
func (f *finding) foreseen() float64 { return f.first.foreseen }
