// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twscope/twscope/testdata/vm/wire"
)

const (
	here    = "./testdata/vm"
	srcRoot = "/src" // where the repository's files lie in the guest
	// rungVar forces a rung. A program that does not hold this name cannot depend on it, so it runs once.
	rungVar = "TWSCOPE_RUNG"
)

// guestLoad is what goes into each machine whatever its kernel: files by guest path, and the runs.
type guestLoad struct {
	files map[string]guestFile
	runs  []wire.Run
	// rungs names the forced rung of each run, for the tables.
	rungs []string
}

// guestFile is a file to ship; its content is read when the initramfs is written.
type guestFile struct {
	host string
	mode fs.FileMode
}

// prepare builds the binaries and lists the runs: the self check, what knows no rungs, then each rung with the other targets.
func prepare(ctx context.Context, o *options, tmp string) (*guestLoad, error) {
	g := &guestLoad{files: map[string]guestFile{}}
	init := filepath.Join(tmp, "init")
	if err := goTool(ctx, "build", "-o", init, here+"/guest"); err != nil {
		return nil, err
	}
	g.files["/init"] = guestFile{init, 0o755}

	check, err := g.addTarget(ctx, here+"/selfcheck", tmp, o)
	if err != nil {
		return nil, err
	}
	check.Vital = true
	g.addRun(check, "", o)

	var targets, ofRungs []wire.Run
	for _, t := range o.targets {
		r, err := g.addTarget(ctx, t, tmp, o)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", t, err)
		}
		reads, err := contains(g.files[r.Argv[0]].host, rungVar)
		if err != nil {
			return nil, err
		}
		if reads {
			ofRungs = append(ofRungs, r)
		} else {
			targets = append(targets, r)
		}
	}
	for _, f := range o.files {
		if err := g.addTree(f); err != nil {
			return nil, fmt.Errorf("-f %s: %w", f, err)
		}
	}
	for _, r := range targets {
		g.addRun(r, "", o)
	}
	for _, rung := range o.rungs {
		for _, r := range ofRungs {
			g.addRun(r, rung, o)
		}
	}
	return g, nil
}

// addRun lists a run with the environment it is to have.
func (g *guestLoad) addRun(r wire.Run, rung string, o *options) {
	r.Env = []string{"TWSCOPE_VM=1"}
	for _, name := range []string{"CI"} {
		if v, ok := os.LookupEnv(name); ok {
			r.Env = append(r.Env, name+"="+v)
		}
	}
	r.Env = append(r.Env, o.env...)
	if rung != "" && rung != "free" {
		r.Env = append(r.Env, rungVar+"="+rung)
	}
	g.runs = append(g.runs, r)
	g.rungs = append(g.rungs, rung)
}

// addTarget ships a package's tests or a program and returns how to run it.
func (g *guestLoad) addTarget(ctx context.Context, spec, tmp string, o *options) (wire.Run, error) {
	target, args, _ := strings.Cut(spec, ":")
	rel := path.Clean(filepath.ToSlash(target))
	r := wire.Run{Name: rel, Dir: "/tmp", TimeoutSec: int(o.perRun / time.Second)}
	st, err := os.Stat(target)
	if err != nil {
		return r, err
	}
	binary := target
	isTest := st.IsDir() || strings.HasSuffix(target, ".test")
	if st.IsDir() {
		if filepath.IsAbs(target) || strings.HasPrefix(rel, "..") {
			return r, errors.New("a package directory must lie in the repository and be given relative to its top")
		}
		if binary, err = buildTest(ctx, rel, tmp); err != nil {
			return r, err
		}
		r.Dir = path.Join(srcRoot, rel)
		if err := g.addTree(filepath.Join(target, "testdata")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
	}
	if err := staticELF(binary); err != nil {
		return r, err
	}
	inGuest := path.Join("/bin", filepath.Base(binary))
	if f, ok := g.files[inGuest]; ok && f.host != binary {
		return r, fmt.Errorf("%s and %s have the same name", f.host, binary)
	}
	g.files[inGuest] = guestFile{binary, 0o755}
	r.Argv = append(r.Argv, inGuest)
	if isTest {
		// A little less than our own limit, so that the test binary can name the test that hangs.
		limit := max(o.perRun-5*time.Second, time.Second)
		r.Argv = append(r.Argv, "-test.v", "-test.count=1", "-test.timeout="+limit.String())
	}
	r.Argv = append(r.Argv, strings.Fields(args)...)
	return r, nil
}

func buildTest(ctx context.Context, rel, tmp string) (string, error) {
	binary := filepath.Join(tmp, strings.ReplaceAll(rel, "/", "-")+".test")
	if err := goTool(ctx, "test", "-c", "-o", binary, "./"+rel); err != nil {
		return "", err
	}
	// For a package without tests go writes no binary and is content.
	if _, err := os.Stat(binary); err != nil {
		return "", errors.New("the package has no tests")
	}
	return binary, nil
}

// addTree ships a file, or all files below a directory, to the same place below srcRoot.
func (g *guestLoad) addTree(root string) error {
	if filepath.IsAbs(root) || strings.HasPrefix(path.Clean(filepath.ToSlash(root)), "..") {
		return errors.New("must be given relative to the top of the repository")
	}
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		g.files[path.Join(srcRoot, filepath.ToSlash(p))] = guestFile{p, info.Mode().Perm()}
		return nil
	})
}

func contains(name, text string) (bool, error) {
	data, err := os.ReadFile(name)
	return bytes.Contains(data, []byte(text)), err
}

// staticELF refuses what the guest, which has no libraries, could not start.
func staticELF(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return fmt.Errorf("%s is no ELF program: %w", name, err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", name)
	}
	return nil
}

func goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
