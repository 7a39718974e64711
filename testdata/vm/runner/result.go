// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twscope/twscope/testdata/vm/debkernel"
	"github.com/twscope/twscope/testdata/vm/wire"
)

// runResult is what one run of one target gave.
type runResult struct {
	name, rung string
	log        *os.File
	output     []byte
	exited     bool
	code       int
	why        string
	took       time.Duration
}

func (r *runResult) passed() bool { return r.exited && r.code == 0 }

// bootResult is what one kernel gave.
type bootResult struct {
	kernel  *debkernel.Kernel
	release string
	runs    []*runResult
	warned  []string
	up      time.Duration // from the start of the machine to the guest's first record
	took    time.Duration
	ended   bool
	failure string // why the boot as a whole failed
	// second is the boot for what did not pass in this one, if there was one.
	second *bootResult
}

var unsafeName = regexp.MustCompile(`[^A-Za-z0-9.]+`)

func newBootResult(k *debkernel.Kernel, load *guestLoad, logs string) *bootResult {
	b := &bootResult{kernel: k}
	for i, r := range load.runs {
		res := &runResult{name: r.Name, rung: load.rungs[i]}
		name := fmt.Sprintf("%02d-%s", i, strings.Trim(unsafeName.ReplaceAllString(r.Name+"-"+res.rung, "-"), "-"))
		// A log that cannot be written shows when it is closed.
		res.log, _ = os.Create(filepath.Join(logs, name+".log"))
		b.runs = append(b.runs, res)
	}
	return b
}

func (b *bootResult) closeLogs() error {
	var errs []error
	for _, r := range b.runs {
		errs = append(errs, r.log.Close())
	}
	return errors.Join(errs...)
}

// passed tells whether all runs passed, in this boot or the rest in the second.
func (b *bootResult) passed() bool {
	if b.second != nil {
		return b.second.passed()
	}
	return b.failure == "" && b.ended && !slices.ContainsFunc(b.runs, func(r *runResult) bool { return !r.passed() })
}

// follow takes in the guest's records until it is done or gone, and tells of each run that ends.
func (b *bootResult) follow(from io.Reader, began time.Time, out io.Writer) error {
	in := wire.NewReader(from)
	for !b.ended {
		rec, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Run < 0 || rec.Run >= len(b.runs) {
			return fmt.Errorf("the guest speaks of run %d of %d", rec.Run, len(b.runs))
		}
		if err := b.take(rec, began, out); err != nil {
			return err
		}
	}
	// The machine shuts down now; reading on keeps it from blocking on a full pipe.
	_, err := io.Copy(io.Discard, from)
	return err
}

func (b *bootResult) take(rec wire.Record, began time.Time, out io.Writer) error {
	r := b.runs[rec.Run]
	switch rec.Kind {
	case wire.KindHello:
		b.release, b.up = rec.Text, time.Since(began)
		fmt.Fprintf(out, "  up after %.1f s\n", b.up.Seconds())
	case wire.KindWarn:
		b.warned = append(b.warned, rec.Text)
		fmt.Fprintf(out, "  warning: %s\n", rec.Text)
	case wire.KindOut:
		r.output = append(r.output, rec.Data...)
		if _, err := r.log.Write(rec.Data); err != nil {
			return fmt.Errorf("write log: %w", err)
		}
	case wire.KindExit:
		r.exited, r.code, r.why, r.took = true, rec.Code, rec.Text, time.Duration(rec.Millis)*time.Millisecond
		r.report(out)
	case wire.KindEnd:
		b.ended = true
	default:
		return fmt.Errorf("unknown record %q from the guest", rec.Kind)
	}
	return nil
}

func (r *runResult) verdict() string {
	if r.passed() {
		return "ok"
	}
	return strings.TrimSpace(fmt.Sprintf("FAIL exit code %d %s", r.code, r.why))
}

func (r *runResult) report(out io.Writer) {
	fmt.Fprintf(out, "  %-28s %-11s %6.1f s  %s%s\n", r.name, r.rung, r.took.Seconds(), r.verdict(), r.tally())
	if !r.passed() && len(r.output) > 0 {
		fmt.Fprint(out, quote(r.output, math.MaxInt32))
	}
}

// reportBroken tells during which run the machine was lost.
func (b *bootResult) reportBroken(out io.Writer) {
	fmt.Fprintf(out, "  FAIL: %s\n", b.failure)
	i := slices.IndexFunc(b.runs, func(r *runResult) bool { return !r.exited })
	if b.release == "" || i < 0 {
		return
	}
	r := b.runs[i]
	fmt.Fprintf(out, "  during %s %s, which had printed:\n%s", r.name, r.rung, quote(r.output, 60))
}

// tally counts verdicts of tests, so that a run which passes because all was skipped does not go unseen.
func (r *runResult) tally() string {
	count := func(word string) int { return bytes.Count(r.output, []byte("--- "+word+": ")) }
	pass, skip, fail := count("PASS"), count("SKIP"), count("FAIL")
	if pass+skip+fail == 0 {
		return ""
	}
	return fmt.Sprintf("  (%d passed, %d skipped, %d failed)", pass, skip, fail)
}

// marked finds lines "MARK ..." in output, be they printed or logged by testing ("file.go:12: MARK ...").
func marked(output []byte, mark string, fields int) [][]string {
	var found [][]string
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		if _, logged, ok := strings.Cut(line, ": "+mark+" "); ok {
			line = mark + " " + logged
		}
		rest, ok := strings.CutPrefix(line, mark+" ")
		if !ok {
			continue
		}
		if parts := strings.SplitN(strings.TrimSpace(rest), " ", fields); len(parts) == fields {
			found = append(found, parts)
		}
	}
	return found
}

// facts joins what the runs tell of the kernel.
func (b *bootResult) facts() string {
	var facts []string
	for _, r := range b.runs {
		for _, f := range marked(r.output, "FACT", 2) {
			facts = append(facts, f[0]+"="+f[1])
		}
	}
	return strings.Join(facts, " ")
}

// writeMatrix prints how each observation was made and with what result.
func (b *bootResult) writeMatrix(w io.Writer, remark string) {
	seen := map[string]bool{}
	for _, r := range b.runs {
		for _, m := range marked(r.output, "MATRIX", 3) {
			line := fmt.Sprintf("%s\t%s\t%s\t%s\t%s%s\n", b.kernel.Release, m[0], r.rung, m[1], m[2], remark)
			if !seen[line] {
				seen[line] = true
				fmt.Fprint(w, line)
			}
		}
	}
}

// writeTables prints the facts, the matrix and the times.
func writeTables(out io.Writer, boots []*bootResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nkernel\tfacts\n")
	for _, b := range boots {
		fmt.Fprintf(w, "%s\t%s\n", b.kernel.Release, b.facts())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, "\nkernel\tobservation\tasked\trung\tresult\n")
	for _, b := range boots {
		b.writeMatrix(w, "")
		if b.second != nil {
			b.second.writeMatrix(w, " (second time)")
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, "\nkernel\tup\ttotal\truns passed\tverdict\n")
	for _, b := range boots {
		passed := 0
		for _, r := range b.runs {
			if r.passed() {
				passed++
			}
		}
		verdict := "ok"
		switch {
		case !b.passed():
			verdict = strings.TrimSpace("FAIL " + b.failure)
		case b.second != nil:
			verdict = "ok, the second time"
		}
		fmt.Fprintf(w, "%s\t%.1f s\t%.1f s\t%d of %d\t%s\n", b.kernel.Release, b.up.Seconds(), b.took.Seconds(), passed, len(b.runs), verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	writeFailures(out, boots)
	return nil
}
