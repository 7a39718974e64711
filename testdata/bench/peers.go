// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// comparison is the result of -mode peers.
type comparison struct {
	Machine     machine           `json:"machine"`
	Rounds      int               `json:"rounds"`
	Connections int               `json:"connections"`
	Hooks       []hook            `json:"hooks"`
	Versions    map[string]string `json:"versions"`
	Unavailable map[string]string `json:"unavailable"`
	Samples     []sample          `json:"samples"`
	WithStats   []sample          `json:"samples_with_bpf_statistics"`
	Rows        []row             `json:"rows"`
	Foreign     spread            `json:"foreign_cpu"` // in all timed runs
	// Rates over those of the neighboring runs of none.
	kept, keptPerCPU map[key][]float64
	conditions       []string
}

type key struct{ condition, network string }

// row is a line of the table.
type row struct {
	Condition string `json:"condition"`
	Network   string `json:"network"`
	Why       string `json:"not_available,omitempty"`

	Rate   spread `json:"connections_per_second"`
	PerCPU spread `json:"connections_per_cpu_second"` // see sample.perCPU
	// Of the mean of the runs of none before and after it; 1: all.
	Kept       spread  `json:"rate_kept"`
	KeptPerCPU spread  `json:"rate_per_cpu_kept"`
	KernelNS   spread  `json:"kernel_ns_per_connection"`
	Runs       float64 `json:"program_runs_per_connection"`
	// CPU time of the observer's process, in seconds per million connections.
	User      spread            `json:"user_seconds_per_million"`
	System    spread            `json:"system_seconds_per_million"`
	RSS       uint64            `json:"peak_rss_bytes"`
	Attached  time.Duration     `json:"start_to_attached_ns"` // median
	TimeWaits uint64            `json:"time_waits"`           // by the kernel
	Written   uint64            `json:"written"`
	Lost      uint64            `json:"lost"`
	LostAt    map[string]uint64 `json:"lost_at,omitempty"` // twscope's: hop
	Programs  []programCost     `json:"programs,omitempty"`
	StatsOver int               `json:"statistics_over_connections"`
}

func comparePeers(ctx context.Context, o *options, m machine) error {
	c := comparison{
		Machine: m, Rounds: o.rounds, Connections: o.connections,
		Versions: map[string]string{}, Unavailable: map[string]string{},
		kept: map[key][]float64{}, keptPerCPU: map[key][]float64{},
	}
	b := &bench{o: o, observers: map[string]*observer{}, calm: calm{patience: o.patience}}
	if err := c.discover(ctx, b); err != nil {
		return err
	}
	networks := strings.Split(o.nets, ",")
	r := rand.New(rand.NewPCG(o.seed, 0))
	started := time.Now()
	for round := range o.rounds {
		for _, i := range r.Perm(len(networks)) {
			if err := c.round(ctx, b, networks[i], r); err != nil {
				return err
			}
		}
		progress("round %d of %d done after %.0f s", round+1, o.rounds, time.Since(started).Seconds())
	}
	for range o.statsRounds {
		for _, network := range networks {
			for _, i := range r.Perm(len(c.conditions)) {
				s, err := b.standard(ctx, c.conditions[i], network, true)
				if err != nil {
					return fmt.Errorf("%s, %s, with statistics: %w", c.conditions[i], network, err)
				}
				c.WithStats = append(c.WithStats, s)
			}
		}
	}
	for _, network := range networks {
		c.addRows(network)
	}
	c.Foreign = foreignOf(c.Samples)
	return o.keep(&c, func(w io.Writer) { c.write(w) })
}

// discover finds out which observers run here, and where twscope hooks.
func (c *comparison) discover(ctx context.Context, b *bench) error {
	for _, ob := range observers(b.o.twscope) {
		b.observers[ob.name] = ob
		w, err := b.watch(ctx, ob.name)
		if err != nil && ob.name == twscopeName {
			return fmt.Errorf("%s: %w", ob.name, err)
		}
		if ob.version != nil {
			c.Versions[ob.name] = ob.version(ctx)
		}
		if err != nil {
			c.Unavailable[ob.name] = err.Error()
			progress("%s is not available: %v", ob.name, err)
			continue
		}
		if ob.name == twscopeName {
			fds, err := w.process.fds()
			if err != nil {
				return err
			}
			if b.hooks, err = hooks(fds.links); err != nil {
				return err
			}
			c.Hooks = b.hooks
		}
		if err := w.close(); err != nil {
			return err
		}
		if b.o.wants(ob.name) {
			c.conditions = append(c.conditions, ob.name)
		}
	}
	if b.o.wants(empty) {
		c.conditions = append([]string{empty}, c.conditions...)
	}
	return nil
}

// round runs every condition once over a network.
func (c *comparison) round(ctx context.Context, b *bench, network string, r *rand.Rand) error {
	order := interleave(r, none, c.conditions)
	rates, perCPU := make([]float64, len(order)), make([]float64, len(order))
	for i, condition := range order {
		s, err := b.standard(ctx, condition, network, false)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", condition, network, err)
		}
		c.Samples = append(c.Samples, s)
		rates[i], perCPU[i] = s.rate(), s.perCPU()
	}
	for condition, ratio := range paired(order, rates) {
		k := key{condition, network}
		c.kept[k] = append(c.kept[k], ratio)
	}
	for condition, ratio := range paired(order, perCPU) {
		k := key{condition, network}
		c.keptPerCPU[k] = append(c.keptPerCPU[k], ratio)
	}
	return nil
}

func (c *comparison) addRows(network string) {
	for _, condition := range append([]string{none}, c.conditions...) {
		c.Rows = append(c.Rows, c.rowOf(key{condition, network}))
	}
	for _, name := range sortedKeys(c.Unavailable) {
		c.Rows = append(c.Rows, row{Condition: name, Network: network, Why: c.Unavailable[name]})
	}
}

func (c *comparison) rowOf(k key) row {
	w := row{Condition: k.condition, Network: k.network, Kept: spreadOf(c.kept[k]), KeptPerCPU: spreadOf(c.keptPerCPU[k]), LostAt: map[string]uint64{}}
	var rates, perCPU, users, systems, attached []float64
	for _, s := range c.Samples {
		if s.Condition != k.condition || s.Network != k.network {
			continue
		}
		rates, perCPU = append(rates, s.rate()), append(perCPU, s.perCPU())
		// Seconds per million connections are microseconds per connection.
		users = append(users, s.Used.User.Seconds()*1e6/float64(s.Connections))
		systems = append(systems, s.Used.System.Seconds()*1e6/float64(s.Connections))
		attached = append(attached, float64(s.Attached))
		w.RSS = max(w.RSS, s.Used.RSS)
		w.TimeWaits += s.TimeWaits
		w.Written += s.Account.TimeWaits
		w.Lost += s.Account.Lost
		for hop, n := range s.Account.LostAt {
			w.LostAt[hop] += n
		}
	}
	w.Rate, w.PerCPU, w.User, w.System = spreadOf(rates), spreadOf(perCPU), spreadOf(users), spreadOf(systems)
	w.Attached = time.Duration(spreadOf(attached).Median)
	c.addStatistics(&w, k)
	return w
}

// addStatistics adds the cost of the condition's programs.
func (c *comparison) addStatistics(w *row, k key) {
	var perConnection []float64
	sums := map[string]programCost{}
	for _, s := range c.WithStats {
		if s.Condition != k.condition || s.Network != k.network {
			continue
		}
		var ns uint64
		for _, p := range s.Programs {
			ns += p.NS
			sum := sums[p.Name]
			sums[p.Name] = programCost{Name: p.Name, Runs: sum.Runs + p.Runs, NS: sum.NS + p.NS}
		}
		w.StatsOver += s.Connections
		perConnection = append(perConnection, float64(ns)/float64(s.Connections))
	}
	w.KernelNS = spreadOf(perConnection)
	var runs uint64
	for _, p := range sums {
		runs += p.Runs
		if p.Runs > 0 {
			w.Programs = append(w.Programs, p)
		}
	}
	sortCosts(w.Programs)
	if w.StatsOver > 0 {
		w.Runs = float64(runs) / float64(w.StatsOver)
	}
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
