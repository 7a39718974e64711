// SPDX-License-Identifier: Apache-2.0

package debkernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// keyring is where Debian's package debian-archive-keyring puts the keys of all its suites.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// suites are the places that together hold every series still supported. One that a mirror lacks is skipped.
var suites = []struct {
	name     string
	security bool
}{
	{"bullseye", false},
	{"bullseye-security", true},
	{"bookworm", false},
	{"bookworm-security", true},
	{"bookworm-backports", false},
	{"trixie", false},
	{"trixie-security", true},
	{"trixie-backports", false},
	{"sid", false},
}

// pkg is what apt knows of one package in its newest version.
type pkg struct {
	version string
	depends []string // names only
}

// apt is a private apt: own sources, lists and caches; of the host only proxy settings and keys are used.
type apt struct {
	dir  string
	arch string
	opts []string
}

func newApt(ctx context.Context, dir, arch, mirror string) (*apt, error) {
	for tool, from := range map[string]string{"apt-get": "apt", "apt-cache": "apt", "dpkg": "dpkg", "dpkg-deb": "dpkg"} {
		if err := needTool(tool, from); err != nil {
			return nil, err
		}
	}
	main, security := strings.TrimSuffix(mirror, "/"), ""
	if mirror == "" {
		var err error
		if main, err = hostMirror(ctx); err != nil {
			return nil, err
		}
	}
	security = main + "-security"
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(abs, "sources.list"), sources(main, security), 0o644); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(abs, "status"), nil, 0o644); err != nil {
		return nil, err
	}
	a := &apt{dir: abs, arch: arch}
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + abs + "/sources.list", "Dir::Etc::sourceparts=-",
		"Dir::State::lists=" + abs + "/lists", "Dir::State::status=" + abs + "/status",
		"Dir::Cache=" + abs + "/cache", "Dir::Cache::pkgcache=pkgcache.bin", "Dir::Cache::srcpkgcache=",
		"APT::Architecture=" + arch, "APT::Architectures=" + arch,
		// The cache may lie where the user _apt may not write.
		"APT::Sandbox::User=root",
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false", "Acquire::Retries=3",
	} {
		a.opts = append(a.opts, "-o", o)
	}
	return a, nil
}

func sources(main, security string) []byte {
	var b bytes.Buffer
	signed := ""
	if _, err := os.Stat(keyring); err == nil {
		signed = "[signed-by=" + keyring + "] "
	}
	for _, s := range suites {
		from := main
		if s.security {
			from = security
		}
		fmt.Fprintf(&b, "deb %s%s %s main\n", signed, from, s.name)
	}
	return b.Bytes()
}

// hostMirror finds the Debian archive that the host is configured for, whatever the form of its source lists.
func hostMirror(ctx context.Context) (string, error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	for uri := range strings.Lines(string(out)) {
		if uri = strings.TrimRight(uri, "/\n"); strings.HasSuffix(uri, "/debian") {
			return uri, nil
		}
	}
	return "", errors.New("the host's apt knows no Debian archive (an address that ends in /debian): name one with -mirror")
}

// packages brings the lists up to date and returns the newest version of each cloud kernel package by name.
func (a *apt) packages(ctx context.Context) (map[string]pkg, error) {
	// An error may mean one suite that the mirror lacks; whether what is left is enough, the search shows.
	_, updateErr := run(ctx, "", "apt-get", slices.Concat(a.opts, []string{"-q", "-o", "APT::Update::Error-Mode=any", "update"})...)
	out, err := run(ctx, "", "apt-cache", slices.Concat(a.opts, []string{
		"search", "--names-only", "--full",
		`^linux-(image|binary|modules)-[0-9].*-cloud-` + a.arch + `$`,
	})...)
	if err != nil {
		return nil, errors.Join(updateErr, err)
	}
	found := parsePackages(out)
	if len(found) == 0 {
		return nil, errors.Join(errors.New("the mirror offers no cloud kernel at all"), updateErr)
	}
	return found, nil
}

// parsePackages reads stanzas of a Packages file.
func parsePackages(text []byte) map[string]pkg {
	found := map[string]pkg{}
	var name string
	var p pkg
	flush := func() {
		if name != "" {
			found[name] = p
		}
		name, p = "", pkg{}
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		switch key {
		case "Package":
			flush()
			name = value
		case "Version":
			p.version = value
		case "Depends":
			for d := range strings.SplitSeq(value, ",") {
				if f := strings.Fields(d); len(f) > 0 {
					p.depends = append(p.depends, f[0])
				}
			}
		}
	}
	flush()
	return found
}

// releasesOf lists the kernel releases of a series, newest first. Meta-packages and release candidates have no third number
// in their name and are left out.
func releasesOf(all map[string]pkg, arch, series string, less func(a, b string) bool) []string {
	form := regexp.MustCompile(`^linux-image-(` + regexp.QuoteMeta(series) + `\..*-cloud-` + regexp.QuoteMeta(arch) + `)$`)
	full := regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+`)
	var releases []string
	for name := range all {
		if m := form.FindStringSubmatch(name); m != nil && full.MatchString(m[1]) {
			releases = append(releases, m[1])
		}
	}
	slices.Sort(releases)
	slices.SortStableFunc(releases, func(x, y string) int {
		vx, vy := all["linux-image-"+x].version, all["linux-image-"+y].version
		switch {
		case less(vy, vx):
			return -1
		case less(vx, vy):
			return 1
		}
		return 0
	})
	return releases
}

// debianLess orders versions as Debian does.
func debianLess(ctx context.Context) func(a, b string) bool {
	return func(a, b string) bool {
		return exec.CommandContext(ctx, "dpkg", "--compare-versions", a, "lt", b).Run() == nil
	}
}

// closure is the image package with the parts into which newer Debian kernels are split, as name=version.
func closure(all map[string]pkg, release string) ([]string, error) {
	image := "linux-image-" + release
	list := []string{image + "=" + all[image].version}
	for _, part := range []string{"linux-binary-" + release, "linux-modules-" + release} {
		if !slices.Contains(all[image].depends, part) {
			continue
		}
		p, ok := all[part]
		if !ok {
			return nil, fmt.Errorf("the mirror lacks its package %s", part)
		}
		list = append(list, part+"="+p.version)
	}
	return list, nil
}

// unpack downloads packages and leaves dir with vmlinuz and modules/ in it, or does not create it at all.
func (a *apt) unpack(ctx context.Context, packages []string, release, dir string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if _, err := run(ctx, tmp, "apt-get", slices.Concat(a.opts, []string{"-q", "download"}, packages)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	tree := filepath.Join(tmp, "tree")
	for _, deb := range debs {
		if _, err := run(ctx, "", "dpkg-deb", "-x", deb, tree); err != nil {
			return err
		}
	}
	ready := filepath.Join(tmp, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return err
	}
	// Debian moved both over the years.
	if err := moveFirst(filepath.Join(ready, "vmlinuz"), filepath.Join(tree, "boot/vmlinuz-"+release),
		filepath.Join(tree, "usr/lib/modules", release, "vmlinuz")); err != nil {
		return err
	}
	if err := moveFirst(filepath.Join(ready, "modules"), filepath.Join(tree, "lib/modules", release),
		filepath.Join(tree, "usr/lib/modules", release)); err != nil {
		return err
	}
	return os.Rename(ready, dir)
}

func moveFirst(to string, from ...string) error {
	for _, f := range from {
		if err := os.Rename(f, to); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("the package holds none of %s", strings.Join(from, ", "))
}

// needTool names the Debian package to install when a program is missing.
func needTool(tool, from string) error {
	if _, err := exec.LookPath(tool); err != nil {
		return fmt.Errorf("%s is not installed: install the package %s", tool, from)
	}
	return nil
}

// run returns a program's standard output; its error holds what it wrote to standard error.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
