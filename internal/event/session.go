// SPDX-License-Identifier: Apache-2.0

package event

import "encoding/json"

// Start is the first line of a run and of every file of it.
type Start struct {
	Header
	Version  string            // of twscope
	Host     string            // host name
	Kernel   string            // uname -r
	Arch     string            // GOARCH
	BootID   string            // /proc/sys/kernel/random/boot_id
	PID      int               // of twscope
	Part     int               // 0 for the first file of the run, then 1, 2, ... after each rotation or re-open
	Coverage map[string]string // observation: rung
	Lost     []string          // what the chosen rungs cannot see, in words
	Sysctls  []NamespaceSysctls
	Filters  map[string][]string // flag name without dashes: its values; only those given
	Census   []NamespaceCensus
	// Recycle are the lines of configuration files that set tcp_tw_recycle,
	// which kernels since 4.12 do not have. Left out of JSON if there is none.
	Recycle []ConfigLine
	// Truncated: lists and maps were cut so that the line stays below MaxLine.
	Truncated bool
}

// NamespaceSysctls are the sysctls of one network namespace that decide about
// TIME_WAIT and PAWS.
type NamespaceSysctls struct {
	NetNS  uint32            `json:"netns"`
	Names  []string          `json:"names"`  // under /run/netns, if any
	Values map[string]string `json:"values"` // full sysctl name such as "net.ipv4.tcp_tw_reuse": its value
}

// NamespaceCensus sums up the sockets that were in TIME_WAIT before us.
type NamespaceCensus struct {
	NetNS    uint32            `json:"netns"`
	TimeWait uint64            `json:"time_wait"` // sockets in TIME_WAIT
	Reusable uint64            `json:"reusable"`  // of these, those that connect() could take over now
	Refused  map[string]uint64 `json:"refused"`   // the others by reason, named as in Census
}

// ConfigLine is one line of a configuration file.
type ConfigLine struct {
	File string `json:"file"` // absolute path
	Line uint32 `json:"line"` // from 1
	Text string `json:"text"` // without surrounding blanks
}

// SysctlChange says that a sysctl of a namespace has another value.
type SysctlChange struct {
	Header
	NetNS uint32
	Name  string // such as "net.ipv4.tcp_tw_reuse"
	Old   string // empty: it did not exist
	New   string // empty: it is gone
}

// Loss says that something is missing from the log, how much, and where it
// was lost. A hole in the log is an event in the log.
type Loss struct {
	Header
	Hop   string // where: unseen, recursion, ring, sample, decode, owner, rate, write
	Of    string // the event kind that is missing, or "" when several are
	Count uint64 // since the loss event before of the same Hop and Of
	Why   string // one sentence with the remedy
}

// Reconciliation holds our count beside the kernel's own, for one network
// namespace and one counter, since the start of the run.
type Reconciliation struct {
	NetNS      uint32 `json:"netns"`
	Counter    string `json:"counter"`    // name in /proc/net/netstat, such as "TW"
	Kernel     int64  `json:"kernel"`     // how much the counter has grown
	TWScope    int64  `json:"twscope"`    // how many we saw
	Difference int64  `json:"difference"` // Kernel - TWScope
	Why        string `json:"why"`        // how the kernel's semantics differ from ours; empty: they do not
}

// Stats is the periodic account of a run. All counts are totals since its
// start.
type Stats struct {
	Header
	UptimeMS  uint64
	Seen      map[string]uint64 // event kind: how many the kernel side counted, filters applied
	Written   map[string]uint64 // event kind: lines written
	Lost      map[string]uint64 // hop: how many
	Reconcile []Reconciliation
	// TimeWait is how many sockets are in TIME_WAIT in the namespaces that are
	// watched, whoever's they are (/proc/net/sockstat); nil: not known.
	TimeWait    *uint64
	ClockStepMS int64 // wall clock now minus the log's clock; not 0 after a step of the wall clock
	// Truncated: lists and maps were cut so that the line stays below MaxLine.
	Truncated bool
}

// Stop is the last line of a run.
type Stop struct {
	Stats
	Reason string // such as "SIGINT", "SIGTERM", "duration", "error: ..."
	// Conclusion is what the run found, a JSON object of at most
	// MaxConclusion bytes, as package verdict makes and reads it; nil: nobody
	// has drawn one. JSON member "verdict".
	Conclusion json.RawMessage
}

// MaxConclusion is the length of the longest Conclusion, in bytes. The rest of
// a stop event is cut to what it leaves of MaxLine, whether there is one or
// not, so that a conclusion can be drawn from a stop event and then be added
// to it.
const MaxConclusion = 24 << 10
