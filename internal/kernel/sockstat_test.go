// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/twscope/twscope/internal/kernel"
)

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

func FuzzReadTimeWaits(f *testing.F) {
	f.Add("TCP: inuse 5 orphan 0 tw 1234 alloc 7 mem 1\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = kernel.ReadTimeWaits(fstest.MapFS{"net/sockstat": {Data: []byte(text)}}, "net")
	})
}
