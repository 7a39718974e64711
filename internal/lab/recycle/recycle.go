// SPDX-License-Identifier: Apache-2.0

// Package recycle plays a server with net.ipv4.tcp_tw_recycle on a kernel that
// has none: an XDP program refuses SYNs on a host's interface as Linux 2.6.32
// did (bpf/recycle.bpf.c).
package recycle

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/twscope/twscope/internal/lab"
)

//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" recycle ../../../bpf/recycle.bpf.c

// Mode is what becomes of a SYN that the check refuses.
type Mode uint8

// The modes.
const (
	Drop  Mode = iota // in silence, as the old kernel did
	Count             // it passes: what an old kernel would have refused
)

// Check is the check of tcp_tw_recycle in force on one interface.
type Check struct {
	objects recycleObjects
	link    link.Link
}

// Attach puts the check in front of a host's end of a link, in generic XDP:
// native XDP of veth would need a program on the other end too. It ends with
// Close, or with the process. The error wraps ebpf.ErrNotSupported where the
// kernel cannot: it needs 5.9.
func Attach(e *lab.End, mode Mode) (*Check, error) {
	spec, err := loadRecycle()
	if err != nil {
		return nil, fmt.Errorf("host %s: tcp_tw_recycle: %w", e.Host.Name(), err)
	}
	if err := spec.Variables["tws_only_count"].Set(mode == Count); err != nil {
		return nil, fmt.Errorf("host %s: tcp_tw_recycle: %w", e.Host.Name(), err)
	}
	c := &Check{}
	if err := spec.LoadAndAssign(&c.objects, nil); err != nil {
		return nil, fmt.Errorf("host %s: tcp_tw_recycle: load XDP program: %w", e.Host.Name(), err)
	}
	// The index of an interface is one of the calling thread's namespace.
	err = e.Host.Do(func() error {
		var err error
		c.link, err = link.AttachXDP(link.XDPOptions{
			Program: c.objects.TwsRecycle, Interface: e.Index, Flags: link.XDPGenericMode,
		})
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host %s: tcp_tw_recycle: attach XDP program to %s: %w", e.Host.Name(), e.Name, err), c.objects.Close())
	}
	return c, nil
}

// Refused is how many SYNs failed the check, which PAWSPassive would have
// counted.
func (c *Check) Refused() (uint64, error) { return read(c.objects.TwsRefused) }

// Asked is for how many SYNs the check was made: those with timestamps to a
// listener.
func (c *Check) Asked() (uint64, error) { return read(c.objects.TwsAsked) }

func read(v *ebpf.Variable) (n uint64, err error) {
	if err = v.Get(&n); err != nil {
		err = fmt.Errorf("read a counter of the XDP program: %w", err)
	}
	return n, err
}

// Close ends the check.
func (c *Check) Close() error { return errors.Join(c.link.Close(), c.objects.Close()) }
