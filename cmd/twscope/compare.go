// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/eventlog"
	"github.com/twscope/twscope/internal/verdict"
)

// compareOptions are the flags of compare.
type compareOptions struct {
	format, color string
	all, fail     bool
}

func newCompareCmd() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare BEFORE AFTER",
		Short: "Put two runs side by side",
		Long: "Compare two runs: rates, TIME_WAIT, failures, refusals, and the findings that are gone,\n" +
			"new and unchanged. BEFORE and AFTER are event logs, or verdicts in JSON; in gzip format\n" +
			"too, and one of them may be \"-\", standard input. It needs no root.\n\n" +
			"Failures and refusals are held against the number of connections tried: a tenth more is\n" +
			"worse. Other rates are shown only, because they follow from the load.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return runCompare(cmd, args[0], args[1], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "text", "write text, markdown or json (`FORMAT`)")
	f.StringVar(&o.color, "color", "auto", "colour: auto, always or never; auto respects NO_COLOR (`WHEN`)")
	f.BoolVar(&o.all, "all", false, "read the rotated files of the logs first")
	f.BoolVar(&o.fail, "fail-on-worse", false, "exit with code 3 if something in AFTER is worse: more failures or refusals, or a new or worse finding that is no mere info")
	return cmd
}

func runCompare(cmd *cobra.Command, before, after string, o compareOptions) error {
	color, err := useColor(o.color, cmd.OutOrStdout(), os.Getenv("NO_COLOR"))
	if err != nil {
		return usageError{err}
	}
	switch {
	case o.format != "text" && o.format != "markdown" && o.format != "json":
		return usageError{fmt.Errorf("--format %q: want text, markdown or json", event.Clean(o.format))}
	case before == eventlog.Stdio && after == eventlog.Stdio:
		return usageError{errors.New("only one of BEFORE and AFTER can be standard input")}
	}
	var sides [2]verdict.Verdict
	for i, path := range []string{before, after} {
		if sides[i], err = readVerdict(cmd.Context(), cmd.InOrStdin(), path, o.all); err != nil {
			return err
		}
	}
	c := verdict.Compare(sides[0], sides[1])
	out := cmd.OutOrStdout()
	switch o.format {
	case "json":
		_, err = out.Write(c.JSON())
	case "markdown":
		_, err = io.WriteString(out, c.Markdown())
	default:
		_, err = io.WriteString(out, c.Text(verdictStyle(out, color)))
	}
	if err == nil && o.fail && len(c.Worse) > 0 {
		return matchError{"worse: " + event.Clean(strings.Join(c.Worse, "; "))}
	}
	return err
}

// verdictStyle is that of the terminal that a verdict goes to.
func verdictStyle(out io.Writer, color bool) verdict.Style {
	var s verdict.Style
	if f, ok := out.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			s.Width = min(int(size.Col), textWidth)
		}
	}
	if color {
		s.Paint = paintVerdict
	}
	return s
}

func paintVerdict(p verdict.Part, text string) string {
	sgr := map[verdict.Part]string{
		verdict.PartTitle: sgrBold, verdict.PartCritical: sgrRed, verdict.PartWarning: sgrYellow,
		verdict.PartGood: sgrGreen, verdict.PartDim: sgrDim,
	}[p]
	return sgr + text + sgrReset
}

// maxVerdict bounds what is read of a verdict: it may have been indented.
const maxVerdict = 1 << 20

// readVerdict reads a verdict, or draws it from a log.
func readVerdict(ctx context.Context, stdin io.Reader, path string, all bool) (v verdict.Verdict, err error) {
	name, in := "standard input", stdin
	if path != eventlog.Stdio {
		f, err := os.Open(path)
		if err != nil {
			return v, fmt.Errorf("open for compare: %w", err)
		}
		defer func() { _ = f.Close() }() // only read
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return v, fmt.Errorf("%s: is a directory: name a file in it", path)
		}
		name, in = path, f
	}
	b := bufio.NewReaderSize(in, event.MaxLine)
	if head, _ := b.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return v, fmt.Errorf("%s: not a complete gzip file: %w", name, err)
		}
		b = bufio.NewReaderSize(z, event.MaxLine)
	}
	head, err := b.Peek(event.MaxLine)
	if err != nil && !errors.Is(err, io.EOF) {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	if !isLog(head) {
		return parseVerdict(name, b)
	}
	r := eventlog.NewReader(name, b)
	if all && path != eventlog.Stdio {
		if r, err = eventlog.OpenReader(path, eventlog.ReadOptions{All: true}); err != nil {
			return v, err
		}
	}
	v, err = drawVerdict(ctx, r)
	return v, errors.Join(err, r.Close())
}

// isLog tells an event log from a verdict by its first line.
func isLog(head []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimLeft(head, " \t\r\n"), []byte("\n"))
	var first struct {
		Event string `json:"event"`
	}
	return json.Unmarshal(line, &first) == nil && first.Event != ""
}

func parseVerdict(name string, in io.Reader) (verdict.Verdict, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxVerdict+1))
	switch {
	case err != nil:
		return verdict.Verdict{}, fmt.Errorf("%s: %w", name, err)
	case len(bytes.TrimSpace(raw)) == 0:
		return verdict.Verdict{}, fmt.Errorf("%s: is empty: want an event log or a verdict in JSON", name)
	case len(raw) > maxVerdict:
		return verdict.Verdict{}, fmt.Errorf("%s: neither an event log nor a verdict in JSON", name)
	}
	v, err := verdict.Parse(raw)
	if err != nil {
		return v, fmt.Errorf("%s: neither an event log nor a verdict in JSON: %s", name, event.Clean(err.Error()))
	}
	return v, nil
}

// drawVerdict draws the verdict of a log. One that ends within a line is being
// written, or its writer was killed; the verdict then has it as a doubt.
func drawVerdict(ctx context.Context, r *eventlog.Reader) (verdict.Verdict, error) {
	p := verdict.NewReplay()
	for {
		ev, err := r.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return p.Verdict(), nil
		case errors.Is(err, eventlog.ErrPartialLine):
			continue
		case err != nil:
			return verdict.Verdict{}, errors.New(event.Clean(err.Error()))
		}
		p.Feed(ev)
	}
}
