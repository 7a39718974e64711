// SPDX-License-Identifier: Apache-2.0

package paws_test

import (
	"testing"

	"github.com/twscope/twscope/internal/paws"
)

func TestReceive(t *testing.T) {
	const rcvNxt, tsRecent = 100_000, 5000
	with := paws.TimeWait{
		Recent: paws.Recent{TSval: tsRecent, Stamp: now - 1},
		RcvNxt: rcvNxt, RcvWnd: 1000,
	}
	without := paws.TimeWait{RcvNxt: rcvNxt, RcvWnd: 1000}
	finWait2 := with
	finWait2.FinWait2 = true
	tests := []struct {
		name string
		tw   paws.TimeWait
		syn  paws.SYN
		want paws.Outcome
	}{
		{"newer TSval, old sequence", with, paws.SYN{Seq: 1, Timestamps: true, TSval: tsRecent + 1}, paws.Accept},
		{"equal TSval, new sequence", with, paws.SYN{Seq: rcvNxt + 1, Timestamps: true, TSval: tsRecent}, paws.Accept},
		{"equal TSval, expected sequence", with, paws.SYN{Seq: rcvNxt, Timestamps: true, TSval: tsRecent}, paws.Sequence},
		{"equal TSval, old sequence", with, paws.SYN{Seq: 1, Timestamps: true, TSval: tsRecent}, paws.Sequence},
		{"older TSval, new sequence", with, paws.SYN{Seq: rcvNxt + 1, Timestamps: true, TSval: tsRecent - 1}, paws.PAWS},
		{"no timestamps, new sequence", with, paws.SYN{Seq: rcvNxt + 1}, paws.Accept},
		{"no timestamps, old sequence", with, paws.SYN{Seq: 1}, paws.Sequence},
		{"never negotiated, new sequence", without, paws.SYN{Seq: rcvNxt + 1, Timestamps: true, TSval: 1}, paws.Accept},
		{"never negotiated, old sequence", without, paws.SYN{Seq: 1, Timestamps: true, TSval: 1}, paws.Sequence},
		{"sequence across the wrap", paws.TimeWait{RcvNxt: 0xfffffff0}, paws.SYN{Seq: 4}, paws.Accept},
		{"FIN_WAIT2, older TSval", finWait2, paws.SYN{Seq: rcvNxt, Timestamps: true, TSval: tsRecent - 1}, paws.PAWS},
		{"FIN_WAIT2, expected sequence", finWait2, paws.SYN{Seq: rcvNxt, Timestamps: true, TSval: tsRecent}, paws.Reset},
		{"FIN_WAIT2, end of the window", finWait2, paws.SYN{Seq: rcvNxt + 999}, paws.Reset},
		{"FIN_WAIT2, beyond the window", finWait2, paws.SYN{Seq: rcvNxt + 1000}, paws.Sequence},
		{"FIN_WAIT2, old sequence", finWait2, paws.SYN{Seq: rcvNxt - 1, Timestamps: true, TSval: tsRecent + 9}, paws.Sequence},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.tw.Receive(tt.syn, now, paws.WrapMicroseconds); got != tt.want {
				t.Errorf("Receive(%+v) = %d, want %d", tt.syn, got, tt.want)
			}
		})
	}
}

func TestReceiveProperties(t *testing.T) {
	check(t, "PAWS needs timestamps on both sides", func(tw paws.TimeWait, s paws.SYN, at uint32) bool {
		return tw.Receive(s, at, paws.WrapMicroseconds) != paws.PAWS || s.Timestamps && tw.Stamp != 0
	})
	check(t, "the refusal of PAWS comes before all else", func(tw paws.TimeWait, s paws.SYN, at uint32) bool {
		refused := tw.Stamp != 0 && s.Timestamps && paws.Reject(tw.Recent, s.TSval, false, at, paws.Wrap24Days)
		return refused == (tw.Receive(s, at, paws.Wrap24Days) == paws.PAWS)
	})
	check(t, "a socket in FIN_WAIT2 accepts no SYN", func(tw paws.TimeWait, s paws.SYN, at uint32) bool {
		tw.FinWait2 = true
		return tw.Receive(s, at, paws.WrapMicroseconds) != paws.Accept
	})
	check(t, "only a socket in FIN_WAIT2 answers RST", func(tw paws.TimeWait, s paws.SYN, at uint32) bool {
		tw.FinWait2 = false
		return tw.Receive(s, at, paws.WrapMicroseconds) != paws.Reset
	})
}
