// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

func TestTimeWaitsTellTuplesAndTimers(t *testing.T) {
	for _, family := range []string{"IPv4", "IPv6", "IPv4-mapped"} {
		t.Run(family, func(t *testing.T) {
			p := newPair(t)
			dst := map[string]netip.Addr{
				"IPv4": p.link.B.Addr4(), "IPv6": p.link.B.Addr6(),
				"IPv4-mapped": netip.AddrFrom16(p.link.B.Addr4().As16()),
			}[family]
			sv := serve(t, p.server, Server{})
			c := testutil.Must1[*Conn](t)(p.client.Connect(Dial{}, sv.Targets(dst)[0]))
			local := c.Local()
			testutil.Must(t, c.CloseWrite())
			testutil.Must(t, c.WaitEOF(waitLimit))
			testutil.Must(t, c.Close())
			tw := timeWaits(t, p.client)
			if len(tw) != 1 {
				t.Fatalf("%d sockets in TIME_WAIT, want 1: %+v", len(tw), tw)
			}
			s := tw[0]
			if s.Local.Port() != local.Port() || s.Remote.Port() != sv.Addr().Port() ||
				s.Local.Addr().Unmap() != local.Addr().Unmap() || s.Remote.Addr().Unmap() != dst.Unmap() {
				t.Errorf("%s to %s, want %s to %s", s.Local, s.Remote, local, sv.Targets(dst)[0])
			}
			if s.State != TimeWait || s.Remaining < 30*time.Second || s.Remaining > 61*time.Second {
				t.Errorf("substate %d with %s remaining, want %d with nearly 60s", s.State, s.Remaining, TimeWait)
			}
		})
	}
}

func TestFinWait2Substate(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{NeverAccept: true}) // so that no FIN comes back
	c := testutil.Must1[*Conn](t)(p.client.Connect(Dial{}, sv.Targets(p.link.B.Addr4())[0]))
	testutil.Must(t, c.Close())
	testutil.Eventually(t, waitLimit, func() bool {
		tw := timeWaits(t, p.client)
		return len(tw) == 1 && tw[0].State == FinWait2
	}, "orphan in FIN_WAIT2 as a TIME_WAIT socket")
}

func TestSocketsByState(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{})
	c := testutil.Must1[*Conn](t)(p.client.Connect(Dial{}, sv.Targets(p.link.B.Addr4())[0]))
	established := testutil.Must1[[]Socket](t)(p.client.Sockets(Established))
	if len(established) != 1 || established[0].Local != c.Local() || established[0].TimeWait || established[0].Inode == 0 {
		t.Errorf("established %+v, want the connection from %s", established, c.Local())
	}
	if l := testutil.Must1[[]Socket](t)(p.server.Sockets(Listening)); len(l) != 1 || l[0].Local.Port() != sv.Addr().Port() {
		t.Errorf("listening %+v, want one at %s", l, sv.Addr())
	}
	testutil.Must(t, p.client.Destroy(established[0]))
	if err := c.WaitEOF(waitLimit); !errors.Is(err, unix.ECONNABORTED) {
		t.Errorf("read from a destroyed socket: %v, want ECONNABORTED", err)
	}
	testutil.Must(t, c.Close())
}

func TestKillTimeWaits(t *testing.T) {
	p := newPair(t)
	sv := serve(t, p.server, Server{})
	for _, dst := range []netip.Addr{p.link.B.Addr4(), p.link.B.Addr6()} {
		run(t, p.client, Load{Targets: sv.Targets(dst), Connections: 5, ClosesFirst: true})
	}
	killed, err := p.client.KillTimeWaits()
	testutil.SkipUnless(t, !errors.Is(err, unix.EOPNOTSUPP), fmt.Sprintf("this kernel does not destroy TIME_WAIT sockets: %v", err))
	testutil.Must(t, err)
	if left := timeWaits(t, p.client); killed != 10 || len(left) != 0 {
		t.Errorf("killed %d and left %d, want 10 and 0", killed, len(left))
	}
}

func TestParseNetstat(t *testing.T) {
	for _, tc := range []struct {
		name, data, wantErr string
		want                Counters
	}{
		{"pair of lines", "TcpExt: A B\nTcpExt: 1 18446744073709551615\nIpExt: C\nIpExt: 3\n", "", Counters{"x.A": 1, "x.B": 1<<64 - 1}},
		{"negative", "TcpExt: A\nTcpExt: -1\n", "", Counters{"x.A": 1<<64 - 1}},
		{"empty", "", "no line of values", nil},
		{"names only", "TcpExt: A\n", "no line of values", nil},
		{"too few values", "TcpExt: A B\nTcpExt: 1\n", "2 names but 1 values", nil},
		{"no number", "TcpExt: A\nTcpExt: x\n", "TcpExt: A", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseNetstat(tc.data, "TcpExt:", "x.")
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want %q", err, tc.wantErr)
				}
				return
			}
			testutil.Must(t, err)
			if len(got) != len(tc.want) || len(got.Since(tc.want)) != 0 {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func FuzzParseNetstat(f *testing.F) {
	f.Add("TcpExt: A B\nTcpExt: 1 2\n")
	f.Add("TcpExt: A\nTcpExt: -1 7\n")
	f.Fuzz(func(t *testing.T, data string) {
		c, err := parseNetstat(data, "TcpExt:", "")
		if (c == nil) == (err == nil) {
			t.Errorf("counters %v with error %v", c, err)
		}
	})
}

func FuzzParseDiag(f *testing.F) {
	f.Add(make([]byte, diagMsgLen-1))
	b := make([]byte, diagMsgLen)
	b[0], b[1], b[2] = unix.AF_INET, byte(TimeWait), timerTimeWait
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseDiag(b)
		if (err == nil) != (len(b) >= diagMsgLen) {
			t.Fatalf("%d bytes: error %v", len(b), err)
		}
		if err == nil && (s.family == unix.AF_INET) != s.Local.Addr().Is4() {
			t.Errorf("family %d but address %s", s.family, s.Local)
		}
	})
}
