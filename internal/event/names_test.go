// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"encoding"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

// wide is an event of another package with a member that no line can hold.
type wide struct{ event.Unknown }

func (w *wide) MarshalZerologObject(e *zerolog.Event) {
	w.Unknown.MarshalZerologObject(e)
	e.Str("much", strings.Repeat("x", event.MaxLine))
}

func TestKinds(t *testing.T) {
	const want = "start census time_wait time_wait_end tw_reuse connect_fail syn syn_refused paws_reject syn_reject listen_drop finding destinations sources sysctl_change loss stats stop"
	var names []string
	for _, k := range event.Kinds() {
		names = append(names, k.String())
		if got, err := event.ParseKind(k.String()); got != k || err != nil {
			t.Errorf("ParseKind(%q) = %v, %v", k, got, err)
		}
		if ev := eventtest.Random(rand.New(rand.NewPCG(1, 1)), k); ev.Kind() != k {
			t.Errorf("an event of kind %s says that it is a %s", k, ev.Kind())
		}
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for _, bad := range []string{"", "unknown", "TIME_WAIT", "nonsense"} {
		if _, err := event.ParseKind(bad); err == nil || !strings.Contains(err.Error(), "time_wait, ") {
			t.Errorf("ParseKind(%q): %v, want an error that lists the names", bad, err)
		}
	}
}

func TestEnumText(t *testing.T) {
	check[event.Kind](t, 1, "start")
	check[event.Role](t, 0, "unknown", "client", "server")
	check[event.Verdict](t, 1, "nat-port-rewrite", "nat-multi-clock", "restart", "old-duplicate", "client-randomised", "seq-reject", "spoof-suspect", "unknown")
	check[event.Rule](t, 0, "unknown", "sequence", "fin_wait2", "no_listener")
	check[event.ClockClass](t, 0, "not_enough", "one_clock", "shared", "randomised", "restarted")
	check[event.Strength](t, 0, "weak", "medium", "strong")
	check[event.Substate](t, 0, "time_wait", "fin_wait2")
	check[event.Reusable](t, 0, "reusable", "fin_wait2", "loopback_only", "no_timestamps", "disabled", "too_young")
	check[event.EndReason](t, 0, "expired", "reused", "reset", "syn", "killed", "unknown")
	check[event.Signature](t, 0, "silence", "challenge_ack")
	check[event.Where](t, 0, "unknown", "time_wait", "fin_wait2", "established", "syn_recv", "syn_sent", "passive")
	check[event.Segment](t, 0, "unknown", "syn", "ack", "data", "fin", "rst")
	check[event.TimestampUse](t, 0, "unknown", "yes", "no", "mixed")
	check[event.Cause](t, 1, "time_wait_not_reusable", "ports_in_use", "range_tiny", "reserved",
		"bound_without_no_port", "explicit_bind_conflict", "no_route_or_address", "other")
	check[event.FindingState](t, 0, "open", "update", "close")
	check[event.Severity](t, 0, "info", "warning", "critical")
	check[event.Reply](t, 0, "unknown", "ack", "rate_limited", "none", "rst")
}

// check holds an enumeration to its names, from value first on.
func check[T interface {
	~uint8
	encoding.TextMarshaler
	String() string
}, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, first T, names ...string) {
	t.Helper()
	for i, name := range names {
		v := first + T(i)
		if text, err := v.MarshalText(); string(text) != name || err != nil || v.String() != name {
			t.Errorf("%T(%d) is %s and %q, %v, want %s", v, v, v, text, err, name)
		}
		var back T
		if err := P(&back).UnmarshalText([]byte(name)); err != nil || back != v {
			t.Errorf("%T: %s is read as %d, %v", v, name, back, err)
		}
	}
	over := T(200)
	if _, err := over.MarshalText(); err == nil || !strings.HasSuffix(over.String(), "(200)") {
		t.Errorf("%T: 200 is %s, without error", over, over)
	}
	if err := P(&over).UnmarshalText([]byte("nonsense")); err == nil {
		t.Errorf("%T: nonsense is accepted", over)
	}
}
