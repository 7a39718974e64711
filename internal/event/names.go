// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"strconv"
	"strings"
)

// NumKinds is the number of values of Kind, KindUnknown included, for arrays
// that are indexed by Kind.
const NumKinds = int(KindStop) + 1

var kindNames = [NumKinds]string{
	"unknown", "start", "census", "time_wait", "time_wait_end", "tw_reuse",
	"connect_fail", "syn", "syn_refused", "paws_reject", "syn_reject", "listen_drop", "finding", "destinations",
	"sources", "sysctl_change", "loss", "stats", "stop",
}

// The names of the enumerations in JSON, indexed by value. They are fixed
// within a major schema version.
var (
	roleNames      = [...]string{"unknown", "client", "server"}
	substateNames  = [...]string{"time_wait", "fin_wait2"}
	reusableNames  = [...]string{"reusable", "fin_wait2", "loopback_only", "no_timestamps", "disabled", "too_young"}
	endReasonNames = [...]string{"expired", "reused", "reset", "syn", "killed", "unknown"}
	signatureNames = [...]string{"silence", "challenge_ack"}
	whereNames     = [...]string{"unknown", "time_wait", "fin_wait2", "established", "syn_recv", "syn_sent", "passive"}
	segmentNames   = [...]string{"unknown", "syn", "ack", "data", "fin", "rst"}
	replyNames     = [...]string{"unknown", "ack", "rate_limited", "none", "rst"}
	timestampNames = [...]string{"unknown", "yes", "no", "mixed"}
	causeNames     = [...]string{
		"unknown", "time_wait_not_reusable", "ports_in_use", "range_tiny", "reserved",
		"bound_without_no_port", "explicit_bind_conflict", "no_route_or_address", "other",
	}
	verdictNames = [...]string{
		"none", "nat-port-rewrite", "nat-multi-clock", "restart", "old-duplicate",
		"client-randomised", "seq-reject", "spoof-suspect", "unknown",
	}
	ruleNames         = [...]string{"unknown", "sequence", "fin_wait2", "no_listener"}
	clockClassNames   = [...]string{"not_enough", "one_clock", "shared", "randomised", "restarted"}
	strengthNames     = [...]string{"weak", "medium", "strong"}
	findingStateNames = [...]string{"open", "update", "close"}
	severityNames     = [...]string{"info", "warning", "critical"}
)

// name returns the text of v, or type(number) when v has none: a value that a
// newer kernel side sends must stay visible.
func name(names []string, v uint8, typ string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return typ + "(" + strconv.Itoa(int(v)) + ")"
}

func marshalName(names []string, v uint8, typ string) ([]byte, error) {
	if int(v) < len(names) {
		return []byte(names[v]), nil
	}
	return nil, fmt.Errorf("%s %d has no name", typ, v)
}

func parseName(names []string, text, typ string) (uint8, error) {
	for i, n := range names {
		if n == text {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q, want one of: %s", typ, text, strings.Join(names, ", "))
}

// Kinds returns the kinds in the order in which documentation lists them,
// without KindUnknown.
func Kinds() []Kind {
	kinds := make([]Kind, 0, NumKinds-1)
	for k := KindStart; int(k) < NumKinds; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// ParseKind returns the kind of that name. The error lists the names.
func ParseKind(text string) (Kind, error) {
	i, err := parseName(kindNames[1:], text, "event")
	if err != nil {
		return KindUnknown, err
	}
	return Kind(i + 1), nil
}

// String returns the name that stands in the JSON member "event".
func (k Kind) String() string { return name(kindNames[:], uint8(k), "kind") }

// MarshalText returns the JSON name.
func (k Kind) MarshalText() ([]byte, error) { return marshalName(kindNames[:], uint8(k), "kind") }

// UnmarshalText accepts the JSON names, except "unknown".
func (k *Kind) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKind(string(text))
	return err
}
