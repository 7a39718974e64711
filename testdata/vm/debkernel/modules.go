// SPDX-License-Identifier: Apache-2.0

package debkernel

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Module is a kernel module, unpacked.
type Module struct {
	Name string
	Data []byte
}

// Modules returns the named modules and all they depend on, each after its dependencies. Names that the kernel has not as
// a module (because it is built in or absent) are returned apart.
func (k *Kernel) Modules(ctx context.Context, names []string) (mods []Module, without []string, err error) {
	paths, err := modulePaths(os.DirFS(filepath.Join(k.Dir, "modules")))
	if err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	var load func(name string) error
	load = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		path, ok := paths[name]
		if !ok {
			without = append(without, name)
			return nil
		}
		data, err := readModule(ctx, filepath.Join(k.Dir, "modules", path))
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		needs, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
		for _, n := range needs {
			if err := load(n); err != nil {
				return err
			}
		}
		mods = append(mods, Module{Name: name, Data: data})
		return nil
	}
	for _, n := range names {
		if err := load(moduleName(n)); err != nil {
			return nil, nil, err
		}
	}
	return mods, without, nil
}

// moduleName is the kernel's spelling: it takes '-' and '_' for the same.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

func modulePaths(tree fs.FS) (map[string]string, error) {
	paths := map[string]string{}
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name, rest, ok := strings.Cut(d.Name(), ".ko"); ok && (rest == "" || strings.HasPrefix(rest, ".")) {
			paths[moduleName(name)] = path
		}
		return nil
	})
	return paths, err
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil || filepath.Ext(path) == ".ko" {
		return data, err
	}
	return decompress(ctx, data)
}

// moduleDepends reads the modules that this one needs from its .modinfo section. Debian's packages hold no modules.dep:
// that is made when they are installed.
func moduleDepends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	sec := f.Section(".modinfo")
	if sec == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := sec.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(moduleName(list), ","), nil
		}
	}
	return nil, nil
}
