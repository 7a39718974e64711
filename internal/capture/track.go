// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/paws"
)

// copyWithin is how soon a SYN that is the same in all is the same packet,
// captured again on another interface. No system repeats one that fast: Linux
// waits 2 jiffies at least (TCP_TIMEOUT_MIN).
const copyWithin = time.Millisecond

// windowMax is by how much an acknowledgement may be ahead of another, in
// bytes, to be of the same connection: more than hosts have buffers for.
const windowMax = 1 << 24

// arrive takes a SYN. i is its connection or none.
func (s *Source) arrive(i int32, k *key, flipped bool, g *Segment) {
	if g.OptionsCut && !g.Timestamps {
		s.stats.CutSYNs++
		return
	}
	again := false
	if i == none {
		i = s.add(k, flipped)
	} else {
		c := s.table.touch(i)
		again = c.flipped == flipped && c.isn == g.Seq && s.now-c.synAt < int64(repeatWithin)
		if again && c.hs == asked && c.synTSval == g.TSval && s.now-c.synAt <= int64(copyWithin) {
			s.stats.Copies++
			return
		}
		if c.flipped != flipped { // the server connects to the client
			*c = conn{key: c.key, newer: c.newer, older: c.older, list: c.list, flipped: flipped}
		}
	}
	if !again {
		s.stats.SYNs++
		s.ask(i, g)
		return
	}
	s.stats.Repeated++
	if c := &s.table.conns[i]; s.settled(c) {
		c.synTSval, c.synAt = g.TSval, s.now
		return
	}
	s.ask(i, g)
}

// add makes a new connection and returns its place.
func (s *Source) add(k *key, flipped bool) int32 {
	i, lost := s.table.add(k, s.now)
	if lost {
		s.stats.Evicted++
	}
	s.table.conns[i].flipped = flipped
	return i
}

// settled tells, when a SYN is repeated, whether that is of no consequence. If
// not, it has another chance.
func (s *Source) settled(c *conn) bool {
	if c.hs != asked {
		return c.hs != refused
	}
	p := s.queue.get(c.pending)
	switch {
	case p == nil:
		return c.phase != timeWait
	case p.refusable():
		s.refuse(c, p, event.ReplyNone)
		return false
	case p.onOld && p.alive:
		c.phase = closed // for a listener that did not take it either
	case p.onOld:
		p.fate = passedOver
		return false
	}
	return true
}

// ask makes a SYN wait for its answer.
func (s *Source) ask(i int32, g *Segment) {
	c := &s.table.conns[i]
	p := pending{
		time: s.now, local: unmap(g.Dst), remote: unmap(g.Src), ttl: g.TTL, fingerprint: s.prints.of(g),
		SYN: paws.SYN{Seq: g.Seq, Timestamps: g.Timestamps, TSval: g.TSval},
	}
	if c.phase == timeWait && s.now-c.expires >= int64(longestTimeWait-timeWaitLen) {
		c.phase = closed
	}
	switch c.phase {
	case timeWait:
		p.onOld, p.old, p.alive = true, c.old(), !c.killed && s.now < c.expires
		p.outcome = p.old.Receive(p.SYN, seconds(s.now), paws.WrapMicroseconds)
	case open:
		p.onOpen = true
	}
	c.hs, c.isn, c.synTS, c.synTSval, c.synAt, c.acks = asked, g.Seq, g.Timestamps, g.TSval, s.now, false
	c.pending = s.queue.push(p)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// old returns what the server remembers of c in TIME_WAIT.
func (c *conn) old() oldSocket {
	o := oldSocket{taken: c.tsAt, since: c.since}
	o.RcvNxt = c.clientEnd
	if c.ts {
		o.Recent = paws.Recent{TSval: c.tsRecent, Stamp: seconds(c.tsAt)}
	}
	return o
}

// refuse notes that a SYN was refused in TIME_WAIT. If it was by PAWS, that
// begins anew: tcp_timewait_state_process.
func (s *Source) refuse(c *conn, p *pending, r event.Reply) {
	p.refuse(r)
	c.hs = refused
	if p.fate == refusedPAWS {
		c.expires = p.time + int64(timeWaitLen)
		s.stats.RefusedPAWS++
	} else {
		s.stats.RefusedOther++
	}
}

// fromServer takes a segment of a server.
func (s *Source) fromServer(c *conn, g *Segment) {
	p := s.queue.get(c.pending)
	switch {
	case g.Flags.Has(RST):
		if c.hs == asked && g.Ack == c.isn+1 {
			s.deny(c, p)
		} else {
			c.phase = closed
		}
	case g.Flags.Has(SYN | ACK):
		s.accept(c, p, g)
	case !g.Flags.Has(ACK):
	case c.hs == asked && p != nil && g.Len == 0 && !g.Flags.Has(FIN):
		s.bareACK(c, p, g)
	case c.phase == open:
		s.serverOpen(c, g)
	}
}

// bareACK takes an ACK that is none of the SYN which waits.
func (s *Source) bareACK(c *conn, p *pending, g *Segment) {
	switch {
	case p.onOld && g.Ack == p.old.RcvNxt:
		s.refuse(c, p, event.ReplyACK)
	case g.Ack-(c.isn+1) < windowMax: // its SYN-ACK is missing
	case p.onOpen && g.Ack == c.lastAck: // a challenge ACK, RFC 5961 section 4
		p.fate, c.hs = passedOver, refused
		s.stats.OnOpen++
	case !p.onOld && !p.onOpen:
		p.fate, c.hs = passedOver, refused
		s.stats.OnUnseen++
	}
}

// deny notes that a SYN was answered by RST.
func (s *Source) deny(c *conn, p *pending) {
	if p != nil {
		p.fate = denied
	}
	c.hs, c.phase = refused, closed
	s.stats.Denied++
}

// accept takes a SYN-ACK: a connection begins, in place of what there was.
func (s *Source) accept(c *conn, p *pending, g *Segment) {
	// Up to a window of data may come with a SYN (RFC 7413).
	if c.hs == answered || c.hs == done || g.Ack-(c.isn+1) >= 1<<16 {
		return
	}
	if p != nil && p.fate == waiting {
		p.fate = accepted
		if p.refusable() {
			s.stats.Anyway++
		}
	}
	s.stats.Answered++
	*c = conn{
		key: c.key, newer: c.newer, older: c.older, list: c.list, flipped: c.flipped,
		hs: answered, synTS: c.synTS, isn: c.isn, synTSval: c.synTSval, synAt: c.synAt, pending: c.pending,
		phase: open, ts: c.synTS && (g.Timestamps || g.OptionsCut), tsRecent: c.synTSval, tsAt: c.synAt,
		serverISN: g.Seq, lastAck: g.Ack,
	}
}

// serverOpen takes a segment of a server on a connection that is open.
func (s *Source) serverOpen(c *conn, g *Segment) {
	if paws.After(g.Ack, c.lastAck) {
		c.lastAck = g.Ack
	}
	if g.Flags.Has(FIN) && !c.serverFIN {
		c.serverFIN, c.serverEnd = true, g.Seq+uint32(g.Len)+1
		c.serverFirst = !c.clientFIN || paws.Before(g.Ack, c.clientEnd)
	}
	s.end(c, g.Dst, g.Src)
}

// fromClient takes a segment of a client.
func (s *Source) fromClient(i int32, c *conn, g *Segment) {
	if g.Flags.Has(RST) {
		s.reset(c, g)
		return
	}
	if !g.Flags.Has(ACK) || g.Flags.Has(SYN) {
		return
	}
	if c.hs == asked && s.stats.FromServers == 0 {
		s.infer(i, c, g)
	}
	if c.hs == answered && g.Ack-(c.serverISN+1) < 1<<30 && g.Seq-c.isn < 1<<30 {
		s.complete(i, c)
	}
	switch c.phase {
	case open:
		s.clientOpen(c, g)
	case timeWait:
		s.clientTimeWait(c, g)
	}
}

// complete notes that a handshake has been completed.
func (s *Source) complete(i int32, c *conn) {
	c.hs = done
	s.stats.Completed++
	s.table.prove(i)
	if p := s.queue.get(c.pending); p != nil && p.fate == accepted {
		p.fate = completed
	} else {
		s.stats.Late++
	}
}

// infer concludes that a handshake was completed, where no server's packet is
// in the capture, from a client that acknowledges more and more.
func (s *Source) infer(i int32, c *conn, g *Segment) {
	switch d := g.Ack - (c.serverISN + 1); {
	case !c.acks:
		c.acks, c.serverISN = g.Seq == c.isn+1, g.Ack-1
	case d > 0 && d < windowMax:
		c.hs = done
		s.stats.Inferred++
		s.table.prove(i)
		if p := s.queue.get(c.pending); p != nil && p.fate == waiting {
			p.fate = completed
		} else {
			s.stats.Late++
		}
	}
}

// clientOpen takes a segment of a client on a connection that is open.
func (s *Source) clientOpen(c *conn, g *Segment) {
	end := g.Seq + uint32(g.Len)
	// tcp_replace_ts_recent behind tcp_sequence of net/ipv4/tcp_input.c, 6.18
	if c.ts && g.Timestamps && !paws.After(g.Seq, c.lastAck) && !paws.Before(end, c.lastAck) && !paws.Before(g.TSval, c.tsRecent) {
		c.tsRecent, c.tsAt = g.TSval, s.now
	}
	if g.Flags.Has(FIN) && !c.clientFIN {
		c.clientFIN, c.clientEnd = true, end+1
	}
	if c.serverFIN && !paws.Before(g.Ack, c.serverEnd) {
		c.serverFINGot = true
	}
	s.end(c, g.Src, g.Dst)
}

// end looks whether both sides have closed, and acknowledged that.
func (s *Source) end(c *conn, client, server netip.AddrPort) {
	if !c.clientFIN || !c.serverFIN || !c.serverFINGot || paws.Before(c.lastAck, c.clientEnd) {
		return
	}
	if !c.serverFirst {
		c.phase = closed // the client is in TIME_WAIT
		return
	}
	c.phase, c.since, c.expires = timeWait, s.now, s.now+int64(timeWaitLen)
	s.stats.TimeWaits++
	s.queue.push(pending{time: s.now, local: unmap(server), remote: unmap(client), fate: enteredTimeWait, old: c.old()})
}

// clientTimeWait takes a segment of a client whose connection is in TIME_WAIT
// with the server: tcp_timewait_state_process of 6.18.
func (s *Source) clientTimeWait(c *conn, g *Segment) {
	old := c.old()
	stale := old.timestamps() && g.Timestamps && paws.Reject(old.Recent, g.TSval, false, seconds(s.now), paws.WrapMicroseconds)
	if !stale && g.Seq == c.clientEnd && g.Len == 0 && c.ts && g.Timestamps {
		c.tsRecent, c.tsAt = g.TSval, s.now
	}
	c.expires = s.now + int64(timeWaitLen)
}

// reset takes an RST of a client. Servers that ignore it in TIME_WAIT (RFC
// 1337) are known by how they answer the next SYN.
func (s *Source) reset(c *conn, g *Segment) {
	switch c.phase {
	case open:
		c.phase = closed
	case timeWait:
		old := c.old()
		stale := old.timestamps() && g.Timestamps && paws.Reject(old.Recent, g.TSval, true, seconds(s.now), paws.WrapMicroseconds)
		c.killed = c.killed || g.Seq == c.clientEnd && !stale
	}
}
