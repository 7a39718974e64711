// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 looks for named namespaces.
const netnsDir = "/run/netns"

// Host is a network namespace of a lab.
type Host struct {
	lab   *Lab
	name  string
	ns    *os.File
	inode uint64
	nl    *netlink.Handle
	bind  string // path of the named bind, or ""

	jobs   chan func() // run by the keeper, the thread that made the namespace
	keeper chan struct{}

	mu      sync.Mutex
	closed  bool
	closers map[int]func()
	nextID  int
}

func newHost(l *Lab, name string) (*Host, error) {
	h := &Host{
		lab: l, name: name,
		jobs: make(chan func()), keeper: make(chan struct{}), closers: map[int]func(){},
	}
	if err := h.unshare(); err != nil {
		return nil, err
	}
	if err := h.setUp(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// unshare starts the keeper. It lives as long as the host, because children
// started by it are killed by the kernel when it ends (PR_SET_PDEATHSIG).
func (h *Host) unshare() error {
	ready := make(chan error, 1)
	onOwnThread(func() {
		defer close(h.keeper)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- missing(fmt.Errorf("unshare network namespace: %w", err), "CONFIG_NET_NS")
			return
		}
		var err error
		if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			ready <- err
			return
		}
		if h.inode, err = inodeOf("/proc/thread-self/ns/net"); err != nil {
			ready <- errors.Join(err, h.ns.Close())
			return
		}
		ready <- nil
		for job := range h.jobs {
			job()
		}
	})
	return <-ready
}

func (h *Host) setUp() error {
	var err error
	if h.nl, err = netlink.NewHandleAt(netns.NsHandle(h.ns.Fd()), unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	for _, s := range [][2]string{
		// Inherited from the first namespace, so that labs would differ by machine.
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
	} {
		if err := h.Sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	lo, err := h.nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := h.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if h.lab.named {
		return h.bindName()
	}
	return nil
}

func (h *Host) bindName() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	path := filepath.Join(netnsDir, h.lab.name+"-"+h.name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	h.bind = path
	src := fmt.Sprintf("/proc/self/fd/%d", h.ns.Fd())
	if err := errors.Join(f.Close(), unix.Mount(src, path, "", unix.MS_BIND, "")); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	return nil
}

func (h *Host) close() error {
	h.mu.Lock()
	h.closed = true
	closers := h.closers
	h.closers = nil
	h.mu.Unlock()
	for _, fn := range closers {
		fn()
	}
	var errs []error
	if h.bind != "" {
		if err := unix.Unmount(h.bind, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", h.bind, err))
		}
		errs = append(errs, os.Remove(h.bind))
	}
	if h.nl != nil {
		h.nl.Close()
	}
	close(h.jobs)
	<-h.keeper
	return errors.Join(append(errs, h.ns.Close())...)
}

// atClose registers fn to run when the host is closed, and returns how to take
// it back. On a closed host fn runs at once.
func (h *Host) atClose(fn func()) (forget func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		go fn()
		return func() {}
	}
	id := h.nextID
	h.nextID++
	h.closers[id] = fn
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.closers, id)
	}
}

// Name is the name given to Lab.Host.
func (h *Host) Name() string { return h.name }

// Inode is the inode number of the network namespace, as in /proc/PID/ns/net.
func (h *Host) Inode() uint64 { return h.inode }

// FD is a file descriptor of the namespace, valid until the lab is closed.
func (h *Host) FD() int { return int(h.ns.Fd()) }

// Do runs fn in the host's namespace and waits for it. fn has an OS thread of
// its own, which ends with it; goroutines that fn starts are not in the
// namespace. A panic of fn is raised again in the caller.
func (h *Host) Do(fn func() error) error {
	var (
		err      = errGoexit // unless call returns
		panicked any
		done     = make(chan struct{})
	)
	onOwnThread(func() {
		defer close(done)
		panicked, err = call(func() error {
			if err := h.enter(); err != nil {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			return fn()
		})
	})
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return err
}

// enter moves the calling thread into the namespace. Close may come meanwhile,
// so the file is held until that is done, which Fd() would not do.
func (h *Host) enter() error {
	ns, err := h.ns.SyscallConn()
	if err != nil {
		return fmt.Errorf("the lab is closed: %w", err)
	}
	var entered error
	if err := ns.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return fmt.Errorf("the lab is closed: %w", err)
	}
	if entered != nil {
		return fmt.Errorf("enter namespace: %w", entered)
	}
	return nil
}

// onKeeper runs fn on the host's long-lived thread.
func (h *Host) onKeeper(fn func() error) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return fmt.Errorf("host %s: the lab is closed", h.name)
	}
	done := make(chan error, 1)
	// Under the lock, so that close cannot close the channel meanwhile.
	h.jobs <- func() { done <- fn() }
	h.mu.Unlock()
	return <-done
}

// Sysctl sets a sysctl inside the host's namespace. Only names below "net." are
// accepted, and it refuses to work in any namespace that is not the host's.
// A net sysctl that is not per namespace does not exist there: an error.
func (h *Host) Sysctl(name, value string) error {
	path, err := sysctlPath(name)
	if err != nil {
		return err
	}
	return h.Do(func() error {
		inode, err := inodeOf("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		if h.lab == nil || inode != h.inode || h.lab.outside[inode] {
			return fmt.Errorf("sysctl %s: refused, namespace %d is not that of host %s", name, inode, h.name)
		}
		// Without O_CREATE and O_TRUNC, which os.WriteFile would add.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("host %s: sysctl %s: %w%s", h.name, name, err, sysctlHint(name, err))
		}
		_, err = f.WriteString(value)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("host %s: set sysctl %s to %q: %w", h.name, name, value, err)
		}
		return nil
	})
}

// ReadSysctl returns a sysctl of the host's namespace, without the newline.
func (h *Host) ReadSysctl(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", err
	}
	var value []byte
	err = h.Do(func() error {
		var err error
		if value, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("host %s: sysctl %s: %w%s", h.name, name, err, sysctlHint(name, err))
		}
		return nil
	})
	return strings.TrimSpace(string(value)), err
}

func sysctlHint(name string, err error) string {
	if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(name, "net.netfilter.nf_conntrack") {
		return " (the kernel needs CONFIG_NF_CONNTRACK, module nf_conntrack)"
	}
	return ""
}

func sysctlPath(name string) (string, error) {
	if !strings.HasPrefix(name, "net.") || strings.ContainsAny(name, "/\x00") || strings.Contains(name, "..") {
		return "", fmt.Errorf("sysctl %q: want a dotted name below net", name)
	}
	return "/proc/sys/" + strings.ReplaceAll(name, ".", "/"), nil
}

// Listen opens a Go listener in the namespace. An address of [::] accepts IPv4
// too. The listener has Go's default protocol, MPTCP where the kernel has it.
func (h *Host) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	network := "tcp"
	if addr.Addr() != netip.IPv6Unspecified() {
		network = goNetwork(addr.Addr())
	}
	var ln net.Listener
	err := h.Do(func() error {
		var err error
		ln, err = new(net.ListenConfig).Listen(ctx, network, addr.String())
		return err
	})
	return ln, err
}

// Dial opens a Go connection from the namespace. Go itself may try again on
// some errors; where each kernel connect counts, use Connect or Run.
func (h *Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() error {
		var err error
		c, err = new(net.Dialer).DialContext(ctx, goNetwork(addr.Addr()), addr.String())
		return err
	})
	return c, err
}

func goNetwork(a netip.Addr) string {
	if a.Unmap().Is4() {
		return "tcp4"
	}
	return "tcp6"
}
