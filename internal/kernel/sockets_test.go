// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"bufio"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/twscope/twscope/internal/kernel"
)

const tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestReadListeners(t *testing.T) {
	line := func(local, state string) string {
		return "   0: " + local + " 00000000:0000 " + state + " 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
	}
	tests := []struct {
		name, tcp, tcp6 string
		want            []uint16
		err             string
	}{
		{"none", tcpHeader, tcpHeader, nil, ""},
		{
			"both families, twice the same, connections behind", //
			tcpHeader + line("0100007F:0016", "0A") + line("00000000:1F90", "0A") + line("0100007F:0050", "06"),
			tcpHeader + line("00000000000000000000000000000000:0016", "0A"),
			[]uint16{22, 8080},
			"",
		},
		{"no IPv6", tcpHeader + line("00000000:0001", "0A"), "", []uint16{1}, ""},
		{"cut short", tcpHeader + "   0: 0100007F:0016\n", "", nil, "net/tcp: line 2 has 2 columns"},
		{"no port", tcpHeader + line("0100007F", "0A"), "", nil, `"0100007F" is no address`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{"net/tcp": {Data: []byte(test.tcp)}}
			if test.tcp6 != "" {
				root["net/tcp6"] = &fstest.MapFile{Data: []byte(test.tcp6)}
			}
			got, err := kernel.ReadListeners(root, "net")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

// TestReadListenersHere: the kernel itself lists listeners first.
func TestReadListenersHere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String()) // a connection behind the listener
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := kernel.ReadListeners(os.DirFS("/"), "proc/thread-self/net")
	if err != nil {
		t.Fatal(err)
	}
	if port := uint16(l.Addr().(*net.TCPAddr).Port); !slices.Contains(got, port) {
		t.Errorf("%v lacks %d", got, port)
	}
	if port := uint16(c.LocalAddr().(*net.TCPAddr).Port); slices.Contains(got, port) {
		t.Errorf("%v has the client's port %d", got, port)
	}
}

func TestReadTimeWaits(t *testing.T) {
	tests := []struct {
		name, text string
		want       uint32
		err        string
	}{
		{"usual", "sockets: used 30\nTCP: inuse 5 orphan 0 tw 1234 alloc 7 mem 1\nUDP: inuse 0 mem 0\n", 1234, ""},
		{"no TCP", "sockets: used 30\n", 0, "has no tw"},
		{"odd", "TCP: inuse 5 tw\n", 0, "has no tw"},
		{"no number", "TCP: inuse 5 tw x\n", 0, "tw: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := kernel.ReadTimeWaits(fstest.MapFS{"net/sockstat": {Data: []byte(test.text)}}, "net")
			if test.err == "" && (err != nil || got != test.want) {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
			if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
	if _, err := kernel.ReadTimeWaits(os.DirFS("/"), "proc/thread-self/net"); err != nil {
		t.Error(err)
	}
}

func TestFormatPorts(t *testing.T) {
	for want, ports := range map[string][]uint16{
		"": nil, "22": {22}, "22,80,8000-8010": append([]uint16{22, 80}, span(8000, 8010)...), "1-2,65535": {1, 2, 65535},
	} {
		if got := kernel.FormatPorts(ports); got != want {
			t.Errorf("%v: %q, want %q", ports, got, want)
		}
		spans, err := kernel.ParsePorts(want)
		var back []uint16
		for _, s := range spans {
			back = append(back, span(s.Low, s.High)...)
		}
		if err != nil || !slices.Equal(back, ports) {
			t.Errorf("%q: %v, %v", want, back, err)
		}
	}
}

func span(low, high uint16) (list []uint16) {
	for p := int(low); p <= int(high); p++ {
		list = append(list, uint16(p))
	}
	return list
}

func FuzzReadListeners(f *testing.F) {
	f.Add(tcpHeader + "   0: 0100007F:0016 00000000:0000 0A\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := kernel.ReadListeners(fstest.MapFS{"net/tcp": {Data: []byte(text)}}, "net")
		lines := bufio.NewScanner(strings.NewReader(text))
		n := 0
		for lines.Scan() {
			n++
		}
		if err == nil && len(got) > n {
			t.Errorf("%d ports in %d lines", len(got), n)
		}
	})
}

func FuzzReadTimeWaits(f *testing.F) {
	f.Add("TCP: inuse 5 orphan 0 tw 1234 alloc 7 mem 1\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = kernel.ReadTimeWaits(fstest.MapFS{"net/sockstat": {Data: []byte(text)}}, "net")
	})
}
