// SPDX-License-Identifier: Apache-2.0

package capture

import "fmt"

// SourceStats counts what a Source has seen.
type SourceStats struct {
	Segments    int64
	FromClients int64 // on connections whose SYN was seen, besides SYNs
	FromServers int64 // likewise
	Unknown     int64 // segments of other connections
	// StraySYNACKs are SYN-ACKs whose SYN is not in the capture.
	StraySYNACKs int64
	Disordered   int64 // older than one before, by Disorder at most
	Strays       int64 // older still: passed over

	SYNs         int64 // SYNs without those that repeat one
	Repeated     int64 // those
	Copies       int64 // the same packet, captured again
	CutSYNs      int64 // passed over: the capture holds too little to find timestamps
	Answered     int64 // by a SYN-ACK
	Completed    int64 // of those, handshakes
	Inferred     int64 // handshakes concluded from the packets of the clients alone
	Late         int64 // of both, so late that the SYN had been told before
	Denied       int64 // answered by RST: nobody listens
	Unanswered   int64 // not within Hold
	Undecided    int64 // of those, on a socket in TIME_WAIT, and not repeated
	RefusedPAWS  int64 // told as event.PAWSReject
	RefusedOther int64 // told as event.SYNReject
	OnOpen       int64 // refused by a connection that is open: not told
	OnUnseen     int64 // refused by one that is not in the capture: not told
	Anyway       int64 // accepted, though a socket in TIME_WAIT should have refused it
	TimeWaits    int64 // told as event.TimeWait

	Evicted int64 // connections forgotten for want of room
	Hurried int64 // SYNs that pushed one out before its time, for want of room
}

// Stats returns what has been seen so far.
func (s *Source) Stats() SourceStats { return s.stats }

// Notes says in words what cannot be known from this capture.
func (c *SourceStats) Notes() []string {
	var notes []string
	note := func(n int64, format string) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf(format, n))
		}
	}
	switch {
	case c.SYNs+c.CutSYNs == 0 && c.StraySYNACKs > 0:
		notes = append(notes, "no SYNs, but SYN-ACKs: the packets of the clients are missing, without which nothing can be told")
	case c.SYNs+c.CutSYNs == 0:
		notes = append(notes, "no SYNs: nothing can be told")
	case c.SYNs > 0 && c.FromServers == 0:
		notes = append(notes, "no packets of the servers: refusals cannot be seen, only clocks; that handshakes were completed follows from what the clients acknowledge")
	}
	note(c.CutSYNs, "%d SYNs hold too little of their options: capture with a snap length of 128 bytes or more")
	note(c.Unknown, "%d segments are of connections whose SYN is not in the capture: what becomes of their ports is not known")
	if c.SYNs > 0 {
		note(c.StraySYNACKs, "%d SYN-ACKs without their SYN: packets are missing")
	}
	note(c.OnUnseen, "%d SYNs were refused by connections that are not in the capture: why is not known")
	note(c.Undecided, "%d SYNs on sockets in TIME_WAIT were neither answered nor repeated: refused or lost, it is not known")
	note(c.Anyway, "%d SYNs were accepted though a socket in TIME_WAIT should have refused them: it was gone, or packets are missing")
	note(c.Late, "%d handshakes were completed too late to be counted")
	note(c.Disordered, "%d packets are out of order, and were taken as sent with the one before")
	note(c.Strays, "%d packets are so late that they were passed over: put the capture in order with `reordercap IN OUT`")
	note(c.Evicted, "%d connections were forgotten for want of room, what they refused is not known")
	note(c.Hurried, "%d SYNs were judged before their time for want of room")
	return notes
}
