// SPDX-License-Identifier: Apache-2.0

// Package scenario makes each situation that twscope knows happen, in network
// namespaces of its own, and holds the verdict of a session against the truth.
// The truth comes from the kernel (counters, sock_diag) and from the rig (what
// was sent by whom, captures), never from twscope.
package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

// Scenario is a situation, and its control: the same without its cause.
type Scenario struct {
	Name     string `json:"name"`
	About    string `json:"about"`    // what happens, and why
	Topology string `json:"topology"` // drawn, at most 76 columns
	Load     string `json:"load"`     // what is done, the same in both
	Cause    Side   `json:"cause"`
	Control  Side   `json:"control"`

	// applies tells why there is no such situation on a kernel; nil: there
	// always is.
	applies func(Kernel) string
	// needs is what a session must see one by one, not only count.
	needs probe.Observation
	make  func(cause bool) scene
}

// Side is a scenario with its cause, or its control.
type Side struct {
	Setting string `json:"setting"` // what the other side does not have
	// Expect are the codes that the verdict must name. Allow are those that it
	// may; every other one is wrong.
	Expect []string `json:"expect"`
	Allow  []string `json:"allow"`
}

// Kernel is what a scenario depends on.
type Kernel struct {
	Facts    kernel.Facts
	Cgroups  *kernel.Cgroups // may be nil
	TSOffset kernel.TSOffset
}

// scene is one side being acted.
type scene interface {
	// setUp builds the network and starts the servers.
	setUp(ctx context.Context, s *stage) error
	// act makes the load; a session watches.
	act(ctx context.Context, s *stage) error
	// read takes the truth down once the session has ended.
	read() error
	// check holds what was seen against the truth, and the truth against what
	// makes a side the one that it claims to be.
	check(c *checks, seen *observed, cause bool)
}

// All returns the scenarios, in the order in which they tell the story.
func All() []Scenario {
	list := slices.Concat(portScenarios(), natScenarios(), []Scenario{
		recycleScenario(), restartScenario(), duplicateScenario(), overflowScenario(),
	})
	for i := range list {
		for _, codes := range []*[]string{
			&list[i].Cause.Expect, &list[i].Cause.Allow, &list[i].Control.Expect, &list[i].Control.Allow,
		} {
			if *codes == nil {
				*codes = []string{} // in JSON no null
			}
		}
	}
	return list
}

// Select returns scenarios by name, all of them for "all". The error lists what
// is valid.
func Select(names []string) ([]Scenario, error) {
	all := All()
	if slices.Equal(names, []string{"all"}) {
		return all, nil
	}
	var list []Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
		if i < 0 {
			var valid []string
			for _, s := range all {
				valid = append(valid, s.Name)
			}
			return nil, fmt.Errorf("no scenario %q: want all or some of %s", name, strings.Join(valid, ", "))
		}
		list = append(list, all[i])
	}
	return list, nil
}

func (s *Scenario) side(cause bool) *Side {
	if cause {
		return &s.Cause
	}
	return &s.Control
}
