// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestEffectiveCapabilities(t *testing.T) {
	all := []string{"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"}
	tests := []struct {
		name    string
		status  string
		missing []string
	}{
		{"root", "Name:\ttwscope\nCapEff:\t000001ffffffffff\n", nil},
		{"nobody", "CapEff:\t0000000000000000\n", all},
		{"only CAP_SYS_ADMIN, which implies two", "CapEff:\t0000000000200000\n", []string{"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"}},
		{"only CAP_BPF and CAP_PERFMON", "CapEff:\t000000c000000000\n", all[2:]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := EffectiveCapabilities(fstest.MapFS{"proc/self/status": file(tt.status)})
			if err != nil {
				t.Fatal(err)
			}
			var missing []string
			for _, n := range c.Missing(Needs()) {
				missing = append(missing, n.Name)
			}
			if !slices.Equal(missing, tt.missing) {
				t.Errorf("missing = %v, want %v", missing, tt.missing)
			}
		})
	}
}

func TestEffectiveCapabilitiesErrors(t *testing.T) {
	for status, want := range map[string]string{
		"Name:\tx\nCapEff:\tzz\n": "/proc/self/status:2: CapEff",
		"Name:\tx\n":              "/proc/self/status: has no CapEff",
	} {
		_, err := EffectiveCapabilities(fstest.MapFS{"proc/self/status": file(status)})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error = %v, want %q...", err, want)
		}
	}
}
