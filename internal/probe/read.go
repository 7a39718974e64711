// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// Sink takes events. An event is only valid during the call.
type Sink interface {
	Put(event.Event)
}

// Reader is the only reader of the ring.
type Reader struct {
	probe   *Probe
	decoder *decoder
	table   *table // nil unless a rung needs it
	sample  ringbuf.Record
	last    atomic.Int64 // decoder.last as of the last batch
	// Reused counts TIME_WAIT sockets taken over, by network namespace, on the
	// rung where the kernel side does not count them.
	Reused map[uint32]uint64
	// Foreign tells, while Put runs, that the event is of a program that the
	// filters leave out, and there with Config.AllOwners only. Of ends in
	// TIME_WAIT it is not known whose they are: they all count as foreign then.
	Foreign bool
	// ForeignReused are those of Reused that are foreign.
	ForeignReused uint64
	// DecodeErrors counts records that could not be understood.
	DecodeErrors uint64
	// DecodeError is the last of them.
	DecodeError error
}

// Reader returns the reader; clock gives events their time.
func (p *Probe) Reader(clock Clock) *Reader {
	r := &Reader{
		probe:   p,
		decoder: newDecoder(clock, p.facts.reasons.Name, p.cgroupPath),
		Reused:  map[uint32]uint64{},
	}
	ends := p.Rung(TimeWaitEnd)
	if ends != None || p.settings.ReuseOnState != 0 {
		r.table = newTable(ends == Timer)
	}
	return r
}

func (p *Probe) cgroupPath(id uint64) string {
	if p.cfg.Cgroups == nil {
		return ""
	}
	return p.cfg.Cgroups.Path(id)
}

// Stamp returns the time for an event that is not from the ring: now, or while
// records are waiting that may be older, the time of the last event. Like Run,
// it must be called by the goroutine that reads.
func (r *Reader) Stamp() int64 {
	if r.probe.reader.AvailableBytes() == 0 || r.decoder.last == 0 {
		r.decoder.last = max(r.decoder.last, r.decoder.clock.Now())
	}
	r.last.Store(r.decoder.last)
	return r.decoder.last
}

// Last returns the time of the last event, 0 before the first: no later event
// is earlier. Any goroutine may call it.
func (r *Reader) Last() int64 { return r.last.Load() }

// batchMax is how many records are read before other work gets a turn.
const batchMax = 4096

// Run reads until ctx is done, and then what is left. Between batches, at
// least every flush interval, it calls idle, which may use the sink too.
func (r *Reader) Run(ctx context.Context, sink Sink, idle func()) error {
	for ctx.Err() == nil {
		if err := r.batch(sink, time.Now().Add(flushInterval)); err != nil {
			return err
		}
		idle()
	}
	return nil
}

// Drain reads what is in the ring now.
func (r *Reader) Drain(sink Sink) error {
	for r.probe.reader.AvailableBytes() > 0 {
		if err := r.batch(sink, time.Now()); err != nil {
			return err
		}
	}
	r.expire(sink, bootNow())
	return nil
}

func (r *Reader) batch(sink Sink, deadline time.Time) error {
	if err := r.probe.followSuspend(); err != nil {
		return err
	}
	ring := r.probe.reader
	ring.SetDeadline(deadline)
	for range batchMax {
		err := ring.ReadInto(&r.sample)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the ring buffer: %w", err)
		}
		r.deliver(sink, r.sample.RawSample)
	}
	r.expire(sink, bootNow())
	r.last.Store(r.decoder.last)
	return nil
}

func (r *Reader) deliver(sink Sink, sample []byte) {
	ev, err := r.decoder.decode(sample)
	if err != nil {
		r.DecodeErrors++
		r.DecodeError = err
		return
	}
	r.Foreign = r.probe.settings.AllOwners != 0 && foreign(sample)
	if r.table != nil {
		r.follow(sink, sample)
	}
	if ev != nil {
		sink.Put(ev)
	}
	r.Foreign = false
}

// foreign tells whether the owner filters leave out a record.
func foreign(sample []byte) bool {
	h, _ := record[bpf.Header](sample)
	switch h.Kind {
	case bpf.KindTimeWait:
		rec, err := record[bpf.TimeWait](sample)
		return err == nil && rec.Owner.Match == 0
	case bpf.KindTWReuse, bpf.KindConnected:
		rec, err := record[bpf.Reuse](sample)
		return err == nil && rec.Owner.Match == 0
	case bpf.KindTimeWaitEnd:
		return true
	}
	return false
}

// follow keeps the table of TIME_WAIT sockets and tells what it implies.
func (r *Reader) follow(sink Sink, sample []byte) {
	h, _ := record[bpf.Header](sample)
	switch h.Kind {
	case bpf.KindTimeWait:
		rec, err := record[bpf.TimeWait](sample)
		if err == nil {
			r.entered(sink, rec)
		}
	case bpf.KindPAWSReject:
		rec, err := record[bpf.PawsReject](sample)
		if err == nil && event.Where(rec.Where) == event.WhereTimeWait && event.Segment(rec.Segment) != event.SegmentRST {
			r.table.rearm(rec.Tuple, h.TimeNs)
		}
	case bpf.KindTimeWaitEnd:
		rec, err := record[bpf.TimeWaitEnd](sample)
		if err == nil {
			r.aged(rec)
		}
	case bpf.KindConnected:
		rec, err := record[bpf.Reuse](sample)
		if err == nil {
			r.connected(sink, rec)
		}
	}
}

// entered: a socket is in TIME_WAIT. If its 4-tuple was so already, that socket
// has ended meanwhile in a way that this rung does not show.
func (r *Reader) entered(sink Sink, rec *bpf.TimeWait) {
	old := r.table.enter(&rec.Tuple, rec.SndNxt, rec.H.TimeNs, rec.TimeoutMs)
	switch {
	case old.entered == 0:
	case r.probe.settings.ReuseOnState != 0 && rec.Isn == old.sndNxt+reuseGap:
		// the kernel side was not run when the connect() succeeded
		r.reused(sink, rec.H, &rec.Tuple, &rec.Owner, old.entered, rec.H.TimeNs)
	default:
		r.ended(sink, rec.H, &rec.Tuple, event.EndUnknown, old.entered)
	}
}

// aged: the kernel side saw a socket end. Up to 6.13 it knows the age from the
// timer alone, which tells nothing of short ones; the table knows better.
func (r *Reader) aged(rec *bpf.TimeWaitEnd) {
	e := r.table.find(&rec.Tuple)
	if e == nil || e.entered > rec.H.TimeNs {
		return
	}
	r.decoder.timeWaitEnd.AgeMS = uint32((rec.H.TimeNs - e.entered) / uint64(time.Millisecond))
	r.table.drop(e)
}

// endsLate is how much later than its timer says a TIME_WAIT socket may end:
// the kernel's timer wheel rounds a minute up by 2 s and more.
const endsLate = uint64(8 * time.Second)

// reuseGap is what tcp_twsk_unique() (net/ipv4/tcp_ipv4.c) adds to the end of
// the old connection's sequence numbers: beyond any window without scaling,
// and 2.
const reuseGap = 65535 + 2

// connected: a connect() got a 4-tuple. If it was in TIME_WAIT, that socket is
// gone: taken over when the sequence numbers go on from its own, else killed,
// as by a late RST of the peer.
func (r *Reader) connected(sink Sink, rec *bpf.Reuse) {
	e, ok := r.table.take(&rec.Tuple)
	switch {
	case !ok:
	case rec.Isn == e.sndNxt+reuseGap:
		r.reused(sink, rec.H, &rec.Tuple, &rec.Owner, e.entered, max(e.entered, rec.ConnectNs))
	case rec.ConnectNs >= e.expires():
		r.ended(sink, bpf.Header{TimeNs: e.expires()}, &rec.Tuple, event.EndExpired, e.entered)
	default:
		r.ended(sink, rec.H, &rec.Tuple, event.EndUnknown, e.entered)
	}
}

// reused: a connect() took over a TIME_WAIT socket at an instant.
func (r *Reader) reused(sink Sink, h bpf.Header, t *bpf.Tuple, o *bpf.Owner, entered, at uint64) {
	r.Reused[t.Netns]++
	if r.Foreign {
		r.ForeignReused++
	}
	d := r.decoder
	d.twReuse = event.TWReuse{
		Header: d.header(h),
		Socket: d.socket(t, o),
		AgeMS:  uint32((at - entered) / uint64(time.Millisecond)),
	}
	sink.Put(&d.twReuse)
	r.ended(sink, h, t, event.EndReused, entered)
}

// ended tells of the end of a TIME_WAIT socket, if anybody wants to know.
func (r *Reader) ended(sink Sink, h bpf.Header, t *bpf.Tuple, reason event.EndReason, entered uint64) {
	if !r.table.ends {
		return
	}
	d := r.decoder
	d.timeWaitEnd = event.TimeWaitEnd{
		Header: d.header(h),
		Socket: d.socket(t, nil),
		Reason: reason,
		AgeMS:  uint32((h.TimeNs - entered) / uint64(time.Millisecond)),
	}
	was := r.Foreign
	r.Foreign = r.probe.settings.AllOwners != 0
	sink.Put(&d.timeWaitEnd)
	r.Foreign = was
}

// expire tells of the TIME_WAIT sockets whose timer has ended by now.
func (r *Reader) expire(sink Sink, now uint64) {
	if r.table == nil {
		return
	}
	if !r.table.ends {
		now -= min(now, endsLate)
	}
	r.table.expire(now, func(t bpf.Tuple, entered, expires uint64) {
		r.ended(sink, bpf.Header{TimeNs: expires}, &t, event.EndExpired, entered)
	})
}
