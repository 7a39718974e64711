// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/event"
)

// fingerprints keeps the text of SYN fingerprints, of which a host sees few.
type fingerprints map[synTraits]string

// synTraits is what of a SYN depends on the sender's system and not on the
// connection.
type synTraits struct {
	kinds                [3]uint64
	window, mss          uint16
	version, ttl, wscale uint8
	hasMSS, hasWscale    uint8
	eolPad, malformed    uint8
}

// fingerprintsMax bounds what a sender of odd SYNs can make us keep.
const fingerprintsMax = 4096

// of returns the fingerprint of a SYN: IP version, initial TTL, MSS, window
// and its scale, then the options in order, such as
// "4:64:1460:64240:7:mss,sok,ts,nop,ws". "*" stands for an absent value.
func (f fingerprints) of(r *bpf.SynHeader) string {
	if r.IpVersion == 0 {
		return "" // the hook does not see the packet
	}
	key := synTraits{
		kinds: r.Opt.Kinds, window: r.Window, mss: r.Opt.Mss,
		version: r.IpVersion, ttl: event.InitialTTL(r.Ttl), wscale: r.Opt.Wscale,
		hasMSS: r.Opt.HasMss, hasWscale: r.Opt.HasWscale,
		eolPad: r.Opt.EolPad, malformed: r.Opt.Malformed,
	}
	if s, ok := f[key]; ok {
		return s
	}
	if len(f) >= fingerprintsMax {
		clear(f)
	}
	s := event.Fingerprint{
		Version: key.version, TTL: key.ttl,
		MSS: optional(r.Opt.HasMss, int(r.Opt.Mss)), Window: key.window,
		WScale:  optional(r.Opt.HasWscale, int(r.Opt.Wscale)),
		Options: optionKinds(&r.Opt), EOLPad: key.eolPad, Malformed: key.malformed != 0,
	}.String()
	f[key] = s
	return s
}

func optional(has uint8, value int) int {
	if has == 0 {
		return -1
	}
	return value
}

func optionKinds(opt *bpf.Tcpopt) []uint8 {
	kinds := make([]uint8, 0, len(opt.Kinds)*8)
	for i := range min(int(opt.Count), cap(kinds)) {
		kinds = append(kinds, uint8(opt.Kinds[i/8]>>(i%8*8)))
	}
	return kinds
}
