// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// write prints the comparison for people.
func (c *comparison) write(w io.Writer) {
	fmt.Fprintln(w, c.Machine.String())
	fmt.Fprintf(w, "Short connections, closed by the client first, %d a run after %d to warm up, %d destinations, %d threads on either side;\n",
		c.Connections, warmUp, defaultDestinations, threads)
	fmt.Fprintf(w, "%d rounds in random order, each run paired with the mean of the runs without an observer right before and after it.\n", c.Rounds)
	network := ""
	var t *tabwriter.Writer
	for _, r := range c.Rows {
		if r.Network != network {
			if t != nil {
				_ = t.Flush() // as with all that goes to w: keep tells
			}
			network = r.Network
			fmt.Fprintf(w, "\n%s\n", strings.ToUpper(network))
			t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(t, "condition\tconn/s\trate kept\tmin..max\tper CPU kept\tmin..max\tkernel\tuser CPU\tsystem CPU\tmemory\tlost\tevents/TIME_WAITs\tattached\t")
			fmt.Fprintln(t, "\tmedian\tmedian\t%\tmedian\t%\tus/conn\ts/M conn\ts/M conn\tMiB peak\tby its word\t\ts\t")
		}
		fmt.Fprintln(t, r.cells())
	}
	if t != nil {
		_ = t.Flush()
	}
	c.writePrograms(w)
	fmt.Fprintln(w, "\nper CPU: connections per second of CPU time of client, server and observer, which other work on the machine disturbs less")
	writeForeign(w, c.Foreign)
	fmt.Fprintln(w, "empty programs: return 0 on twscope's own hooks:", hookNames(c.Hooks))
	for _, name := range sortedKeys(c.Versions) {
		fmt.Fprintf(w, "%s: %s\n", name, c.Versions[name])
	}
	for _, name := range sortedKeys(c.Unavailable) {
		fmt.Fprintf(w, "%s is not available: %s\n", name, c.Unavailable[name])
	}
}

func (r *row) cells() string {
	if r.Why != "" {
		return r.Condition + "\tnot available" + strings.Repeat("\t", columns-1)
	}
	cells := []string{r.Condition, fmt.Sprintf("%.0f", r.Rate.Median)}
	if r.Condition == none {
		cells = append(cells, "", relative(r.Rate), "", relative(r.PerCPU))
		return strings.Join(cells, "\t") + strings.Repeat("\t", columns-len(cells)+1)
	}
	cells = append(cells, fmt.Sprintf("%.1f %%", 100*r.Kept.Median), percents(r.Kept),
		fmt.Sprintf("%.1f %%", 100*r.KeptPerCPU.Median), percents(r.KeptPerCPU), fmt.Sprintf("%.2f", r.KernelNS.Median/1e3))
	if r.Condition != empty {
		cells = append(cells, fmt.Sprintf("%.2f", r.User.Median), fmt.Sprintf("%.2f", r.System.Median),
			fmt.Sprintf("%.1f", float64(r.RSS)/(1<<20)), strconv.FormatUint(r.Lost, 10), r.written(), fmt.Sprintf("%.1f", r.Attached.Seconds()))
	}
	return strings.Join(cells, "\t") + strings.Repeat("\t", columns-len(cells)+1)
}

// columns of the table.
const columns = 13

// percents is the range of a ratio.
func percents(s spread) string { return fmt.Sprintf("%.1f..%.1f", 100*s.Min, 100*s.Max) }

// relative is the range of a figure around its median.
func relative(s spread) string {
	return percents(spread{Min: s.Min / s.Median, Max: s.Max / s.Median})
}

// written compares what was written with the kernel's count.
func (r *row) written() string { return compareCounts(r.Written, r.TimeWaits) }

func compareCounts(written, timeWaits uint64) string {
	if written == timeWaits {
		return fmt.Sprintf("all %d", timeWaits)
	}
	return fmt.Sprintf("%d of %d", written, timeWaits)
}

// writePrograms prints what each program costs, on the first network.
func (c *comparison) writePrograms(w io.Writer) {
	fmt.Fprintf(w, "\nBPF programs (%s; kernel statistics, which themselves cost some 20 ns a run)\n", c.Rows[0].Network)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "condition\tprogram\truns/conn\tns/run\tns/conn\t")
	for _, r := range c.Rows {
		if r.Network != c.Rows[0].Network {
			break
		}
		for _, p := range r.Programs {
			n := float64(r.StatsOver)
			fmt.Fprintf(t, "%s\t%s\t%.3f\t%.0f\t%.0f\t\n", r.Condition, p.Name, float64(p.Runs)/n, float64(p.NS)/float64(p.Runs), float64(p.NS)/n)
		}
	}
	_ = t.Flush()
}

func writeForeign(w io.Writer, s spread) {
	if s.N == 0 {
		return
	}
	fmt.Fprintf(w, "other work on the machine used %.0f %% of the CPUs during the runs (median; %.0f..%.0f %%)\n", 100*s.Median, 100*s.Min, 100*s.Max)
}

func hookNames(hooks []hook) string {
	var names []string
	for _, h := range hooks {
		names = append(names, h.Attach.String()+" "+h.Name)
	}
	return strings.Join(names, ", ")
}

// write prints the run for people.
func (s *sustained) write(w io.Writer) {
	fmt.Fprintln(w, s.Machine.String())
	fmt.Fprintf(w, "twscope at full rate for %s: %d connections, %.0f/s\n", s.Elapsed.Round(time.Second), s.Connections, s.rate())
	fmt.Fprintf(w, "time_wait events written: %s; lost: %d %v\n", compareCounts(s.Account.TimeWaits, s.TimeWaits), s.Account.Lost, s.Account.LostAt)
	fmt.Fprintf(w, "log: %.0f MiB in %d files, old ones packed\n", float64(s.LogBytes)/(1<<20), s.LogFiles)
	fmt.Fprintf(w, "CPU of twscope: %.2f s user, %.2f s system; peak memory %.1f MiB\n",
		s.Used.User.Seconds(), s.Used.System.Seconds(), float64(s.Used.RSS)/(1<<20))
}
