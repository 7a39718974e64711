// SPDX-License-Identifier: Apache-2.0

package session

import "time"

// familyInterval is how often the processes of --pid are counted.
const familyInterval = 200 * time.Millisecond

// family counts the processes of --pid.
type family struct {
	next  time.Time
	told  bool
	count int
}

// look tells how many they are, if it is time to and another number.
func (f *family) look(s *session) {
	if s.opts.Family == nil || time.Now().Before(f.next) {
		return
	}
	f.next = time.Now().Add(familyInterval)
	n, err := s.probe.Family()
	if err != nil {
		s.log.Error().Err(err).Msg("whether the processes still run is not known")
		return
	}
	if f.told && n == f.count {
		return
	}
	f.told, f.count = true, n
	s.opts.Family(n)
}
