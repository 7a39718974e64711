// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// ReadListeners returns the TCP ports on which somebody listens, sorted, from
// "tcp" and "tcp6" in dir, such as "proc/thread-self/net". Both list listening
// sockets first (tcp_seq_start in net/ipv4/tcp_ipv4.c), so the thousands of
// connections behind them are not read.
func ReadListeners(root fs.FS, dir string) ([]uint16, error) {
	var ports []uint16
	for _, name := range []string{dir + "/tcp", dir + "/tcp6"} {
		f, err := root.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // IPv6 may be switched off
		}
		if err != nil {
			return nil, err
		}
		found, err := readListeners(bufio.NewScanner(f))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		ports = append(ports, found...)
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// readListeners reads the lines up to the first socket that does not listen.
func readListeners(lines *bufio.Scanner) ([]uint16, error) {
	const listen = "0A" // TCP_LISTEN in hex
	var ports []uint16
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if n == 1 {
			continue // the header
		}
		if len(fields) < 4 {
			return nil, fmt.Errorf("line %d has %d columns", n, len(fields))
		}
		if fields[3] != listen {
			return ports, nil
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is no address with port", n, fields[1])
		}
		ports = append(ports, uint16(port))
	}
	return ports, lines.Err()
}

// ReadTimeWaits returns how many TCP sockets are in TIME_WAIT, from "sockstat"
// in dir. IPv6 is included.
func ReadTimeWaits(root fs.FS, dir string) (uint32, error) {
	name := dir + "/sockstat"
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(fields); i += 2 {
			if fields[i] != "tw" {
				continue
			}
			n, err := strconv.ParseUint(fields[i+1], 10, 32)
			if err != nil {
				return 0, fmt.Errorf("%s: tw: %w", name, err)
			}
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%s has no tw in its line TCP", name)
}
