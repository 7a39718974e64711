// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// packTimeout is how long close waits for the packing of old files. What is
// not packed by then is packed by the next Writer.
const packTimeout = 5 * time.Second

// packer compresses old files in the background, oldest first. A nil packer
// does nothing.
type packer struct {
	old    *archive
	notify func(error)
	due    chan struct{}
	done   chan struct{}
	cancel context.CancelFunc
}

func startPacker(old *archive, notify func(error)) *packer {
	ctx, cancel := context.WithCancel(context.Background())
	p := &packer{old: old, notify: notify, due: make(chan struct{}, 1), done: make(chan struct{}), cancel: cancel}
	p.wake() // a run before may have left work
	go p.run(ctx)
	return p
}

// wake tells that there is a file to pack.
func (p *packer) wake() {
	if p == nil {
		return
	}
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// close packs what is left, for a limited time, and ends the goroutine.
func (p *packer) close() error {
	if p == nil {
		return nil
	}
	close(p.due)
	timeout := time.AfterFunc(packTimeout, p.cancel)
	<-p.done
	timeout.Stop()
	p.cancel()
	return nil
}

func (p *packer) run(ctx context.Context) {
	defer close(p.done)
	for range p.due {
		if err := p.packAll(ctx); err != nil && ctx.Err() == nil {
			p.notify(fmt.Errorf("%w; it stays as it is until the next rotation", err))
		}
	}
}

func (p *packer) packAll(ctx context.Context) error {
	for ctx.Err() == nil {
		path, err := p.old.oldestPlain()
		if err != nil || path == "" {
			return err
		}
		if err := p.pack(ctx, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("compress %s: %w", path, err)
		}
	}
	return ctx.Err()
}

// pack compresses one file. Until the packed one is complete and on disk it
// has a name that nobody takes for an old file.
func (p *packer) pack(ctx context.Context, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	temp := p.old.path + suffixPacking
	if err := packTo(ctx, temp, in, info); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return p.old.replace(info, temp)
}

func packTo(ctx context.Context, path string, in io.Reader, info fs.FileInfo) (err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	z.ModTime = info.ModTime()
	for err == nil && ctx.Err() == nil {
		_, err = io.CopyN(z, in, 1<<20)
	}
	if !errors.Is(err, io.EOF) {
		return errors.Join(err, ctx.Err())
	}
	if err := z.Close(); err != nil {
		return err
	}
	return out.Sync()
}
