// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loadArg turns the test binary into a load generator, a program like any other
// to twscope.
const loadArg = "test-load"

// load is what it does: connections that it closes first, and each connect() once.
type load struct {
	Target  netip.AddrPort
	N       int
	PerS    int           // 0: as fast as it goes
	Workers int           // 0: 1
	Wait    time.Duration // before the first
	NetNS   string        // path of the network namespace to be in
	UID     int           // user to become; 0: none
}

// argv is the command line that runs it.
func (l load) argv(t *testing.T) []string {
	t.Helper()
	spec, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, loadArg, string(spec)}
}

func loadMain(spec string) int {
	var l load
	must(json.Unmarshal([]byte(spec), &l))
	if l.NetNS != "" {
		l.enter()
	}
	if l.UID != 0 {
		must(syscall.Setuid(l.UID))
	}
	<-time.After(l.Wait)
	var mu sync.Mutex
	var wg sync.WaitGroup
	next, made, failed := 0, 0, 0
	began := time.Now()
	for range max(l.Workers, 1) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= l.N {
					return
				}
				if l.PerS > 0 {
					<-time.After(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(l.PerS))))
				}
				ok := connectOnce(l.Target)
				mu.Lock()
				if ok {
					made++
				} else {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Printf("made %d, failed %d\n", made, failed)
	return 0
}

// enter begins again in another network namespace.
func (l load) enter() {
	runtime.LockOSThread()
	fd, err := unix.Open(l.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(err)
	must(unix.Setns(fd, unix.CLONE_NEWNET))
	l.NetNS = ""
	spec, err := json.Marshal(l)
	must(err)
	must(syscall.Exec("/proc/self/exe", []string{os.Args[0], loadArg, string(spec)}, os.Environ()))
}

// connectOnce makes a connection and closes it first, when the server has closed
// its side or sent something.
func connectOnce(target netip.AddrPort) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(fd)
	if unix.Connect(fd, &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())}) != nil {
		return false
	}
	must(unix.Shutdown(fd, unix.SHUT_WR))
	_, _ = unix.Read(fd, make([]byte, 1)) // whatever it is, it is over
	return true
}
