// SPDX-License-Identifier: Apache-2.0

package event

import "testing"

func TestInitialTTL(t *testing.T) {
	for came, want := range map[uint8]uint8{0: 32, 1: 32, 32: 32, 33: 64, 63: 64, 64: 64, 65: 128, 128: 128, 129: 255, 255: 255} {
		if got := InitialTTL(came); got != want {
			t.Errorf("TTL %d: %d, want %d", came, got, want)
		}
	}
}
