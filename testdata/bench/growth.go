// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"
)

// growth is the result of -mode growth.
type growth struct {
	Machine     machine       `json:"machine"`
	Pairs       int           `json:"pairs"`
	Connections int           `json:"connections"`
	Tables      []growthTable `json:"tables"`
	Exhausted   *exhausted    `json:"exhausted,omitempty"`
	Foreign     spread        `json:"foreign_cpu"`
}

// growthTable is the cost of twscope as one thing grows.
type growthTable struct {
	What string      `json:"what"`
	Rows []growthRow `json:"rows"`
}

type growthRow struct {
	Level      int      `json:"level"`
	Before     []uint64 `json:"time_wait_before,omitempty"` // sockets in TIME_WAIT as each run began
	Drops      spread   `json:"drops_per_second"`
	Rate       spread   `json:"connections_per_second"` // without twscope
	Kept       spread   `json:"rate_kept"`              // with over without, of each pair
	KeptPerCPU spread   `json:"rate_per_cpu_kept"`
	Attached   spread   `json:"start_to_attached_seconds"`
	RSS        uint64   `json:"peak_rss_bytes"`
	TimeWaits  uint64   `json:"time_waits"`
	Written    uint64   `json:"written"`
	Lost       uint64   `json:"lost"`
	Samples    []sample `json:"samples"`
}

// pairs is how often a level is measured with and without twscope.
const pairs = 5

// grower measures growth.
type grower struct {
	bench
	random *rand.Rand
}

func measureGrowth(ctx context.Context, o *options, m machine) error {
	g := &grower{
		bench: bench{
			o: o, calm: calm{patience: o.patience},
			observers: map[string]*observer{twscopeName: newTwscope(o.twscope)},
		},
		random: rand.New(rand.NewPCG(o.seed, 0)),
	}
	result := growth{Machine: m, Pairs: pairs, Connections: o.connections}
	for _, t := range []struct {
		name, what string
		levels     []int
		measure    func(ctx context.Context, level int) (growthRow, error)
	}{
		{"destinations", "destinations", []int{1, 10, 100, 1000}, g.destinations},
		{"time_wait", "sockets in TIME_WAIT", []int{0, 100_000, 1_000_000}, g.timeWait},
		{"namespaces", "network namespaces", []int{1, 10, 100}, g.namespaces},
		{"drops", "unrelated packet drops a second", []int{0, 100_000}, g.drops},
	} {
		if !o.wants(t.name) {
			continue
		}
		table := growthTable{What: t.what}
		for _, level := range t.levels {
			row, err := t.measure(ctx, level)
			if err != nil {
				return fmt.Errorf("%d %s: %w", level, t.what, err)
			}
			row.Level = level
			table.Rows = append(table.Rows, row)
			progress("%d %s: %.1f %% kept", level, t.what, 100*row.Kept.Median)
		}
		result.Tables = append(result.Tables, table)
	}
	if o.wants("exhausted") {
		var err error
		if result.Exhausted, err = g.exhaust(ctx); err != nil {
			return fmt.Errorf("exhausted ports: %w", err)
		}
	}
	var all []sample
	for _, t := range result.Tables {
		for _, r := range t.Rows {
			all = append(all, r.Samples...)
		}
	}
	result.Foreign = foreignOf(all)
	return o.keep(&result, func(w io.Writer) { result.write(w) })
}

// pairsOf measures pairs in random order, each run with what take makes.
func (g *grower) pairsOf(ctx context.Context, take func(pair int, condition string) (sample, error)) (growthRow, error) {
	var row growthRow
	var rates, kept, perCPU, attached []float64
	for pair := range pairs {
		if err := g.calm.wait(ctx); err != nil {
			return row, err
		}
		var with, without sample
		for _, observed := range g.order() {
			condition, s := none, &without
			if observed {
				condition, s = twscopeName, &with
			}
			var err error
			if *s, err = take(pair, condition); err != nil {
				return row, fmt.Errorf("%s: %w", condition, err)
			}
			row.Samples = append(row.Samples, *s)
		}
		rates = append(rates, without.rate())
		kept = append(kept, with.rate()/without.rate())
		perCPU = append(perCPU, with.perCPU()/without.perCPU())
		attached = append(attached, with.Attached.Seconds())
		row.RSS = max(row.RSS, with.Used.RSS)
		row.TimeWaits += with.TimeWaits
		row.Written += with.Account.TimeWaits
		row.Lost += with.Account.Lost
	}
	row.Rate, row.Kept, row.KeptPerCPU, row.Attached = spreadOf(rates), spreadOf(kept), spreadOf(perCPU), spreadOf(attached)
	return row, nil
}

// order is with twscope and without, or the other way round.
func (g *grower) order() [2]bool {
	first := g.random.IntN(2) == 0
	return [2]bool{first, !first}
}

// inScene takes a sample in a scene of its own.
func (g *grower) inScene(ctx context.Context, condition string, destinations int) (s sample, err error) {
	sc, err := newScene(ctx, loopback, destinations)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, sc.close()) }()
	return g.sample(ctx, sc, condition, loopback, false, g.o.connections)
}

func (g *grower) destinations(ctx context.Context, level int) (growthRow, error) {
	return g.pairsOf(ctx, func(_ int, condition string) (sample, error) { return g.inScene(ctx, condition, level) })
}

// timeWait fills the tables before it measures. What is filled first expires
// after 60 s (TCP_TIMEWAIT_LEN), so that the rate of the machine bounds the
// number: Before has what was there.
func (g *grower) timeWait(ctx context.Context, level int) (row growthRow, err error) {
	const longest, again = 57 * time.Second, 10 * time.Second
	// Filling as many anew for each pair would take minutes: they are topped
	// up, as they expire.
	const stays = 1_000_000

	var sc *scene
	defer func() {
		if sc != nil {
			err = errors.Join(err, sc.close())
		}
	}()
	var before []uint64
	row, err = g.pairsOf(ctx, func(pair int, condition string) (sample, error) {
		limit := again
		if sc == nil || level < stays && len(before) == 2*pair {
			limit = longest
			if sc != nil {
				if err := sc.close(); err != nil {
					return sample{}, err
				}
			}
			if sc, err = newScene(ctx, loopback, 1000); err != nil {
				return sample{}, err
			}
		}
		if err := sc.fill(ctx, level, limit); err != nil {
			return sample{}, err
		}
		now, err := sc.inTimeWait()
		if err != nil {
			return sample{}, err
		}
		before = append(before, now)
		return g.sample(ctx, sc, condition, loopback, false, g.o.connections)
	})
	row.Before = before
	return row, err
}

func (g *grower) namespaces(ctx context.Context, level int) (growthRow, error) {
	return g.pairsOf(ctx, func(_ int, condition string) (s sample, err error) {
		c, err := newCrowd(ctx, level)
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		return g.sample(ctx, c, condition, loopback, false, g.o.connections)
	})
}

// drops has datagrams dropped at the given rate while it measures.
func (g *grower) drops(ctx context.Context, level int) (growthRow, error) {
	var rates []float64
	row, err := g.pairsOf(ctx, func(_ int, condition string) (s sample, err error) {
		sc, err := newScene(ctx, loopback, defaultDestinations)
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, sc.close()) }()
		f, err := startFlood(sc.client, level)
		if err != nil {
			return s, err
		}
		s, err = g.sample(ctx, sc, condition, loopback, false, g.o.connections)
		rate, stopErr := f.stop()
		rates = append(rates, rate)
		return s, errors.Join(err, stopErr)
	})
	row.Drops = spreadOf(rates)
	return row, err
}

// thousands writes a number with a comma before every three digits.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
