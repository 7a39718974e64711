// SPDX-License-Identifier: Apache-2.0

package probe

import "github.com/twscope/twscope/internal/bpf"

// pair is two hosts in a network namespace.
type pair struct {
	laddr, raddr [16]byte
	netns        uint32
}

// pairs gives address pairs small numbers, as long as somebody refers to them:
// among the sockets in TIME_WAIT few pairs appear many times.
type pairs struct {
	numbers map[pair]uint32
	list    []pairUse // by number
	free    []uint32
	last    uint32 // the number asked for last
}

type pairUse struct {
	pair
	refs uint32
}

func newPairs() *pairs { return &pairs{numbers: map[pair]uint32{}} }

func pairOf(t *bpf.Tuple) pair { return pair{t.Laddr, t.Raddr, t.Netns} }

// find returns the number of a pair that is referred to.
func (p *pairs) find(t *bpf.Tuple) (uint32, bool) {
	if int(p.last) < len(p.list) {
		u := &p.list[p.last]
		if u.refs > 0 && u.laddr == t.Laddr && u.raddr == t.Raddr && u.netns == t.Netns {
			return p.last, true
		}
	}
	n, ok := p.numbers[pairOf(t)]
	if ok {
		p.last = n
	}
	return n, ok
}

// hold refers to a pair once more.
func (p *pairs) hold(t *bpf.Tuple) uint32 {
	n, ok := p.find(t)
	if !ok {
		if last := len(p.free) - 1; last >= 0 {
			n, p.free = p.free[last], p.free[:last]
		} else {
			n = uint32(len(p.list))
			p.list = append(p.list, pairUse{})
		}
		p.list[n] = pairUse{pair: pairOf(t)}
		p.numbers[p.list[n].pair] = n
		p.last = n
	}
	p.list[n].refs++
	return n
}

// release takes a reference back.
func (p *pairs) release(n uint32) {
	u := &p.list[n]
	u.refs--
	if u.refs == 0 {
		delete(p.numbers, u.pair)
		p.free = append(p.free, n)
	}
}
