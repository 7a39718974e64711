// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Names of files beside a log FILE: FILE.1 is the youngest old file, FILE.2
// the next; packed ones end in .gz. FILE.packing is being packed.
const (
	suffixPacked  = ".gz"
	suffixPacking = ".packing"
)

// archive is the old files of a log.
type archive struct {
	path string
	keep int
	mu   sync.Mutex // held while names change
}

// oldFile is FILE.number or FILE.number.gz.
type oldFile struct {
	path   string
	number int
	packed bool
}

// oldFiles returns the old files of the log at path, youngest first. If one is
// there both plain and packed, the plain one comes first.
func oldFiles(path string) ([]oldFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var list []oldFile
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		digits, packed := strings.CutSuffix(rest, suffixPacked)
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 1 || strconv.Itoa(n) != digits || !e.Type().IsRegular() {
			continue
		}
		list = append(list, oldFile{path: path + "." + rest, number: n, packed: packed})
	}
	slices.SortFunc(list, func(a, b oldFile) int {
		if a.number != b.number {
			return a.number - b.number
		}
		return strings.Compare(a.path, b.path)
	})
	return list, nil
}

// shift puts the log aside as FILE.1, after all others have moved up, and
// removes those beyond keep.
func (a *archive) shift() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.moveUp(); err != nil {
		return fmt.Errorf("rotate %s: %w", a.path, err)
	}
	return nil
}

func (a *archive) moveUp() error {
	list, err := oldFiles(a.path)
	if err != nil {
		return err
	}
	for _, o := range slices.Backward(list) {
		if o.number >= a.keep {
			err = os.Remove(o.path)
		} else {
			err = os.Rename(o.path, numbered(a.path, o.number+1, o.packed))
		}
		if err != nil {
			return err
		}
	}
	if a.keep == 0 {
		err = os.Remove(a.path)
	} else {
		err = os.Rename(a.path, numbered(a.path, 1, false))
	}
	// Someone else has put it aside: a new file is due all the same.
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func numbered(path string, n int, packed bool) string {
	path += "." + strconv.Itoa(n)
	if packed {
		path += suffixPacked
	}
	return path
}

// oldestPlain returns the next file to pack, or "". A plain file whose packed
// twin is there is what a crash between two steps of replace left: the twin is
// complete, so the plain one goes.
func (a *archive) oldestPlain() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list, err := oldFiles(a.path)
	if err != nil {
		return "", err
	}
	next := ""
	for i, o := range list {
		if o.packed {
			continue
		}
		if i+1 < len(list) && list[i+1].number == o.number {
			if err := os.Remove(o.path); err != nil {
				return "", err
			}
			continue
		}
		next = o.path
	}
	return next, nil
}

// replace puts the packed file at temp in the place of the plain one that it
// was made of, wherever a rotation has moved that meanwhile.
func (a *archive) replace(plain fs.FileInfo, temp string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	list, err := oldFiles(a.path)
	if err != nil {
		return err
	}
	for _, o := range list {
		info, err := os.Lstat(o.path)
		if err != nil || o.packed || !os.SameFile(info, plain) {
			continue
		}
		if err := os.Rename(temp, o.path+suffixPacked); err != nil {
			return err
		}
		return os.Remove(o.path)
	}
	return os.Remove(temp) // too old by now, and removed
}
