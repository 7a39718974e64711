// SPDX-License-Identifier: Apache-2.0

package session

// driftLooks is how often in a row sockstat must tell another number
// before the sockets in TIME_WAIT are counted anew. They end in lumps every
// 2 s, as often as we look.
const driftLooks = 3

// drift is how far the book is from what sockstat tells of a namespace.
type drift struct {
	looks   int    // in a row that found another number in TIME_WAIT
	entered uint64 // sockets that had entered TIME_WAIT by the last look
	left    int64  // the difference that the last count left, so that none can mend it
}

// recounted takes in the difference that a count has left. While sockets come
// it is one of time.
func (d *drift) recounted(missing int64, entered uint64) {
	if entered != d.entered {
		missing = 0
	}
	*d = drift{entered: entered, left: missing}
}

// look takes in a difference, and how many sockets are in TIME_WAIT and have
// ever been. It reports whether that many looks in a row have found one. While
// sockets come, a look is some events older or younger than the book: at most
// those between two looks. At rest the two are equal.
func (d *drift) look(missing int64, timeWaits uint32, entered uint64) bool {
	var slack int64
	if under := entered - d.entered; under > 0 {
		slack = max(8, int64(timeWaits)/100) + int64(under)
	}
	d.entered = entered
	if missing == 0 {
		d.left = 0
	}
	if missing == d.left || max(missing, -missing) <= slack {
		d.looks = 0
		return false
	}
	d.looks++
	return d.looks >= driftLooks
}
