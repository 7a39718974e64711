// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// MasqOptions say how a gateway picks the outer port. The zero value is the
// kernel's default: keep the inner port if it is free.
type MasqOptions struct {
	PortLow, PortHigh uint16 // inclusive; 0 and 0 is no limit
	FullyRandom       bool   // as in iptables --random-fully
}

// Masquerade hides what the host forwards out of the link's end behind the
// end's address, for IPv4 and IPv6. out must belong to h.
func (h *Host) Masquerade(out *End, o MasqOptions) error {
	if out.Host != h {
		return fmt.Errorf("host %s: masquerade: %s is an interface of %s", h.name, out.Name, out.Host.name)
	}
	if o.PortLow > o.PortHigh || (o.PortLow == 0) != (o.PortHigh == 0) {
		return fmt.Errorf("host %s: masquerade: port range %d-%d: want 1 <= low <= high", h.name, o.PortLow, o.PortHigh)
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		addr := out.Addr4()
		if family == nftables.TableFamilyIPv6 {
			addr = out.Addr6()
		}
		if !addr.IsValid() {
			continue
		}
		exprs := append(matchMeta(expr.MetaKeyOIFNAME, ifNameBytes(out.Name)),
			matchMeta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP})...)
		exprs = append(exprs, o.translate(addr)...)
		err := h.nft(func(c *nftables.Conn) {
			t := c.AddTable(&nftables.Table{Family: family, Name: "twscope-nat"})
			ch := c.AddChain(&nftables.Chain{
				Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
				Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
			})
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: exprs})
		})
		if err != nil {
			return missing(fmt.Errorf("host %s: masquerade: %w", h.name, err),
				"CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ, modules nf_tables, nft_chain_nat, nft_nat and nft_masq")
		}
	}
	return nil
}

// translate ends a masquerading rule. A masq expression of package expr cannot
// hold a port range together with its flags, so with a range it is the
// equivalent translation to the interface's address: the kernel picks the port
// in the same function, nf_nat_setup_info.
func (o *MasqOptions) translate(addr netip.Addr) []expr.Any {
	if o.PortLow == 0 {
		return []expr.Any{&expr.Masq{FullyRandom: o.FullyRandom}}
	}
	family := uint32(unix.NFPROTO_IPV4)
	if addr.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(o.PortLow)},
		&expr.Immediate{Register: 3, Data: binaryutil.BigEndian.PutUint16(o.PortHigh)},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1, RegAddrMax: 1,
			RegProtoMin: 2, RegProtoMax: 3, FullyRandom: o.FullyRandom, Specified: true,
		},
	}
}

// ConntrackTimeWait sets how long the gateway remembers a closed connection.
// Below the hosts' own 60 s it hands out 5-tuples that are still in TIME_WAIT.
func (h *Host) ConntrackTimeWait(d time.Duration) error {
	return h.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", strconv.Itoa(int(d.Seconds())))
}

// Hook is where in the packet's path a rule looks.
type Hook uint8

// The hooks of a Match.
const (
	Input Hook = iota
	Output
	Forwarded
)

// The flags of a TCP header (RFC 9293, 3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// Match says which TCP segments a rule applies to. Zero fields match all.
type Match struct {
	Hook             Hook
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	FlagMask, Flags  uint8 // segments whose flags AND FlagMask are Flags
}

// Rule is a rule in force.
type Rule struct {
	host  *Host
	table *nftables.Table
	chain *nftables.Chain
}

// Drop makes the host drop the segments that match, silently.
func (h *Host) Drop(m Match) (*Rule, error) {
	exprs, err := m.exprs()
	if err != nil {
		return nil, fmt.Errorf("host %s: drop: %w", h.name, err)
	}
	hooks := map[Hook]*nftables.ChainHook{
		Input: nftables.ChainHookInput, Output: nftables.ChainHookOutput, Forwarded: nftables.ChainHookForward,
	}
	hook, ok := hooks[m.Hook]
	if !ok {
		return nil, fmt.Errorf("host %s: drop: no hook %d", h.name, m.Hook)
	}
	h.mu.Lock()
	h.nextID++
	name := fmt.Sprintf("drop-%d", h.nextID)
	h.mu.Unlock()
	r := &Rule{host: h, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: "twscope-" + name}}
	err = h.nft(func(c *nftables.Conn) {
		c.AddTable(r.table)
		r.chain = c.AddChain(&nftables.Chain{
			Name: name, Table: r.table, Type: nftables.ChainTypeFilter,
			Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
		c.AddRule(&nftables.Rule{Table: r.table, Chain: r.chain, Exprs: exprs})
	})
	if err != nil {
		return nil, missing(fmt.Errorf("host %s: drop: %w", h.name, err),
			"CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET and CONFIG_NFT_COUNTER, modules nf_tables and nft_counter")
	}
	return r, nil
}

// Packets is how many segments the rule has dropped.
func (r *Rule) Packets() (uint64, error) {
	c, err := nftables.New(nftables.WithNetNSFd(r.host.FD()))
	if err != nil {
		return 0, err
	}
	rules, err := c.GetRules(r.table, r.chain)
	if err != nil {
		return 0, fmt.Errorf("host %s: read rule: %w", r.host.name, err)
	}
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				return counter.Packets, nil
			}
		}
	}
	return 0, fmt.Errorf("host %s: the rule is gone", r.host.name)
}

// Remove ends the rule.
func (r *Rule) Remove() error {
	return r.host.nft(func(c *nftables.Conn) { c.DelTable(r.table) })
}

func (h *Host) nft(change func(*nftables.Conn)) error {
	c, err := nftables.New(nftables.WithNetNSFd(h.FD()))
	if err != nil {
		return err
	}
	change(c)
	return c.Flush()
}

// Offsets in the network header (RFC 791, RFC 8200) and the TCP header.
const (
	ip4SrcOffset, ip4DstOffset = 12, 16
	ip6SrcOffset, ip6DstOffset = 8, 24
	tcpFlagsOffset             = 13
)

func (m *Match) exprs() ([]expr.Any, error) {
	exprs := matchMeta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP})
	if m.Src.IsValid() && m.Dst.IsValid() && m.Src.Is4() != m.Dst.Is4() {
		return nil, fmt.Errorf("%s and %s are of different families", m.Src, m.Dst)
	}
	for _, a := range []struct {
		addr      netip.Addr
		off, off6 uint32
	}{{m.Src, ip4SrcOffset, ip6SrcOffset}, {m.Dst, ip4DstOffset, ip6DstOffset}} {
		if !a.addr.IsValid() {
			continue
		}
		family, off := byte(unix.NFPROTO_IPV4), a.off
		if a.addr.Is6() {
			family, off = unix.NFPROTO_IPV6, a.off6
		}
		exprs = append(exprs, matchMeta(expr.MetaKeyNFPROTO, []byte{family})...)
		exprs = append(exprs, matchPayload(expr.PayloadBaseNetworkHeader, off, a.addr.AsSlice())...)
	}
	for i, port := range []uint16{m.SrcPort, m.DstPort} {
		if port != 0 {
			exprs = append(exprs, matchPayload(expr.PayloadBaseTransportHeader, uint32(2*i), binary.BigEndian.AppendUint16(nil, port))...)
		}
	}
	if m.FlagMask != 0 {
		exprs = append(exprs,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{m.FlagMask}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{m.Flags}})
	}
	return append(exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}), nil
}

func matchMeta(key expr.MetaKey, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func matchPayload(base expr.PayloadBase, off uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: off, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

func ifNameBytes(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
