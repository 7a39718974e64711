// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSpreadOf(t *testing.T) {
	tests := []struct {
		name    string
		figures []float64
		want    spread
	}{
		{"none", nil, spread{}},
		{"one", []float64{7}, spread{1, 7, 7, 7, 7, 7}},
		{"two", []float64{3, 1}, spread{2, 1, 1.5, 2, 2.5, 3}},
		{"odd, an outlier stays", []float64{5, 1, 1000, 2, 4}, spread{5, 1, 2, 4, 5, 1000}},
		{"even", []float64{4, 3, 2, 1}, spread{4, 1, 1.75, 2.5, 3.25, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.figures)
			if diff := cmp.Diff(tt.want, spreadOf(tt.figures)); diff != "" {
				t.Error(diff)
			}
			if !slices.Equal(before, tt.figures) {
				t.Errorf("the figures were changed to %v", tt.figures)
			}
		})
	}
}

func TestInterleave(t *testing.T) {
	conditions := []string{"a", "b", "c", "d"}
	seen := map[string]bool{}
	for seed := range uint64(50) {
		order := interleave(rand.New(rand.NewPCG(seed, 0)), none, conditions)
		if again := interleave(rand.New(rand.NewPCG(seed, 0)), none, conditions); !slices.Equal(order, again) {
			t.Fatalf("seed %d gives %v and %v", seed, order, again)
		}
		var between []string
		for i, c := range order {
			if (c == none) != (i%2 == 0) {
				t.Fatalf("%v: want none at every other place from the first to the last", order)
			}
			if c != none {
				between = append(between, c)
			}
		}
		seen[between[0]] = true
		slices.Sort(between)
		if !slices.Equal(between, conditions) || len(order)%2 == 0 {
			t.Fatalf("%v: want each of %v once", order, conditions)
		}
	}
	if len(seen) != len(conditions) {
		t.Errorf("only %v ever came first", seen)
	}
}

func TestPaired(t *testing.T) {
	order := []string{none, "a", none, "b", none}
	got := paired(order, []float64{90, 50, 110, 110, 0})
	if diff := cmp.Diff(map[string]float64{"a": 0.5, "b": 2}, got); diff != "" {
		t.Error(diff)
	}
	if got := paired([]string{none, "a", none}, []float64{0, 5, 0}); len(got) != 0 {
		t.Errorf("got %v without a rate to compare with", got)
	}
}
