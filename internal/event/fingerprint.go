// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strconv"
	"strings"
)

// Fingerprint is what a SYN tells about the system that sent it, whatever the
// connection.
type Fingerprint struct {
	Version   uint8  // of IP: 4 or 6
	TTL       uint8  // as the sender set it, guessed: 32, 64, 128 or 255
	MSS       int    // maximum segment size in bytes; -1: no such option
	Window    uint16 // as sent, not scaled
	WScale    int    // window scale shift; -1: no such option
	Options   []uint8
	EOLPad    uint8 // bytes behind the end-of-list option
	Malformed bool  // an option's length is impossible
}

// InitialTTL guesses what a sender set, from the TTL or IPv6 hop limit of a
// packet that came: the next of the usual values 32, 64, 128 and 255.
func InitialTTL(ttl uint8) uint8 {
	for _, initial := range []uint8{32, 64, 128} {
		if ttl <= initial {
			return initial
		}
	}
	return 255
}

// String returns the fields by colons, then the options by commas, such as
// "4:64:1460:64240:7:mss,sok,ts,nop,ws". An absent value is "*"; options are
// named as in p0f's signatures (mss, ws, sok, ts, nop), others by their kind,
// "?30" for MPTCP; "eol+N" ends a list with N bytes of padding, "bad" one that
// is malformed.
func (f Fingerprint) String() string {
	number := func(n int) string {
		if n < 0 {
			return "*"
		}
		return strconv.Itoa(n)
	}
	options := make([]string, 0, len(f.Options)+2)
	for _, kind := range f.Options {
		options = append(options, optionName(kind))
	}
	if f.EOLPad > 0 {
		options = append(options, "eol+"+strconv.Itoa(int(f.EOLPad)))
	}
	if f.Malformed {
		options = append(options, "bad")
	}
	return strings.Join([]string{
		number(int(f.Version)), number(int(f.TTL)), number(f.MSS),
		number(int(f.Window)), number(f.WScale), strings.Join(options, ","),
	}, ":")
}

// optionName names a TCP option kind (IANA's TCP option kind numbers).
func optionName(kind uint8) string {
	switch kind {
	case 1:
		return "nop"
	case 2:
		return "mss"
	case 3:
		return "ws"
	case 4:
		return "sok"
	case 8:
		return "ts"
	default:
		return "?" + strconv.Itoa(int(kind))
	}
}
