// SPDX-License-Identifier: Apache-2.0

package refusal

import "github.com/twscope/twscope/internal/paws"

// recycles are the kernels whose tcp_tw_recycle is applied.
var recycles = [...]paws.Recycle{paws.Recycle2632, paws.Recycle310}

// host is what these kernels would remember of a source address, whichever of
// our addresses it talks to.
type host [len(recycles)]paws.Host

// ask counts a SYN that met no socket in TIME_WAIT, and who would have refused
// it. Seconds are those of the event's time.
func (j *Judge) ask(k *sourceKey, s *source, syn paws.SYN, now int64) {
	s.asked++
	h := j.hosts.get(k.host(), now)
	if h == nil {
		return
	}
	for i, r := range recycles {
		if h[i].Refuses(r, syn, uint32(now/second)) {
			s.recycle[i]++
		}
	}
}

// remember is what these kernels do when a connection enters TIME_WAIT:
// tcp_v4_remember_stamp, tcp_remember_stamp.
func (j *Judge) remember(k *sourceKey, tsval uint32, now int64) {
	// What is older than MSL refuses nothing and is replaced by anything.
	h := j.hosts.put(k.host(), true, now, now+2*paws.MSL*second)
	if h == nil {
		return
	}
	stamp := uint32(now / second)
	for i, r := range recycles {
		h[i] = h[i].Remember(r, paws.Recent{TSval: tsval, Stamp: stamp}, stamp)
	}
}
