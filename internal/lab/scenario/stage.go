// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/lab"
)

// stage is the network of a scene.
type stage struct {
	lab   *lab.Lab
	hosts []*lab.Host
	links []*lab.Link
	tapes []*tape
	// open is closed before the lab.
	open []io.Closer
}

// newStage makes an empty network, to be removed by close and not by the end of
// ctx, when some of it may be in use. Its namespaces have names, because a
// session reads the settings of those only that it finds: by name, or by the
// processes in them.
func newStage(ctx context.Context, name string) (*stage, error) {
	l, err := lab.New(context.WithoutCancel(ctx), name, lab.Named())
	if err != nil {
		return nil, err
	}
	return &stage{lab: l}, nil
}

// close removes the network, or leaves its namespaces and links.
func (s *stage) close(keep bool) error {
	var errs []error
	for _, t := range s.tapes {
		errs = append(errs, t.stop())
	}
	for _, c := range s.open {
		errs = append(errs, c.Close())
	}
	if keep {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, s.lab.Close())...)
}

func (s *stage) add(names ...string) ([]*lab.Host, error) {
	hosts, err := s.lab.Hosts(names...)
	s.hosts = append(s.hosts, hosts...)
	return hosts, err
}

// link connects a and b, which get the first and the second address.
func (s *stage) link(ctx context.Context, a, b *lab.Host, subnet string) (*lab.Link, error) {
	l, err := s.lab.Link(ctx, a, b, subnet)
	if err == nil {
		s.links = append(s.links, l)
	}
	return l, err
}

// tape saves what passes each link, as its second host sees it.
func (s *stage) tape(dir, name string) error {
	for _, l := range s.links {
		path := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.pcap", name, l.A.Host.Name(), l.B.Host.Name()))
		t, err := newTape(&l.B, path)
		if err != nil {
			return err
		}
		s.tapes = append(s.tapes, t)
	}
	return nil
}

// namespaces are the names by which ip-netns knows the hosts of a kept lab.
func (s *stage) namespaces() []string {
	var names []string
	for _, h := range s.hosts {
		names = append(names, s.lab.Name()+"-"+h.Name())
	}
	return names
}

// sysctls sets sysctls of net.ipv4.
func sysctls(h *lab.Host, pairs ...string) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := h.Sysctl("net.ipv4."+pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// lackError is that the kernel has no means for a scene.
type lackError struct{ err error }

func (e lackError) Error() string { return e.err.Error() }
func (e lackError) Unwrap() error { return e.err }

// optional marks the error of a means that a kernel may lack: netfilter,
// connection tracking, XDP. The text of err says which option it needs.
func optional(err error) error {
	for _, errno := range []error{
		os.ErrNotExist, ebpf.ErrNotSupported, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT,
		unix.ENOSYS, unix.ENOPROTOOPT,
	} {
		if errors.Is(err, errno) {
			return lackError{err}
		}
	}
	return err
}
