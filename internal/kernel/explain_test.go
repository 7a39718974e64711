// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"maps"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	defaults := map[string]string{
		SysctlTWReuse: "2", SysctlTWReuseDelay: "1000", SysctlTimestamps: "1",
		SysctlPortRange: "32768 60999", SysctlReservedPorts: "", SysctlMaxTWBuckets: "131072",
		SysctlRFC1337: "0", SysctlFinTimeout: "60", SysctlRateLimit: "500",
		SysctlSomaxconn: "128", SysctlMaxSYNBacklog: "256", SysctlSYNCookies: "1",
	}
	type set map[string]string
	tests := []struct {
		name     string
		set      set // over the defaults; "-" removes
		offset   TSOffset
		sysctl   string
		severity Severity
		says     string
	}{
		{"reuse off", set{SysctlTWReuse: "0"}, 0, SysctlTWReuse, Info, "takes over no socket"},
		{"reuse on", set{SysctlTWReuse: "1"}, 0, SysctlTWReuse, OK, "more than 1000 ms, if its peer negotiated timestamps"},
		{"reuse on before 6.14", set{SysctlTWReuse: "1", SysctlTWReuseDelay: "-"}, 0, SysctlTWReuse, OK, "about 1 s"},
		{"reuse on loopback", nil, 0, SysctlTWReuse, Info, "only on loopback addresses"},
		{"reuse without timestamps", set{SysctlTWReuse: "1", SysctlTimestamps: "0"}, 0, SysctlTWReuse, Warning, "does nothing here"},
		{"delay with reuse off", set{SysctlTWReuse: "0"}, 0, SysctlTWReuseDelay, OK, "does nothing here"},
		{"delay raised", set{SysctlTWReuseDelay: "30000"}, 0, SysctlTWReuseDelay, Info, "only after 30000 ms"},
		{"delay default", nil, 0, SysctlTWReuseDelay, OK, "after 1000 ms"},
		{"no timestamps", set{SysctlTimestamps: "0"}, 0, SysctlTimestamps, Warning, "no connection here has timestamps"},
		{"plain timestamps", set{SysctlTimestamps: "2"}, TSOffsetPerTuple, SysctlTimestamps, Info, "one clock for all connections"},
		{"offset per tuple", nil, TSOffsetPerTuple, SysctlTimestamps, Info, "can refuse this host's SYNs"},
		{"offset per addresses", nil, TSOffsetPerAddresses, SysctlTimestamps, OK, "one clock, also behind a NAT"},
		{"offset unknown", nil, TSOffsetUnknown, SysctlTimestamps, OK, "random offset"},
		{"default range", nil, 0, SysctlPortRange, OK, "28232 ports per local address and destination, which sustains 470 connections/s"},
		{"range less reserved", set{SysctlReservedPorts: "8080,40000-49999"}, 0, SysctlPortRange, OK, "18232 ports"},
		{"range of odd size", set{SysctlPortRange: "32768 61000"}, 0, SysctlPortRange, OK, "leaves out one port"},
		{"narrow range", set{SysctlPortRange: "20000 20999"}, 0, SysctlPortRange, Warning, "1000 ports per local address and destination, which sustains 16 connections/s"},
		{"range reserved altogether", set{SysctlPortRange: "20000 20001", SysctlReservedPorts: "20000-20001"}, 0, SysctlPortRange, Warning, "no port"},
		{"range not understood", set{SysctlPortRange: "1"}, 0, SysctlPortRange, Warning, `not a range of two ports: "1"`},
		{"nothing reserved", nil, 0, SysctlReservedPorts, OK, "reserves no ports"},
		{"reserved outside", set{SysctlReservedPorts: "8080,9000-9100"}, 0, SysctlReservedPorts, OK, "reserves 102 ports, 0 of them"},
		{"reserved inside", set{SysctlReservedPorts: "8080,40000-40009"}, 0, SysctlReservedPorts, Info, "reserves 11 ports, 10 of them"},
		{"reserved without a range", set{SysctlReservedPorts: "8080", SysctlPortRange: "-"}, 0, SysctlReservedPorts, Info, "keeps 1 ports"},
		{"reserved not understood", set{SysctlReservedPorts: "http"}, 0, SysctlReservedPorts, Warning, `"http"`},
		{"buckets default", nil, 0, SysctlMaxTWBuckets, OK, "at 131072 sockets in TIME_WAIT"},
		{"buckets fewer than ports", set{SysctlMaxTWBuckets: "28231"}, 0, SysctlMaxTWBuckets, Warning, "fewer than the 28232 ports"},
		{"buckets as many as ports", set{SysctlMaxTWBuckets: "28232"}, 0, SysctlMaxTWBuckets, OK, "TCPTimeWaitOverflow"},
		{"buckets none", set{SysctlMaxTWBuckets: "0"}, 0, SysctlMaxTWBuckets, Warning, "no socket in TIME_WAIT"},
		{"rfc1337 off", nil, 0, SysctlRFC1337, OK, "gets in at its next try"},
		{"rfc1337 on", set{SysctlRFC1337: "1"}, 0, SysctlRFC1337, Warning, "retries in vain"},
		{"fin_timeout lowered in vain", set{SysctlFinTimeout: "5"}, 0, SysctlFinTimeout, OK, "does not shorten TIME_WAIT"},
		{"rate limit", nil, 0, SysctlRateLimit, OK, "in 500 ms"},
		{"accept queue", nil, 0, SysctlSomaxconn, OK, "at most 128 connections"},
		{"no cookies", set{SysctlSYNCookies: "0"}, 0, SysctlSYNCookies, OK, "SYNs are dropped"},
		{"no rate limit", set{SysctlRateLimit: "0"}, 0, SysctlRateLimit, Info, "without limit"},
		{"recycle on", set{SysctlTWRecycle: "1"}, 0, SysctlTWRecycle, Warning, "behind a NAT"},
		{"recycle off", set{SysctlTWRecycle: "0"}, 0, SysctlTWRecycle, OK, "is off"},
		{"no number", set{SysctlRFC1337: "yes"}, 0, SysctlRFC1337, Warning, "not a number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			values := maps.Clone(defaults)
			for name, value := range tt.set {
				values[name] = value
				if value == "-" {
					delete(values, name)
				}
			}
			effects := Explain(values, tt.offset)
			if len(effects) != len(values) {
				t.Errorf("%d sysctls, %d effects", len(values), len(effects))
			}
			for _, e := range effects {
				if e.Name != tt.sysctl {
					continue
				}
				if e.Severity != tt.severity || !strings.Contains(e.Effect, tt.says) || e.Value != values[e.Name] {
					t.Errorf("%s = %s: %s: %s\nwant %s: %q", e.Name, e.Value, e.Severity, e.Effect, tt.severity, tt.says)
				}
				return
			}
			t.Errorf("%s is not explained", tt.sysctl)
		})
	}
}

func FuzzParsePorts(f *testing.F) {
	f.Add("8080,9000-9100", uint16(9050), uint16(9200))
	f.Add("0-65535", uint16(0), uint16(65535))
	f.Add("1,,2", uint16(0), uint16(3))
	f.Fuzz(func(t *testing.T, value string, low, high uint16) {
		set, err := parsePorts(value)
		if err != nil {
			return
		}
		want := 0
		for p := int(low); p <= int(high); p++ {
			if set[p/64]&(1<<(p%64)) != 0 {
				want++
			}
		}
		if low <= high && set.count(low, high) != want {
			t.Errorf("%q has %d ports in %d-%d, want %d", value, set.count(low, high), low, high, want)
		}
	})
}

func FuzzExplain(f *testing.F) {
	f.Add("32768 60999", "8080,40000-40009", "0")
	f.Add("0 65535", "0-65535", "-1")
	f.Fuzz(func(t *testing.T, portRange, reserved, number string) {
		values := map[string]string{
			SysctlPortRange: portRange, SysctlReservedPorts: reserved,
			SysctlTWReuse: number, SysctlTWReuseDelay: number, SysctlTimestamps: number,
			SysctlMaxTWBuckets: number, SysctlRFC1337: number, SysctlRateLimit: number,
		}
		for _, e := range Explain(values, TSOffsetUnknown) {
			if e.Effect == "" {
				t.Errorf("%s = %q is not explained", e.Name, e.Value)
			}
		}
	})
}
