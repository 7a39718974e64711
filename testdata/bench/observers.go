// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

const twscopeName = "twscope"

func newTwscope(binary string) *observer {
	return &observer{
		name:    twscopeName,
		command: func(log string) []string { return []string{binary, "run", "--out", log} },
		read:    readTwscope,
	}
}

// bpftraceProgram prints each closed socket, the least that tells of a
// TIME_WAIT: the address and port of both sides, and the state before.
const bpftraceProgram = `tracepoint:sock:inet_sock_set_state /args->protocol == 6 && args->newstate == 7/ ` +
	`{ printf("%s %d %s %d %d\n", ntop(args->saddr), args->sport, ntop(args->daddr), args->dport, args->oldstate); }`

// observers are twscope and its peers, as Debian packages them.
func observers(binary string) []*observer {
	peer := func(name string, tells tellsOf, version func(context.Context) string, command ...string) *observer {
		return &observer{
			name: name, stdout: true, tracefs: true, version: version,
			command: func(string) []string { return command },
			read: func(log string, s field) (account, error) {
				return readPeer(log, strings.TrimSuffix(log, ".out")+".err", s, tells)
			},
		}
	}
	return []*observer{
		newTwscope(binary),
		peer("tcpstates", tellsTCPStates, packaged("libbpf-tools"), "tcpstates"),
		peer("tcplife", tellsTCPLife, packaged("libbpf-tools"), "tcplife"),
		peer("bpftrace", tellsBpftrace, packaged("bpftrace"), "bpftrace", "-e", bpftraceProgram),
		peer("tcpstates-bpfcc", tellsTCPStates, packaged("bpfcc-tools"), "tcpstates-bpfcc"),
		peer("tcplife-bpfcc", tellsTCPLife, packaged("bpfcc-tools"), "tcplife-bpfcc"),
	}
}

// packaged returns what asks Debian for the version of a package.
func packaged(name string) func(context.Context) string {
	return func(ctx context.Context) string {
		return name + " " + firstLine(ctx, "dpkg-query", "-W", "-f", "${Version}", name)
	}
}

// firstLine is the first line that a command prints, or why there is none.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// readTwscope counts the time_wait events of the client's namespace, and takes
// the losses from the stop event.
func readTwscope(log string, s field) (account, error) {
	names, err := filepath.Glob(log + "*")
	if err != nil {
		return account{}, err
	}
	a := account{LostAt: map[string]uint64{}}
	stopped := false
	for _, name := range names {
		err := eachLine(name, func(line []byte) error {
			ev, err := event.Decode(line)
			if err != nil {
				return err
			}
			switch ev := ev.(type) {
			case *event.TimeWait:
				if s.holds(uint64(ev.NetNS)) {
					a.TimeWaits++
				}
			case *event.Stop:
				stopped = true
				for hop, n := range ev.Lost {
					a.LostAt[hop] += n
					a.Lost += n
				}
			}
			return nil
		})
		if err != nil {
			return a, fmt.Errorf("%s: %w", name, err)
		}
	}
	if !stopped {
		return a, fmt.Errorf("%s: no stop event", log)
	}
	return a, nil
}

// tellsOf tells whether the columns of a line tell that the client's end of a
// connection of the load has come to its end.
type tellsOf func(columns []string, isTarget func(addr, port string) bool) bool

// The columns of tcpstates, from the last one: MS NEWSTATE -> OLDSTATE RPORT
// RADDR LPORT LADDR, and of bpfcc's without the address of the socket.
func tellsTCPStates(c []string, isTarget func(addr, port string) bool) bool {
	n := len(c)
	return n >= 8 && c[n-2] == "CLOSE" && (c[n-4] == "FIN_WAIT2" || c[n-4] == "CLOSING") && isTarget(c[n-6], c[n-5])
}

// The columns of tcplife, from the last one: MS RX_KB TX_KB RPORT RADDR.
func tellsTCPLife(c []string, isTarget func(addr, port string) bool) bool {
	n := len(c)
	return n >= 7 && isTarget(c[n-5], c[n-4])
}

func tellsBpftrace(c []string, isTarget func(addr, port string) bool) bool {
	const finWait2, closing = "5", "11"

	return len(c) == 5 && (c[4] == finWait2 || c[4] == closing) && isTarget(c[2], c[3])
}

func readPeer(out, stderr string, s field, tells tellsOf) (account, error) {
	var a account
	isTarget := s.isTarget()
	each := func(line []byte) error {
		text := string(line)
		a.Lost += lostIn(text)
		if tells(strings.Fields(text), isTarget) {
			a.TimeWaits++
		}
		return nil
	}
	return a, errors.Join(eachLine(out, each), eachLine(stderr, each))
}

// lostRE matches "lost 12 events on CPU #1!" of libbpf-tools, "Lost 12 events"
// of bpftrace and "Possibly lost 12 samples" of bcc.
var lostRE = regexp.MustCompile(`(?i)\blost (\d+) (?:events|samples)`)

func lostIn(line string) uint64 {
	m := lostRE.FindStringSubmatch(line)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// eachLine calls fn with every line of a file, which may be compressed.
func eachLine(name string, fn func(line []byte) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, event.MaxLine)
	for lines.Scan() {
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}
