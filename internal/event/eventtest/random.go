// SPDX-License-Identifier: Apache-2.0

package eventtest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/twscope/twscope/internal/event"
)

// Random returns an event of a kind, with every member as likely present as
// left out, in the form that Decode returns: texts that need no cleaning, no
// value that JSON leaves out. It panics for a kind that does not exist.
func Random(r *rand.Rand, k event.Kind) event.Event {
	g := generator{r}
	h := event.Header{Time: g.Int64N(4102444800e9)}
	switch k {
	case event.KindStart:
		return g.start(h)
	case event.KindCensus:
		return g.census(h)
	case event.KindTimeWait:
		e := &event.TimeWait{Header: h, Socket: g.socket(), Role: event.Role(g.N(3)), Substate: event.Substate(g.N(2)), TimeoutMS: g.Uint32(), Bound: g.bool()}
		e.Timestamps, e.TSRecent = g.ticks()
		return e
	case event.KindTimeWaitEnd:
		return &event.TimeWaitEnd{Header: h, Socket: g.socket(), Reason: event.EndReason(g.N(6)), AgeMS: g.Uint32()}
	case event.KindTWReuse:
		return &event.TWReuse{Header: h, Socket: g.socket(), AgeMS: g.Uint32()}
	case event.KindConnectFail:
		return g.connectFail(h)
	case event.KindSYN:
		e := &event.SYN{Header: h, Socket: g.socket(), TTL: uint8(g.Uint32()), Fingerprint: g.text(), Validated: g.bool()}
		e.Timestamps, e.TSval = g.ticks()
		return e
	case event.KindSYNRefused:
		return &event.SYNRefused{
			Header: h, Socket: g.socket(), Signature: event.Signature(g.N(2)),
			Attempts: g.Uint32(), DelayMS: g.Uint32(),
		}
	case event.KindPAWSReject:
		return g.pawsReject(h)
	case event.KindSYNReject:
		return g.synReject(h)
	case event.KindListenDrop:
		return g.listenDrop(h)
	case event.KindSources:
		return g.sources(h)
	case event.KindFinding:
		return g.finding(h)
	case event.KindDestinations:
		return g.destinations(h)
	case event.KindSysctlChange:
		return &event.SysctlChange{Header: h, NetNS: g.maybe(), Name: g.word(), Old: g.text(), New: g.text()}
	case event.KindLoss:
		return &event.Loss{Header: h, Hop: g.word(), Of: g.text(), Count: g.Uint64(), Why: g.text()}
	case event.KindStats:
		s := g.stats(h)
		return &s
	case event.KindStop:
		return &event.Stop{Stats: g.stats(h), Reason: g.word(), Conclusion: g.conclusion()}
	}
	panic("no events of kind " + k.String())
}

type generator struct{ *rand.Rand }

func (g generator) N(n int) int { return g.IntN(n) }

func (g generator) bool() bool { return g.N(2) == 0 }

// maybe returns 0 half of the time.
func (g generator) maybe() uint32 {
	if g.bool() {
		return 0
	}
	return g.Uint32()
}

func (g generator) word() string {
	runes := []rune(`abcXYZ019 -_./:"\<>&'äß€漢字😀`)
	w := make([]rune, 1+g.N(15))
	for i := range w {
		w[i] = runes[g.N(len(runes))]
	}
	return string(w)
}

// text returns "" half of the time.
func (g generator) text() string {
	if g.bool() {
		return ""
	}
	return g.word()
}

func (g generator) ticks() (bool, uint32) {
	if g.bool() {
		return false, 0
	}
	return true, g.Uint32()
}

func (g generator) addrPort() netip.AddrPort {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], g.Uint64())
	binary.BigEndian.PutUint64(b[8:], g.Uint64())
	var a netip.Addr
	switch g.N(3) {
	case 0:
		a = netip.AddrFrom4([4]byte(b[:4]))
	case 1:
		a = netip.AddrFrom16(b)
	}
	return netip.AddrPortFrom(a, uint16(g.maybe()))
}

func (g generator) socket() event.Socket {
	return event.Socket{
		NetNS: g.maybe(), Local: g.addrPort(), Remote: g.addrPort(),
		Owner: event.Owner{PID: g.maybe(), Comm: g.text(), Cgroup: g.text()},
	}
}

func (g generator) census(h event.Header) event.Event {
	e := &event.Census{
		Header: h, Socket: g.socket(), Role: event.Role(g.N(3)), Substate: event.Substate(g.N(2)),
		RemainingMS: g.Uint32(), Reuse: event.Reusable(g.N(6)), Bound: g.bool(),
	}
	e.Timestamps, e.TSRecent = g.ticks()
	if e.Reuse == event.ReuseRefusedTooYoung {
		e.ReuseInMS = g.Uint32()
	}
	return e
}

func (g generator) counts() map[string]uint64 {
	m := map[string]uint64{}
	for range g.N(4) {
		m[g.word()] = g.Uint64()
	}
	return m
}

func (g generator) texts() map[string]string {
	m := map[string]string{}
	for range g.N(4) {
		m[g.word()] = g.text()
	}
	return m
}

func (g generator) list() []string {
	l := []string{}
	for range g.N(4) {
		l = append(l, g.text())
	}
	return l
}

func (g generator) start(h event.Header) event.Event {
	e := &event.Start{
		Header: h, Version: g.word(), Host: g.word(), Kernel: g.word(), Arch: g.word(), BootID: g.word(),
		PID: g.Int(), Part: g.N(9), Coverage: g.texts(), Lost: g.list(),
		Sysctls: []event.NamespaceSysctls{}, Filters: map[string][]string{}, Census: []event.NamespaceCensus{},
		Truncated: g.bool(),
	}
	for range g.N(3) {
		e.Sysctls = append(e.Sysctls, event.NamespaceSysctls{NetNS: g.Uint32(), Names: g.list(), Values: g.texts()})
		e.Filters[g.word()] = g.list()
		e.Recycle = append(e.Recycle, event.ConfigLine{File: g.word(), Line: g.Uint32(), Text: g.text()})
		e.Census = append(e.Census, event.NamespaceCensus{NetNS: g.Uint32(), TimeWait: g.Uint64(), Reusable: g.Uint64(), Refused: g.counts()})
	}
	return e
}

func (g generator) stats(h event.Header) event.Stats {
	s := event.Stats{
		Header: h, UptimeMS: g.Uint64(), Seen: g.counts(), Written: g.counts(), Lost: g.counts(),
		Reconcile: []event.Reconciliation{}, ClockStepMS: int64(g.Uint64()), Truncated: g.bool(),
	}
	if g.bool() {
		n := g.Uint64()
		s.TimeWait = &n
	}
	for range g.N(3) {
		s.Reconcile = append(s.Reconcile, event.Reconciliation{
			NetNS: g.Uint32(), Counter: g.word(),
			Kernel: int64(g.Uint64()), TWScope: int64(g.Uint64()), Difference: int64(g.Uint64()), Why: g.text(),
		})
	}
	return s
}
