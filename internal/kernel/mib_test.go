// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const snmpText = `Ip: Forwarding DefaultTTL InReceives
Ip: 2 64 3573
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens InErrs
Tcp: 1 200 120000 -1 17 4
Udp: InDatagrams InErrors
Udp: 1 2
`

func TestReadCounters(t *testing.T) {
	tests := []struct {
		name    string
		netstat string
		want    Counters
	}{
		{
			"6.18", "TcpExt: TW TWRecycled PAWSEstab PAWSTimewait\nTcpExt: 9 8 7 6\nIpExt: InOctets\nIpExt: 5\n",
			Counters{"TW": 9, "TWRecycled": 8, "PAWSEstab": 7, "PAWSTimewait": 6},
		},
		{
			"3.10, other order, the largest value", "IpExt: InOctets\nIpExt: 5\nTcpExt: PAWSPassive TW\nTcpExt: 18446744073709551615 1\n",
			Counters{"PAWSPassive": math.MaxUint64, "TW": 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/7/net/netstat": file(tt.netstat), "proc/7/net/snmp": file(snmpText)}
			got, err := ReadCounters(root, "proc/7/net")
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(tt.want)
			maps.Copy(want, Counters{"RtoAlgorithm": 1, "RtoMin": 200, "RtoMax": 120000, "ActiveOpens": 17, "InErrs": 4})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("counters differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadCountersErrors(t *testing.T) {
	tests := []struct {
		name, netstat, want string
	}{
		{"no values", "TcpExt: TW\nTcpExt: 1\nTcpExt: TW\n", "/proc/7/net/netstat:3: no line of values"},
		{"a value missing", "TcpExt: TW TWKilled\nTcpExt: 1\n", "/proc/7/net/netstat:2: the values do not match"},
		{"another group", "TcpExt: TW\nIpExt: 1\n", "/proc/7/net/netstat:2: the values do not match"},
		{"no number", "TcpExt: TW\nTcpExt: x\n", "/proc/7/net/netstat:2: TW: invalid syntax"},
		{"too large", "TcpExt: TW\nTcpExt: 18446744073709551616\n", "/proc/7/net/netstat:2: TW: value out of range"},
		{"blank lines", "\n\n", "/proc/7/net/netstat:2: the values do not match"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := fstest.MapFS{"proc/7/net/netstat": file(tt.netstat), "proc/7/net/snmp": file(snmpText)}
			_, err := ReadCounters(root, "proc/7/net")
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q...", err, tt.want)
			}
		})
	}
}

func TestDelta(t *testing.T) {
	before := Counters{"TW": 5, "CurrEstab": 3, "PAWSEstab": math.MaxUint64, "Gone": 1}
	now := Counters{"TW": 12, "CurrEstab": 1, "PAWSEstab": 1, "New": 1}
	tests := []struct {
		name string
		want int64
		ok   bool
	}{
		{"TW", 7, true},
		{"CurrEstab", -2, true},
		{"PAWSEstab", 2, true}, // it wrapped
		{"Gone", 0, false},
		{"New", 0, false},
		{"PAWSPassive", 0, false},
	}
	for _, tt := range tests {
		got, ok := now.Delta(before, tt.name)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("Delta(%s) = %d, %v, want %d, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestLocalCounters(t *testing.T) {
	c, err := ReadCounters(os.DirFS("/"), "proc/thread-self/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"TW", "TWRecycled", "TWKilled", "PAWSActive", "PAWSEstab", "TCPTimeWaitOverflow", "ActiveOpens"} {
		if _, ok := c[name]; !ok {
			t.Errorf("this kernel has no counter %s", name)
		}
	}
}

func FuzzParseCounters(f *testing.F) {
	f.Add([]byte(snmpText))
	f.Add([]byte("TcpExt: TW TW\nTcpExt: 1 -2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Counters{}
		if c.parse("f", text) != nil {
			return
		}
		// What was read, written in the same format, must read the same.
		names, values := "TcpExt:", "TcpExt:"
		for _, name := range slices.Sorted(maps.Keys(c)) {
			names += " " + name
			values += fmt.Sprintf(" %d", c[name])
		}
		again := Counters{}
		if err := again.parse("f", []byte(names+"\n"+values+"\n")); err != nil || !maps.Equal(c, again) {
			t.Errorf("read %v, wrote and read %v (%v)", c, again, err)
		}
	})
}
