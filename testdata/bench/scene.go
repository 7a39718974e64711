// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// The networks that connections are made over.
const (
	loopback = "loopback"
	veth     = "veth"
)

const (
	serverPort = 7707
	// threads connect, and as many accept: with fewer, two CPUs are not busy.
	threads = 2
	// defaultDestinations have 64,512 ports each, so that ports are plentiful.
	defaultDestinations = 100
	// reach bounds the wait for what must happen soon.
	reach = 20 * time.Second
)

// scene is a lab of its own with a server: its tables are empty when it is
// made.
type scene struct {
	lab            *lab.Lab
	client, server *lab.Host // the same one on loopback
	serving        *lab.Process
	targets        []netip.AddrPort
}

func newScene(ctx context.Context, network string, destinations int) (s *scene, err error) {
	l, err := lab.New(ctx, "bench")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	s = &scene{lab: l}
	addrs, err := s.connect(ctx, network, destinations)
	if err != nil {
		return nil, err
	}
	if err := plenty(s.client); err != nil {
		return nil, err
	}
	srv := lab.Server{Network: "tcp4", Port: serverPort, Threads: threads, Spread: true}
	if s.serving, err = s.server.Spawn(ctx, lab.Program{Comm: "bench-server", Server: &srv}); err != nil {
		return nil, err
	}
	for _, a := range addrs {
		s.targets = append(s.targets, netip.AddrPortFrom(a, serverPort))
	}
	return s, nil
}

// connect makes the hosts, and returns the server's addresses.
func (s *scene) connect(ctx context.Context, network string, n int) ([]netip.Addr, error) {
	var err error
	if s.client, err = s.lab.Host("client"); err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, n)
	if network == loopback {
		for i := range addrs {
			addrs[i] = netip.AddrFrom4([4]byte{127, 77, byte(1 + i/250), byte(1 + i%250)})
		}
		s.server = s.client
		return addrs, nil
	}
	if network != veth {
		return nil, fmt.Errorf("network %q: want %s or %s", network, loopback, veth)
	}
	if s.server, err = s.lab.Host("server"); err != nil {
		return nil, err
	}
	link, err := s.lab.Link(ctx, s.client, s.server, "10.77.0.0/16")
	if err != nil {
		return nil, err
	}
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(1 + i%250)})
		if err := link.B.AddAddr(addrs[i].String() + "/16"); err != nil {
			return nil, err
		}
	}
	return addrs, nil
}

// plenty gives a host ports and TIME_WAIT sockets enough that neither ends,
// and has every connection make a TIME_WAIT socket that stays.
func plenty(h *lab.Host) error {
	return errors.Join(
		h.Sysctl("net.ipv4.ip_local_port_range", "1024 65535"),
		h.Sysctl("net.ipv4.tcp_max_tw_buckets", "4000000"),
		h.Sysctl("net.ipv4.tcp_tw_reuse", "0"))
}

func (s *scene) close() error { return s.lab.Close() }

// load makes n connections from a process of their own.
func (s *scene) load(ctx context.Context, n int) (loaded, error) {
	var l loaded
	before, err := s.cpu()
	if err != nil {
		return l, err
	}
	p, err := s.client.Spawn(ctx, lab.Program{Comm: "bench-client", Load: &lab.Load{
		Targets: s.targets, Connections: n, Concurrency: threads, ClosesFirst: true, Spread: true,
	}})
	if err != nil {
		return l, err
	}
	r, err := p.Go(ctx)
	if err != nil {
		return l, err
	}
	after, err := s.cpu()
	l = loaded{Result: r.Result, CPU: after - before}
	if l.Connected != n {
		return l, fmt.Errorf("load: %d of %d connected: %v", l.Connected, n, l.Failed)
	}
	return l, err
}

// cpu is the CPU time of the server and of the children that have ended, of
// which there is only the client between two calls of load.
func (s *scene) cpu() (time.Duration, error) {
	server, err := cpuOf(s.serving.PID())
	if err != nil {
		return 0, err
	}
	children, err := rusage(unix.RUSAGE_CHILDREN)
	return server + children, err
}

func rusage(who int) (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// timeWaits is the kernel's own count of sockets that entered TIME_WAIT.
func (s *scene) timeWaits() (uint64, error) {
	c, err := s.client.Netstat()
	return c["TW"], err
}

// holds tells whether a namespace is the one whose TIME_WAIT sockets count.
func (s *scene) holds(netns uint64) bool { return netns == s.client.Inode() }

func (s *scene) isTarget() func(addr, port string) bool { return isOneOf(s.targets) }

func isOneOf(targets []netip.AddrPort) func(addr, port string) bool {
	known := make(map[string]bool, len(targets))
	for _, t := range targets {
		known[t.String()] = true
	}
	return func(addr, port string) bool { return known[addr+":"+port] }
}

var errTimeout = errors.New("has not come about")

// settle polls until cond holds.
func settle(ctx context.Context, limit time.Duration, cond func() (bool, error)) error {
	const pause = 10 * time.Millisecond

	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	deadline := time.Now().Add(limit)
	for {
		done, err := cond()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w within %s", errTimeout, limit)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
