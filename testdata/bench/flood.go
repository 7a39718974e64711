// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// flood sends datagrams to a socket that nobody reads, so that the kernel drops
// them for want of buffer (SKB_DROP_REASON_SOCKET_RCVBUFF): every drop calls
// kfree_skb with a reason that has nothing to do with TCP.
type flood struct {
	stopped atomic.Bool
	done    chan struct{}
	rate    float64
	err     error
}

// startFlood sends at a rate per second, or nothing at 0.
func startFlood(h *lab.Host, rate int) (*flood, error) {
	f := &flood{done: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(f.done)
		f.err = h.Do(func() error {
			to, from, err := floodSockets()
			ready <- err
			if err != nil {
				return nil
			}
			return errors.Join(f.run(from, rate), unix.Close(to), unix.Close(from))
		})
	}()
	return f, <-ready
}

// floodSockets returns a socket that is never read, and one connected to it.
func floodSockets() (to, from int, err error) {
	const smallest = 1 // the kernel raises it to its minimum

	if to, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if from, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, errors.Join(err, unix.Close(to))
	}
	addr := &unix.SockaddrInet4{Port: serverPort, Addr: [4]byte{127, 0, 0, 1}}
	err = errors.Join(
		unix.SetsockoptInt(to, unix.SOL_SOCKET, unix.SO_RCVBUF, smallest),
		unix.Bind(to, addr),
		unix.Connect(from, addr))
	if err != nil {
		err = errors.Join(err, unix.Close(to), unix.Close(from))
	}
	return to, from, err
}

func (f *flood) run(fd, rate int) error {
	const pace = time.Millisecond

	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	started, sent := time.Now(), 0
	payload := []byte{0}
	for !f.stopped.Load() {
		<-ticker.C
		// No burst makes up for more than what was missed in 10 ms.
		due := int(time.Since(started).Seconds() * float64(rate))
		for range min(due-sent, rate/100) {
			if _, err := unix.Write(fd, payload); err != nil {
				return err
			}
			sent++
		}
	}
	f.rate = float64(sent) / time.Since(started).Seconds()
	return nil
}

// stop returns how many datagrams were sent a second.
func (f *flood) stop() (float64, error) {
	f.stopped.Store(true)
	<-f.done
	return f.rate, f.err
}
