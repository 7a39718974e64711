// SPDX-License-Identifier: Apache-2.0

package ports

// The wheel has a slot for every 4 ms of the next 131 s, which is more than
// TIME_WAIT with any rounding by the kernel.
const (
	slotBits  = 2 // of the ms
	wheelSize = 1 << 15
	wheelMask = wheelSize - 1
	// horizon is how far ahead of the current slot a socket may be put, in ms.
	horizon = wheelSize<<slotBits - 2<<slotBits

	// listHead in socket.prev: the first of a list.
	listHead = 1 << 31
)

// wheel lists the sockets by when something is to happen to them.
type wheel struct {
	slot  int64 // Unix ms / 4 of the slot that fires next
	heads [wheelSize]uint32
}

// put puts a socket where it fires at an instant, or in the next slot if that
// is past, or at the horizon, for the caller to put it again.
func (w *wheel) put(t *table, i, when uint32) {
	now := uint32(w.slot << slotBits)
	d := min(max(int32(when-now), 0), horizon)
	slot := (now + uint32(d)) >> slotBits & wheelMask
	s, head := t.at(i), &w.heads[slot]
	s.next, s.prev = *head, listHead|slot
	if s.next != 0 {
		t.at(s.next).prev = i
	}
	*head = i
}

// take takes a socket out of its slot.
func (w *wheel) take(t *table, i uint32) {
	s := t.at(i)
	if s.prev&listHead != 0 {
		w.heads[s.prev&wheelMask] = s.next
	} else {
		t.at(s.prev).next = s.next
	}
	if s.next != 0 {
		t.at(s.next).prev = s.prev
	}
	s.next, s.prev = 0, 0
}

// fire returns the list of the sockets in the next slot, and goes on to the
// one after it.
func (w *wheel) fire() uint32 {
	head := &w.heads[w.slot&wheelMask]
	first := *head
	*head = 0
	w.slot++
	return first
}
