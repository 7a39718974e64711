// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

// find returns the listener at an address.
func find(t *testing.T, list []Listener, at netip.AddrPort) Listener {
	t.Helper()
	i := slices.IndexFunc(list, func(l Listener) bool { return l.Local == at })
	if i < 0 {
		t.Fatalf("no listener at %s in %+v", at, list)
	}
	return list[i]
}

// TestReadListeners listens in a namespace, on a socket of each family with a
// backlog of its own, and lets connections wait there.
func TestReadListeners(t *testing.T) {
	testutil.NoLeakedFDs(t)
	ns := startInNewNetNS(t)
	want := map[netip.AddrPort]Listener{}
	err := ns.Do(func() error {
		if err := loopbackUp(); err != nil {
			return err
		}
		for i, at := range []string{"127.0.0.1:4001", "[::1]:4002", "[::]:4003", "0.0.0.0:4004", "[::ffff:127.0.0.1]:4005"} {
			addr := netip.MustParseAddrPort(at)
			closeAll, err := listenAndWait(addr, 2+i, i)
			if err != nil {
				return err
			}
			t.Cleanup(closeAll)
			addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
			want[addr] = Listener{Local: addr, Backlog: uint32(i), Limit: uint32(2 + i)}
		}
		list, err := ReadListeners()
		if err != nil {
			return err
		}
		got, cookies := map[netip.AddrPort]Listener{}, map[uint64]bool{}
		for _, l := range list {
			cookies[l.Cookie] = true
			l.Cookie = 0
			got[l.Local] = l
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || len(cookies) != len(want) {
			t.Errorf("%d cookies; listeners (-want +got):\n%s", len(cookies), diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	outside, err := ReadListeners()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range outside {
		if _, inside := want[l.Local]; inside {
			t.Errorf("%+v of the namespace is listed outside of it", l)
		}
	}
}

// listenAndWait makes a listener with connections that nobody accepts.
func listenAndWait(at netip.AddrPort, backlog, connections int) (closeAll func(), err error) {
	var fds []int
	closeAll = func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	socket := func() (int, unix.Sockaddr, error) {
		family := unix.AF_INET
		var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
		if at.Addr().Is4() {
			sa.(*unix.SockaddrInet4).Addr = at.Addr().As4()
		} else {
			family = unix.AF_INET6
			sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
		}
		return fd, sa, err
	}
	fd, sa, err := socket()
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	for range connections {
		if err == nil {
			fd, sa, err = socket()
		}
		if err == nil {
			err = unix.Connect(fd, sa)
		}
	}
	return closeAll, err
}

// TestReadListenersUnprivileged: sock_diag asks for no capability.
func TestReadListenersUnprivileged(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	list, err := ReadListeners()
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	if l := find(t, list, at); l.Limit == 0 || l.Backlog != 0 || l.Drops != 0 || l.Cookie == 0 {
		t.Errorf("%+v, want a fresh listener", l)
	}
}

// message is a netlink message, padded.
func message(kind uint16, body []byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body)+3)
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	b = append(b, body...)
	return append(b, make([]byte, netlinkAlign(uint64(len(b)))-uint64(len(b)))...)
}

// diagMessage is a struct inet_diag_msg with attributes behind it: one that is
// not asked for, then SKMEMINFO of so many words.
func diagMessage(family byte, words int) []byte {
	b := make([]byte, diagMsgLen)
	b[0], b[1] = family, tcpListen
	binary.BigEndian.PutUint16(b[4:], 8080)
	copy(b[8:], []byte{10, 0, 0, 2})
	binary.NativeEndian.PutUint64(b[44:], 77)
	binary.NativeEndian.PutUint32(b[56:], 5)
	binary.NativeEndian.PutUint32(b[60:], 4)
	b = append(b, attr(17, []byte{1})...)
	info := make([]byte, 4*words)
	if words > skMemInfoDrops {
		binary.NativeEndian.PutUint32(info[4*skMemInfoDrops:], 1<<32-1)
	}
	return append(b, attr(diagSKMemInfo, info)...)
}

func attr(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, netlinkAlign(uint64(len(b)))-uint64(len(b)))...)
}

func errnoBody(errno int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(-errno)) }

func TestParseListeners(t *testing.T) {
	v4 := Listener{Cookie: 77, Local: netip.MustParseAddrPort("10.0.0.2:8080"), Backlog: 5, Limit: 4, Drops: 1<<32 - 1}
	v6 := v4
	v6.Local = netip.MustParseAddrPort("[a00:2::]:8080")
	whole := message(sockDiagByFamily, diagMessage(unix.AF_INET, 9))
	tests := []struct {
		name string
		in   []byte
		want []Listener
		done bool
		err  string
	}{
		{name: "nothing"},
		{name: "two, and more to come", in: slices.Concat(whole, message(sockDiagByFamily, diagMessage(unix.AF_INET6, 12))), want: []Listener{v4, v6}},
		{name: "the end", in: slices.Concat(whole, message(unix.NLMSG_DONE, errnoBody(0)), whole), want: []Listener{v4}, done: true},
		{name: "a dump that failed", in: message(unix.NLMSG_DONE, errnoBody(int32(unix.ENOENT))), done: true, err: "no such file"},
		{name: "an error", in: message(unix.NLMSG_ERROR, errnoBody(int32(unix.EPERM))), done: true, err: "not permitted"},
		{name: "an error cut short", in: message(unix.NLMSG_ERROR, []byte{1}), done: true, err: "cut short"},
		{name: "another kind", in: message(99, []byte("abc"))},
		{name: "header cut short", in: whole[:7], err: "message of 7 bytes"},
		{name: "longer than it is", in: whole[:len(whole)-4], err: "136 bytes in 132"},
		{name: "length below the header", in: make([]byte, 16), err: "message of 0 bytes"},
		{name: "body cut short", in: message(sockDiagByFamily, make([]byte, 71)), err: "inet_diag_msg of 71"},
		{name: "family", in: message(sockDiagByFamily, diagMessage(unix.AF_UNIX, 9)), err: "family 1"},
		{name: "no drops", in: message(sockDiagByFamily, diagMessage(unix.AF_INET, 8)), err: "SKMEMINFO of 32"},
		{name: "no attribute", in: message(sockDiagByFamily, diagMessage(unix.AF_INET, 9)[:diagMsgLen]), err: "SKMEMINFO of 0"},
		{name: "attribute cut short", in: message(sockDiagByFamily, diagMessage(unix.AF_INET, 9)[:diagMsgLen+3]), err: "attribute of 3"},
		{name: "attribute longer than it is", in: message(sockDiagByFamily, diagMessage(unix.AF_INET, 9)[:diagMsgLen+12]), err: "attribute of 40 bytes in 4"},
		{name: "attribute without length", in: message(sockDiagByFamily, append(diagMessage(unix.AF_INET, 9)[:diagMsgLen], 0, 0, 0, 0)), err: "attribute of 0 bytes in 4"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []Listener
			done, err := parseListeners(test.in, &got)
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" || done != test.done {
				t.Errorf("done is %t, want %t; listeners (-want +got):\n%s", done, test.done, diff)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add(message(sockDiagByFamily, diagMessage(unix.AF_INET, 9)))
	f.Add(message(sockDiagByFamily, diagMessage(unix.AF_INET6, 12)))
	f.Add(message(unix.NLMSG_DONE, errnoBody(0)))
	f.Add(message(unix.NLMSG_ERROR, errnoBody(int32(unix.EPERM))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var list []Listener
		_, _ = parseListeners(b, &list)
		if most := len(b) / (unix.NLMSG_HDRLEN + diagMsgLen); len(list) > most {
			t.Errorf("%d listeners in %d bytes", len(list), len(b))
		}
		for _, l := range list {
			if !l.Local.Addr().IsValid() || l.Local.Addr().Is4In6() {
				t.Errorf("a listener at %s", l.Local)
			}
		}
	})
}

// BenchmarkReadListeners is what one look costs, whatever the namespace.
func BenchmarkReadListeners(b *testing.B) {
	for b.Loop() {
		if _, err := ReadListeners(); err != nil {
			b.Fatal(err)
		}
	}
}
