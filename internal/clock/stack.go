// SPDX-License-Identifier: Apache-2.0

package clock

import "strings"

const (
	maxStacks = 4
	// stackPerTuple marks a stack that draws its offset per 4-tuple.
	stackPerTuple = 1 << 15

	// window is the half of the time that counts are kept for, in s.
	window = 1800
)

// stack counts the SYNs of one kind of TCP stack at one source, in this half
// window and the one before.
type stack struct {
	id  uint16    // see stackOf; 0: none
	on  [2]uint16 // connections on a chain
	off [2]uint16 // with a completed handshake, and on none
}

func (s *stack) onLine() int  { return int(s.on[0]) + int(s.on[1]) }
func (s *stack) offLine() int { return int(s.off[0]) + int(s.off[1]) }

// Group returns the group of a SYN's fingerprint, in the form of
// event.Fingerprint's String, and its TTL as it arrived (0: not known). SYNs
// of one clock are of one group; the clocks of one group may be many. It is 0
// for an empty fingerprint. Callers should keep it with the text.
func (t *Tracker) Group(fingerprint string, ttl uint8) Group {
	if fingerprint == "" {
		return 0
	}
	id := uint16(t.key.text(fingerprint)^uint64(ttl)*0x9e3779b97f4a7c15>>32) &^ stackPerTuple
	if perTuple(fingerprint) {
		id |= stackPerTuple
	}
	return Group(max(id, 1))
}

// perTuple tells whether the options are those of a system that has long
// drawn the offset of TSval per 4-tuple: Apple's since 2021 (tcp_subr.c,
// randomize_timestamps), FreeBSD (tcp_syncache.c, tcp_new_ts_offset).
func perTuple(fingerprint string) bool {
	parts := strings.Split(fingerprint, ":")
	if len(parts) != 6 || parts[1] != "64" || parts[3] != "65535" {
		return false
	}
	switch parts[5] {
	case "mss,nop,ws,nop,nop,ts,sok,eol+1", "mss,nop,ws,sok,ts":
		return true
	}
	return false
}

// turn begins a new half window where it is time, and tells whether it was.
func (h *header) turn(sec uint32) bool {
	epoch := sec / window
	switch int32(epoch - h.epoch) {
	case 0:
		return false
	case 1:
		h.raw = [2]uint16{0, h.raw[0]}
		for i := range h.stacks {
			s := &h.stacks[i]
			s.on, s.off = [2]uint16{0, s.on[0]}, [2]uint16{0, s.off[0]}
		}
	default:
		if int32(epoch-h.epoch) < 0 {
			return false // SYNs come a little out of order
		}
		h.raw = [2]uint16{}
		for i := range h.stacks {
			h.stacks[i].on, h.stacks[i].off = [2]uint16{}, [2]uint16{}
		}
	}
	h.epoch = epoch
	return true
}

// stack returns the index of a stack. The last is shared by all that come when
// the others are in use.
func (h *header) stack(id uint16) uint8 {
	idle := maxStacks - 1
	for i := range h.stacks {
		s := &h.stacks[i]
		if s.id == id && s.onLine()+s.offLine() > 0 {
			return uint8(i)
		}
		if s.onLine()+s.offLine() == 0 && i < idle {
			idle = i
		}
	}
	h.stacks[idle].id = id
	return uint8(idle)
}

func more(n *uint16) {
	if *n != 1<<16-1 {
		*n++
	}
}

// fewer takes one back, of this half window or of the one before.
func fewer(n *[2]uint16) {
	switch {
	case n[0] > 0:
		n[0]--
	case n[1] > 0:
		n[1]--
	}
}

// strays returns how many SYNs that were on no line may have come within dt ms:
// each of them might have hit a cone that is open for so long.
func (h *header) strays(dt uint32) int {
	n := int64(h.unproven())
	for i := range h.stacks {
		n += int64(h.stacks[i].offLine())
	}
	return int(n * min(int64(dt), window*1000) / (window * 1000))
}

// strangers returns how many SYNs of the window were on no line.
func (h *header) strangers(sec uint32) int {
	now := *h
	now.turn(sec)
	n := now.unproven()
	for i := range now.stacks {
		n += now.stacks[i].offLine()
	}
	return n
}
