// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
)

// The default range, whose ports a failing connect() all tries.
const (
	rangeLow  = 32768
	rangeHigh = 60999
)

// exhausted is how long connect() takes to fail when TIME_WAIT holds every port.
type exhausted struct {
	Ports    int       `json:"ports"`
	Connects int       `json:"connects_a_run"`
	Without  latencies `json:"without"`
	With     latencies `json:"with"`
	P50Ratio spread    `json:"p50_ratio"` // with over without, of each pair
	P99Ratio spread    `json:"p99_ratio"`
	Failed   uint64    `json:"failed_with_twscope"`
	Written  uint64    `json:"connect_fail_events"`
}

// latencies are of connect(), in seconds.
type latencies struct {
	P50 spread `json:"p50"`
	P99 spread `json:"p99"`
}

// exhaust measures pairs, each in a scene of its own.
func (g *grower) exhaust(ctx context.Context) (*exhausted, error) {
	const connects = 300

	e := &exhausted{Ports: rangeHigh - rangeLow + 1, Connects: connects}
	var p50, p99 [2][]float64 // without and with
	var p50Ratio, p99Ratio []float64
	for range pairs {
		if err := g.calm.wait(ctx); err != nil {
			return nil, err
		}
		took, written, err := g.exhaustPair(ctx, connects)
		if err != nil {
			return nil, err
		}
		e.Failed += connects
		e.Written += written
		for i, times := range took {
			slices.Sort(times)
			p50[i] = append(p50[i], quantile(times, 0.5))
			p99[i] = append(p99[i], quantile(times, 0.99))
		}
		last := len(p50[0]) - 1
		p50Ratio = append(p50Ratio, p50[1][last]/p50[0][last])
		p99Ratio = append(p99Ratio, p99[1][last]/p99[0][last])
	}
	e.Without = latencies{spreadOf(p50[0]), spreadOf(p99[0])}
	e.With = latencies{spreadOf(p50[1]), spreadOf(p99[1])}
	e.P50Ratio, e.P99Ratio = spreadOf(p50Ratio), spreadOf(p99Ratio)
	progress("exhausted ports: p50 %.2f times", e.P50Ratio.Median)
	return e, nil
}

// exhaustPair returns what connects took without and with twscope, and how many
// connect_fail events that has written.
func (g *grower) exhaustPair(ctx context.Context, connects int) (took [2][]float64, written uint64, err error) {
	sc, err := newScene(ctx, loopback, 1)
	if err != nil {
		return took, 0, err
	}
	defer func() { err = errors.Join(err, sc.close()) }()
	if err := sc.client.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", rangeLow, rangeHigh)); err != nil {
		return took, 0, err
	}
	if _, err := sc.load(ctx, rangeHigh-rangeLow+1); err != nil {
		return took, 0, err
	}
	if err := sc.takeTheRest(ctx); err != nil {
		return took, 0, err
	}
	for _, observed := range g.order() {
		if !observed {
			if took[0], err = sc.failingConnects(connects); err != nil {
				return took, 0, err
			}
			continue
		}
		w, err := g.watch(ctx, twscopeName)
		if err != nil {
			return took, 0, err
		}
		took[1], err = sc.failingConnects(connects)
		if err == nil {
			err = w.process.stop(ctx)
		}
		if err == nil {
			written, err = countFails(w.process.log, sc)
		}
		if err = errors.Join(err, w.close()); err != nil {
			return took, 0, err
		}
	}
	return took, written, nil
}

func countFails(log string, sc *scene) (n uint64, err error) {
	err = eachLine(log, func(line []byte) error {
		ev, err := event.Decode(line)
		if f, ok := ev.(*event.ConnectFail); ok && sc.holds(uint64(f.NetNS)) {
			n++
		}
		return err
	})
	return n, err
}

// takeTheRest connects until no port is left: a few of the load's connections
// end with RST, and leave theirs.
func (s *scene) takeTheRest(ctx context.Context) error {
	return s.client.Do(func() error {
		for ctx.Err() == nil {
			if _, err := s.timedConnect(); errors.Is(err, unix.EADDRNOTAVAIL) {
				return nil
			} else if err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	})
}

// failingConnects returns how long each of n connects took to fail, in
// seconds. It is an error if one does not fail for want of a port.
func (s *scene) failingConnects(n int) ([]float64, error) {
	took := make([]float64, 0, n)
	err := s.client.Do(func() error {
		for range n {
			t, err := s.timedConnect()
			if err == nil {
				return errors.New("connect with all ports in TIME_WAIT succeeded: was the machine too slow to hold them for a minute?")
			}
			if !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
			took = append(took, t.Seconds())
		}
		return nil
	})
	return took, err
}

// timedConnect connects to the first target from the namespace of the thread
// and closes the socket, first if it is connected.
func (s *scene) timedConnect() (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	started := time.Now()
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: serverPort, Addr: s.targets[0].Addr().As4()})
	took := time.Since(started)
	if err != nil {
		err = fmt.Errorf("connect: %w", err)
	}
	return took, errors.Join(err, unix.Close(fd))
}
