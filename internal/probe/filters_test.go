// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/twscope/twscope/internal/bpf"
)

func TestPrefixKey(t *testing.T) {
	for _, tt := range []struct {
		prefix string
		port   uint16
		bits   uint32 // of port and address
	}{
		{"10.0.0.0/8", 0, 16 + 96 + 8},
		{"10.0.0.1/32", 443, 16 + 128},
		{"0.0.0.0/0", 0, 16 + 96},
		{"2001:db8::/32", 443, 16 + 32},
		{"::/0", 443, 16},
		{"::ffff:10.0.0.0/104", 0, 16 + 104},
	} {
		t.Run(tt.prefix, func(t *testing.T) {
			p := netip.MustParsePrefix(tt.prefix)
			k := prefixKey(p, tt.port)
			if k.Prefixlen != tt.bits || k.Port != tt.port || k.Addr != p.Addr().As16() {
				t.Errorf("%+v", k)
			}
		})
	}
	// the two ways to write an IPv4 network are one key
	four, mapped := prefixKey(netip.MustParsePrefix("10.0.0.0/8"), 1), prefixKey(netip.MustParsePrefix("::ffff:10.0.0.0/104"), 1)
	if four != mapped {
		t.Errorf("%+v and %+v", four, mapped)
	}
}

// The kernel compares a key from its first byte on, so the port must come
// right behind the length, and the address behind that.
func TestPrefixKeyLayout(t *testing.T) {
	b := sampleOf(bpf.PrefixKey{Prefixlen: 0x01020304, Port: 0x0506, Addr: [16]byte{7, 8}})
	if !bytes.Equal(b[6:8], []byte{7, 8}) || len(b) != 24 {
		t.Errorf("% x", b)
	}
}

func TestFilterSettings(t *testing.T) {
	var none, all bpf.Config
	Filters{}.settings(&none)
	if none != (bpf.Config{}) {
		t.Errorf("no filters set %+v", none)
	}
	Filters{
		NetNS: []uint32{1}, Remote: []Endpoint{{}}, Local: []netip.Prefix{{}}, PIDs: []uint32{1}, Comms: []string{"a"},
		Cgroups: []Cgroup{{ID: 7, Level: 2}, {ID: 8, Level: 1}},
	}.settings(&all)
	if all.FilterNetns+all.FilterDst+all.FilterSrc+all.FilterPid+all.FilterComm != 5 || all.CgroupCount != 2 ||
		all.CgroupIds[1] != 8 || all.CgroupLevels[0] != 2 {
		t.Errorf("all filters set %+v", all)
	}
}
