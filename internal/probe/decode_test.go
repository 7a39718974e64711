// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
)

// sampleOf returns the bytes of a record, as the ring has them.
func sampleOf[T any](r T) []byte {
	b := make([]byte, unsafe.Sizeof(r))
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&r)), len(b)))
	return b
}

func testDecoder() *decoder {
	return newDecoder(Clock{offset: 1000}, map[uint32]string{7: "TCP_RFC7323_TW_PAWS"},
		func(id uint64) string { return map[uint64]string{9: "/a"}[id] })
}

func commOf(s string) (comm [16]int8) {
	for i := range len(s) {
		comm[i] = int8(s[i])
	}
	return comm
}

var testTuple = bpf.Tuple{
	Laddr: netip.MustParseAddr("::ffff:10.0.0.1").As16(), Raddr: netip.MustParseAddr("2001:db8::2").As16(),
	Lport: 40000, Rport: 443, Netns: 4026531840,
}

func testSYN() bpf.SynHeader {
	return bpf.SynHeader{
		Ttl: 61, IpVersion: 4, Window: 64240,
		Opt: bpf.Tcpopt{
			SawTstamp: 1, Tsval: 77, Mss: 1460, HasMss: 1, Wscale: 7, HasWscale: 1, Count: 5, Kinds: [3]uint64{2 | 4<<8 | 8<<16 | 1<<24 | 3<<32},
		},
	}
}

func testOwner() bpf.Owner { return bpf.Owner{Pid: 42, Cgroup: 9, Comm: commOf("cu\x1brl")} }

func header(kind bpf.Kind) bpf.Header { return bpf.Header{TimeNs: 5, Kind: kind} }

// records has one record of each kind, and the event that it is.
func records() map[string]struct {
	sample []byte
	want   event.Event
} {
	h := event.Header{Time: 1005}
	bare := event.Socket{
		NetNS: 4026531840, Local: netip.MustParseAddrPort("10.0.0.1:40000"), Remote: netip.MustParseAddrPort("[2001:db8::2]:443"),
	}
	owned := bare
	owned.Owner = event.Owner{PID: 42, Comm: event.Clean("cu\x1brl"), Cgroup: "/a"}
	return map[string]struct {
		sample []byte
		want   event.Event
	}{
		"time_wait": {
			sampleOf(bpf.TimeWait{
				H: header(bpf.KindTimeWait), Tuple: testTuple, Owner: testOwner(), TsRecent: 3, TimeoutMs: 60000,
				Role: bpf.Role(event.RoleClient), Substate: bpf.Substate(event.SubstateFinWait2), Timestamps: 1,
			}),
			&event.TimeWait{
				Header: h, Socket: owned, Role: event.RoleClient, Substate: event.SubstateFinWait2,
				Timestamps: true, TSRecent: 3, TimeoutMS: 60000,
			},
		},
		"time_wait_end": {
			sampleOf(bpf.TimeWaitEnd{H: header(bpf.KindTimeWaitEnd), Tuple: testTuple, AgeMs: 9, Reason: bpf.End(event.EndReset)}),
			&event.TimeWaitEnd{Header: h, Socket: bare, Reason: event.EndReset, AgeMS: 9},
		},
		"tw_reuse": {
			sampleOf(bpf.Reuse{H: header(bpf.KindTWReuse), Tuple: testTuple, Owner: testOwner(), AgeMs: 1500}),
			&event.TWReuse{Header: h, Socket: owned, AgeMS: 1500},
		},
		"connect_fail": {
			sampleOf(bpf.ConnectFail{
				H: header(bpf.KindConnectFail), Tuple: testTuple, Owner: testOwner(), Error: 99, RangeLow: 1, RangeHigh: 2, Inferred: 1,
			}),
			&event.ConnectFail{Header: h, Socket: owned, Errno: 99, Inferred: true, RangeLow: 1, RangeHigh: 2},
		},
		"syn": {
			sampleOf(bpf.Syn{
				H: header(bpf.KindSYN), Tuple: testTuple, Owner: testOwner(), Validated: 1, Syn: testSYN(),
			}),
			&event.SYN{
				Header: h, Socket: owned, Timestamps: true, TSval: 77, TTL: 61, Validated: true,
				Fingerprint: "4:64:1460:64240:7:mss,sok,ts,nop,ws",
			},
		},
		"syn_refused": {
			sampleOf(bpf.SynRefused{
				H: header(bpf.KindSYNRefused), Tuple: testTuple, Owner: testOwner(), DelayNs: 3e6, Attempts: 2,
				Signature: bpf.Signature(event.SignatureChallengeACK),
			}),
			&event.SYNRefused{Header: h, Socket: owned, Signature: event.SignatureChallengeACK, Attempts: 2, DelayMS: 3},
		},
		"paws_reject": {
			sampleOf(bpf.PawsReject{
				H: header(bpf.KindPAWSReject), Tuple: testTuple, Owner: testOwner(), Tsval: 5, TsRecent: 8, HasTsRecent: 1, AgeMs: 4, HasAge: 1,
				Reason: 7, Where: bpf.Where(event.WhereTimeWait), Segment: bpf.Segment(event.SegmentSYN),
				Reply: bpf.Reply(event.ReplyACK), Counter: bpf.CounterPAWSTimewait, Seq: 9, Syn: testSYN(),
			}),
			&event.PAWSReject{
				Header: h, Socket: owned, Where: event.WhereTimeWait, Segment: event.SegmentSYN, TSval: 5, TSRecent: 8, Delta: -3,
				AgeMS: 4, HasAge: true, Reply: event.ReplyACK, Reason: "TCP_RFC7323_TW_PAWS", Counter: "PAWSTimewait",
				Seq: 9, TTL: 61, Fingerprint: "4:64:1460:64240:7:mss,sok,ts,nop,ws",
			},
		},
		"syn_reject": {
			sampleOf(bpf.SynReject{
				H: header(bpf.KindSYNReject), Tuple: testTuple, Owner: testOwner(), Syn: testSYN(), TsRecent: 78, Seq: 9, RcvNxt: 10,
				AgeMs: 4, HasAge: 1, Rule: bpf.Rule(event.RuleNoListener), Reply: bpf.Reply(event.ReplyRST),
			}),
			&event.SYNReject{
				Header: h, Socket: owned, Rule: event.RuleNoListener, Timestamps: true, TSval: 77, TSRecent: 78, Seq: 9, RcvNxt: 10,
				AgeMS: 4, HasAge: true, Reply: event.ReplyRST, TTL: 61, Fingerprint: "4:64:1460:64240:7:mss,sok,ts,nop,ws",
			},
		},
		"connected": {sampleOf(bpf.Reuse{H: header(bpf.KindConnected), Tuple: testTuple}), nil},
	}
}

func TestDecode(t *testing.T) {
	for name, r := range records() {
		t.Run(name, func(t *testing.T) {
			got, err := testDecoder().decode(r.sample)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeRefusesShortRecords(t *testing.T) {
	for name, r := range records() {
		t.Run(name, func(t *testing.T) {
			short := len(r.sample)
			if name == "connected" {
				short = int(unsafe.Sizeof(bpf.Header{}))
			}
			for n := range short {
				if ev, err := testDecoder().decode(r.sample[:n:n]); err == nil || !strings.Contains(err.Error(), "too short") {
					t.Fatalf("%d of %d bytes: %v, %v", n, len(r.sample), ev, err)
				}
			}
		})
	}
}

func TestDecodeRefusesUnknownKinds(t *testing.T) {
	for _, kind := range []bpf.Kind{0, bpf.KindMax, 255} {
		if ev, err := testDecoder().decode(sampleOf(header(kind))); err == nil || !strings.Contains(err.Error(), "unknown kind") {
			t.Errorf("kind %d: %v, %v", kind, ev, err)
		}
	}
}

func TestDecodeKeepsTimesInOrder(t *testing.T) {
	d := testDecoder()
	var times []int64
	for _, ns := range []uint64{10, 30, 20, 40} {
		ev, err := d.decode(sampleOf(bpf.TimeWait{H: bpf.Header{TimeNs: ns, Kind: bpf.KindTimeWait}}))
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, ev.UnixNano())
	}
	if diff := cmp.Diff([]int64{1010, 1030, 1030, 1040}, times); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeBoundsNames(t *testing.T) {
	d := testDecoder()
	for n := range 3 * commsMax {
		o := bpf.Owner{Pid: 1, Comm: [16]int8{int8(n), int8(n >> 8), 1}}
		if _, err := d.decode(sampleOf(bpf.TimeWait{H: header(bpf.KindTimeWait), Owner: o})); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.comms) > commsMax {
		t.Errorf("%d names are kept", len(d.comms))
	}
}

// FuzzDecode: no bytes make the decoder panic, and what it takes for an event
// is one line of JSON.
func FuzzDecode(f *testing.F) {
	for _, r := range records() {
		f.Add(r.sample)
		f.Add(r.sample[:len(r.sample)/2])
	}
	f.Fuzz(func(t *testing.T, sample []byte) {
		aligned := make([]uint64, len(sample)/8+1) // as the ring's records are
		b := unsafe.Slice((*byte)(unsafe.Pointer(&aligned[0])), len(sample))
		copy(b, sample)
		ev, err := testDecoder().decode(b)
		if err != nil || ev == nil {
			return
		}
		line := event.NewEncoder().Append(nil, ev)
		if !json.Valid(line) || bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("%q is no line of JSON", line)
		}
	})
}

// busy makes the records of a busy host: 20,000 sockets a second, few owners.
type busy struct {
	record bpf.TimeWait
	n      uint32
}

func newBusy() *busy {
	return &busy{record: bpf.TimeWait{
		H: header(bpf.KindTimeWait), Tuple: testTuple, Owner: testOwner(), TsRecent: 3828390140, TimeoutMs: 60000, Role: 1, Timestamps: 1,
	}}
}

// next returns a record that is like none before it, until it is called again.
func (b *busy) next() []byte {
	b.n++
	r := &b.record
	r.H.TimeNs += 50_000
	r.Tuple.Lport = uint16(b.n)
	r.Tuple.Raddr[15] = uint8(b.n >> 16)
	r.Tuple.Raddr[14] = uint8(b.n >> 24)
	r.Owner.Pid = 1000 + b.n%4
	return unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r))
}

func TestDecodeAllocatesNothing(t *testing.T) {
	for name, r := range records() {
		d := testDecoder()
		if _, err := d.decode(r.sample); err != nil { // takes in the names
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = d.decode(r.sample) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	from, d := newBusy(), testDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(from.next()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkPipeline takes records from their bytes to lines in a file.
func BenchmarkPipeline(b *testing.B) {
	for name, path := range map[string]string{"null": "/dev/null", "file": filepath.Join(b.TempDir(), "log")} {
		for _, ends := range []bool{false, true} {
			if ends {
				name += "+table"
			}
			b.Run(name, func(b *testing.B) { benchmarkPipeline(b, path, ends) })
		}
	}
}

func benchmarkPipeline(b *testing.B, path string, ends bool) {
	b.Helper()
	from := newBusy()
	w, err := eventlog.Open(eventlog.Options{
		Path: path, MaxFiles: -1, MaxSize: 1 << 30,
		Start: func(part int) *event.Start { return &event.Start{Part: part} },
	})
	if err != nil {
		b.Fatal(err)
	}
	r := &Reader{decoder: testDecoder(), Reused: map[uint32]uint64{}}
	if ends {
		r.table = newTable(true)
	}
	sink := into{w}
	b.ReportAllocs()
	for b.Loop() {
		r.deliver(sink, from.next())
		if from.n%batchMax == 0 {
			r.expire(sink, from.record.H.TimeNs)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	lost := w.Counts().LostByHop()[eventlog.HopWrite]
	b.ReportMetric(float64(uint64(b.N)-lost)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(lost)/float64(b.N), "lost/record")
}

// into is a log as a Sink.
type into struct{ *eventlog.Writer }

func (i into) Put(ev event.Event) { i.Writer.Put(ev) }
