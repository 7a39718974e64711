// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// NoLeakedFDs fails the test if, once it and its later cleanups are done, a
// file descriptor is open that was not open at the call. It names each with
// what it refers to. Call it first; it is not for tests that run in parallel,
// which would see each other's descriptors.
func NoLeakedFDs(tb testing.TB) {
	tb.Helper()
	before, err := openFDs()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// Goroutines that have been told to stop may still be closing theirs.
		const grace = time.Second
		var leaked []string
		poll(grace, func() bool {
			leaked, err = newFDs(before)
			return err != nil || len(leaked) == 0
		})
		if err != nil {
			tb.Error(err)
		}
		for _, name := range leaked {
			tb.Errorf("leaked file descriptor %s", name)
		}
	})
}

// newFDs describes the descriptors that are open now and not in before.
func newFDs(before map[string]string) ([]string, error) {
	now, err := openFDs()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, fd := range slices.Sorted(maps.Keys(now)) {
		if before[fd] != now[fd] {
			found = append(found, fd+": "+now[fd])
		}
	}
	return found, nil
}

// openFDs maps the process's open descriptors to what they refer to.
func openFDs() (map[string]string, error) {
	// The runtime opens its poller at the first use of a pipe or socket and
	// keeps it. Have it open now, so that it is no news later.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the runtime's poller: %w", err)
	}
	if err := closeAll(r, w); err != nil {
		return nil, err
	}

	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	fds := make(map[string]string, len(entries))
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile, as is the one that listed the directory
		}
		fds[e.Name()] = to + bpfInfo(e.Name())
	}
	return fds, nil
}

func closeAll(files ...*os.File) error {
	for _, f := range files {
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// bpfInfo tells which BPF map, program or link a descriptor is, since the
// target of its /proc link is the same for all of a kind. It returns an empty
// string for anything else.
func bpfInfo(fd string) string {
	info, err := os.ReadFile(filepath.Join("/proc/self/fdinfo", fd))
	if err != nil {
		return ""
	}
	var found strings.Builder
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "map_type", "map_id", "prog_type", "prog_id", "link_type", "link_id":
			fmt.Fprintf(&found, " %s=%s", key, strings.TrimSpace(value))
		}
	}
	return found.String()
}
