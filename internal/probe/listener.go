// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/netip"

	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// ListenerOwner tells who listens on an address and port; nobody if that is
// not known, or if several processes do (SO_REUSEPORT).
func (r *Reader) ListenerOwner(netns uint32, local netip.AddrPort) event.Owner {
	key := bpf.ListenerKey{Netns: netns, Port: local.Port()}
	if !local.Addr().IsUnspecified() {
		key.Addr = local.Addr().As16()
	}
	var l bpf.Listener
	err := r.probe.loader.maps["tws_listeners"].Lookup(&key, &l)
	if err != nil || l.Sockets == 0 || l.Mixed != 0 || l.Owner.Pid == 0 {
		return event.Owner{}
	}
	return event.Owner{PID: l.Owner.Pid, Comm: r.decoder.comm(&l.Owner), Cgroup: r.decoder.cgroup(l.Owner.Cgroup)}
}
