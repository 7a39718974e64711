// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab"
)

// few is a number of connections: less in short tests and on an emulated CPU.
func few(here, slow int) int {
	if testing.Short() || os.Getenv("TWSCOPE_VM") != "" {
		return slow
	}
	return here
}

// countsDeaths tells whether this kernel's TW counts sockets that leave
// TIME_WAIT, which was so up to 5.17.
func countsDeaths(t testing.TB) bool {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	must(t, err)
	return kernel.NewBTF(spec).TWCounting() == kernel.TWCountedAtExpiry
}

// checkTW holds the stop event's comparison of TIME_WAIT sockets against the
// kernel's counters: entered is how many there were, by sock_diag; deaths tells
// what the kernel counts.
func checkTW(t testing.TB, l log, h *lab.Host, entered uint64, deaths bool) {
	t.Helper()
	c := must1[lab.Counters](t)(h.Netstat())
	counted := int64(c["TW"] + c["TWKilled"])
	r := l.reconciled(t, h.Inode(), "TW")
	if r.TWScope != int64(entered) || r.Kernel != counted || r.Difference != r.Kernel-r.TWScope {
		t.Errorf("%s: %+v, want %d by the kernel and %d by twscope", h.Name(), r, counted, entered)
	}
	if deaths {
		if r.Why == "" {
			t.Errorf("%s: %+v does not say that this kernel counts at expiry", h.Name(), r)
		}
	} else if r.Difference != 0 {
		t.Errorf("%s: %+v, want no difference", h.Name(), r)
	}
}
