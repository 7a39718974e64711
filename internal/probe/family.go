// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/twscope/twscope/internal/kernel"
)

// adoptFamilies brings the processes that --pid selects up to date once their
// forks and exits are followed: between their listing and now some have been
// born, and some have died.
func (p *Probe) adoptFamilies() error {
	if p.settings.FilterPid == 0 {
		return nil
	}
	root := os.DirFS("/")
	known := map[uint32]bool{}
	for _, pid := range p.cfg.Filters.PIDs {
		if known[pid] {
			continue // by an ancestor
		}
		tree, err := kernel.ProcessTree(root, pid)
		if err != nil {
			continue // it is gone
		}
		for _, one := range tree {
			if !kernel.Runs(root, one) {
				continue
			}
			known[one] = true
			if err := p.addFilter("--pid", "tws_filter_pid", one); err != nil {
				return err
			}
		}
	}
	for _, pid := range p.cfg.Filters.PIDs {
		if known[pid] {
			continue
		}
		if err := p.loader.maps["tws_filter_pid"].Delete(pid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget process %d, which has ended: %w", pid, err)
		}
	}
	return nil
}

// Family counts the processes that --pid selects and that run now, descendants
// included.
func (p *Probe) Family() (int, error) {
	var n int
	var pid uint32
	var yes uint8
	it := p.loader.maps["tws_filter_pid"].Iterate()
	for it.Next(&pid, &yes) {
		n++
	}
	// forks and exits while we look; one is left, then
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return n, fmt.Errorf("count the processes of --pid: %w", err)
	}
	return n, nil
}
