// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/twscope/twscope/internal/capture"
	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
)

// replayInput is what replay reads: either a log or a capture.
type replayInput struct {
	log     *eventlog.Reader
	capture io.Reader
	raw     *counter // under capture
	size    int64    // of raw, in bytes; 0: not known
	file    *os.File // nil: standard input
}

// counter counts what is read.
type counter struct {
	in   io.Reader
	n    int64
	tell func() // called after each read, unless nil
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	if c.tell != nil {
		c.tell()
	}
	return n, err
}

// openReplay opens a log or a capture, and finds out by its first bytes which
// it is.
func openReplay(stdin io.Reader, path string, all bool) (*replayInput, error) {
	if path == eventlog.Stdio {
		return sniffReplay("standard input", stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open for replay: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if info.IsDir() {
		return nil, errors.Join(fmt.Errorf("%s: is a directory: name a file in it", path), f.Close())
	}
	in, err := sniffReplay(path, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if in.capture == nil && info.Mode().IsRegular() {
		// So that rotated files are found, and one that is not complete.
		if err := f.Close(); err != nil {
			return nil, err
		}
		r, err := eventlog.OpenReader(path, eventlog.ReadOptions{All: all})
		return &replayInput{log: r}, err
	}
	in.file = f
	if info.Mode().IsRegular() {
		in.size = info.Size()
	}
	return in, nil
}

// sniffReplay finds out what a stream is. A log in gzip format is read as one.
func sniffReplay(name string, r io.Reader) (*replayInput, error) {
	in := &replayInput{raw: &counter{in: r}}
	b := bufio.NewReaderSize(in.raw, event.MaxLine)
	head, err := peekHead(b, name)
	if err != nil {
		return nil, err
	}
	if len(head) >= 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%s: not a complete gzip file: %w", name, err)
		}
		b = bufio.NewReaderSize(z, event.MaxLine)
		if head, err = peekHead(b, name); err != nil {
			return nil, err
		}
	}
	if capture.Sniff(head) {
		in.capture = b
	} else {
		in.log = eventlog.NewReader(name, b)
	}
	return in, nil
}

// peekHead returns the first bytes, fewer if there are no more.
func peekHead(b *bufio.Reader, name string) ([]byte, error) {
	head, err := b.Peek(capture.SniffLen)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return head, nil
}

// Close closes what was opened.
func (in *replayInput) Close() error {
	var errs []error
	if in.log != nil {
		errs = append(errs, in.log.Close())
	}
	if in.file != nil {
		errs = append(errs, in.file.Close())
	}
	return errors.Join(errs...)
}
