// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

// selectors are the flags that choose what to observe.
type selectors struct {
	flags *pflag.FlagSet // nil: those below were not given on a command line

	netns, dst, src, pid, comm, cgroup []string
}

func (s *selectors) register(f *pflag.FlagSet) {
	s.flags = f
	f.StringSliceVar(&s.netns, "netns", nil, "only these network namespaces (`NAME|PATH|INODE`)")
	f.StringSliceVar(&s.dst, "dst", nil, "only connections to this remote address (`CIDR[:PORT]`)")
	f.StringSliceVar(&s.src, "src", nil, "only connections of this local address (`CIDR`)")
	f.StringSliceVar(&s.pid, "pid", nil, "only sockets of this process and its descendants (`PID`)")
	f.StringSliceVar(&s.comm, "comm", nil, "only sockets of processes of this name (`NAME`)")
	f.StringSliceVar(&s.cgroup, "cgroup", nil, "only sockets of this cgroup v2 and its descendants (`PATH`)")
}

// text is what the start event says of the selectors.
func (s *selectors) text() map[string][]string {
	text := map[string][]string{}
	for flag, values := range map[string][]string{
		"netns": s.netns, "dst": s.dst, "src": s.src, "pid": s.pid, "comm": s.comm, "cgroup": s.cgroup,
	} {
		if len(values) > 0 {
			text[flag] = values
		}
	}
	return text
}

// resolve turns the flags into filters of this host.
func (s *selectors) resolve(facts kernel.Facts, cgroups *kernel.Cgroups) (probe.Filters, error) {
	var f probe.Filters
	var errs []error
	add := func(flag string, values []string, parse func(string) error) {
		// an empty variable of a script must not select everything
		if len(values) == 0 && s.flags != nil && s.flags.Changed(flag) {
			errs = append(errs, usageError{fmt.Errorf("--%s: want a value", flag)})
		}
		for _, v := range values {
			if err := parse(v); err != nil {
				errs = append(errs, usageError{fmt.Errorf("--%s %s: %w", flag, v, err)})
			}
		}
	}
	add("dst", s.dst, func(v string) error {
		e, err := parseEndpoint(v)
		f.Remote = append(f.Remote, e)
		return err
	})
	add("src", s.src, func(v string) error {
		p, err := parsePrefix(v)
		f.Local = append(f.Local, p)
		return err
	})
	add("comm", s.comm, func(v string) error {
		f.Comms = append(f.Comms, v)
		return checkComm(v)
	})
	add("netns", s.netns, resolveNetNS(&f.NetNS))
	add("pid", s.pid, func(v string) error { return resolvePID(v, facts, &f.PIDs) })
	add("cgroup", s.cgroup, func(v string) error { return resolveCgroup(v, cgroups, &f.Cgroups) })
	return f, errors.Join(errs...)
}

// parseEndpoint reads CIDR[:PORT]: 10.0.0.0/8, 10.0.0.1:443, [2001:db8::1]:443,
// 2001:db8::/32, [2001:db8::/32]:443, or :443 for any address.
func parseEndpoint(v string) (probe.Endpoint, error) {
	addr, port, hasPort := splitPort(v)
	var e probe.Endpoint
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return e, fmt.Errorf("%q is not a port: want 1 to 65535", port)
		}
		e.Port = uint16(n)
		if addr == "" {
			e.Prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			return e, nil
		}
	}
	var err error
	e.Prefix, err = parsePrefix(addr)
	return e, err
}

// splitPort cuts the port off; an IPv6 address without brackets has none.
func splitPort(v string) (addr, port string, hasPort bool) {
	if inside, ok := strings.CutPrefix(v, "["); ok {
		addr, rest, ok := strings.Cut(inside, "]")
		port, hasPort = strings.CutPrefix(rest, ":")
		if !ok || rest != "" && !hasPort {
			return v, "", false // no address, as parsePrefix will say
		}
		return addr, port, hasPort
	}
	if strings.Count(v, ":") != 1 {
		return v, "", false
	}
	return strings.Cut(v, ":")
}

// parsePrefix reads an address or a prefix. An address within a prefix that
// has bits beyond it is a mistake.
func parsePrefix(v string) (netip.Prefix, error) {
	if !strings.Contains(v, "/") {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, errors.New("want an address or a CIDR prefix such as 10.0.0.0/8 or 2001:db8::/32")
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return netip.Prefix{}, errors.New("want an address or a CIDR prefix such as 10.0.0.0/8 or 2001:db8::/32")
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("the address has bits beyond the prefix: want %s", p.Masked())
	}
	return p, nil
}

// commMax is TASK_COMM_LEN without the final NUL.
const commMax = 15

func checkComm(v string) error {
	switch {
	case v == "":
		return errors.New("want the name of a process")
	case len(v) > commMax:
		return fmt.Errorf("the kernel keeps %d bytes of a name: want %q", commMax, v[:commMax])
	}
	return nil
}

func resolveNetNS(list *[]uint32) func(string) error {
	var found kernel.Namespaces
	var err error
	return func(v string) error {
		if found.List == nil && err == nil {
			found, err = kernel.FindNamespaces(os.DirFS("/"))
		}
		if err != nil {
			return err
		}
		inode, err := found.Resolve(v)
		*list = append(*list, inode)
		return err
	}
}

func resolvePID(v string, facts kernel.Facts, list *[]uint32) error {
	pid, err := strconv.ParseUint(v, 10, 31)
	if err != nil || pid == 0 {
		return errors.New("want the number of a process")
	}
	if !facts.InitialPIDNS {
		return errors.New("twscope runs in a pid namespace of its own, where the kernel's numbers are not known; run it in the host's")
	}
	tree, err := kernel.ProcessTree(os.DirFS("/"), uint32(pid))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no such process")
	}
	*list = append(*list, tree...)
	return err
}

func resolveCgroup(v string, cgroups *kernel.Cgroups, list *[]probe.Cgroup) error {
	if cgroups == nil {
		return errors.New("no cgroup v2 hierarchy is mounted here")
	}
	id, level, err := cgroups.ID(v)
	if err != nil {
		return err
	}
	*list = append(*list, probe.Cgroup{ID: id, Level: level})
	return nil
}
