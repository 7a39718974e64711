// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/twscope/twscope/internal/bpf"
)

// Filters select what is emitted. Within a kind one match is enough; between
// kinds all must match. The zero Filters select everything.
type Filters struct {
	NetNS   []uint32       // inodes of network namespaces
	Remote  []Endpoint     // --dst: the remote side as seen from this host
	Local   []netip.Prefix // --src: the local address as seen from this host
	PIDs    []uint32       // thread group ids; their children are followed
	Comms   []string       // names of processes, at most 15 bytes
	Cgroups []Cgroup       // with their descendants
}

// IsZero reports whether the filters select everything.
func (f Filters) IsZero() bool {
	return len(f.NetNS)+len(f.Remote)+len(f.Local)+len(f.PIDs)+len(f.Comms)+len(f.Cgroups) == 0
}

// byOwner reports whether they leave out programs.
func (f Filters) byOwner() bool { return len(f.PIDs)+len(f.Comms)+len(f.Cgroups) > 0 }

// Endpoint is a prefix with a port; port 0 is any.
type Endpoint struct {
	Prefix netip.Prefix
	Port   uint16
}

// Cgroup is a cgroup v2 by its id and its depth below the root.
type Cgroup struct {
	ID    uint64
	Level int
}

// Connection reports whether the filters by namespace and address select a
// connection, as they do in the kernel.
func (f Filters) Connection(netns uint32, local netip.Addr, remote netip.AddrPort) bool {
	return (len(f.NetNS) == 0 || slices.Contains(f.NetNS, netns)) &&
		(len(f.Remote) == 0 || slices.ContainsFunc(f.Remote, func(e Endpoint) bool {
			return (e.Port == 0 || e.Port == remote.Port()) && e.Prefix.Contains(remote.Addr())
		})) &&
		(len(f.Local) == 0 || slices.ContainsFunc(f.Local, func(p netip.Prefix) bool { return p.Contains(local) }))
}

// settings switches on the filters that are in use.
func (f Filters) settings(c *bpf.Config) {
	set := func(flag *uint8, n int) {
		if n > 0 {
			*flag = 1
		}
	}
	set(&c.FilterNetns, len(f.NetNS))
	set(&c.FilterDst, len(f.Remote))
	set(&c.FilterSrc, len(f.Local))
	set(&c.FilterPid, len(f.PIDs))
	set(&c.FilterComm, len(f.Comms))
	for i, g := range f.Cgroups {
		c.CgroupIds[i] = g.ID
		c.CgroupLevels[i] = uint32(g.Level)
	}
	c.CgroupCount = uint32(len(f.Cgroups))
}

// setFilters fills the maps that the kernel side looks the filters up in.
func (p *Probe) setFilters() error {
	f := p.cfg.Filters
	if limit := len(bpf.Config{}.CgroupIds); len(f.Cgroups) > limit {
		return fmt.Errorf("--cgroup: at most %d cgroups can be selected, not %d: select their parent", limit, len(f.Cgroups))
	}
	for _, ns := range f.NetNS {
		if err := p.addFilter("--netns", "tws_filter_netns", ns); err != nil {
			return err
		}
	}
	for _, e := range f.Remote {
		if err := p.addFilter("--dst", "tws_filter_dst", prefixKey(e.Prefix, e.Port)); err != nil {
			return err
		}
	}
	for _, prefix := range f.Local {
		if err := p.addFilter("--src", "tws_filter_src", prefixKey(prefix, 0)); err != nil {
			return err
		}
	}
	for _, pid := range f.PIDs {
		if err := p.addFilter("--pid", "tws_filter_pid", pid); err != nil {
			return err
		}
	}
	for _, comm := range f.Comms {
		var key [16]byte
		copy(key[:15], comm)
		if err := p.addFilter("--comm", "tws_filter_comm", key); err != nil {
			return err
		}
	}
	return nil
}

func (p *Probe) addFilter(flag, name string, key any) error {
	m := p.loader.maps[name]
	if err := m.Put(key, uint8(1)); err != nil {
		return fmt.Errorf("%s: at most %d values can be given: %w", flag, m.MaxEntries(), err)
	}
	return nil
}

// prefixKey is the key of the longest-prefix match: the port, which always
// counts, then the address, IPv4 as ::ffff:a.b.c.d.
func prefixKey(prefix netip.Prefix, port uint16) bpf.PrefixKey {
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	return bpf.PrefixKey{
		Prefixlen: uint32(16 + bits),
		Port:      port,
		Addr:      prefix.Addr().As16(),
	}
}
