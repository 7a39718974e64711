// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"math"
	"testing"
)

// TestChao holds the estimator to values worked out by hand from the formulae.
func TestChao(t *testing.T) {
	tests := []struct {
		once, twice      int
		unseen, variance float64
	}{
		{0, 0, 0, 0},
		{0, 7, 0, 0},
		{1, 0, 0, 0.25},
		{4, 0, 6, 55},       // 4*3/2; 6 + 4*49/4
		{4, 2, 4, 28},       // 16/4; 2*(2+8+4)
		{10, 5, 10, 70},     // 100/10; 5*(2+8+4)
		{2, 4, 0.5, 1.0625}, // 4/8; 4*(1/8+1/8+1/64)
	}
	for _, tt := range tests {
		unseen, variance := chao(tt.once, tt.twice)
		if math.Abs(unseen-tt.unseen) > 1e-9 || math.Abs(variance-tt.variance) > 1e-9 {
			t.Errorf("%d once, %d twice: %g, variance %g, want %g, %g", tt.once, tt.twice, unseen, variance, tt.unseen, tt.variance)
		}
	}
}
