// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
)

// handle is what a log needs of an *os.File.
type handle interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
	Fd() uintptr
}

// opener is os.OpenFile, or a test's.
type opener func(path string, flag int, mode fs.FileMode) (handle, error)

func openOS(path string, flag int, mode fs.FileMode) (handle, error) {
	return os.OpenFile(path, flag, mode)
}

// newOutput returns the output for a path, and what compresses its old files.
func newOutput(opts Options, openFile opener) (output, *packer, error) {
	if opts.Path == Stdio {
		s, err := newStdout()
		return s, nil, err
	}
	info, err := os.Stat(opts.Path)
	switch {
	case err == nil && info.IsDir():
		return nil, nil, openError(opts.Path, syscall.EISDIR)
	case err == nil && !info.Mode().IsRegular():
		s, err := openStream(opts.Path)
		return s, nil, err
	}
	old := &archive{path: opts.Path, keep: max(opts.MaxFiles, 0)}
	f := &file{path: opts.Path, mode: opts.Mode, maxSize: opts.MaxSize, openFile: openFile, old: old}
	if err := f.open(); err != nil {
		return nil, nil, err
	}
	if !opts.Compress {
		return f, nil, nil
	}
	return f, startPacker(old, opts.Notify), nil
}

// file is a log in a regular file, locked against a second writer.
type file struct {
	path     string
	mode     fs.FileMode
	maxSize  int64
	openFile opener
	old      *archive

	f     handle // nil: to be opened
	fresh bool   // opened and not yet told by ready
	size  int64  // of the whole lines in it
	torn  bool   // behind them is a part of a line
}

func (l *file) ready() (bool, error) {
	if l.f == nil {
		if err := l.open(); err != nil {
			return false, err
		}
	}
	fresh := l.fresh
	l.fresh = false
	return fresh, nil
}

// open opens, locks and mends the file at path.
func (l *file) open() error {
	// The file may be renamed between open and lock, by a writer that rotates
	// or by logrotate. That it happens time and again means something else.
	for range 10 {
		f, err := l.openFile(l.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, l.mode)
		if err != nil {
			return openError(l.path, err)
		}
		l.f = f
		if err := lock(l.path, f); err != nil {
			return errors.Join(err, l.drop())
		}
		if l.elsewhere() {
			if err := l.drop(); err != nil {
				return err
			}
			continue
		}
		if err := l.mend(); err != nil {
			return errors.Join(err, l.drop())
		}
		l.fresh = true
		return nil
	}
	return fmt.Errorf("%s: is renamed again and again: stop what rotates it", l.path)
}

// openError adds the remedy to an error of open(2).
func openError(path string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	switch {
	case errors.Is(err, syscall.ENOENT):
		dir := filepath.Dir(path)
		return fmt.Errorf("%s: the directory does not exist: create it with \"mkdir -p %s\", or choose another path", path, dir)
	case errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%s: is a directory: name a file in it", path)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: not writable (%w): run as root or choose another path", path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// mend makes the file end with a whole line. A torn line of a writer that was
// killed goes; a foreign one is ended, since it is not ours to delete.
func (l *file) mend() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	l.size, l.torn = info.Size(), false
	tail := make([]byte, min(l.size, event.MaxLine))
	if _, err := l.f.ReadAt(tail, l.size-int64(len(tail))); err != nil {
		return fmt.Errorf("read the end of %s: %w", l.path, err)
	}
	last := tail[bytes.LastIndexByte(tail, '\n')+1:]
	if len(last) == 0 {
		return nil
	}
	ours := []byte(`{"time":"`)
	if n := min(len(ours), len(last)); bytes.Equal(last[:n], ours[:n]) {
		l.size -= int64(len(last))
		return l.cut()
	}
	_, err = l.write([]byte{'\n'})
	return err
}

// cut removes what is behind the whole lines.
func (l *file) cut() error {
	l.torn = true
	if err := l.f.Truncate(l.size); err != nil {
		return fmt.Errorf("cut the torn line at the end of %s: %w", l.path, err)
	}
	l.torn = false
	return nil
}

// write writes whole lines. When that fails in the middle of a line, it cuts
// the part off again; the number of bytes it returns ends with a line.
func (l *file) write(p []byte) (int, error) {
	if l.torn {
		if err := l.cut(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(p)
	whole := n
	if n < len(p) {
		whole = bytes.LastIndexByte(p[:n], '\n') + 1
	}
	l.size += int64(whole)
	if err == nil {
		return whole, nil
	}
	err = fmt.Errorf("write %s: %w%s", l.path, err, remedy(err))
	if whole < n {
		err = errors.Join(err, l.cut())
	}
	return whole, err
}

func remedy(err error) string {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return ": free space on its file system"
	}
	return ""
}

func (l *file) room() int64 { return l.maxSize - l.size }

// stale tells whether the file was removed, renamed or truncated under us.
func (l *file) stale() bool {
	if l.f == nil {
		return false
	}
	if l.elsewhere() {
		return true
	}
	info, err := l.f.Stat()
	return err == nil && info.Size() < l.size
}

// elsewhere tells whether path leads to another file, or to none.
func (l *file) elsewhere() bool {
	mine, err := l.f.Stat()
	if err != nil {
		return false // it cannot be told, so all stays as it is
	}
	there, err := os.Stat(l.path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there)
}

func (l *file) rotate() error {
	if err := l.old.shift(); err != nil {
		return err
	}
	return l.reopen()
}

func (l *file) reopen() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Sync()
	return errors.Join(err, l.drop())
}

// drop closes the file without syncing it.
func (l *file) drop() error {
	f := l.f
	l.f = nil
	return f.Close()
}

func (l *file) close() error { return l.reopen() }

// lock takes the file for us, until it is closed.
func lock(path string, f handle) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s: is written by %s already: stop that, or choose another path", path, lockHolder(f))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return nil
}
