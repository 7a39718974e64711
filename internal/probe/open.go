// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// Connection is one that a connect() of this host has opened or is opening, or
// that was open before the probe.
type Connection struct {
	NetNS         uint32
	Local, Remote netip.AddrPort // the local port is 0 as long as connect() has none
	Role          event.Role
	Bound         bool // the port was taken at bind(), not at connect()
	Foreign       bool // of a program that the filters leave out
}

// Connections is what holds local ports at one moment, beside TIME_WAIT.
type Connections struct {
	List []Connection
	// Boot is the moment at which the listing ended, CLOCK_BOOTTIME in ns,
	// and Jiffies what the kernel's jiffies_64 was then.
	Boot, Jiffies uint64
}

const openProgram = "tws_census_open"

// Connections lists them, of all network namespaces. Accepted connections are
// only in it while their end is awaited. It costs some ms, by the size of the
// kernel side's table. Without iterators it fails with ErrNoIterator.
func (p *Probe) Connections() (Connections, error) {
	var c Connections
	if p.census.open == nil {
		return c, ErrNoIterator
	}
	owners := p.cfg.Filters.byOwner()
	err := drainIter(p.census.open, func(r io.Reader) error {
		return readRecords(bufio.NewReaderSize(r, 64<<10), func(o *bpf.Open) {
			if o.TimeNs != 0 {
				c.Boot, c.Jiffies = o.TimeNs, o.Jiffies
				return
			}
			c.List = append(c.List, Connection{
				NetNS: o.Tuple.Netns,
				Local: addrPort(o.Tuple.Laddr, o.Tuple.Lport), Remote: addrPort(o.Tuple.Raddr, o.Tuple.Rport),
				Role: event.Role(o.Role), Bound: o.Bound != 0, Foreign: owners && o.Match == 0,
			})
		})
	})
	if err != nil {
		return c, fmt.Errorf("list the open connections: %w", err)
	}
	return c, nil
}

// ErrNoIterator tells that this kernel does not let the probe list sockets.
var ErrNoIterator = errors.New("the kernel has no BPF iterator for it")

func (p *Probe) loadOpen() error {
	progs, err := p.loader.load("census", []string{openProgram}, p.settings)
	if err != nil {
		return err
	}
	p.census.programs = append(p.census.programs, progs[openProgram])
	p.census.open, err = link.AttachIter(link.IterOptions{
		Program: progs[openProgram], Map: p.loader.maps["tws_sock_sets"],
	})
	if err != nil {
		return fmt.Errorf("iter/bpf_map_elem: %w", err)
	}
	return nil
}

// readRecords reads records of one type to the end.
func readRecords[T any](r io.Reader, take func(*T)) error {
	var zero T
	buf := make([]byte, unsafe.Sizeof(zero))
	for {
		if _, err := io.ReadFull(r, buf); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		rec, err := record[T](buf)
		if err != nil {
			return err
		}
		take(rec)
	}
}

// Closes counts the connections to one destination that ended without
// TIME_WAIT on this host, since the start.
type Closes struct {
	NetNS        uint32
	Local        netip.Addr
	Remote       netip.AddrPort
	There, Reset uint64 // the peer closed first; RST, of either side
}

// Closes lists them. Only connections that were opened here, by programs that
// the filters select, count.
func (p *Probe) Closes() ([]Closes, error) {
	var list []Closes
	var t bpf.Tuple
	var c bpf.Closes
	it := p.loader.maps["tws_closed"].Iterate()
	for it.Next(&t, &c) {
		one := Closes{
			NetNS: t.Netns, Local: addrPort(t.Laddr, 0).Addr(), Remote: addrPort(t.Raddr, t.Rport),
			There: c.There, Reset: c.Reset,
		}
		if p.cfg.Filters.Connection(one.NetNS, one.Local, one.Remote) {
			list = append(list, one)
		}
	}
	// entries that come while we look may make us see one twice or late
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return list, fmt.Errorf("read how connections were closed: %w", err)
	}
	return list, nil
}

// Listeners lists the ports on which somebody listens, sorted, by network
// namespace.
func (p *Probe) Listeners() (map[uint32][]uint16, error) {
	list := map[uint32][]uint16{}
	var key bpf.ListenerKey
	var l bpf.Listener
	it := p.loader.maps["tws_listeners"].Iterate()
	for it.Next(&key, &l) {
		if l.Sockets > 0 {
			list[key.Netns] = append(list[key.Netns], key.Port)
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read who listens: %w", err)
	}
	for netns := range list {
		slices.Sort(list[netns])
		list[netns] = slices.Compact(list[netns])
	}
	return list, nil
}

// SYNsSkipped tells how many SYNs Config.SYNQuota left out since the start.
func (p *Probe) SYNsSkipped() (uint64, error) {
	var perCPU []bpf.Turns
	if err := p.loader.maps["tws_syn_turns"].Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read how many SYNs were left out: %w", err)
	}
	var sum uint64
	for i := range perCPU {
		sum += perCPU[i].Skipped
	}
	return sum, nil
}
