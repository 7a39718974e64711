// SPDX-License-Identifier: Apache-2.0

package refusal_test

import (
	"fmt"
	"testing"

	"github.com/twscope/twscope/internal/event"
)

func (o outcome) String() string {
	s := ""
	for c, name := range [...]string{"NAT", "restart", "copy", "draw"} {
		if o.total(cause(c)) == 0 {
			continue
		}
		s += fmt.Sprintf("%s %d:", name, o.total(cause(c)))
		for v := event.VerdictNATPortRewrite; v <= event.VerdictUnknown; v++ {
			if n := o[cause(c)][v]; n > 0 {
				s += fmt.Sprintf(" %s %d", v, n)
			}
		}
		s += "; "
	}
	return s
}

// lab is the NAT of a lab: 200 ports, and as many connections as give some 150
// refusals.
func lab(r rig) rig {
	r.nat, r.outer, r.inner = true, 200, 28232
	r.span = int64(float64(550) / r.rate * 1e9)
	return r
}

func TestNAT(t *testing.T) {
	cases := map[string]rig{
		"one host, clock per 4-tuple":     {hosts: 1, keys: perTuple, rate: 20, print: linuxPrint},
		"two hosts, clock per 4-tuple":    {hosts: 2, keys: perTuple, rate: 20, print: linuxPrint},
		"two hosts, clock per host":       {hosts: 2, keys: perHost, rate: 20, print: linuxPrint},
		"eight hosts, clock per host":     {hosts: 8, keys: perHost, rate: 20, print: linuxPrint},
		"two hosts, ports in turn":        {hosts: 2, keys: perTuple, rate: 20, turns: true, print: linuxPrint},
		"two hosts, per host, in turn":    {hosts: 2, keys: perHost, rate: 20, turns: true, print: linuxPrint},
		"one host, 100 a second":          {hosts: 1, keys: perTuple, rate: 100, print: linuxPrint},
		"two hosts, 100 a second":         {hosts: 2, keys: perHost, rate: 100, print: linuxPrint},
		"one host, 5 a second":            {hosts: 1, keys: perTuple, rate: 5, print: linuxPrint},
		"two hosts, 5 a second":           {hosts: 2, keys: perHost, rate: 5, print: linuxPrint},
		"one host, 2 a second":            {hosts: 1, keys: perTuple, rate: 2, print: linuxPrint},
		"no fingerprints":                 {hosts: 2, keys: perTuple, rate: 20},
		"completed SYNs only":             {hosts: 2, keys: perTuple, rate: 20, noArrivals: true},
		"SYNs not seen":                   {hosts: 2, keys: perTuple, rate: 20, noArrivals: true, noCompletions: true, print: linuxPrint},
		"one SYN in four":                 {hosts: 2, keys: perTuple, rate: 20, sampled: 0.25, print: linuxPrint},
		"no TIME_WAIT":                    {hosts: 2, keys: perTuple, rate: 20, noTimeWait: true, print: linuxPrint},
		"refusals only":                   {hosts: 2, keys: perTuple, rate: 20, noArrivals: true, noCompletions: true, noTimeWait: true, print: linuxPrint},
		"refusals only, in whole seconds": {hosts: 2, keys: perTuple, rate: 20, noArrivals: true, noCompletions: true, noTimeWait: true, coarse: true, print: linuxPrint},
		"late SYNs and copies":            {hosts: 2, keys: perTuple, rate: 20, delays: 0.01, copies: 0.05, late: 10 * second, print: linuxPrint},
		"late SYNs and copies, per host":  {hosts: 2, keys: perHost, rate: 20, delays: 0.01, copies: 0.05, late: 10 * second, print: linuxPrint},
		"tcp_rfc1337":                     {hosts: 2, keys: perTuple, rate: 20, keep: true, print: linuxPrint},
	}
	for name, r := range cases {
		t.Run(name, func(t *testing.T) {
			sum := outcome{}
			for seed := range uint64(10) {
				sum.merge(lab(r).run(seed))
			}
			told := sum.nat(byNAT) + sum.nat(byCopy)
			t.Logf(name+": recall %.3f precision %.4f: %s", float64(sum.nat(byNAT))/float64(sum.total(byNAT)), float64(sum.nat(byNAT))/float64(told), sum)
		})
	}
}
