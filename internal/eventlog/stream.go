// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// stallTimeout is how long a stream may take nothing before the Writer looks
// after other things.
const stallTimeout = 200 * time.Millisecond

// errStalled tells that a reader is there and does not read.
var errStalled = errors.New("the reader of the event log does not read")

// stream is an output that is not a regular file: standard output, a named
// pipe, a device. It is neither locked, rotated nor opened again.
type stream struct {
	path    string
	fd      int
	regular bool // standard output goes to a file
	fresh   bool
}

// newStdout duplicates standard output: os.File ends the process when a write
// to descriptor 1 itself meets EPIPE.
func newStdout() (*stream, error) {
	fd, err := unix.FcntlInt(uintptr(unix.Stdout), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("standard output: %w", err)
	}
	return newStream("standard output", fd), nil
}

// openStream opens an existing path that is not a regular file.
func openStream(path string) (*stream, error) {
	// Without O_NONBLOCK a pipe without a reader would hold us up here.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s: nobody reads this pipe: start its reader first", path)
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return newStream(path, fd), nil
}

func newStream(path string, fd int) *stream {
	var st unix.Stat_t
	regular := unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
	return &stream{path: path, fd: fd, regular: regular, fresh: true}
}

func (s *stream) ready() (bool, error) {
	fresh := s.fresh
	s.fresh = false
	return fresh, nil
}

// write writes in pieces that a pipe takes as a whole once poll(2) says that
// it takes any (PIPE_BUF), so that a reader that stops cannot hold us up.
func (s *stream) write(p []byte) (int, error) {
	piece := 4096
	if s.regular {
		piece = len(p)
	}
	for done := 0; ; {
		if done == len(p) {
			return done, nil
		}
		if err := s.wait(); err != nil {
			return done, err
		}
		n, err := unix.Write(s.fd, p[done:min(done+piece, len(p))])
		done += max(n, 0)
		switch {
		case errors.Is(err, unix.EPIPE):
			return done, ErrReaderGone
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN):
			return done, fmt.Errorf("write %s: %w", s.path, err)
		}
	}
}

// wait returns when the stream takes bytes or reports an error by write(2).
func (s *stream) wait() error {
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
	for deadline := time.Now().Add(stallTimeout); ; {
		left := time.Until(deadline)
		n, err := unix.Poll(fds, int(max(left.Milliseconds(), 0)))
		switch {
		case errors.Is(err, unix.EINTR) && left > 0:
		case err != nil:
			return fmt.Errorf("poll %s: %w", s.path, err)
		case n == 0:
			return fmt.Errorf("write %s: %w", s.path, errStalled)
		default:
			return nil
		}
	}
}

func (s *stream) room() int64   { return math.MaxInt64 }
func (s *stream) stale() bool   { return false }
func (s *stream) rotate() error { return nil }
func (s *stream) reopen() error { return nil }
func (s *stream) close() error  { return unix.Close(s.fd) }
