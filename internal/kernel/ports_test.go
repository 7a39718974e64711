// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"slices"
	"testing"

	"github.com/twscope/twscope/internal/kernel"
)

func TestFormatPorts(t *testing.T) {
	for want, ports := range map[string][]uint16{
		"": nil, "22": {22}, "22,80,8000-8010": append([]uint16{22, 80}, span(8000, 8010)...), "1-2,65535": {1, 2, 65535},
	} {
		if got := kernel.FormatPorts(ports); got != want {
			t.Errorf("%v: %q, want %q", ports, got, want)
		}
		spans, err := kernel.ParsePorts(want)
		var back []uint16
		for _, s := range spans {
			back = append(back, span(s.Low, s.High)...)
		}
		if err != nil || !slices.Equal(back, ports) {
			t.Errorf("%q: %v, %v", want, back, err)
		}
	}
}

func span(low, high uint16) (list []uint16) {
	for p := int(low); p <= int(high); p++ {
		list = append(list, uint16(p))
	}
	return list
}
