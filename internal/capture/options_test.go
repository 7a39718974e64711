// SPDX-License-Identifier: Apache-2.0

package capture_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/capture"
)

func TestOptions(t *testing.T) {
	const ts = "080a 00000001 00000002"
	tests := []struct {
		name, options string
		want          capture.Options // but for the kinds
		kinds         []uint8
	}{
		{"none", "", capture.Options{}, nil},
		{
			"Linux", "020405b4 0402" + ts + "01 030307",
			capture.Options{
				MSS: 1460, HasMSS: true, SACKPermitted: true, WScale: 7, HasWScale: true,
				Timestamps: true, TSval: 1, TSecr: 2,
			},
			[]uint8{2, 4, 8, 1, 3},
		},
		{
			"macOS", "020405b4 01 030306 01 01" + ts + "0402 0000",
			capture.Options{
				MSS: 1460, HasMSS: true, SACKPermitted: true, WScale: 6, HasWScale: true,
				Timestamps: true, TSval: 1, TSecr: 2, EOLPad: 1,
			},
			[]uint8{2, 1, 3, 1, 1, 8, 4},
		},
		{"MPTCP and TFO", "1e040081 2202", capture.Options{}, []uint8{30, 34}},
		{"end, then rubbish", "020405b4 00" + ts, capture.Options{MSS: 1460, HasMSS: true, EOLPad: 10}, []uint8{2}},
		{"a length of 0", "0402 0800 00000001", capture.Options{SACKPermitted: true, Malformed: true}, []uint8{4, 8}},
		{"a length of 1", "0402 0801 00000001", capture.Options{SACKPermitted: true, Malformed: true}, []uint8{4, 8}},
		{"a length beyond the header", "0402 080a 00000001", capture.Options{SACKPermitted: true, Malformed: true}, []uint8{4, 8}},
		{"a kind without a length", "0402 08", capture.Options{SACKPermitted: true, Malformed: true}, []uint8{4, 8}},
		{"MSS of the wrong length", "0205 05b4 00 0402", capture.Options{SACKPermitted: true}, []uint8{2, 4}},
		{"window scale of the wrong length", "0304 0707 0402", capture.Options{SACKPermitted: true}, []uint8{3, 4}},
		{"SACK permitted of the wrong length", "0403 00", capture.Options{}, []uint8{4}},
		{"timestamps of the wrong length", "0809 00000001 000000", capture.Options{}, []uint8{8}},
		{
			"timestamps twice", ts + "080a 00000003 00000004",
			capture.Options{Timestamps: true, TSval: 3, TSecr: 4},
			[]uint8{8, 8},
		},
		{"40 NOPs", strings.Repeat("01", 40), capture.Options{}, bytes.Repeat([]uint8{1}, capture.MaxKinds)},
		{"an option behind 24", strings.Repeat("01", 24) + "0402", capture.Options{SACKPermitted: true}, bytes.Repeat([]uint8{1}, capture.MaxKinds)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := capture.Options{TSval: 99, WScale: 9, Malformed: true} // what was there before
			got.Parse(unhex(t, tt.options))
			if !bytes.Equal(got.Kinds(), tt.kinds) {
				t.Errorf("kinds %v, want %v", got.Kinds(), tt.kinds)
			}
			if fields(got) != fields(tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// optionFields is Options without its kinds.
type optionFields struct {
	tsval, tsecr                          uint32
	mss                                   uint16
	wscale, eolPad                        uint8
	ts, hasMSS, hasWScale, sack, wrongLen bool
}

func fields(o capture.Options) optionFields {
	return optionFields{
		o.TSval, o.TSecr, o.MSS, o.WScale, o.EOLPad,
		o.Timestamps, o.HasMSS, o.HasWScale, o.SACKPermitted, o.Malformed,
	}
}
