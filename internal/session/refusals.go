// SPDX-License-Identifier: Apache-2.0

package session

import (
	"math/rand/v2"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/refusal"
)

// refusals says why SYNs are refused, by the clocks of their sources.
type refusals struct {
	session *session
	judge   *refusal.Judge
	told    int64 // ns: when the sources were written last
	listed  int   // sources in them
	news    bool  // a SYN was refused since
}

// seed keys the hashes of addresses, which whoever sends SYNs chooses.
func seed() (s [2]uint64) {
	for i := range s {
		s[i] = rand.Uint64()
	}
	return s
}

func newRefusals(s *session) (*refusals, error) {
	judge, err := refusal.New(refusal.Options{Sources: s.opts.MaxSources, Seed: seed()})
	return &refusals{session: s, judge: judge}, err
}

// take brings in an event, and explains it if it is a refusal.
func (r *refusals) take(ev event.Event) {
	// Who opened a connection from before the start is not told: most likely this
	// host, and then its peer is no source.
	if e, ok := ev.(*event.Census); ok && e.Role == event.RoleUnknown &&
		r.session.budgets.book.Connects(e.NetNS, e.Local.Port()) {
		return
	}
	if r.judge.Feed(ev) {
		r.news = true
	}
}

// tell writes what is known of the sources.
func (r *refusals) tell() {
	s := r.session
	now := s.reader.Stamp()
	r.told, r.news = now, false
	list := r.judge.Sources(now, s.opts.Sources)
	was := r.listed
	r.listed = len(list.List)
	if r.listed == 0 && was == 0 {
		return // an empty list tells once that there is nothing any more
	}
	var err error
	if list.Skipped, err = s.probe.SYNsSkipped(); err != nil {
		s.log.Error().Err(err).Msg("how many SYNs were not looked at is not known")
	}
	s.analysis.log(list)
}

// hurry writes the sources out of turn when SYNs were refused.
func (r *refusals) hurry() {
	if r.news && r.session.reader.Stamp()-r.told >= int64(urgentEvery) {
		r.tell()
	}
}
