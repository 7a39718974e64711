// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// cpuTimes is what the first line of /proc/stat says, of all CPUs together.
type cpuTimes struct{ busy, total time.Duration }

func readCPUTimes() (cpuTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, err
	}
	return parseCPUTimes(string(data))
}

// parseCPUTimes reads the times, in ticks of 10 ms (USER_HZ): user, nice,
// system, idle, iowait, irq, softirq, steal. What follows is part of user and
// nice (proc(5)).
func parseCPUTimes(stat string) (cpuTimes, error) {
	const tick = 10 * time.Millisecond
	const idle, iowait, count = 3, 4, 8

	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 1+count || fields[0] != "cpu" {
		return cpuTimes{}, errors.New("/proc/stat: no times of all CPUs in the first line")
	}
	var t cpuTimes
	for i, f := range fields[1 : 1+count] {
		n, err := strconv.ParseUint(f, 10, 36) // 21 years
		if err != nil {
			return cpuTimes{}, fmt.Errorf("/proc/stat: %w", err)
		}
		t.total += time.Duration(n) * tick
		if i != idle && i != iowait {
			t.busy += time.Duration(n) * tick
		}
	}
	return t, nil
}

func (t cpuTimes) since(before cpuTimes) cpuTimes {
	return cpuTimes{busy: t.busy - before.busy, total: t.total - before.total}
}

// foreign is the share of the CPUs that others than we used, 0 to 1.
func (t cpuTimes) foreign(ours time.Duration) float64 {
	if t.total <= 0 {
		return 0
	}
	return max(0, min(1, float64(t.busy-ours)/float64(t.total)))
}

// calm waits for a machine that is at rest, but not forever.
type calm struct{ patience time.Duration }

// wait returns when hardly anything runs, or patience has come to its end.
func (c *calm) wait(ctx context.Context) error {
	const window, quiet = 100 * time.Millisecond, 0.1

	started := time.Now()
	defer func() { c.patience -= time.Since(started) }()
	before, err := readCPUTimes()
	if err != nil {
		return err
	}
	since := started
	err = settle(ctx, c.patience, func() (bool, error) {
		if time.Since(since) < window {
			return false, nil
		}
		now, err := readCPUTimes()
		calm := now.since(before).foreign(0) <= quiet
		before, since = now, time.Now()
		return calm, err
	})
	if errors.Is(err, errTimeout) {
		return nil
	}
	return err
}

func foreignOf(samples []sample) spread {
	var shares []float64
	for i := range samples {
		shares = append(shares, samples[i].Foreign)
	}
	return spreadOf(shares)
}
