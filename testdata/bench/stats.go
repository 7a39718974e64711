// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// spread is the distribution of some figures. Nothing is left out of it.
type spread struct {
	N      int     `json:"n"`
	Min    float64 `json:"min"`
	Q1     float64 `json:"q1"`
	Median float64 `json:"median"`
	Q3     float64 `json:"q3"`
	Max    float64 `json:"max"`
}

// spreadOf returns the zero spread for no figures.
func spreadOf(figures []float64) spread {
	if len(figures) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(figures))
	return spread{
		N: len(s), Min: s[0], Q1: quantile(s, 0.25), Median: quantile(s, 0.5), Q3: quantile(s, 0.75), Max: s[len(s)-1],
	}
}

// quantile interpolates between the two figures next to q, 0 to 1, of a sorted
// list that is not empty (type 7 of Hyndman and Fan, 1996).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(math.Floor(at))
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// interleave returns the order of a round: every condition once, in random
// order, with a run of none before, between and after.
func interleave(r *rand.Rand, none string, conditions []string) []string {
	order := []string{none}
	for _, i := range r.Perm(len(conditions)) {
		order = append(order, conditions[i], none)
	}
	return order
}

// paired returns what each run but those of none makes of its neighbors: its
// figure over their mean. order is as interleave has made it.
func paired(order []string, figures []float64) map[string]float64 {
	ratios := make(map[string]float64, len(order)/2)
	for i := 1; i+1 < len(order); i += 2 {
		if mean := (figures[i-1] + figures[i+1]) / 2; mean > 0 {
			ratios[order[i]] = figures[i] / mean
		}
	}
	return ratios
}
