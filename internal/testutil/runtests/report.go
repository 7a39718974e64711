// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/twscope/twscope/internal/testutil"
)

// record is one line of `go test -json`, see `go doc test2json`.
type record struct {
	Action      string
	Package     string
	ImportPath  string // instead of Package in the records of a build
	Test        string // empty: about the package
	Elapsed     float64
	Output      string
	FailedBuild string // the import path that did not build
}

// pkg is a package whose tests have not all ended.
type pkg struct {
	output []string            // about no test
	open   map[string][]string // the output of each test that has not ended
	failed bool                // a test of it has
}

// report sums up a stream of records. Subtests count as tests.
type report struct {
	w      *bufio.Writer
	strict bool

	builds map[string][]string // the output of builds, by import path
	pkgs   map[string]*pkg

	passed, failed, skipped int
	excuses                 []string // tests skipped for no limit of the machine
}

func newReport(w io.Writer, strict bool) *report {
	return &report{
		w:      bufio.NewWriter(w),
		strict: strict,
		builds: make(map[string][]string),
		pkgs:   make(map[string]*pkg),
	}
}

// read takes records until the end of in. A line that is none is passed on: it
// comes from go itself, and says what is wrong.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, readErr := lines.ReadString('\n')
		if line != "" {
			var rec record
			if err := json.Unmarshal([]byte(line), &rec); err != nil {
				r.print(line)
			} else {
				r.take(&rec)
			}
		}
		// Each package is reported as soon as it is done.
		if err := r.w.Flush(); err != nil {
			return err
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		} else if readErr != nil {
			return fmt.Errorf("read the output of go test: %w", readErr)
		}
	}
}

// end writes the closing lines. It returns an error if a test failed, none ran,
// or, if strict, one was skipped for no limit of the machine.
func (r *report) end() error {
	for _, path := range slices.Sorted(maps.Keys(r.pkgs)) {
		r.endPackage(path, &record{Action: "fail"}) // go test was stopped
	}
	var err error
	switch {
	case r.failed > 0:
		err = errors.New("tests failed")
	case r.passed == 0:
		err = errors.New("no test passed, so nothing is proven")
	case r.strict && len(r.excuses) > 0:
		err = fmt.Errorf("CI=true, and these were skipped for no limit of the machine: %s", strings.Join(r.excuses, ", "))
	}
	r.print(fmt.Sprintf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped))
	return errors.Join(err, r.w.Flush())
}

func (r *report) take(rec *record) {
	if rec.ImportPath != "" {
		r.builds[rec.ImportPath] = append(r.builds[rec.ImportPath], rec.Output)
		return
	}
	p := r.pkgs[rec.Package]
	if p == nil {
		p = &pkg{open: make(map[string][]string)}
		r.pkgs[rec.Package] = p
	}
	switch rec.Action {
	case "run":
		p.open[rec.Test] = nil
	case "output":
		switch {
		case rec.Test != "":
			p.open[rec.Test] = append(p.open[rec.Test], rec.Output)
		case rec.Output == "FAIL\n" || strings.HasPrefix(rec.Output, "FAIL\t"):
			// endPackage says the same in one line.
		default:
			p.output = append(p.output, rec.Output)
		}
	case "pass", "fail", "skip":
		if rec.Test == "" {
			r.endPackage(rec.Package, rec)
		} else {
			r.endTest(rec.Package, rec.Test, rec.Action)
		}
	}
}

func (r *report) endTest(path, test, action string) {
	p := r.pkgs[path]
	output := p.open[test]
	delete(p.open, test)
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		p.failed = true
		r.print(fmt.Sprintf("--- FAIL: %s %s\n", path, test))
		r.print(output...)
	case "skip":
		r.skipped++
		why := reason(output)
		r.print(fmt.Sprintf("--- SKIP: %s %s: %s\n", path, test, why))
		if !strings.Contains(why, testutil.MachineLimit) {
			r.excuses = append(r.excuses, path+" "+test)
		}
	}
}

// endPackage reports a package. The tests that it left open (a panic, os.Exit,
// a timeout) have failed; if it failed and no test did (a build error), it
// counts as one.
func (r *report) endPackage(path string, rec *record) {
	p := r.pkgs[path]
	delete(r.pkgs, path)
	switch rec.Action {
	case "pass":
		r.print(fmt.Sprintf("ok    %s %.2fs\n", path, rec.Elapsed))
	case "skip":
		r.print(fmt.Sprintf("-     %s [no test files]\n", path))
	case "fail":
		for _, test := range slices.Sorted(maps.Keys(p.open)) {
			r.failed++
			p.failed = true
			r.print(fmt.Sprintf("--- FAIL: %s %s: did not end\n", path, test))
			r.print(p.open[test]...)
		}
		if !p.failed {
			r.failed++
		}
		r.print(r.builds[rec.FailedBuild]...)
		r.print(p.output...)
		r.print(fmt.Sprintf("FAIL  %s %.2fs\n", path, rec.Elapsed))
	}
}

// print writes to the buffered writer, which keeps its first error until Flush.
func (r *report) print(lines ...string) {
	for _, line := range lines {
		_, _ = r.w.WriteString(line)
	}
}

// reason is what a skipped test said, on one line.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if said == nil {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
