// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
)

// last returns the latest finding of a code, an empty one if there is none.
func (p *party) last(l log, code string) *event.Finding {
	if list := p.findings(l, code); len(list) > 0 {
		return list[len(list)-1]
	}
	return &event.Finding{}
}

// opens waits until a finding has opened.
func (p *party) opens(w *watcher, code string) {
	w.eventually(func(l log) bool { return len(p.findings(l, code)) > 0 }, p.name+" to get a finding "+code)
}

// saw holds that the last finding of a code has closed, and says so.
func (p *party) saw(code, change string) func(*testing.T, log) {
	return func(t *testing.T, l log) {
		f := p.last(l, code)
		if f.State != event.FindingClose || !strings.Contains(f.Changed, change) {
			t.Errorf("%s %s: %s; changed: %q, want it closed by %q", f.Code, f.State, f.Summary, f.Changed, change)
		}
		for _, f := range p.findings(l, code) {
			t.Logf("%s %s: %s | %s", f.Code, f.State, f.Summary, f.Changed)
		}
	}
}

// lingering: close by RST, while the ports are running out.
func lingering(t *testing.T) play {
	p := invite(t, "lingering", 400, nil, lab.Server{})
	return play{p, func(t *testing.T, w *watcher) {
		const pace = 16
		p.keep(t, lab.Load{Rate: pace, ClosesFirst: true}, 12*time.Second)
		p.opens(w, "port-exhaustion-soon")
		zero := 0
		p.keep(t, lab.Load{Rate: pace, ClosesFirst: true, Dial: lab.Dial{Linger: &zero}}, 15*time.Second)
	}, p.saw("port-exhaustion-soon", "ended by RST")}
}

// closedThere: as by "Connection: close", the server begins to close first.
func closedThere(t *testing.T) play {
	p := invite(t, "there", 400, nil, lab.Server{Port: 8080})
	return play{p, func(t *testing.T, w *watcher) {
		const pace = 16
		p.keep(t, lab.Load{Rate: pace, ClosesFirst: true}, 12*time.Second)
		p.opens(w, "port-exhaustion-soon")
		p.serving.Stop()
		serve(t, p.server, lab.Server{Port: 8080, ClosesFirst: true})
		p.keep(t, lab.Load{Rate: pace}, 15*time.Second)
	}, p.saw("port-exhaustion-soon", "ended by the peer's FIN first")}
}

// cured: the ports have run out; RST, and an end to what was in TIME_WAIT.
func cured(t *testing.T) play {
	const ports, pace = 100, 20
	p := invite(t, "cured", ports, nil, lab.Server{})
	return play{p, func(t *testing.T, w *watcher) {
		p.keep(t, lab.Load{Rate: pace, ClosesFirst: true}, 8*time.Second)
		p.opens(w, "port-exhaustion")
		if _, err := p.client.KillTimeWaits(); err != nil {
			t.Errorf("kill what is in TIME_WAIT: %v", err)
		}
		zero := 0
		p.keep(t, lab.Load{Rate: pace, ClosesFirst: true, Dial: lab.Dial{Linger: &zero}}, 25*time.Second)
	}, p.saw("port-exhaustion", "ended by RST")}
}

// sample is how many sockets ss shows in TIME_WAIT, counted between two times.
type sample struct {
	from, to int64 // ns
	n        int
}

// followed: the budget beside ss, under a load that changes.
func followed(t *testing.T, length time.Duration) play {
	p := invite(t, "followed", 20_000, nil, lab.Server{})
	var samples []sample
	return play{p, func(t *testing.T, _ *watcher) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			samples = p.sample(t, stop)
		}()
		end := time.Now().Add(length)
		paces := []float64{100, 10, 300, 40, 0.1, 600, 30}
		for i := 0; time.Now().Before(end); i++ {
			p.keep(t, lab.Load{Rate: paces[i%len(paces)], ClosesFirst: true}, min(5*time.Second, time.Until(end)))
		}
		close(stop)
		<-stopped
	}, func(t *testing.T, l log) { p.compare(t, l, samples) }}
}

// sample asks sock_diag as ss does until it is told to stop.
func (p *party) sample(t *testing.T, stop <-chan struct{}) []sample {
	var list []sample
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		began := time.Now().UnixNano()
		tw, err := p.client.TimeWaits()
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			return list
		}
		list = append(list, sample{began, time.Now().UnixNano(), len(tw)})
		select {
		case <-stop:
			return list
		case <-tick.C:
		}
	}
}

// around returns what was counted last before, first after and at a time. It is
// not ok if the counting was not near that: a machine that stands still in the
// middle counts some sockets before a lump of them ends, and some after.
func around(samples []sample, at int64) (low, high int, ok bool) {
	const near = int64(500 * time.Millisecond)
	first := slices.IndexFunc(samples, func(s sample) bool { return s.from > at })
	if first < 0 || samples[first].to-at > near {
		return 0, 0, false
	}
	low, high = samples[first].n, samples[first].n
	for _, s := range slices.Backward(samples[:first]) {
		low, high = min(low, s.n), max(high, s.n)
		if s.to < at {
			return low, high, at-s.from <= near
		}
	}
	return 0, 0, false
}

// compare holds that every budget is between the samples around it.
func (p *party) compare(t *testing.T, l log, samples []sample) {
	var worst, compared int
	for _, e := range of[*event.Destinations](l, nil) {
		low, high, ok := around(samples, e.Time)
		for _, d := range e.List {
			if !ok || uint64(d.NetNS) != p.client.Inode() {
				continue
			}
			compared++
			off := max(low-int(d.TimeWait), int(d.TimeWait)-high, 0)
			worst = max(worst, off)
			at := time.Unix(0, e.Time).UTC().Format("15:04:05.000")
			t.Logf("%s ss %5d to %5d, twscope %5d", at, low, high, d.TimeWait)
			if off > 1+high/100 {
				t.Errorf("%s: the budget is off by %d", at, off)
			}
		}
	}
	t.Logf("largest difference in %d budgets: %d", compared, worst)
	if compared < 10 {
		t.Errorf("%d budgets compared", compared)
	}
}
