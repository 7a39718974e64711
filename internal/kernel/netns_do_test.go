// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

// holdStdin in the environment makes the test binary wait for the end of its
// standard input and do nothing else.
const holdStdin = "TWSCOPE_TEST_HOLD_STDIN"

func TestMain(m *testing.M) {
	if os.Getenv(holdStdin) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// startInNewNetNS starts a process in a network namespace of its own. It ends
// with the test, however the test ends, because its standard input does.
func startInNewNetNS(t *testing.T) Namespace {
	t.Helper()
	testutil.Root(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdStdin+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	path := fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid)
	inode, err := inodeOf(path)
	if err != nil {
		t.Fatal(err)
	}
	return Namespace{Inode: inode, Path: path, PID: uint32(cmd.Process.Pid), Processes: 1}
}

func ownInode(t *testing.T) uint32 {
	t.Helper()
	inode, err := inodeOf("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return inode
}

func TestDoShowsTheNamespacesOwnSysctlsAndCounters(t *testing.T) {
	ns := startInNewNetNS(t)
	root := os.DirFS("/")
	set := func(value string) {
		t.Helper()
		err := ns.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(value), 0)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	outside, err := ReadSysctls(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"20000 20999", "30000 30499"} {
		set(value)
		var inside map[string]string
		var counters Counters
		err := ns.Do(func() (err error) {
			if inside, err = ReadSysctls(root); err != nil {
				return err
			}
			counters, err = ReadCounters(root, "proc/thread-self/net")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if inside[SysctlPortRange] != value {
			t.Errorf("inside, the range is %q, want %q", inside[SysctlPortRange], value)
		}
		if n := counters["ActiveOpens"]; n != 0 {
			t.Errorf("inside, ActiveOpens is %d, want 0: these are the counters of another namespace", n)
		}
	}
	after, err := ReadSysctls(root)
	if err != nil || after[SysctlPortRange] != outside[SysctlPortRange] {
		t.Errorf("outside, the range is %q, want %q (%v)", after[SysctlPortRange], outside[SysctlPortRange], err)
	}
	byPID, err := ReadCounters(root, fmt.Sprintf("proc/%d/net", ns.PID))
	if err != nil || byPID["ActiveOpens"] != 0 {
		t.Errorf("by pid, ActiveOpens is %d (%v), want 0", byPID["ActiveOpens"], err)
	}
}

func TestDoLeavesNoThreadInside(t *testing.T) {
	ns := startInNewNetNS(t)
	own := ownInode(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			err := ns.Do(func() error {
				if unix.Gettid() == unix.Getpid() {
					return errors.New("it runs on the main thread")
				}
				inode, err := inodeOf("/proc/thread-self/ns/net")
				if err == nil && inode != ns.Inode {
					err = fmt.Errorf("inside, the namespace is %d, want %d", inode, ns.Inode)
				}
				if i%5 == 0 {
					runtime.Goexit()
				}
				return err
			})
			if want := i%5 == 0; errors.Is(err, errNotReturned) != want || !want && err != nil {
				t.Errorf("Do = %v", err)
			}
		})
	}
	wg.Wait()
	tasks, err := fs.ReadDir(os.DirFS("/proc/self/task"), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		target, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue // the thread has ended
		}
		if inode, ok := parseNSLink(target, "net"); ok && inode != own {
			t.Errorf("thread %s is in namespace %d, want %d", task.Name(), inode, own)
		}
	}
}

func TestOnOtherThreadFromTheMainThread(t *testing.T) {
	// Goroutines that hold their threads use up the idle ones, until one of
	// them has the main thread, once that is done with waiting for the network
	// or a timer on behalf of the runtime.
	release := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	testutil.Eventually(t, 10*time.Second, func() bool {
		onMain := make(chan bool)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			main := unix.Gettid() == unix.Getpid()
			if main {
				onOtherThread(func() bool {
					if unix.Gettid() == unix.Getpid() {
						t.Error("it runs on the main thread")
					}
					return true
				})
			}
			onMain <- main
			<-release
		})
		return <-onMain
	}, "no goroutine came to run on the main thread")
}

func TestDoRefusesAnotherNamespace(t *testing.T) {
	ns := startInNewNetNS(t)
	other := ns
	other.Inode++
	gone := ns
	gone.Path = "/proc/4194304999/ns/net"
	replaced := ns
	replaced.Path = "/dev/null"
	for name, bad := range map[string]Namespace{"re-used pid": other, "no such pid": gone, "not a namespace": replaced} {
		t.Run(name, func(t *testing.T) {
			ran := false
			err := bad.Do(func() error { ran = true; return nil })
			if !errors.Is(err, ErrNamespaceGone) || ran {
				t.Errorf("Do = %v, ran = %v, want ErrNamespaceGone", err, ran)
			}
		})
	}
}

func TestDoReturnsTheError(t *testing.T) {
	own := Namespace{Inode: ownInode(t), Path: "/nowhere"}
	want := errors.New("no luck")
	if err := own.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("Do = %v, want %v: our own namespace needs no path", err, want)
	}
}

func TestFindNamespacesHere(t *testing.T) {
	testutil.NoLeakedFDs(t) // an open one would keep its namespace alive
	ns := startInNewNetNS(t)
	all, err := FindNamespaces(os.DirFS("/"))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := all.Find(ns.Inode); !ok || got.PID != ns.PID || got.Path != ns.Path {
		t.Errorf("Find = %+v, %v, want %+v", got, ok, ns)
	}
	if own, ok := all.Find(ownInode(t)); !ok || own.Processes == 0 {
		t.Errorf("our own namespace: %+v, %v", own, ok)
	}
	for _, value := range []string{ns.Path, strconv.FormatUint(uint64(ns.Inode), 10)} {
		if got, err := all.Resolve(value); err != nil || got != ns.Inode {
			t.Errorf("Resolve(%q) = %d, %v, want %d", value, got, err, ns.Inode)
		}
	}
}

// TestNamedNamespace runs itself again in a mount namespace of its own, where
// a /run/netns can be made without a trace on the host.
func TestNamedNamespace(t *testing.T) {
	const child = "TWSCOPE_TEST_NAMED_NAMESPACE"
	if os.Getenv(child) != "" {
		namedNamespace(t)
		return
	}
	testutil.Root(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNamedNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNamedNamespace") {
		t.Errorf("%v:\n%s", err, out)
	}
}

func namedNamespace(t *testing.T) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	must(os.Mkdir("/run/netns", 0o755))
	must(os.WriteFile("/run/netns/a b", nil, 0o600))
	mounted, linked := startInNewNetNS(t), startInNewNetNS(t)
	must(unix.Mount(mounted.Path, "/run/netns/a b", "", unix.MS_BIND, ""))
	must(os.Symlink(linked.Path, "/run/netns/web"))

	all, err := FindNamespaces(os.DirFS("/"))
	must(err)
	for name, want := range map[string]uint32{
		"a b": mounted.Inode, "web": linked.Inode,
		"/run/netns/a b": mounted.Inode, "/run/netns/web": linked.Inode,
	} {
		got, err := all.Resolve(name)
		if err != nil || got != want {
			t.Errorf("Resolve(%q) = %d, %v, want %d", name, got, err, want)
		}
	}
	ns, _ := all.Find(mounted.Inode)
	if ns.Path != "/run/netns/a b" {
		t.Errorf("Path = %q, want the mount", ns.Path)
	}
	must(ns.Do(func() error { return nil }))
	must(unix.Unmount("/run/netns/a b", 0))
	if err := ns.Do(func() error { return nil }); !errors.Is(err, ErrNamespaceGone) {
		t.Errorf("after the unmount, Do = %v, want ErrNamespaceGone", err)
	}
}

func BenchmarkFindNamespaces(b *testing.B) {
	root := os.DirFS("/")
	pids, err := processes(root)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := FindNamespaces(root); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(pids)), "ns/process")
}

func BenchmarkDo(b *testing.B) {
	inode, err := inodeOf("/proc/self/ns/net")
	if err != nil {
		b.Fatal(err)
	}
	own := Namespace{Inode: inode}
	for b.Loop() {
		if err := own.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
