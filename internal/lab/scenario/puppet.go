// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/twscope/twscope/internal/lab"
)

// puppet is a host made of forged segments: its timestamps come from a clock
// that no kernel chooses. It closes second, as its server must close first.
//
// Its address is routed to the real host that sends for it, which does not
// forward, so that no kernel answers in its place.
type puppet struct {
	host    *lab.Host
	capture *lab.Capture // on that host's end
	addr    netip.Addr
	target  netip.AddrPort
	clock   uint32 // TSval when began
	began   time.Time
	last    uint32 // TSval sent last
	refused int    // SYNs that were answered with the ACK of an old connection
	sent    map[synID]int
}

// puppetWait bounds the wait for an answer.
const puppetWait = 10 * time.Second

// newPuppet builds the network of a puppet, whose server closes first.
func newPuppet(ctx context.Context, s *stage) (*puppet, *lab.Host, error) {
	hosts, err := s.add("client", "server")
	if err != nil {
		return nil, nil, err
	}
	link, err := s.link(ctx, hosts[0], hosts[1], "10.1.0.0/24")
	if err != nil {
		return nil, nil, err
	}
	if err := hosts[1].Route("10.77.0.0/24", link.A.Addr4()); err != nil {
		return nil, nil, err
	}
	sv, err := hosts[1].Serve(lab.Server{Network: "tcp4", ClosesFirst: true})
	if err != nil {
		return nil, nil, err
	}
	p := &puppet{
		host: hosts[0], addr: netip.AddrFrom4([4]byte{10, 77, 0, 1}), target: sv.Targets(link.B.Addr4())[0],
		clock: 1 << 31, began: time.Now(), sent: map[synID]int{},
	}
	p.capture, err = link.A.Capture()
	return p, hosts[1], err
}

// tick returns a TSval, in ms, that is later than the one before.
func (p *puppet) tick(ctx context.Context) (uint32, error) {
	now := p.clock + uint32(time.Since(p.began).Milliseconds())
	for now == p.last {
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
		now = p.clock + uint32(time.Since(p.began).Milliseconds())
	}
	p.last = now
	return now, nil
}

// restart gives the host another clock.
func (p *puppet) restart(clock uint32) { p.clock, p.began, p.last = clock, time.Now(), 0 }

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// linuxOptions are the options of a SYN as Linux sends it over Ethernet.
func linuxOptions(tsval uint32) []byte {
	return slices.Concat(
		[]byte{2, 4, 1460 >> 8, 1460 & 0xff, 4, 2, 8, 10},
		binary.BigEndian.AppendUint32(nil, tsval), make([]byte, 4), []byte{1, 3, 3, 7})
}

// syn sends a SYN and returns it with the next segment that came back.
func (p *puppet) syn(port uint16, seq, tsval uint32) (lab.RawSegment, lab.Segment, error) {
	s := lab.RawSegment{
		Src: netip.AddrPortFrom(p.addr, port), Dst: p.target, Flags: lab.SYN, Seq: seq, Window: 64240,
		Options: linuxOptions(tsval),
	}
	id := synID{seq, tsval}
	p.sent[id]++
	if err := p.host.SendSegment(s); err != nil {
		return s, lab.Segment{}, err
	}
	passed := 0 // copies of it on the wire
	answer, err := p.capture.Wait(puppetWait, func(x *lab.Segment) bool {
		if x.Outgoing && x.Src == s.Src && x.Has(lab.SYN) && x.Seq == seq && x.TSval == tsval {
			passed++
		}
		return !x.Outgoing && passed == p.sent[id] && x.Dst == s.Src
	})
	if err != nil {
		err = fmt.Errorf("answer to a SYN from port %d: %w", port, err)
	}
	return s, answer, err
}

// connect makes a connection from a port, which the server closes at once, and
// returns its SYN's sequence number and TSval. If the server refuses the SYN it
// does as Linux does: RST, and the SYN again.
func (p *puppet) connect(ctx context.Context, port uint16) (synID, error) {
	seq := rand.Uint32()
	for {
		tsval, err := p.tick(ctx)
		if err != nil {
			return synID{}, err
		}
		s, answer, err := p.syn(port, seq, tsval)
		if err != nil {
			return synID{}, err
		}
		if answer.Has(lab.SYN | lab.ACK) {
			return synID{seq, tsval}, p.finish(ctx, s, answer)
		}
		p.refused++
		rst := lab.RawSegment{Src: s.Src, Dst: s.Dst, Flags: lab.RST, Seq: answer.Ack}
		if err := p.host.SendSegment(rst); err != nil {
			return synID{}, err
		}
	}
}

// finish completes a handshake, waits for the server's FIN and sends the
// client's.
func (p *puppet) finish(ctx context.Context, s lab.RawSegment, synAck lab.Segment) error {
	send := func(flags uint8, ack uint32) error {
		tsval, err := p.tick(ctx)
		if err != nil {
			return err
		}
		s.Flags, s.Seq, s.Ack, s.Options = flags, synAck.Ack, ack, lab.TimestampOption(tsval, synAck.TSval)
		return p.host.SendSegment(s)
	}
	if err := send(lab.ACK, synAck.Seq+1); err != nil {
		return err
	}
	theirs := func(x *lab.Segment) bool { return !x.Outgoing && x.Dst == s.Src }
	fin, err := p.capture.Wait(puppetWait, func(x *lab.Segment) bool {
		return theirs(x) && x.Has(lab.FIN) && x.Seq == synAck.Seq+1
	})
	if err != nil {
		return fmt.Errorf("FIN to port %d: %w", s.Src.Port(), err)
	}
	if err := send(lab.FIN|lab.ACK, fin.Seq+1); err != nil {
		return err
	}
	_, err = p.capture.Wait(puppetWait, func(x *lab.Segment) bool { return theirs(x) && x.Ack == synAck.Ack+1 })
	if err != nil {
		return fmt.Errorf("last ACK to port %d: %w", s.Src.Port(), err)
	}
	return nil
}
