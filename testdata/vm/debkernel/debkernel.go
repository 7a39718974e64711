// SPDX-License-Identifier: Apache-2.0

// Package debkernel gets Debian's kernels for cloud machines, the newest of each series, with apt but without touching
// the host's apt, and reads their modules and type information.
package debkernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Kernel is one unpacked kernel.
type Kernel struct {
	Series  string // as asked for, for example "6.12" or "7"
	Release string // as uname -r shows it
	Dir     string // holds image and modules
}

// Cache is a directory of unpacked kernels: DIR/ARCH/RELEASE, and DIR/ARCH/series/SERIES, a link to the newest.
type Cache struct {
	Dir string
	// Mirror is the address of a Debian archive; if empty, the one from which the host's apt gets its packages.
	Mirror string
	// Refresh asks the mirror for a newer kernel even if one of the series is there.
	Refresh bool
	// Log is told of slow steps.
	Log io.Writer
}

// attempts is how many releases of a series are tried: on a mirror that is being updated the newest may be gone.
const attempts = 3

// Get returns the newest kernel of each series for a Debian architecture (amd64, arm64), from the cache where possible.
// A series is a prefix of the version that ends at a dot: "5.10", or "7" for the newest 7.x.
func (c *Cache) Get(ctx context.Context, arch string, series []string) ([]Kernel, error) {
	root := filepath.Join(c.Dir, arch)
	if err := os.MkdirAll(filepath.Join(root, "series"), 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(root, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	var absent []string
	for _, s := range series {
		if _, err := os.Stat(filepath.Join(root, "series", s, "vmlinuz")); err != nil || c.Refresh {
			absent = append(absent, s)
		}
	}
	if len(absent) > 0 {
		if err := c.fetch(ctx, root, arch, absent); err != nil {
			return nil, err
		}
	}
	var kernels []Kernel
	for _, s := range series {
		dir, err := filepath.EvalSymlinks(filepath.Join(root, "series", s))
		if err != nil {
			return nil, err
		}
		kernels = append(kernels, Kernel{Series: s, Release: filepath.Base(dir), Dir: dir})
	}
	return kernels, nil
}

// Image is the path of the bootable image.
func (k *Kernel) Image() string { return filepath.Join(k.Dir, "vmlinuz") }

func (c *Cache) fetch(ctx context.Context, root, arch string, series []string) error {
	dir := filepath.Join(c.Dir, "apt-"+arch)
	// The lists are larger than the kernels, and stale by the time the next kernel is wanted.
	defer os.RemoveAll(dir)
	a, err := newApt(ctx, dir, arch, c.Mirror)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.Log, "asking the mirror for %s kernels %s\n", arch, strings.Join(series, " "))
	all, err := a.packages(ctx)
	if err != nil {
		return err
	}
	for _, s := range series {
		releases := releasesOf(all, arch, s, debianLess(ctx))
		if len(releases) == 0 {
			return fmt.Errorf("the mirror has no %s cloud kernel %s: choose another series, or name a mirror that has it", arch, s)
		}
		if err := c.fetchSeries(ctx, a, root, s, all, releases); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) fetchSeries(ctx context.Context, a *apt, root, series string, all map[string]pkg, releases []string) error {
	var failed error
	for _, release := range releases[:min(attempts, len(releases))] {
		dir := filepath.Join(root, release)
		err := func() error {
			if _, err := os.Stat(dir); err == nil {
				return nil
			}
			packages, err := closure(all, release)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.Log, "fetching kernel %s\n", release)
			return a.unpack(ctx, packages, release, dir)
		}()
		if err == nil {
			return relink(filepath.Join("..", release), filepath.Join(root, "series", series))
		}
		if ctx.Err() != nil {
			return err
		}
		failed = errors.Join(failed, fmt.Errorf("kernel %s: %w", release, err))
	}
	return failed
}

// relink makes link point to target in one step.
func relink(target, link string) error {
	next := link + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

// lock keeps two runs from filling the cache at once.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
