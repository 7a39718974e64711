// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// crowd is many namespaces, each with a client and a server on its loopback,
// run by threads of this process.
type crowd struct {
	lab     *lab.Lab
	hosts   []*lab.Host
	targets []netip.AddrPort
	inodes  map[uint64]bool
}

func newCrowd(ctx context.Context, namespaces int) (c *crowd, err error) {
	l, err := lab.New(ctx, "crowd")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	c = &crowd{lab: l, inodes: map[uint64]bool{}}
	for i := range defaultDestinations {
		c.targets = append(c.targets, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, 1, byte(1 + i)}), serverPort))
	}
	for i := range namespaces {
		h, err := l.Host(fmt.Sprintf("h%d", i))
		if err != nil {
			return nil, err
		}
		if err := plenty(h); err != nil {
			return nil, err
		}
		if _, err := h.Serve(lab.Server{Network: "tcp4", Port: serverPort, Spread: true}); err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, h)
		c.inodes[h.Inode()] = true
	}
	return c, nil
}

func (c *crowd) close() error { return c.lab.Close() }

func (c *crowd) holds(netns uint64) bool { return c.inodes[netns] }

func (c *crowd) isTarget() func(addr, port string) bool { return isOneOf(c.targets) }

func (c *crowd) timeWaits() (uint64, error) {
	var sum uint64
	for _, h := range c.hosts {
		counters, err := h.Netstat()
		if err != nil {
			return 0, err
		}
		sum += counters["TW"]
	}
	return sum, nil
}

// load shares n connections out to the namespaces, as many of which are at work
// at a time as a scene has threads.
func (c *crowd) load(ctx context.Context, n int) (loaded, error) {
	sum := loaded{Result: &lab.Result{}}
	before, err := rusage(unix.RUSAGE_SELF)
	if err != nil {
		return sum, err
	}
	results := make([]*lab.Result, len(c.hosts))
	var group errgroup.Group
	group.SetLimit(threads)
	started := time.Now()
	for i, h := range c.hosts {
		group.Go(func() (err error) {
			results[i], err = h.Run(ctx, lab.Load{
				Targets: c.targets, Connections: n / len(c.hosts), ClosesFirst: true, Spread: true,
			})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return sum, err
	}
	sum.Elapsed = time.Since(started)
	for _, r := range results {
		sum.Attempts += r.Attempts
		sum.Connected += r.Connected
	}
	after, err := rusage(unix.RUSAGE_SELF)
	sum.CPU = after - before
	if sum.Connected != sum.Attempts {
		return sum, fmt.Errorf("load: %d of %d connected", sum.Connected, sum.Attempts)
	}
	return sum, err
}
