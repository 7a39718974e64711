// SPDX-License-Identifier: Apache-2.0

package capture

import "time"

// key is a 4-tuple, of either direction.
type key struct {
	a, b         [16]byte
	aPort, bPort uint16
}

// keyOf returns the key of a segment's 4-tuple, and whether it goes from b to
// a. IPv4-mapped addresses are IPv4 addresses.
func keyOf(s *Segment) (k key, flipped bool) {
	k = key{s.Src.Addr().As16(), s.Dst.Addr().As16(), s.Src.Port(), s.Dst.Port()}
	flipped = string(k.a[:]) > string(k.b[:]) || k.a == k.b && k.aPort > k.bPort
	if flipped {
		k = key{k.b, k.a, k.bPort, k.aPort}
	}
	return k, flipped
}

const none int32 = -1

// list is a list of connections, the one that was used last first.
type list struct {
	first, last int32
	n           int
}

// table holds connections by 4-tuple, in two lists: those whose handshake has
// never been completed, and the others. When it is full, the first kind drives
// out its own, so that forged SYNs do not make it forget connections. If those
// take nearly all of it they have to make room, so that a handshake has time.
type table struct {
	index map[key]int32
	conns []conn
	lists [2]list
	most  int
}

const (
	unproven = 0
	proven   = 1
)

func newTable(most int) table {
	return table{index: map[key]int32{}, lists: [2]list{{none, none, 0}, {none, none, 0}}, most: most}
}

// find returns the place of a connection, or none.
func (t *table) find(k *key) int32 {
	if i, ok := t.index[*k]; ok {
		return i
	}
	return none
}

// touch returns the connection at a place, which becomes the one used last.
func (t *table) touch(i int32) *conn {
	c := &t.conns[i]
	if l := &t.lists[c.list]; l.first != i {
		t.unlink(i)
		t.link(i)
	}
	return c
}

// prove moves a connection to the list of those with a completed handshake.
func (t *table) prove(i int32) {
	if t.conns[i].list == proven {
		return
	}
	t.unlink(i)
	t.conns[i].list = proven
	t.link(i)
}

// add makes a new connection and returns its place. It tells whether another
// one is lost for it.
func (t *table) add(k *key, now int64) (i int32, lost bool) {
	if len(t.conns) < t.most {
		i = int32(len(t.conns))
		t.conns = append(t.conns, conn{})
	} else {
		i = t.victim()
		lost = !t.conns[i].dated(now)
		t.unlink(i)
		delete(t.index, t.conns[i].key)
	}
	t.conns[i] = conn{key: *k}
	t.index[*k] = i
	t.link(i)
	return i, lost
}

// victim returns the place of the connection that has to go.
func (t *table) victim() int32 {
	if u := &t.lists[unproven]; u.n > 0 && (u.n > t.most/8 || t.lists[proven].n == 0) {
		return u.last
	}
	return t.lists[proven].last
}

func (t *table) link(i int32) {
	c := &t.conns[i]
	l := &t.lists[c.list]
	c.newer, c.older = none, l.first
	if l.first == none {
		l.last = i
	} else {
		t.conns[l.first].newer = i
	}
	l.first = i
	l.n++
}

func (t *table) unlink(i int32) {
	c := &t.conns[i]
	l := &t.lists[c.list]
	if c.newer == none {
		l.first = c.older
	} else {
		t.conns[c.newer].older = c.older
	}
	if c.older == none {
		l.last = c.newer
	} else {
		t.conns[c.older].newer = c.newer
	}
	l.n--
}

// phase is what the server has on a 4-tuple.
type phase uint8

const (
	closed phase = iota // nothing that we know of
	open
	timeWait
)

// handshake is how far the latest SYN has come.
type handshake uint8

const (
	asked handshake = iota // no answer was seen
	answered
	done
	refused
)

// conn is a 4-tuple on which a SYN was seen: the latest one, and what the
// server had from those before it, or has from this one.
type conn struct {
	key
	newer, older int32
	list         uint8
	flipped      bool // the client is b

	// The SYN.
	hs       handshake
	synTS    bool
	acks     bool // the client has acknowledged something; serverISN follows from that
	isn      uint32
	synTSval uint32 // of its last repetition
	synAt    int64  // ns: when it was repeated last
	pending  uint64 // its number in the queue

	// The connection, once the SYN is answered.
	phase        phase
	ts           bool // timestamps were negotiated
	clientFIN    bool
	serverFIN    bool
	serverFirst  bool // it had not seen the client's FIN when it sent its own
	serverFINGot bool // the client has acknowledged it
	serverISN    uint32
	lastAck      uint32 // that the server has sent
	clientEnd    uint32 // sequence number behind the client's FIN
	serverEnd    uint32 // and the server's
	tsRecent     uint32
	tsAt         int64 // ns: when that was received
	since        int64 // ns: when it entered TIME_WAIT
	expires      int64 // ns: when it leaves that
	killed       bool  // by an RST, if the server lets it
}

const (
	timeWaitLen = 60 * time.Second // TCP_TIMEWAIT_LEN, include/net/tcp.h
	// longestTimeWait is that of any system: 2 MSL of RFC 9293 section 3.4.2.
	longestTimeWait = 240 * time.Second
	// repeatWithin is how long a SYN of the same ISN is the same: Linux gives
	// up 127 s after the first, by default (tcp_syn_retries is 6).
	repeatWithin = 130 * time.Second
)

// dated tells whether nothing is lost with c.
func (c *conn) dated(now int64) bool {
	switch c.phase {
	case timeWait:
		return now >= c.expires
	case open:
		return false
	}
	return now-c.synAt >= int64(repeatWithin)
}
