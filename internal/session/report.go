// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

// WriteReport tells a person what is observed, and how, and what is not.
func WriteReport(w io.Writer, version string, f kernel.Facts, r Report) {
	var b strings.Builder
	fmt.Fprintf(&b, "twscope %s watches %s (Linux %s): %s, %d sockets in TIME_WAIT already\n",
		version, f.Host, f.Release, plural(r.Namespaces, "network namespace"), r.TimeWait)
	for _, c := range r.Choices {
		fmt.Fprintf(&b, "  %-19s %s\n", c.Observation, c.Rung)
	}
	first := "not seen:"
	for _, c := range r.Choices {
		if c.Lost != "" {
			fmt.Fprintf(&b, "%-9s %s (%s)\n", first, c.Lost, c.Observation)
			first = ""
		}
	}
	path := r.Path
	if path == "-" {
		path = "standard output"
	}
	fmt.Fprintf(&b, "attached in %d ms, events to %s\n", r.Took.Round(time.Millisecond).Milliseconds(), path)
	// standard error is for people: if nobody reads it, nothing is lost
	_, _ = io.WriteString(w, b.String())
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// LogReport does the same for a program.
func LogReport(log zerolog.Logger, r Report) {
	rungs := zerolog.Dict()
	for _, c := range r.Choices {
		rungs.Str(string(c.Observation), string(c.Rung))
		if c.Rung == probe.None {
			log.Warn().Str("observation", string(c.Observation)).Msg("not observed: " + c.Lost)
		}
	}
	log.Info().Dict("coverage", rungs).Int("namespaces", r.Namespaces).Dur("took", r.Took).Msg("attached")
}
