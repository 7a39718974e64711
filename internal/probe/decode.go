// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// decoder turns records into events without allocating: the event that it
// returns is overwritten by the next call. Owners' names are kept, because the
// same few processes appear in every record.
type decoder struct {
	clock   Clock
	reasons map[uint32]string
	cgroup  func(uint64) string

	comms map[[16]byte]string
	last  int64 // time of the event before: times never run backwards

	timeWait    event.TimeWait
	timeWaitEnd event.TimeWaitEnd
	twReuse     event.TWReuse
	connectFail event.ConnectFail
	syn         event.SYN
	synRefused  event.SYNRefused
	pawsReject  event.PAWSReject
	synReject   event.SYNReject

	prints fingerprints
}

// commsMax bounds the kept names; more different names than that are odd
// enough to start over.
const commsMax = 4096

func newDecoder(clock Clock, reasons map[uint32]string, cgroup func(uint64) string) *decoder {
	return &decoder{
		clock: clock, reasons: reasons, cgroup: cgroup,
		comms: map[[16]byte]string{}, prints: fingerprints{},
	}
}

// record casts a sample to its type, once its length allows.
func record[T any](sample []byte) (*T, error) {
	var zero T
	if len(sample) < int(unsafe.Sizeof(zero)) {
		return nil, fmt.Errorf("a record of %d bytes is too short for %T (%d)", len(sample), zero, unsafe.Sizeof(zero))
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(sample))), nil
}

// decode returns the event of a record. A record that is not an event
// (KindConnected) gives nil.
func (d *decoder) decode(sample []byte) (event.Event, error) {
	h, err := record[bpf.Header](sample)
	if err != nil {
		return nil, err
	}
	switch h.Kind {
	case bpf.KindTimeWait:
		return d.decodeTimeWait(sample)
	case bpf.KindTimeWaitEnd:
		return d.decodeTimeWaitEnd(sample)
	case bpf.KindTWReuse:
		return d.decodeReuse(sample)
	case bpf.KindConnectFail:
		return d.decodeConnectFail(sample)
	case bpf.KindSYN:
		return d.decodeSYN(sample)
	case bpf.KindSYNRefused:
		return d.decodeSYNRefused(sample)
	case bpf.KindPAWSReject:
		return d.decodePAWSReject(sample)
	case bpf.KindSYNReject:
		return d.decodeSYNReject(sample)
	case bpf.KindConnected:
		return nil, nil
	default:
		return nil, fmt.Errorf("a record of unknown kind %d", h.Kind)
	}
}

// header gives an event its time. Records of two CPUs can pass each other by
// some microseconds on their way into the ring; the later one then bears the
// time of the earlier.
func (d *decoder) header(h bpf.Header) event.Header {
	d.last = max(d.last, d.clock.UnixNano(h.TimeNs))
	return event.Header{Time: d.last}
}

func addrPort(addr [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), port)
}

func (d *decoder) socket(t *bpf.Tuple, o *bpf.Owner) event.Socket {
	s := event.Socket{
		NetNS:  t.Netns,
		Local:  addrPort(t.Laddr, t.Lport),
		Remote: addrPort(t.Raddr, t.Rport),
	}
	if o != nil && o.Pid != 0 {
		s.Owner = event.Owner{PID: o.Pid, Comm: d.comm(o), Cgroup: d.cgroup(o.Cgroup)}
	}
	return s
}

func (d *decoder) comm(o *bpf.Owner) string {
	key := *(*[16]byte)(unsafe.Pointer(&o.Comm))
	if s, ok := d.comms[key]; ok {
		return s
	}
	n := 0
	for n < len(key) && key[n] != 0 {
		n++
	}
	s := event.Clean(string(key[:n]))
	if len(d.comms) >= commsMax {
		clear(d.comms)
	}
	d.comms[key] = s
	return s
}

func (d *decoder) decodeTimeWait(sample []byte) (event.Event, error) {
	r, err := record[bpf.TimeWait](sample)
	if err != nil {
		return nil, err
	}
	d.timeWait = event.TimeWait{
		Header:     d.header(r.H),
		Socket:     d.socket(&r.Tuple, &r.Owner),
		Role:       event.Role(r.Role),
		Substate:   event.Substate(r.Substate),
		Timestamps: r.Timestamps != 0,
		TSRecent:   r.TsRecent,
		TimeoutMS:  r.TimeoutMs,
		Bound:      r.Bound != 0,
	}
	return &d.timeWait, nil
}

func (d *decoder) decodeTimeWaitEnd(sample []byte) (event.Event, error) {
	r, err := record[bpf.TimeWaitEnd](sample)
	if err != nil {
		return nil, err
	}
	d.timeWaitEnd = event.TimeWaitEnd{
		Header: d.header(r.H),
		Socket: d.socket(&r.Tuple, nil),
		Reason: event.EndReason(r.Reason),
		AgeMS:  r.AgeMs,
	}
	return &d.timeWaitEnd, nil
}

func (d *decoder) decodeReuse(sample []byte) (event.Event, error) {
	r, err := record[bpf.Reuse](sample)
	if err != nil {
		return nil, err
	}
	d.twReuse = event.TWReuse{
		Header: d.header(r.H),
		Socket: d.socket(&r.Tuple, &r.Owner),
		AgeMS:  r.AgeMs,
	}
	return &d.twReuse, nil
}

func (d *decoder) decodeConnectFail(sample []byte) (event.Event, error) {
	r, err := record[bpf.ConnectFail](sample)
	if err != nil {
		return nil, err
	}
	d.connectFail = event.ConnectFail{
		Header:    d.header(r.H),
		Socket:    d.socket(&r.Tuple, &r.Owner),
		Errno:     r.Error,
		Inferred:  r.Inferred != 0,
		RangeLow:  r.RangeLow,
		RangeHigh: r.RangeHigh,
	}
	return &d.connectFail, nil
}

func (d *decoder) decodeSYN(sample []byte) (event.Event, error) {
	r, err := record[bpf.Syn](sample)
	if err != nil {
		return nil, err
	}
	d.syn = event.SYN{
		Header:     d.header(r.H),
		Socket:     d.socket(&r.Tuple, &r.Owner),
		Timestamps: r.Syn.Opt.SawTstamp != 0,
		TSval:      r.Syn.Opt.Tsval,
		TTL:        r.Syn.Ttl,
		Validated:  r.Validated != 0,

		Fingerprint: d.prints.of(&r.Syn),
	}
	return &d.syn, nil
}

func (d *decoder) decodeSYNRefused(sample []byte) (event.Event, error) {
	r, err := record[bpf.SynRefused](sample)
	if err != nil {
		return nil, err
	}
	d.synRefused = event.SYNRefused{
		Header:    d.header(r.H),
		Socket:    d.socket(&r.Tuple, &r.Owner),
		Signature: event.Signature(r.Signature),
		Attempts:  r.Attempts,
		DelayMS:   uint32(r.DelayNs / 1e6),
	}
	return &d.synRefused, nil
}

func (d *decoder) decodePAWSReject(sample []byte) (event.Event, error) {
	r, err := record[bpf.PawsReject](sample)
	if err != nil {
		return nil, err
	}
	d.pawsReject = event.PAWSReject{
		Header:   d.header(r.H),
		Socket:   d.socket(&r.Tuple, &r.Owner),
		Where:    event.Where(r.Where),
		Segment:  event.Segment(r.Segment),
		TSval:    r.Tsval,
		TSRecent: r.TsRecent,
		AgeMS:    r.AgeMs,
		HasAge:   r.HasAge != 0,
		Reply:    event.Reply(r.Reply),
		Counter:  counterName(r.Counter),
	}
	if r.Reason != 0 { // which has a name too
		d.pawsReject.Reason = d.reasons[r.Reason]
	}
	if r.HasTsRecent != 0 {
		d.pawsReject.Delta = int32(r.Tsval - r.TsRecent)
	}
	if d.pawsReject.Segment == event.SegmentSYN {
		d.pawsReject.Seq, d.pawsReject.TTL = r.Seq, r.Syn.Ttl
		d.pawsReject.Fingerprint = d.prints.of(&r.Syn)
	}
	return &d.pawsReject, nil
}

func (d *decoder) decodeSYNReject(sample []byte) (event.Event, error) {
	r, err := record[bpf.SynReject](sample)
	if err != nil {
		return nil, err
	}
	d.synReject = event.SYNReject{
		Header:      d.header(r.H),
		Socket:      d.socket(&r.Tuple, &r.Owner),
		Rule:        event.Rule(r.Rule),
		Timestamps:  r.Syn.Opt.SawTstamp != 0,
		TSval:       r.Syn.Opt.Tsval,
		TSRecent:    r.TsRecent,
		Seq:         r.Seq,
		RcvNxt:      r.RcvNxt,
		AgeMS:       r.AgeMs,
		HasAge:      r.HasAge != 0,
		Reply:       event.Reply(r.Reply),
		TTL:         r.Syn.Ttl,
		Fingerprint: d.prints.of(&r.Syn),
	}
	return &d.synReject, nil
}

// counterName returns the name in /proc/net/netstat.
func counterName(c bpf.Counter) string {
	switch c {
	case bpf.CounterPAWSEstab:
		return "PAWSEstab"
	case bpf.CounterPAWSTimewait:
		return "PAWSTimewait"
	case bpf.CounterPAWSActive:
		return "PAWSActive"
	case bpf.CounterPAWSOldAck:
		return "PAWSOldAck"
	case bpf.CounterTSEcrRejected:
		return "TSEcrRejected"
	default:
		return ""
	}
}
