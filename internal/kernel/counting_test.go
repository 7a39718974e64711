// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

// TestTWCountingHere compares what the BTF says with what the kernel does: it
// makes one TIME_WAIT socket and looks whether TW has counted it already.
func TestTWCountingHere(t *testing.T) {
	ns := startInNewNetNS(t)
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var before Counters
	err = ns.Do(func() (err error) {
		if err := loopbackUp(); err != nil {
			return err
		}
		if before, err = ReadCounters(os.DirFS("/"), "proc/thread-self/net"); err != nil {
			return err
		}
		return closeOneConnection()
	})
	if err != nil {
		t.Fatal(err)
	}
	inNS := os.DirFS(fmt.Sprintf("/proc/%d", ns.PID))
	testutil.Eventually(t, 10*time.Second, func() bool { return inTimeWait(inNS) }, "no socket is in TIME_WAIT")
	after, err := ReadCounters(inNS, "net")
	if err != nil {
		t.Fatal(err)
	}
	var want int64
	if NewBTF(spec).TWCounting() == TWCountedAtCreation {
		want = 1
	}
	if got, ok := after.Delta(before, "TW"); got != want || !ok {
		t.Errorf("one socket in TIME_WAIT: TW has grown by %d (%v), want %d", got, ok, want)
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// closeOneConnection makes a connection that the client closes first.
func closeOneConnection() error {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		return err
	}
	server, err := listener.Accept()
	if err != nil {
		return errors.Join(err, client.Close())
	}
	if err := client.Close(); err != nil {
		return err
	}
	_, err = io.ReadAll(server) // until the client's FIN
	return errors.Join(err, server.Close())
}

// inTimeWait reports whether a process's net/tcp shows a socket in state 06.
func inTimeWait(process fs.FS) bool {
	text, err := fs.ReadFile(process, "net/tcp")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == "06" {
			return true
		}
	}
	return false
}
