// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// DefaultPoll is how often Next looks for growth while it follows a log.
const DefaultPoll = 250 * time.Millisecond

// Causes in a LineError, beside those of event.Decode.
var (
	ErrLineTooLong = fmt.Errorf("longer than %d bytes", event.MaxLine)
	// ErrPartialLine tells that the last line of a file has no end: it is
	// being written, or its writer was killed.
	ErrPartialLine = errors.New("the line is not complete")
)

// LineError tells which line of a log cannot be read. It is not fatal: Next
// can be called again and goes on with the next line or, if the file itself is
// damaged there, with the next file.
type LineError struct {
	File string
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// ReadOptions tell what to read of a log.
type ReadOptions struct {
	All    bool          // the old files first, oldest to youngest
	Follow bool          // wait for growth and go on with the next file after a rotation
	Poll   time.Duration // of Follow; default DefaultPoll
	// Idle is called when Follow has read all that there is, before each wait;
	// default: nothing.
	Idle func()
}

// Reader reads an event log, line by line. It must not be used by two
// goroutines at once.
type Reader struct {
	opts  ReadOptions
	path  string    // of the log; empty: a stream that is not followed
	files []*source // to be read, the first one now
	part  []byte    // of a line whose end is not there yet
}

// source is one file of a log.
type source struct {
	name string
	file *os.File // nil: not a file
	info fs.FileInfo
	buf  *bufio.Reader
	line int
	skip bool // the rest of a line that is too long
}

// NewReader reads a log from r until its end. Errors name it name.
func NewReader(name string, r io.Reader) *Reader {
	return &Reader{files: []*source{{name: name, buf: bufio.NewReaderSize(r, event.MaxLine)}}}
}

// OpenReader opens the log at path, packed if its name ends in .gz. Errors
// name the path.
func OpenReader(path string, opts ReadOptions) (*Reader, error) {
	setDefault(&opts.Poll, DefaultPoll)
	if opts.Idle == nil {
		opts.Idle = func() {}
	}
	r := &Reader{opts: opts, path: path}
	// Old files move on while they are opened if a rotation comes in between.
	// Then the log at path is another one afterwards.
	for range 10 {
		if err := r.openAll(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		last := r.files[len(r.files)-1]
		if there, err := os.Stat(path); err == nil && os.SameFile(there, last.info) {
			return r, nil
		}
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: is rotated again and again while it is opened", path)
}

func (r *Reader) openAll() error {
	if r.opts.All {
		list, err := oldFiles(r.path)
		if err != nil {
			return fmt.Errorf("list the old files of %s: %w", r.path, err)
		}
		for i := range slices.Backward(list) {
			if i > 0 && list[i-1].number == list[i].number {
				continue // the plain twin of a packed file comes next
			}
			s, err := openSource(list[i].path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			r.files = append(r.files, s)
		}
	}
	s, err := openSource(r.path)
	if err != nil {
		return err
	}
	r.files = append(r.files, s)
	return nil
}

func openSource(path string) (*source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open event log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s: is a directory: name a file in it", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var in io.Reader = f
	if strings.HasSuffix(path, suffixPacked) {
		in = &unpacker{in: f}
	}
	return &source{name: path, file: f, info: info, buf: bufio.NewReaderSize(in, event.MaxLine)}, nil
}

// unpacker reads a gzip file. It looks at the header with the first Read, so
// that a damaged file is found in its turn and does not hide the others.
type unpacker struct {
	in io.Reader
	z  *gzip.Reader
}

func (u *unpacker) Read(p []byte) (n int, err error) {
	if u.z == nil {
		if u.z, err = gzip.NewReader(u.in); err != nil {
			return 0, fmt.Errorf("not a complete gzip file: %w", err)
		}
	}
	n, err = u.z.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("not a complete gzip file: %w", err)
	}
	return n, err
}

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, s := range r.files {
		errs = append(errs, s.close())
	}
	r.files = nil
	return errors.Join(errs...)
}

func (s *source) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Next returns the next event. A *LineError is about one line only. At the end
// it returns io.EOF, or, while it follows the log, waits until there is more
// or ctx is done.
func (r *Reader) Next(ctx context.Context) (event.Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(r.files) == 0 {
			return nil, io.EOF
		}
		s := r.files[0]
		line, err := r.readLine(s)
		switch {
		case err == nil && line == nil:
			continue // the end of a line that was too long
		case err == nil:
			ev, err := event.Decode(line)
			if err != nil {
				return nil, s.fault(err)
			}
			return ev, nil
		case errors.Is(err, ErrLineTooLong):
			return nil, s.fault(err)
		case !errors.Is(err, io.EOF):
			r.files, r.part = r.files[1:], nil
			s.line++
			return nil, s.fault(errors.Join(err, s.close()))
		}
		if ev, err := r.atEnd(ctx, s); ev != nil || err != nil {
			return ev, err
		}
	}
}

// fault makes an error of the line that was read last.
func (s *source) fault(err error) error { return &LineError{File: s.name, Line: s.line, Err: err} }

// readLine returns one line, nil for the end of one that was too long. At the
// end of the file it keeps what there is of a line in part.
func (r *Reader) readLine(s *source) ([]byte, error) {
	chunk, err := s.buf.ReadSlice('\n')
	if s.skip {
		s.skip = err != nil
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil
		}
		return nil, err
	}
	if len(r.part) == 0 && err == nil {
		s.line++
		return chunk, nil
	}
	r.part = append(r.part, chunk...)
	switch {
	case len(r.part) > event.MaxLine || errors.Is(err, bufio.ErrBufferFull):
		r.part = r.part[:0]
		s.line++
		s.skip = err != nil
		return nil, ErrLineTooLong
	case err != nil:
		return nil, err
	}
	line := r.part
	r.part = r.part[:0]
	s.line++
	return line, nil
}

// atEnd goes on at the end of a file: with the next one or, for the last one
// of a log that is followed, after a while.
func (r *Reader) atEnd(ctx context.Context, s *source) (event.Event, error) {
	if len(r.files) == 1 && r.opts.Follow {
		more, err := r.await(ctx, s)
		if more || err != nil {
			return nil, err
		}
	}
	r.files = r.files[1:]
	if err := s.close(); err != nil {
		return nil, err
	}
	part := r.part
	r.part = nil
	if len(part) == 0 {
		return nil, nil
	}
	s.line++
	// A line that lacks nothing but its end is one: so ends a file that was
	// edited, or cut by head -c.
	if ev, err := event.Decode(part); err == nil {
		return ev, nil
	}
	return nil, s.fault(ErrPartialLine)
}
