// SPDX-License-Identifier: Apache-2.0

package clock_test

import (
	"cmp"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/twscope/twscope/internal/clock"
)

const (
	second = int64(1e9)
	hour   = 3600 * second
	// epoch is when simulated time starts, so that nothing leans on zero.
	epoch = int64(1_790_000_000) * second
)

// model is how a system makes TSval.
type model struct {
	name     string
	hz       float64
	perTuple bool // an offset of its own for each 4-tuple
	perConn  bool // for each connection
	none     bool // no timestamps option
	suspends bool // CLOCK_MONOTONIC stands still between visits, mostly
	print    string
}

const (
	linuxPrint = "4:64:1460:64240:7:mss,sok,ts,nop,ws"
	applePrint = "4:64:1460:65535:6:mss,nop,ws,nop,nop,ts,sok,eol+1"
)

var (
	linux   = model{name: "linux", hz: 1000, print: linuxPrint}
	hz100   = model{name: "100 Hz", hz: 100, print: linuxPrint}
	hz250   = model{name: "250 Hz", hz: 250, print: linuxPrint}
	android = model{name: "android", hz: 1000, suspends: true, print: "4:64:1440:65535:9:mss,sok,ts,nop,ws"}
	linux7  = model{name: "linux 7", hz: 1000, perTuple: true, print: linuxPrint}
	apple   = model{name: "apple", hz: 1000, perTuple: true, print: applePrint}
	openbsd = model{name: "openbsd", hz: 1000, perConn: true, print: "4:64:1460:16384:6:mss,nop,nop,sok,nop,ws,nop,nop,ts"}
	windows = model{name: "windows", none: true, print: "4:128:1460:64240:8:mss,nop,ws,nop,nop,sok"}
	usec    = model{name: "tcp_usec_ts", hz: 1e6, print: linuxPrint}
)

// host is one TCP stack.
type host struct {
	model
	offset  uint32
	secret  uint64
	skew    float64 // of its clock, as a ratio
	rate    float64 // visits per hour
	port    uint16
	ports   int   // of its range, if not the default of Linux
	asleep  int64 // ns that it was suspended for
	slept   int64 // ns: until when that is counted
	reboots []int64
	from    int64 // ns: since when it has the address
	until   int64 // and until when; 0: to the end
}

func newHost(rng *rand.Rand, m model, perHour float64) *host {
	const sigma = 0.7
	return &host{
		model: m, offset: rng.Uint32(), secret: rng.Uint64(),
		skew: 1 + 20e-6*rng.NormFloat64(),
		rate: perHour * math.Exp(sigma*rng.NormFloat64()-sigma*sigma/2),
		port: uint16(32768 + rng.IntN(28232)),
	}
}

// tsval is the TSval at a time, ns since epoch, of a connection, for a local
// port.
func (h *host) tsval(at int64, port uint16, conn uint32) uint32 {
	offset := h.offset
	for i, r := range h.reboots {
		if at >= r {
			offset = mix(h.secret + uint64(i) + 1)
		}
	}
	switch {
	case h.perTuple:
		offset += mix(h.secret ^ uint64(offset)<<20 ^ uint64(port))
	case h.perConn:
		offset = conn
	}
	ticks := float64(at-h.asleep) * h.skew * h.hz / 1e9
	if v := offset + uint32(uint64(int64(ticks))); v != 0 {
		return v
	}
	return 1
}

func mix(x uint64) uint32 {
	x = (x ^ x>>31) * 0x7fb5d329728ea185
	x = (x ^ x>>27) * 0x81dadef4bc2dd44d
	return uint32(x >> 32)
}

// sim is the SYNs of the hosts behind one address.
type sim struct {
	rng    *rand.Rand
	hosts  []*host
	syns   []arrival
	nat    bool    // ports are changed, at random
	outer  int     // to so many
	delays float64 // of the SYNs
	tail   bool    // delays are 1 to 3 s, not 1 s on average
	resent float64 // of the SYNs
	burst  float64 // connections of a visit beyond the first, on average
	valid  float64 // of the SYNs whose handshake is seen
}

type arrival struct {
	clock.SYN
	print string
	host  int
	again bool // a retransmission
}

func newSim(seed uint64) *sim {
	return &sim{rng: rand.New(rand.NewPCG(seed, 41)), delays: 0.01, resent: 0.01, valid: 1, burst: 1.5, nat: true, outer: 64512}
}

func (s *sim) add(perHour float64, models ...model) *sim {
	for _, m := range models {
		s.hosts = append(s.hosts, newHost(s.rng, m, perHour))
	}
	return s
}

// run makes the SYNs of so many ns: visits of a few connections each, as
// browsers and programs make them.
func (s *sim) run(span int64) *sim {
	for i, h := range s.hosts {
		end := span
		if h.until != 0 {
			end = h.until
		}
		for at := h.from + s.wait(h); at < end; at += s.wait(h) {
			h.sleepUntil(s.rng, at)
			n := 1 + int(s.rng.ExpFloat64()*(s.burst+0.5))
			for t := at; n > 0; n-- {
				s.connect(i, t)
				t += int64(s.rng.ExpFloat64() * 0.3e9)
			}
		}
	}
	return s.sort()
}

func (s *sim) sort() *sim {
	slices.SortFunc(s.syns, func(a, b arrival) int { return cmp.Compare(a.Time, b.Time) })
	return s
}

func (s *sim) wait(h *host) int64 {
	return int64(s.rng.ExpFloat64() * float64(hour) / h.rate)
}

// sleepUntil lets a host that suspends do so for a part of the time since its
// last visit.
func (h *host) sleepUntil(rng *rand.Rand, at int64) {
	if h.suspends && at-h.slept > 10*second && rng.IntN(2) == 0 {
		h.asleep += int64(float64(at-h.slept) * 0.9 * rng.Float64())
	}
	h.slept = at
}

// connect sends one SYN, which may be late, or be sent again.
func (s *sim) connect(i int, at int64) {
	h := s.hosts[i]
	if h.ports > 0 {
		h.port = 32768 + uint16(s.rng.IntN(h.ports))
	} else {
		h.port = 32768 + (h.port-32768+uint16(2+2*s.rng.IntN(8)))%28232
	}
	sport := h.port
	if s.nat {
		sport = uint16(1024 + s.rng.IntN(s.outer))
	}
	valid, conn := s.rng.Float64() < s.valid, s.rng.Uint32()
	tries := 1
	if s.rng.Float64() < s.resent {
		tries = 2
	}
	for n := range tries {
		sent := at + int64(n)*second
		arrives := sent
		if s.rng.Float64() < s.delays {
			if s.tail {
				arrives += second + s.rng.Int64N(2*second)
			} else {
				arrives += int64(s.rng.ExpFloat64() * 1e9)
			}
		}
		a := arrival{host: i, print: h.print, again: n > 0, SYN: clock.SYN{
			Key: key, Time: epoch + arrives, SPort: sport, DPort: 443, Validated: valid,
		}}
		if !h.none {
			a.TSval = h.tsval(sent, h.port, conn)
		}
		s.syns = append(s.syns, a)
	}
}

// forge mixes in SYNs with random TSval that nobody completes.
func (s *sim) forge(n int, span int64) *sim {
	for range n {
		s.syns = append(s.syns, arrival{host: -1, SYN: clock.SYN{
			Key: key, Time: epoch + s.rng.Int64N(span), TSval: 1 + s.rng.Uint32N(math.MaxUint32),
			SPort: uint16(s.rng.Uint32()), DPort: 443,
		}})
	}
	return s.sort()
}

// reboot restarts each host once, at any time of so many ns, with a chance.
func (s *sim) reboot(chance float64, span int64) *sim {
	for _, h := range s.hosts {
		if s.rng.Float64() < chance {
			h.reboots = append(h.reboots, s.rng.Int64N(span))
		}
	}
	return s
}

// wrap lets the TSval of each host come round within so many ns.
func (s *sim) wrap(span int64) *sim {
	for _, h := range s.hosts {
		h.offset = -uint32(float64(s.rng.Int64N(span)) * h.hz / 1e9)
	}
	return s
}

// first keeps the first n connections with timestamps.
func (s *sim) first(n int) *sim {
	kept := s.syns[:0]
	for _, a := range s.syns {
		if a.TSval == 0 {
			continue
		}
		if !a.again {
			if n--; n < 0 {
				break
			}
		}
		kept = append(kept, a)
	}
	s.syns = kept
	return s
}

// truth is what there is to be found in the SYNs.
type truth struct {
	seen   int  // hosts that sent one with timestamps
	stable int  // of those, with a clock that can be counted
	twice  int  // of those, with two connections
	turns  bool // of those, two that were seen in turns
	syns   int  // connections
}

func (s *sim) truth() truth {
	var t truth
	first, last := make([]int64, len(s.hosts)), make([]int64, len(s.hosts))
	n := make([]int, len(s.hosts))
	for i := range s.syns {
		a := &s.syns[i]
		if a.host < 0 || a.TSval == 0 || a.again {
			continue
		}
		if n[a.host]++; n[a.host] == 1 {
			first[a.host] = a.Time
		}
		last[a.host] = a.Time
		t.syns++
	}
	var pairs []int
	for i, h := range s.hosts {
		if n[i] > 0 {
			t.seen++
		}
		if n[i] == 0 || h.perTuple || h.perConn {
			continue
		}
		t.stable++
		if n[i] < 2 {
			continue
		}
		t.twice++
		for _, j := range pairs {
			t.turns = t.turns || first[i] < last[j] && first[j] < last[i]
		}
		pairs = append(pairs, i)
	}
	return t
}

// feed gives the SYNs to a tracker and returns what that knows at the end.
func (s *sim) feed(tb testing.TB) clock.Source {
	tb.Helper()
	return s.feedTo(newTracker(tb, clock.Config{Sources: 64}), nil)
}

// feedTo tells too, if asked, what the tracker knows at the end of each hour
// but the last.
func (s *sim) feedTo(tr *clock.Tracker, hourly func(clock.Source)) clock.Source {
	groups := map[string]clock.Group{}
	at, next := epoch, epoch+hour
	for i := range s.syns {
		a := &s.syns[i]
		for ; a.Time >= next; next += hour {
			if hourly != nil {
				if got, ok := tr.Find(key, next); ok {
					hourly(got)
				}
			}
		}
		g, ok := groups[a.print]
		if !ok {
			g = tr.Group(a.print, 57)
			groups[a.print] = g
		}
		a.Group = g
		tr.SYN(&a.SYN)
		at = a.Time
	}
	got, _ := tr.Find(key, at)
	return got
}

func newTracker(tb testing.TB, c clock.Config) *clock.Tracker {
	tb.Helper()
	c.Seed = [2]uint64{1, 2}
	tr, err := clock.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

var key = clock.Key{NetNS: 4026531840, Source: netip.MustParseAddr("198.51.100.7"), Local: netip.MustParseAddr("192.0.2.1")}
