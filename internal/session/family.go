// SPDX-License-Identifier: Apache-2.0

package session

import "time"

// familyInterval is how often the processes of --pid are counted.
const familyInterval = 200 * time.Millisecond

// family knows when to count the processes of --pid.
type family struct{ next time.Time }

// ended tells whether the session is to end because they have all ended.
func (f *family) ended(s *session) bool {
	if !s.opts.WithFamily || time.Now().Before(f.next) {
		return false
	}
	f.next = time.Now().Add(familyInterval)
	n, err := s.probe.Family()
	if err != nil {
		s.log.Error().Err(err).Msg("whether the processes still run is not known")
		return false
	}
	return n == 0
}
