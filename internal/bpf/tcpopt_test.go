// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// optionSeeds are the options of SYNs, and what may be wrong with them.
var optionSeeds = []struct{ name, hex string }{
	{"none", ""},
	{"Linux", "020405b4 0402 080a 00112233 00000000 01 030307"},
	{"Linux on loopback", "0204ffd7 0402 080a deadbeef 00000000 01 030307"},
	{"Windows", "020405b4 01 030308 01 01 0402"},
	{"macOS", "020405b4 01 030306 01 01 080a 4f3c2b1a 00000000 0402 0000"},
	{"FreeBSD", "020405b4 01 030306 0402 080a 00000001 00000000"},
	{"MPTCP capable", "020405b4 0402 080a 00112233 00000000 01 030307 1e040081"},
	{"TFO cookie request", "020405b4 0402 080a 00112233 00000000 01 030307 2202 0101"},
	{"TFO cookie", "020405b4 0402 080a 00112233 00000000 01 030307 220a 0102030405060708 0101"},
	{"timestamps only, aligned", "0101 080a 00000001 00000002"},
	{"SACK blocks", "0101 080a 00000001 00000002 0101 050a 00000001 00000002"},
	{"40 bytes of NOPs", strings.Repeat("01", 40)},
	{"40 bytes of 2-byte options", strings.Repeat("fe02", 20)},
	{"one option of 40 bytes", "fe28" + strings.Repeat("aa", 38)},
	{"end at once", "00"},
	{"end, then rubbish", "020405b4 00 080a 00000001 00000002"},
	{"end behind 39 bytes", strings.Repeat("01", 39) + "00"},
	{"a length of 0", "020405b4 0800 00000001"},
	{"a length of 1", "020405b4 0801 00000001"},
	{"a length beyond the header", "0402 080a 00000001 0000"},
	{"a length of 255", "0402 feff"},
	{"a kind without a length", "020405b4 08"},
	{"a kind without a length, byte 40", strings.Repeat("01", 39) + "08"},
	{"MSS of the wrong length", "020605b40000 0402"},
	{"window scale of the wrong length", "0304 0707 0402"},
	{"SACK permitted of the wrong length", "0403 00 01"},
	{"timestamps of the wrong length", "0809 00000001 000000 01"},
	{"timestamps twice", "080a 00000001 00000002 080a 00000003 00000004"},
	{"MSS twice, the second malformed", "020405b4 0203 05"},
	{"more than 40 bytes", strings.Repeat("01", 40) + "020405b4"},
}

func (s seedBytes) bytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(string(s), " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

type seedBytes string

// TestTCPOptionsOracle: the other tests are worth no more than the oracle.
func TestTCPOptionsOracle(t *testing.T) {
	want := map[string]tcpOptions{
		"none": {},
		"Linux": {
			TSval: 0x112233, HasTS: true, MSS: 1460, HasMSS: true, WScale: 7, HasWS: true, SACKPermitted: true,
			Kinds: []uint8{2, 4, 8, 1, 3},
		},
		"macOS": {
			TSval: 0x4f3c2b1a, HasTS: true, MSS: 1460, HasMSS: true, WScale: 6, HasWS: true, SACKPermitted: true,
			Kinds: []uint8{2, 1, 3, 1, 1, 8, 4}, BytesBehindEndOfOption: 1,
		},
		"end, then rubbish":                {MSS: 1460, HasMSS: true, Kinds: []uint8{2}, BytesBehindEndOfOption: 10},
		"a length of 1":                    {MSS: 1460, HasMSS: true, Kinds: []uint8{2, 8}, Malformed: true},
		"a length beyond the header":       {SACKPermitted: true, Kinds: []uint8{4, 8}, Malformed: true},
		"a kind without a length":          {MSS: 1460, HasMSS: true, Kinds: []uint8{2, 8}, Malformed: true},
		"MSS of the wrong length":          {SACKPermitted: true, Kinds: []uint8{2, 4}},
		"timestamps twice":                 {TSval: 3, TSecr: 4, HasTS: true, Kinds: []uint8{8, 8}},
		"MSS twice, the second malformed":  {MSS: 1460, HasMSS: true, Kinds: []uint8{2, 2}},
		"40 bytes of NOPs":                 {Kinds: bytes.Repeat([]uint8{1}, 24)},
		"a kind without a length, byte 40": {Kinds: bytes.Repeat([]uint8{1}, 24), Malformed: true},
	}
	for _, seed := range optionSeeds {
		w, ok := want[seed.name]
		if !ok {
			continue
		}
		t.Run(seed.name, func(t *testing.T) {
			if diff := cmp.Diff(w, parseTCPOptions(seedBytes(seed.hex).bytes(t))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
		delete(want, seed.name)
	}
	for name := range want {
		t.Errorf("no seed is called %q", name)
	}
}

// FuzzTCPOptions holds the walk in C against the oracle in Go.
func FuzzTCPOptions(f *testing.F) {
	for _, seed := range optionSeeds {
		f.Add(seedBytes(seed.hex).bytes(f))
	}
	c := loadCFunctions(f, Config{Hz: 1000})
	f.Fuzz(func(t *testing.T, options []byte) { checkTCPOptions(t, c, options) })
}

// TestTCPOptionsRandom tries as many options as a second allows, most of them
// nearly right.
func TestTCPOptionsRandom(t *testing.T) {
	c := loadCFunctions(t, Config{Hz: 1000})
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	n := forASecond(func() { checkTCPOptions(t, c, randomOptions(t, r)) })
	t.Logf("%d inputs from seed %d", n, seed)
}

// forASecond repeats f, and returns how often.
func forASecond(f func()) int {
	n := 0
	for start := time.Now(); time.Since(start) < time.Second; n++ {
		f()
	}
	return n
}

func checkTCPOptions(t *testing.T, c *selftestObjects, options []byte) {
	t.Helper()
	in := selftestTwsTcpoptCase{Len: uint32(len(options))}
	got := walkTCPOptions(t, c, in, options)
	want := parseTCPOptions(options[:min(len(options), 40)])
	if !cmp.Equal(want, got) {
		t.Fatalf("options % x (-oracle +C):\n%s", options, cmp.Diff(want, got))
	}
}

func walkTCPOptions(t *testing.T, c *selftestObjects, in selftestTwsTcpoptCase, options []byte) tcpOptions {
	t.Helper()
	// what lies behind the options must not matter
	for i := range in.Options {
		in.Options[i] = kindTimestamps
	}
	copy(in.Options[:], options)
	call(t, c.TwsTestTcpopt, &in)
	out := &in.Out
	got := tcpOptions{
		TSval: out.Tsval, TSecr: out.Tsecr, MSS: out.Mss, WScale: out.Wscale,
		HasTS: out.SawTstamp != 0, HasMSS: out.HasMss != 0, HasWS: out.HasWscale != 0,
		SACKPermitted: out.SackPermitted != 0, Malformed: out.Malformed != 0,
		BytesBehindEndOfOption: out.EolPad,
	}
	if out.Count > 24 || out.Pad != [6]uint8{} {
		t.Fatalf("options % x: %+v", options, out)
	}
	for i := range int(out.Count) {
		got.Kinds = append(got.Kinds, uint8(out.Kinds[i/8]>>(i%8*8)))
	}
	for i := int(out.Count); i < 24; i++ {
		if uint8(out.Kinds[i/8]>>(i%8*8)) != 0 {
			t.Fatalf("options % x: a kind behind number %d: %x", options, out.Count, out.Kinds)
		}
	}
	return got
}

// randomOptions strings seeds and random options together and may damage the
// result.
func randomOptions(tb testing.TB, r *rand.Rand) []byte {
	tb.Helper()
	var b []byte
	lengths := map[uint8]int{kindMSS: 4, kindWindowScale: 3, kindSACKPermitted: 2, kindTimestamps: 10}
	for len(b) < r.IntN(48) {
		kind := uint8(r.IntN(10))
		if r.IntN(8) == 0 {
			kind = uint8(r.Uint32())
		}
		if kind == kindEnd && r.IntN(4) != 0 {
			kind = kindNOP
		}
		b = append(b, kind)
		if kind <= kindNOP {
			continue
		}
		length, ok := lengths[kind]
		if !ok || r.IntN(8) == 0 {
			length = r.IntN(14)
		}
		b = append(b, uint8(length))
		for range length - 2 {
			b = append(b, uint8(r.Uint32()))
		}
	}
	if len(b) > 0 && r.IntN(4) == 0 {
		b[r.IntN(len(b))] = uint8(r.Uint32())
	}
	return b[:min(len(b), 48)]
}
