// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// write prints the tables for people.
func (g *growth) write(w io.Writer) {
	fmt.Fprintln(w, g.Machine.String())
	fmt.Fprintf(w, "Each line: %d pairs of runs with and without twscope, in random order, over loopback, %d connections a run after %d to warm up\n",
		g.Pairs, g.Connections, warmUp)
	for _, table := range g.Tables {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "%s\tconn/s without\trate kept\tmin..max\tper CPU kept\tmin..max\tattached\tmemory\tlost\tevents/TIME_WAITs\t\t\n", table.What)
		fmt.Fprintln(t, "\tmedian\tmedian\t%\tmedian\t%\ts\tMiB peak\t\t\t\t")
		for i := range table.Rows {
			r := &table.Rows[i]
			fmt.Fprintf(t, "%s\t%.0f\t%.1f %%\t%s\t%.1f %%\t%s\t%.1f\t%.1f\t%d\t%s\t%s\t\n",
				thousands(r.Level), r.Rate.Median, 100*r.Kept.Median, percents(r.Kept), 100*r.KeptPerCPU.Median, percents(r.KeptPerCPU),
				r.Attached.Median, float64(r.RSS)/(1<<20), r.Lost, compareCounts(r.Written, r.TimeWaits), r.note())
		}
		_ = t.Flush() // as with all that goes to w: keep tells
	}
	if g.Exhausted != nil {
		g.Exhausted.write(w)
	}
	fmt.Fprintln(w)
	writeForeign(w, g.Foreign)
}

// note is what was there besides the load.
func (r *growthRow) note() string {
	switch {
	case len(r.Before) > 0:
		return fmt.Sprintf("%s..%s in TIME_WAIT", thousands(int(slices.Min(r.Before))), thousands(int(slices.Max(r.Before))))
	case r.Drops.Max > 0:
		return thousands(int(r.Drops.Median)) + " drops/s"
	}
	return ""
}

func (e *exhausted) write(w io.Writer) {
	fmt.Fprintf(w, "\nconnect() with all %s ports in TIME_WAIT, %d calls a run, each fails with EADDRNOTAVAIL\n", thousands(e.Ports), e.Connects)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\twithout, us\twith, us\tratio\tmin..max %\t")
	for _, l := range []struct {
		name          string
		without, with spread
		ratio         spread
	}{
		{"p50", e.Without.P50, e.With.P50, e.P50Ratio},
		{"p99", e.Without.P99, e.With.P99, e.P99Ratio},
	} {
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.1f %%\t%s\t\n", l.name, 1e6*l.without.Median, 1e6*l.with.Median, 100*l.ratio.Median, percents(l.ratio))
	}
	_ = t.Flush()
	fmt.Fprintf(w, "connect_fail events: %s\n", compareCounts(e.Written, e.Failed))
}
