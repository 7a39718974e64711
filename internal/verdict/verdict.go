// SPDX-License-Identifier: Apache-2.0

// Package verdict says what a session found: one sentence, the evidence behind
// it, what helps, what was not seen and what was lost.
//
// A Collector is fed the events of a log in their order, as they are written
// or as they are read again, and takes time from them alone. So a log gives the
// same verdict again, byte for byte.
package verdict

import (
	"net/netip"
	"time"

	"github.com/twscope/twscope/internal/event"
)

// Schema is the version of the JSON form, "major.minor". Within a major
// version members are only ever added.
const Schema = "1.0"

// The values of Verdict.Basis: what the answer rests on.
const (
	BasisFinding     = "finding"      // a critical finding
	BasisFailures    = "failures"     // connect() failed, and no finding tells why
	BasisWarning     = "warning"      // the findings are warnings at most
	BasisRefused     = "refused"      // targets left SYNs unanswered, or answered them with a stale ACK
	BasisRefusedHere = "refused_here" // this host refused SYNs, too few for a finding
	BasisSlow        = "slow_target"  // connections stay open for long
	BasisNotClient   = "not_client"   // connections were made, and nothing failed
	BasisNotServer   = "not_server"   // connections were accepted, and nothing was refused
	BasisOpen        = "open"         // connections are open, and none has ended
	BasisTaken       = "ports_taken"  // nobody was seen to connect, and no port was left to do so
	BasisNothing     = "nothing"      // no connection was seen
)

// SeverityNone is the severity of a verdict without findings. The others are
// those of event.Severity.
const SeverityNone = "none"

// Verdict is what a session found. Times are in UTC, rates in 1/s. All texts
// are printable.
type Verdict struct {
	Schema string `json:"schema"`
	// Answer is the one sentence, without a full stop.
	Answer string `json:"answer"`
	Basis  string `json:"basis"`
	// Severity is that of the worst finding.
	Severity string `json:"severity"`
	// Doubts are why the answer may be wrong: what was lost or not observed
	// that it depends on.
	Doubts      []string    `json:"doubts"`
	Run         Run         `json:"run"`
	Connections Connections `json:"connections"`
	TimeWait    TimeWait    `json:"time_wait"`
	// Ports is the greatest use of a budget of local ports; nil: none is known.
	Ports    *PortUse `json:"ports,omitempty"`
	Failures Failures `json:"failures"`
	Refusals Refusals `json:"refusals"`
	// Destinations are the busiest ones.
	Destinations        []Destination `json:"destinations"`
	DestinationsOmitted uint64        `json:"destinations_omitted"`
	// Codes are all codes of findings, the worst first.
	Codes []Code `json:"codes"`
	// Findings are the worst first.
	Findings        []Finding `json:"findings"`
	FindingsOmitted uint64    `json:"findings_omitted"`
	// Remedies are those of the findings, the best first; those of mere infos
	// only if something failed.
	Remedies        []Remedy               `json:"remedies"`
	RemediesOmitted uint64                 `json:"remedies_omitted"`
	NotSeen         []string               `json:"not_seen"`
	Lost            []Loss                 `json:"lost"`
	Unreconciled    []event.Reconciliation `json:"unreconciled"`
	// Truncated: lists were cut so that the JSON form keeps to its bound.
	Truncated bool `json:"truncated,omitempty"`
}

// Run is the session that the verdict is about.
type Run struct {
	Version   string              `json:"version,omitempty"` // of twscope
	Host      string              `json:"host,omitempty"`
	Kernel    string              `json:"kernel,omitempty"`
	Began     time.Time           `json:"began"`
	Ended     time.Time           `json:"ended"` // or the time of the last event
	DurationS float64             `json:"duration_s"`
	Reason    string              `json:"reason,omitempty"` // what ended it; empty: it has not ended
	Filters   map[string][]string `json:"filters"`
	// Earlier is how many runs the log holds before this one.
	Earlier uint64 `json:"earlier_runs"`
}

// Connections counts connections that have ended.
type Connections struct {
	// Made are those that this host opened: ClosedHere, ClosedThere and Reset.
	Made        uint64 `json:"made"`
	ClosedHere  uint64 `json:"closed_here"`  // this host closed first, which leaves TIME_WAIT
	ClosedThere uint64 `json:"closed_there"` // the peer closed first
	Reset       uint64 `json:"reset"`        // by RST
	// Accepted are those that clients opened and this host closed first. The
	// others that it accepted leave no TIME_WAIT here, and are not counted.
	Accepted uint64 `json:"accepted"`
	// RoleUnknown are those that this host closed first without it being known
	// who opened them.
	RoleUnknown uint64  `json:"role_unknown"`
	ActiveS     float64 `json:"active_s"`   // from the first to the last connection made
	MeanPerS    float64 `json:"mean_per_s"` // Made in ActiveS
	// PeakPerS is the greatest count of a second, or rate of all budgets.
	PeakPerS float64 `json:"peak_per_s"`
}

// TimeWait is about sockets in TIME_WAIT, those of servers included.
type TimeWait struct {
	Before  uint64 `json:"before"`  // in TIME_WAIT when the run began
	Entered uint64 `json:"entered"` // since then
	Peak    uint64 `json:"peak"`    // at the same time
	Reused  uint64 `json:"reused"`  // taken over by connect()
}

// Target names a budget of ports. What is not known is left out.
type Target struct {
	NetNS uint32     `json:"netns,omitempty"`
	Laddr netip.Addr `json:"laddr,omitzero"`
	Raddr netip.Addr `json:"raddr,omitzero"`
	Rport uint16     `json:"rport,omitempty"`
}

// PortUse is how many ports of a budget were used.
type PortUse struct {
	Target
	Used  uint32  `json:"used"`  // ports that connect() could not have
	Total uint32  `json:"total"` // ports that it chooses from
	Share float64 `json:"share"` // Used / Total, 0 to 1
	// Looks is how often this budget was looked at: what was used in between
	// is not known.
	Looks uint64 `json:"looks"`
}

// Failures counts connect() calls that failed before a SYN was sent.
type Failures struct {
	Kernel uint64 `json:"kernel"`          // calls of the kernel
	Calls  uint64 `json:"calls,omitempty"` // calls of programs; 0: not known
	// NoPort are those of Kernel that failed for want of a local port.
	NoPort  uint64         `json:"no_port"`
	ByCause []CauseFailure `json:"by_cause"` // the most frequent first
}

// CauseFailure counts the failures of one cause.
type CauseFailure struct {
	Cause  string `json:"cause"` // as in connect_fail events
	Kernel uint64 `json:"kernel"`
	Calls  uint64 `json:"calls,omitempty"` // 0: not known
}

// Refusals counts SYNs and segments that were refused.
type Refusals struct {
	// Of this host's SYNs, those that got no answer and those that got a bare
	// ACK of an older connection.
	Unanswered uint64 `json:"syns_unanswered"`
	StaleACKs  uint64 `json:"syns_stale_ack"`
	// RefusedHere are SYNs that sockets in TIME_WAIT of this host refused, by
	// PAWS or for their sequence number; ByVerdict says why, as far as it was
	// judged, by the names of verdicts in events.
	RefusedHere uint64            `json:"syns_refused_here"`
	ByVerdict   map[string]uint64 `json:"by_verdict"`
	// Segments are those, other than SYNs, that PAWS refused here: old
	// duplicates, as a rule.
	Segments    uint64 `json:"segments_refused_here"`
	ListenDrops uint64 `json:"listen_drops"` // SYNs and final ACKs that listeners dropped
}

// Destination is what happened towards one destination.
type Destination struct {
	Target
	PID          uint32  `json:"pid,omitempty"`  // who opened most connections; 0: not known
	Comm         string  `json:"comm,omitempty"` // its name
	Made         uint64  `json:"made"`           // as in Connections
	ClosedHere   uint64  `json:"closed_here"`
	ClosedThere  uint64  `json:"closed_there"`
	Reset        uint64  `json:"reset"`
	PeakPerS     float64 `json:"peak_per_s"` // as the budgets tell; 0: no load was told
	TimeWaitPeak uint32  `json:"time_wait_peak"`
	PortsUsed    uint32  `json:"ports_used"`             // at most
	PortsTotal   uint32  `json:"ports_total"`            // at that time; 0: not known
	Failed       uint64  `json:"failed"`                 // connect() calls of the kernel
	FailedCalls  uint64  `json:"failed_calls,omitempty"` // of programs; 0: not known
	Unanswered   uint64  `json:"syns_unanswered"`
	StaleACKs    uint64  `json:"syns_stale_ack"`
	// OpenS is for how long a connection stays open, on average; 0: not known.
	OpenS float64 `json:"open_s,omitempty"`
}

// Code is a code of which there are findings.
type Code struct {
	Code     string `json:"code"`
	Severity string `json:"severity"` // the worst
	Findings uint64 `json:"findings"`
}

// Finding is one finding, with its final numbers.
type Finding struct {
	ID       string `json:"id"`
	Code     string `json:"code"`
	Severity string `json:"severity"` // the worst that it had
	Closed   bool   `json:"closed"`   // its cause had gone by the end
	// Subject says what it is about, such as "10.0.0.2:8080".
	Subject string `json:"subject"`
	// Summary is one sentence, the last one while it was open and the load no
	// less than half of the greatest.
	Summary string `json:"summary"`
	// Closing is what was said when it closed; empty: it did not.
	Closing    string    `json:"closing,omitempty"`
	First      time.Time `json:"first"` // its first event
	Last       time.Time `json:"last"`  // its last event
	Confidence float64   `json:"confidence"`
	Evidence   Evidence  `json:"evidence"`
}

// Remedy is something that helps.
type Remedy struct {
	event.Remedy
	Codes []string `json:"codes"` // of the findings that it is for
}

// Loss is what is missing in the log.
type Loss struct {
	Hop   string `json:"hop"`
	Of    string `json:"of,omitempty"` // kind of event; empty: several, or not known
	Count uint64 `json:"count"`
	Why   string `json:"why,omitempty"`
}
