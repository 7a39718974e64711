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

// fill makes connections until so many sockets are in TIME_WAIT, at longest
// for the given time.
func (s *scene) fill(ctx context.Context, level int, longest time.Duration) error {
	const part = 50_000

	started := time.Now()
	for time.Since(started) < longest {
		have, err := s.inTimeWait()
		missing := level - int(have)
		if err != nil || missing <= 0 {
			return err
		}
		if _, err := s.load(ctx, min(part, missing)); err != nil {
			return err
		}
	}
	return nil
}

// inTimeWait is how many sockets of the client are in TIME_WAIT now.
func (s *scene) inTimeWait() (n uint64, err error) {
	err = s.client.Do(func() error {
		data, err := os.ReadFile("/proc/thread-self/net/sockstat")
		if err != nil {
			return err
		}
		n, err = parseSockstat(string(data))
		return err
	})
	return n, err
}

// parseSockstat returns the sockets in TIME_WAIT of /proc/net/sockstat:
// "TCP: inuse 5 orphan 0 tw 4 alloc 7 mem 1".
func parseSockstat(sockstat string) (uint64, error) {
	for line := range strings.Lines(sockstat) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "tw" {
				n, err := strconv.ParseUint(f[i+1], 10, 64)
				if err != nil {
					return 0, fmt.Errorf("/proc/net/sockstat: %w", err)
				}
				return n, nil
			}
		}
	}
	return 0, errors.New("/proc/net/sockstat: no number of TCP sockets in TIME_WAIT")
}
