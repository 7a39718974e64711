// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"slices"
	"testing"

	"github.com/twscope/twscope/internal/kernel"
)

func rungsOf(steps []step) []Rung {
	var list []Rung
	for _, s := range steps {
		list = append(list, s.rung)
	}
	return list
}

func ladderOf(t *testing.T, o Observation) ladder {
	t.Helper()
	for _, l := range plan() {
		if l.observation == o {
			return l
		}
	}
	t.Fatalf("no ladder for %s", o)
	return ladder{}
}

func TestForcedRung(t *testing.T) {
	for _, tt := range []struct {
		observation Observation
		forced      Rung
		want        []Rung
	}{
		{TimeWait, "", []Rung{Fentry, Fentry, Kprobe, Kprobe, Tracepoint}},
		{TimeWait, Fentry, []Rung{Fentry, Fentry, Kprobe, Kprobe, Tracepoint}},
		{TimeWait, Kprobe, []Rung{Kprobe, Kprobe, Tracepoint}},
		{TimeWait, Tracepoint, []Rung{Tracepoint}},
		{TimeWaitEnd, Tracepoint, []Rung{Timer}},
		{SYNRefused, Fentry, []Rung{Tracepoint}},
		// a forced rung is tried before what is better without it
		{PAWSTimeWait, "", []Rung{Tracepoint, Fentry, Kprobe, Counter}},
		{PAWSTimeWait, Fentry, []Rung{Fentry, Tracepoint, Kprobe, Counter}},
		{PAWSTimeWait, Kprobe, []Rung{Kprobe, Tracepoint, Counter}},
		{PAWSTimeWait, Tracepoint, []Rung{Tracepoint, Counter}},
	} {
		t.Run(string(tt.observation)+" "+string(tt.forced), func(t *testing.T) {
			if got := rungsOf(sortForced(ladderOf(t, tt.observation).steps, tt.forced)); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlanSaysWhatIsLost(t *testing.T) {
	for _, l := range plan() {
		if l.lost == "" || len(l.steps) == 0 {
			t.Errorf("%s: nothing is told of what is lost without it", l.observation)
		}
		for i, s := range l.steps {
			if s.has != nil && s.lacks == "" {
				t.Errorf("%s by %s: no word for what the kernel lacks", l.observation, s.rung)
			}
			if s.shared && s.object != "" || !s.shared && s.object == "" && s.rung != Timer && s.rung != Counter {
				t.Errorf("%s by %s: step %d loads %q", l.observation, s.rung, i, s.object)
			}
		}
	}
}

func TestTryWithoutReason(t *testing.T) {
	p := &Probe{facts: facts{reasons: kernel.DropReasons{Value: map[string]uint32{"TCP_RFC7323_TW_PAWS": 1}}, kfreeSkbArgs: 3}}
	s := ladderOf(t, PAWSTimeWait).steps[0]
	if _, err := p.try(s); err == nil || p.settings.DropsTimewait != 0 {
		t.Errorf("taken although kfree_skb does not tell the socket: %v", err)
	}
	p.facts.kfreeSkbArgs = 4
	if _, err := p.try(s); err != nil || p.settings.DropsTimewait != 1 {
		t.Errorf("not taken: %v", err)
	}
	if _, err := p.try(ladderOf(t, PAWSEstablished).steps[0]); err == nil {
		t.Error("taken although the kernel has no such reason")
	}
}

func TestStepDownAndCheck(t *testing.T) {
	failed := errLacks
	p := &Probe{choices: []Choice{
		{Observation: TimeWait, Rung: Tracepoint},
		{Observation: PAWSTimeWait, Rung: Tracepoint},
		{Observation: ConnectFail, Rung: Fentry},
	}}
	p.stepDown(failed, func(c Choice) bool { return isPAWSDrop(c.Observation) }, Counter, pawsCounterLost)
	if err := p.check(); err != nil {
		t.Errorf("TIME_WAIT is seen: %v", err)
	}
	p.stepDown(failed, func(c Choice) bool { return c.Rung == Tracepoint && sharesState(c.Observation) }, None, "")
	if c := p.choices[0]; c.Rung != None || c.Lost != ladderOf(t, TimeWait).lost || len(c.Tried) != 1 || c.Tried[0].Rung != Tracepoint {
		t.Errorf("TIME_WAIT: %+v", c)
	}
	if c := p.choices[1]; c.Rung != Counter || c.Lost != pawsCounterLost {
		t.Errorf("PAWS: %+v", c)
	}
	if c := p.choices[2]; c.Rung != Fentry || len(c.Tried) != 0 {
		t.Errorf("connect(): %+v", c)
	}
	if err := p.check(); err == nil {
		t.Error("nothing of worth is seen, and that is no error")
	}
}
