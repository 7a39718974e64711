// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/lab"
	"github.com/twscope/twscope/internal/testutil"
)

// rig is a stage with a client and a server.
type rig struct {
	*stage
	client, server *lab.Host
	link           *lab.Link
	target         netip.AddrPort
}

func newRig(t *testing.T, name string) *rig {
	t.Helper()
	testutil.Root(t)
	r := &rig{stage: testutil.Must1[*stage](t)(newStage(t.Context(), name))}
	hosts := testutil.Must1[[]*lab.Host](t)(r.add("client", "server"))
	r.client, r.server = hosts[0], hosts[1]
	r.link = testutil.Must1[*lab.Link](t)(r.stage.link(t.Context(), hosts[0], hosts[1], "10.1.0.0/24"))
	sv := testutil.Must1[*lab.Serving](t)(r.server.Serve(lab.Server{Network: "tcp4", ClosesFirst: true}))
	r.target = sv.Targets(r.link.B.Addr4())[0]
	return r
}

func (r *rig) run(t *testing.T, n int) {
	t.Helper()
	res := testutil.Must1[*lab.Result](t)(r.client.Run(t.Context(), lab.Load{Targets: []netip.AddrPort{r.target}, Connections: n}))
	if res.Connected != n {
		t.Fatalf("%+v, want %d connected", res, n)
	}
}

// TestTape: the reader of captures, which is tested with those of others, finds
// every connection in the file.
func TestTape(t *testing.T) {
	const n = 20
	r := newRig(t, "tape")
	dir := t.TempDir()
	testutil.Must(t, r.tape(dir, "test"))
	r.run(t, n)
	testutil.Must(t, r.close(false))
	f := testutil.Must1[*os.File](t)(os.Open(filepath.Join(dir, "test-client-server.pcap")))
	defer f.Close()
	packets := testutil.Must1[*capture.Reader](t)(capture.NewReader(f))
	s := testutil.Must1[*capture.Source](t)(capture.NewSource(packets, capture.SourceOptions{}))
	syns := 0
	for {
		ev, err := s.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		testutil.Must(t, err)
		if e, ok := ev.(*event.SYN); ok && e.Local == r.target && e.Validated {
			syns++
		}
	}
	if syns != n {
		t.Errorf("%d SYNs in the capture, want %d", syns, n)
	}
}

func TestTapeCannotBeWritten(t *testing.T) {
	r := newRig(t, "untaped")
	defer func() { testutil.Must(t, r.close(false)) }()
	if err := r.tape(filepath.Join(t.TempDir(), "none"), "test"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--pcap") {
		t.Errorf("%v, want the directory that is not there, and the flag", err)
	}
}

// TestTapeFull: what cannot be written, early or at the end, is told once.
func TestTapeFull(t *testing.T) {
	for name, n := range map[string]int{"within the buffer": 1, "beyond the buffer": 200} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "full")
			defer func() { testutil.Must(t, r.close(false)) }()
			full := testutil.Must1[*tape](t)(newTape(&r.link.B, "/dev/full"))
			r.run(t, n)
			err := full.stop()
			if !errors.Is(err, unix.ENOSPC) || strings.Count(err.Error(), unix.ENOSPC.Error()) != 1 {
				t.Errorf("%v, want once that no space is left", err)
			}
		})
	}
}

// TestKeep: what is kept has the names that were told, and carries packets.
func TestKeep(t *testing.T) {
	r := newRig(t, "keep")
	testutil.Must(t, r.close(true))
	for _, name := range r.namespaces() {
		if _, err := os.Stat("/run/netns/" + name); err != nil {
			t.Errorf("%v, want it kept", err)
		}
	}
	r.run(t, 1)
	testutil.Must(t, r.close(false))
	for _, name := range r.namespaces() {
		if _, err := os.Stat("/run/netns/" + name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want it removed", name, err)
		}
	}
}

func TestOptional(t *testing.T) {
	for _, test := range []struct {
		err   error
		lacks bool
	}{
		{unix.EOPNOTSUPP, true},
		{unix.ENOENT, true}, // of nf_tables without its modules
		{&os.PathError{Op: "open", Path: "/proc/sys/net/netfilter/x", Err: unix.ENOENT}, true},
		{unix.EPERM, false},
		{unix.EINVAL, false},
		{nil, false},
	} {
		err := optional(test.err)
		if _, lacks := errors.AsType[lackError](err); lacks != test.lacks || !errors.Is(err, test.err) {
			t.Errorf("%v: %v: a lack: %t, want %t", test.err, err, lacks, test.lacks)
		}
	}
}
