// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"slices"

	"github.com/twscope/twscope/internal/event"
)

// fingerprints keeps the text of SYN fingerprints, of which a capture holds
// few.
type fingerprints map[traits]string

// traits is what of a SYN depends on the sender's system and not on the
// connection.
type traits struct {
	options Options // without the timestamps
	window  uint16
	version uint8
	ttl     uint8
}

// fingerprintsMax bounds what a capture of odd SYNs can make us keep.
const fingerprintsMax = 4096

// of returns the fingerprint of a SYN, empty if not all of it was captured.
func (f fingerprints) of(g *Segment) string {
	if g.OptionsCut {
		return ""
	}
	k := traits{options: g.Options, window: g.Window, version: 6, ttl: event.InitialTTL(g.TTL)}
	k.options.TSval, k.options.TSecr = 0, 0
	if g.Src.Addr().Is4() {
		k.version = 4
	}
	if text, ok := f[k]; ok {
		return text
	}
	if len(f) >= fingerprintsMax {
		clear(f)
	}
	text := event.Fingerprint{
		Version: k.version, TTL: k.ttl, MSS: optional(g.HasMSS, int(g.MSS)), Window: g.Window,
		WScale: optional(g.HasWScale, int(g.WScale)), Options: slices.Clone(g.Kinds()), EOLPad: g.EOLPad, Malformed: g.Malformed,
	}.String()
	f[k] = text
	return text
}

func optional(has bool, value int) int {
	if !has {
		return -1
	}
	return value
}
