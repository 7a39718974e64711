// SPDX-License-Identifier: Apache-2.0

package selfcheck

import (
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestMasquerade builds client, gateway and server in namespaces of their own and proves that the server sees the
// gateway's address: veth, forwarding, connection tracking and NAT all work.
func TestMasquerade(t *testing.T) {
	requireVM(t)
	client, gateway, server := newNetns(t), newNetns(t), newNetns(t)
	wire(t, client, "10.1.0.2/24", gateway, "10.1.0.1/24")
	wire(t, server, "10.2.0.2/24", gateway, "10.2.0.1/24")
	in(t, client, func() {
		_, all, err := net.ParseCIDR("0.0.0.0/0")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.IPv4(10, 1, 0, 1)}); err != nil {
			t.Fatalf("default route: %v", err)
		}
	})
	in(t, gateway, func() {
		writeFile(t, "/proc/sys/net/ipv4/ip_forward", "1")
		masquerade(t)
	})
	var ln net.Listener
	in(t, server, func() {
		var err error
		if ln, err = net.Listen("tcp4", "10.2.0.2:0"); err != nil {
			t.Fatal(err)
		}
	})
	defer ln.Close()
	seen := closeFirst(t, ln, ln.Addr().String(), func() (c net.Conn, err error) {
		in(t, client, func() { c, err = net.Dial("tcp4", ln.Addr().String()) })
		return c, err
	})
	if got, want := netip.MustParseAddrPort(seen.String()).Addr(), netip.MustParseAddr("10.2.0.1"); got != want {
		t.Errorf("the server sees %s, want the gateway %s", got, want)
	}
}

// newNetns makes a namespace that lives as long as the test.
func newNetns(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	return ns
}

// in runs f with its thread in the namespace.
func in(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	// Also when f ends the test: the thread goes back to others.
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err)
		}
	}()
	f()
}

// wire joins two namespaces with a veth pair.
func wire(t *testing.T, a netns.NsHandle, addrA string, b netns.NsHandle, addrB string) {
	t.Helper()
	const nameA, nameB = "wireA", "wireB"
	in(t, a, func() {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB}); err != nil {
			t.Fatalf("add veth: %v", err)
		}
		peer, err := netlink.LinkByName(nameB)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetNsFd(peer, int(b)); err != nil {
			t.Fatalf("move veth: %v", err)
		}
		address(t, nameA, addrA)
	})
	in(t, b, func() {
		// The gateway gets two of these.
		l, err := netlink.LinkByName(nameB)
		if err != nil {
			t.Fatal(err)
		}
		name := "to" + addrB[:4]
		if err := netlink.LinkSetName(l, name); err != nil {
			t.Fatal(err)
		}
		address(t, name, addrB)
	})
}

func address(t *testing.T, name, addr string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		t.Fatalf("address %s on %s: %v", addr, name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}

// masquerade translates all that this namespace sends.
func masquerade(t *testing.T) {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
	chain := c.AddChain(&nftables.Chain{
		Name: "post", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
	if err := c.Flush(); err != nil {
		t.Fatalf("nftables: %v", err)
	}
}
