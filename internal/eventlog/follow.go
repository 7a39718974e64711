// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// await waits until the file has more, which it answers with true, or until
// another file has taken its place, which it then queues.
func (r *Reader) await(ctx context.Context, s *source) (more bool, err error) {
	for {
		// The order matters: what grew before the file was replaced has to be
		// read before the new one.
		moved, err := r.moved(s)
		if err != nil {
			return false, err
		}
		if more, err := r.grown(s); more || err != nil {
			return more, err
		}
		if moved {
			if queued, err := r.queueNext(s); queued || err != nil {
				return false, err
			}
		}
		r.opts.Idle()
		timer := time.NewTimer(r.opts.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-timer.C:
		}
	}
}

// moved tells whether the path leads to another file. A path that leads to
// none is in the middle of a rotation.
func (r *Reader) moved(s *source) (bool, error) {
	there, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("follow the event log: %w", err)
	}
	return !os.SameFile(there, s.info), nil
}

// grown tells whether there is more to read; a file that was truncated is read
// from its beginning.
func (r *Reader) grown(s *source) (bool, error) {
	if s.file == nil {
		return false, nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return false, fmt.Errorf("follow the event log: %w", err)
	}
	at, err := s.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, fmt.Errorf("follow the event log: %w", err)
	}
	if info.Size() < at {
		if at, err = s.file.Seek(0, io.SeekStart); err != nil {
			return false, fmt.Errorf("follow the event log: %w", err)
		}
		s.buf, s.line, s.skip, r.part = bufio.NewReaderSize(s.file, event.MaxLine), 0, false, nil
	}
	return info.Size() > at, nil
}

// queueNext queues the files that follow s: those between it and the log, when
// more than one rotation has happened, and the log. It answers with false if
// the log is being rotated again just now.
func (r *Reader) queueNext(s *source) (bool, error) {
	log, err := openSource(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	between, err := r.between(s, log)
	if err != nil {
		return false, errors.Join(err, log.close())
	}
	r.files = append(append(r.files, between...), log)
	return true, nil
}

// between returns the old files that are younger than s, oldest first, without
// the log, which may have become one meanwhile. When s is no longer among the
// old files nobody can tell how many were written since: then there are none.
func (r *Reader) between(s, log *source) ([]*source, error) {
	list, err := oldFiles(r.path)
	if err != nil {
		return nil, fmt.Errorf("list the old files of %s: %w", r.path, err)
	}
	var younger []string
	for _, o := range list {
		info, err := os.Stat(o.path)
		if err == nil && os.SameFile(info, s.info) {
			return openAvailable(younger), nil
		}
		if err == nil && !os.SameFile(info, log.info) {
			younger = append([]string{o.path}, younger...)
		}
	}
	return nil, nil
}

// openAvailable opens the files that are still there.
func openAvailable(paths []string) []*source {
	var list []*source
	for _, path := range paths {
		if f, err := openSource(path); err == nil {
			list = append(list, f)
		}
	}
	return list
}
