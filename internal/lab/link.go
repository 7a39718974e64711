// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkUpTimeout bounds the wait for the carrier of a new link. The kernel's
// linkwatch work normally needs a few milliseconds.
const linkUpTimeout = 10 * time.Second

// Link is a veth pair between two hosts.
type Link struct {
	A, B End
}

// End is a host's end of a link.
type End struct {
	Host  *Host
	Name  string // interface name inside the host
	Index int    // interface index inside the host
	Addrs []netip.Addr
}

// Addr4 is the end's first IPv4 address, or the zero Addr.
func (e *End) Addr4() netip.Addr { return e.first(netip.Addr.Is4) }

// Addr6 is the end's first IPv6 address, or the zero Addr.
func (e *End) Addr6() netip.Addr { return e.first(netip.Addr.Is6) }

func (e *End) first(is func(netip.Addr) bool) netip.Addr {
	for _, a := range e.Addrs {
		if is(a) {
			return a
		}
	}
	return netip.Addr{}
}

// Link connects two hosts and waits until the link carries packets. In each of
// the subnets, IPv4 or IPv6, a gets the first address and b the second.
func (l *Lab) Link(ctx context.Context, a, b *Host, subnets ...string) (*Link, error) {
	link := &Link{A: End{Host: a, Name: ifName(a, b)}, B: End{Host: b, Name: ifName(b, a)}}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: link.A.Name},
		PeerName:      link.B.Name,
		PeerNamespace: netlink.NsFd(b.FD()),
	}
	if err := a.nl.LinkAdd(veth); err != nil {
		return nil, missing(fmt.Errorf("link %s to %s: add veth pair: %w", a.name, b.name, err), "CONFIG_VETH, module veth")
	}
	for _, e := range []*End{&link.A, &link.B} {
		if err := e.up(); err != nil {
			return nil, err
		}
	}
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("link %s to %s: subnet %q: %w", a.name, b.name, s, err)
		}
		first := p.Masked().Addr().Next()
		for _, err := range []error{
			link.A.addAddr(netip.PrefixFrom(first, p.Bits())),
			link.B.addAddr(netip.PrefixFrom(first.Next(), p.Bits())),
		} {
			if err != nil {
				return nil, err
			}
		}
	}
	return link, errors.Join(link.A.waitUp(ctx), link.B.waitUp(ctx))
}

// ifName names an interface after the host on its other side.
func ifName(h, peer *Host) string {
	base := peer.name
	if len(base) > unix.IFNAMSIZ-4 {
		base = base[:unix.IFNAMSIZ-4]
	}
	for n := range 100 {
		name := fmt.Sprintf("%s%d", base, n)
		if _, err := h.nl.LinkByName(name); err != nil {
			return name
		}
	}
	return base
}

func (e *End) up() error {
	link, err := e.Host.nl.LinkByName(e.Name)
	if err != nil {
		return fmt.Errorf("host %s: find %s: %w", e.Host.name, e.Name, err)
	}
	e.Index = link.Attrs().Index
	if err := e.Host.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("host %s: set %s up: %w", e.Host.name, e.Name, err)
	}
	return nil
}

// waitUp waits for the operational state. Until the kernel has seen the carrier
// the interface has the noop queue, which drops every packet.
func (e *End) waitUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, linkUpTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		link, err := e.Host.nl.LinkByIndex(e.Index)
		if err != nil {
			return fmt.Errorf("host %s: find %s: %w", e.Host.name, e.Name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host %s: %s is %s: %w", e.Host.name, e.Name, link.Attrs().OperState, ctx.Err())
		case <-tick.C:
		}
	}
}

// AddAddr gives the end one more address, "10.0.0.7/24" or "fd00::7/64".
func (e *End) AddAddr(prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return fmt.Errorf("host %s: address %q: %w", e.Host.name, prefix, err)
	}
	return e.addAddr(p)
}

func (e *End) addAddr(p netip.Prefix) error {
	if err := e.Host.addAddr(e.Index, p); err != nil {
		return err
	}
	e.Addrs = append(e.Addrs, p.Addr())
	return nil
}

// AddLoopback gives the host's lo one more address: IPv6 has but one loopback
// address, so a load that needs many IPv6 destinations adds some of these.
func (h *Host) AddLoopback(prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return fmt.Errorf("host %s: address %q: %w", h.name, prefix, err)
	}
	return h.addAddr(1, p) // lo is 1 in every namespace
}

func (h *Host) addAddr(index int, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // otherwise it is tentative for a second
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	if err := h.nl.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("host %s: add address %s: %w", h.name, p, err)
	}
	return nil
}

// Route sends packets to dst ("10.2.0.0/24", "0.0.0.0/0", "::/0") to the next
// hop via.
func (h *Host) Route(dst string, via netip.Addr) error {
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return fmt.Errorf("host %s: route %q: %w", h.name, dst, err)
	}
	route := &netlink.Route{Dst: ipNet(p.Masked()), Gw: via.AsSlice()}
	if err := h.nl.RouteAdd(route); err != nil {
		return fmt.Errorf("host %s: route %s via %s: %w", h.name, dst, via, err)
	}
	return nil
}

// Forward makes the host a router for IPv4 and IPv6.
func (h *Host) Forward() error {
	return errors.Join(
		h.Sysctl("net.ipv4.ip_forward", "1"),
		h.Sysctl("net.ipv6.conf.all.forwarding", "1"),
	)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
