// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
)

func tupleOf(local, remote string, netns uint32) Tuple {
	l, r := netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)
	return Tuple{
		Laddr: l.Addr().As16(), Lport: l.Port(), Raddr: r.Addr().As16(), Rport: r.Port(), Netns: netns,
	}
}

func prefixOf(prefix string, port uint16) PrefixKey {
	p := netip.MustParsePrefix(prefix)
	bits := 16 + p.Bits() // the port counts always
	if p.Addr().Is4() {
		bits += 96 // ::ffff:0:0/96
	}
	return PrefixKey{Prefixlen: uint32(bits), Port: port, Addr: p.Addr().As16()}
}

func TestTupleFilter(t *testing.T) {
	c := loadCFunctions(t, Config{Hz: 1000, FilterNetns: 1, FilterDst: 1, FilterSrc: 1})
	put := func(m *ebpf.Map, key any) {
		t.Helper()
		if err := m.Put(key, uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	put(c.TwsFilterNetns, uint32(42))
	put(c.TwsFilterSrc, prefixOf("10.0.0.0/8", 0))
	put(c.TwsFilterSrc, prefixOf("2001:db8::/32", 0))
	put(c.TwsFilterDst, prefixOf("192.0.2.0/25", 443))
	put(c.TwsFilterDst, prefixOf("198.51.100.7/32", 0))
	put(c.TwsFilterDst, prefixOf("2001:db8:1::/48", 8080))

	tests := []struct {
		name  string
		tuple Tuple
		want  bool
	}{
		{"prefix and port", tupleOf("10.1.2.3:40000", "192.0.2.127:443", 42), true},
		{"another namespace", tupleOf("10.1.2.3:40000", "192.0.2.127:443", 43), false},
		{"another port", tupleOf("10.1.2.3:40000", "192.0.2.127:444", 42), false},
		{"the port with its bytes swapped", tupleOf("10.1.2.3:40000", "192.0.2.127:47873", 42), false},
		{"beyond the prefix", tupleOf("10.1.2.3:40000", "192.0.2.128:443", 42), false},
		{"another local address", tupleOf("11.1.2.3:40000", "192.0.2.1:443", 42), false},
		{"one address, any port", tupleOf("10.1.2.3:40000", "198.51.100.7:1", 42), true},
		{"its neighbor", tupleOf("10.1.2.3:40000", "198.51.100.6:1", 42), false},
		{"IPv6", tupleOf("[2001:db8::1]:40000", "[2001:db8:1::9]:8080", 42), true},
		{"IPv6, another port", tupleOf("[2001:db8::1]:40000", "[2001:db8:1::9]:8081", 42), false},
		{"IPv6, another prefix", tupleOf("[2001:db8::1]:40000", "[2001:db8:2::9]:8080", 42), false},
		{"IPv4-mapped", tupleOf("[::ffff:10.1.2.3]:40000", "[::ffff:192.0.2.1]:443", 42), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := testTuple(t, c, tt.tuple)&tupleMatches != 0; got != tt.want {
				t.Errorf("matches %v, want %v", got, tt.want)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	c := loadCFunctions(t, Config{Hz: 1000})
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.255": true, "::1": true, "::ffff:127.0.0.1": true,
		"126.255.255.255": false, "128.0.0.0": false, "0.0.0.0": false, "::": false, "::2": false,
		"::127.0.0.1": false, "fe80::1": false, "1::1": false, "0:0:0:1::1": false, "::1:0:1": false,
	} {
		t.Run(addr, func(t *testing.T) {
			a := netip.MustParseAddr(addr).As16()
			if got := testTuple(t, c, Tuple{Laddr: a})&tupleLocalLoopback != 0; got != want {
				t.Errorf("local address: loopback %v, want %v", got, want)
			}
			if got := testTuple(t, c, Tuple{Raddr: a})&tupleRemoteLoopback != 0; got != want {
				t.Errorf("remote address: loopback %v, want %v", got, want)
			}
		})
	}
}

// What tws_test_tuple returns.
const (
	tupleMatches = 1 << iota
	tupleLocalLoopback
	tupleRemoteLoopback
	tupleAll = 1<<iota - 1
)

func testTuple(t *testing.T, c *selftestObjects, tuple Tuple) uint32 {
	t.Helper()
	packet := unsafe.Slice((*byte)(unsafe.Pointer(&tuple)), unsafe.Sizeof(tuple))
	code, err := c.TwsTestTuple.Run(&ebpf.RunOptions{Data: packet})
	if err != nil || code > tupleAll {
		t.Fatalf("tws_test_tuple returned %#x: %v", code, err)
	}
	return code
}

func TestJiffies(t *testing.T) {
	for _, hz := range []uint32{100, 250, 300, 1000} {
		c := loadCFunctions(t, Config{Hz: hz})
		second := uint64(hz)
		for _, jiffies := range []uint64{0, 1, second - 1, second, 60 * second, 60*second + 1, 24 * 86400 * second} {
			in := selftestTwsJiffiesCase{Jiffies: jiffies}
			call(t, c.TwsTestJiffies, &in)
			if want := uint64(math.Floor(float64(jiffies) / float64(hz) * 1000)); uint64(in.Ms) != want {
				t.Errorf("%d jiffies at HZ=%d are %d ms, want %d", jiffies, hz, in.Ms, want)
			}
		}
	}
}
