// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/twscope/twscope/internal/testutil"
)

// waitLimit bounds every wait for a condition: generous, because the tests also
// run in software-emulated machines.
const waitLimit = 20 * time.Second

func TestMain(m *testing.M) {
	Main()
	if os.Getenv(killedEnv) != "" {
		buildLabAndHang()
	}
	os.Exit(m.Run())
}

// needMPTCP skips if this kernel has no MPTCP at all, and for no other reason.
func needMPTCP(t *testing.T, h *Host) {
	t.Helper()
	_, err := h.ReadSysctl("net.mptcp.enabled")
	testutil.SkipUnless(t, !errors.Is(err, os.ErrNotExist), fmt.Sprintf("kernel without CONFIG_MPTCP: %v", err))
}

func newLab(t *testing.T, opts ...Option) *Lab {
	t.Helper()
	testutil.Root(t)
	l, err := New(t.Context(), "test", opts...)
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, l.Close()) })
	return l
}

func newHosts(t *testing.T, names ...string) (*Lab, []*Host) {
	t.Helper()
	l := newLab(t)
	hosts, err := l.Hosts(names...)
	testutil.Must(t, err)
	return l, hosts
}

// pair is a client and a server with an IPv4 and an IPv6 link.
type pair struct {
	client, server *Host
	link           *Link
}

func newPair(t *testing.T) pair {
	t.Helper()
	l, hosts := newHosts(t, "client", "server")
	link, err := l.Link(t.Context(), hosts[0], hosts[1], "10.1.0.0/24", "fd00:1::/64")
	testutil.Must(t, err)
	return pair{client: hosts[0], server: hosts[1], link: link}
}

func timeWaits(t *testing.T, h *Host) []Socket {
	t.Helper()
	return testutil.Must1[[]Socket](t)(h.TimeWaits())
}

func netstat(t *testing.T, h *Host) Counters {
	t.Helper()
	return testutil.Must1[Counters](t)(h.Netstat())
}

func run(t *testing.T, h *Host, l Load) *Result {
	t.Helper()
	return testutil.Must1[*Result](t)(h.Run(t.Context(), l))
}

func serve(t *testing.T, h *Host, s Server) *Serving {
	t.Helper()
	return testutil.Must1[*Serving](t)(h.Serve(s))
}
