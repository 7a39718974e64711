// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"github.com/twscope/twscope/internal/bpf"
	"github.com/twscope/twscope/internal/kernel"
)

// Observation is one thing that twscope can see, by the name that the start
// event and `twscope check` give it.
type Observation string

// The observations.
const (
	Owner           Observation = "owner"
	TimeWait        Observation = "time_wait"
	Overflow        Observation = "time_wait_overflow"
	TimeWaitEnd     Observation = "time_wait_end"
	TWReuse         Observation = "tw_reuse"
	ConnectFail     Observation = "connect_fail"
	SYN             Observation = "syn"
	SYNRefused      Observation = "syn_refused"
	PAWSTimeWait    Observation = "paws_time_wait"
	SYNReject       Observation = "syn_reject"
	PAWSEstablished Observation = "paws_established"
	PAWSSYNRecv     Observation = "paws_syn_recv"
	PAWSSYNSent     Observation = "paws_syn_sent"
	Census          Observation = "census"
)

// Rung is one way to make an observation.
type Rung string

// The rungs, best first.
const (
	Fentry     Rung = "fentry"
	Kprobe     Rung = "kprobe"
	Tracepoint Rung = "tracepoint"
	Iterator   Rung = "iterator"
	Timer      Rung = "timer" // computed in user space from what other rungs see
	Counter    Rung = "mib"   // the kernel's own counters: how many, not who
	None       Rung = "none"
)

// rank orders rungs for --rung: those above the forced one are left out.
func (r Rung) rank() int {
	switch r {
	case Fentry:
		return 3
	case Kprobe:
		return 2
	case Tracepoint, Iterator, Timer:
		return 1
	default:
		return 0
	}
}

// program is one BPF program of a step.
type program struct {
	name     string
	optional bool // the kernel may lack the function: IPv6 or MPTCP not built in
}

// step is one rung of one ladder.
type step struct {
	rung     Rung
	object   string // in bpf/; empty: nothing to load
	programs []program
	// has tells whether the kernel has what the step needs; nil: it always has.
	has func(facts) bool
	// lacks says in words what is missing when has says no.
	lacks string
	// set switches the step on in the settings of the BPF programs.
	set func(*bpf.Config)
	// shared steps add settings to a program that is loaded once for all of
	// them, after every ladder is decided.
	shared bool
	also   []Observation // observations that come with this step
	lost   string        // what this rung cannot see, in words
}

// ladder is one observation and the ways to make it, best first.
type ladder struct {
	observation Observation
	wanted      func(Config) bool // nil: always
	steps       []step
	lost        string // what is missing without any rung, in words
}

// facts are what the plan asks the kernel.
type facts struct {
	btf          kernel.BTF // at the start only
	reasons      kernel.DropReasons
	counting     kernel.TWCounting
	kfreeSkbArgs int
}

// hasReason reports whether kfree_skb tells this reason and the socket.
func hasReason(name string) func(facts) bool {
	return func(f facts) bool {
		_, ok := f.reasons.Value[name]
		return ok && f.kfreeSkbArgs >= 4
	}
}

func one(name string) []program { return []program{{name: name}} }

const lacksReason = "the kernel does not tell this reason, or not the socket, when it drops a packet (kfree_skb)"

// plan returns every ladder. The order is that of attaching.
func plan() []ladder {
	return []ladder{
		timeWaitLadder(), timeWaitEndLadder(), twReuseLadder(),
		connectFailLadder(), synLadder(), synRefusedLadder(),
		pawsTimeWaitLadder(), pawsEstablishedLadder(), pawsSYNRecvLadder(),
	}
}

func timeWaitLadder() ladder {
	const noOverflow = "a TIME_WAIT socket that tcp_max_tw_buckets forbade is reported as created"
	withAlloc := func(c *bpf.Config) { c.TimewaitAtAlloc = 1 }
	return ladder{
		observation: TimeWait,
		lost:        "sockets that enter TIME_WAIT",
		steps: []step{
			{
				rung: Fentry, object: "timewait", set: withAlloc, also: []Observation{Overflow},
				programs: []program{{name: "tws_fentry_time_wait"}, {name: "tws_fexit_twsk_alloc"}},
			},
			{
				rung: Fentry, object: "timewait", programs: one("tws_fentry_time_wait"),
				lost: noOverflow,
			},
			{
				rung: Kprobe, object: "timewait", set: withAlloc, also: []Observation{Overflow},
				programs: []program{
					{name: "tws_kprobe_time_wait"}, {name: "tws_kprobe_twsk_alloc"}, {name: "tws_kret_twsk_alloc"},
				},
			},
			{
				rung: Kprobe, object: "timewait", programs: one("tws_kprobe_time_wait"),
				lost: noOverflow,
			},
			{
				rung: Tracepoint, shared: true,
				set: func(c *bpf.Config) { c.TimewaitOnState = 1 },
			},
		},
	}
}

func timeWaitEndLadder() ladder {
	ends := func(c *bpf.Config) { c.TwskEnds = 1 }
	return ladder{
		observation: TimeWaitEnd,
		wanted:      func(c Config) bool { return c.wants(bpf.KindTimeWaitEnd) },
		lost:        "when and why sockets leave TIME_WAIT",
		steps: []step{
			{
				rung: Fentry, object: "timewait", set: ends, also: []Observation{TWReuse},
				programs: []program{
					{name: "tws_fentry_segment"}, {name: "tws_fentry_deschedule"}, {name: "tws_fentry_kill"},
				},
			},
			{
				rung: Kprobe, object: "timewait", set: ends, also: []Observation{TWReuse},
				programs: []program{
					{name: "tws_kprobe_segment"}, {name: "tws_kprobe_deschedule"}, {name: "tws_kprobe_kill"},
				},
			},
			{
				rung: Timer,
				lost: "why a socket left TIME_WAIT before its time, unless a connect() of this host took it over; " +
					"such a socket is reported when its timer would have ended",
			},
		},
	}
}

func twReuseLadder() ladder {
	return ladder{
		observation: TWReuse,
		lost:        "TIME_WAIT sockets that connect() took over",
		steps: []step{
			{rung: Fentry, object: "timewait", programs: one("tws_fentry_deschedule")},
			{rung: Kprobe, object: "timewait", programs: one("tws_kprobe_deschedule")},
			{
				rung: Tracepoint, shared: true,
				set:  func(c *bpf.Config) { c.ReuseOnState = 1 },
				lost: "the re-use of a TIME_WAIT socket whose own time_wait record was lost",
			},
		},
	}
}

func connectFailLadder() ladder {
	return ladder{
		observation: ConnectFail,
		lost:        "connect() calls that fail for want of a port",
		steps: []step{
			{
				rung: Fentry, object: "connect",
				programs: []program{{name: "tws_fexit_hash_connect"}, {name: "tws_fexit_hash_connect6", optional: true}},
			},
			{
				rung: Kprobe, object: "connect",
				programs: []program{{name: "tws_kret_hash_connect"}, {name: "tws_kret_hash_connect6", optional: true}},
			},
			{
				rung: Tracepoint, shared: true,
				set:  func(c *bpf.Config) { c.ConnectFailOnState = 1 },
				lost: "the errno of a failed connect(): EADDRNOTAVAIL is inferred when no port was found and nothing was sent",
			},
		},
	}
}

func synLadder() ladder {
	hooks := func(prefix string) []program {
		return []program{
			{name: prefix + "conn4"},
			{name: prefix + "conn6", optional: true},
			{name: prefix + "subflow4", optional: true},
			{name: prefix + "subflow6", optional: true},
		}
	}
	return ladder{
		observation: SYN,
		wanted:      func(c Config) bool { return c.wants(bpf.KindSYN) },
		lost:        "SYNs that arrive at listeners",
		steps: []step{
			{rung: Fentry, object: "syn", programs: hooks("tws_fentry_")},
			{rung: Kprobe, object: "syn", programs: hooks("tws_kprobe_")},
			{
				rung: Tracepoint, shared: true,
				set:  func(c *bpf.Config) { c.SynOnState = 1 },
				lost: "SYNs whose handshake was not completed, and the TTL and option order of all SYNs",
			},
		},
	}
}

func synRefusedLadder() ladder {
	return ladder{
		observation: SYNRefused,
		lost:        "SYNs of this host that a peer refuses",
		steps: []step{{
			rung: Tracepoint, object: "syn", also: []Observation{PAWSSYNSent},
			programs: []program{{name: "tws_send_reset"}, {name: "tws_retransmit"}},
		}},
	}
}

func pawsTimeWaitLadder() ladder {
	return ladder{
		observation: PAWSTimeWait,
		lost:        "segments refused by PAWS on a TIME_WAIT socket",
		steps: []step{
			{
				rung: Tracepoint, shared: true, has: hasReason("TCP_RFC7323_TW_PAWS"), lacks: lacksReason,
				set:  func(c *bpf.Config) { c.DropsTimewait = 1 },
				also: []Observation{SYNReject},
				lost: "PAWS rejects of anything but a SYN on a TIME_WAIT socket whose peer has not closed yet (substate fin_wait2): no kernel counts them either",
			},
			{rung: Fentry, object: "paws", programs: one("tws_fentry_tw_process"), also: []Observation{SYNReject}},
			{rung: Kprobe, object: "paws", programs: one("tws_kprobe_tw_process"), also: []Observation{SYNReject}},
			{rung: Counter, lost: pawsCounterLost},
		},
	}
}

const synRejectLost = "SYNs that a TIME_WAIT socket refuses although PAWS lets them pass: no counter tells of them either"

const pawsCounterLost = "which segments PAWS refused, and whose: only the kernel's counters tell how many"

func pawsEstablishedLadder() ladder {
	return ladder{
		observation: PAWSEstablished,
		lost:        "segments refused by PAWS on an open connection",
		steps: []step{
			{
				rung: Tracepoint, shared: true, has: hasReason("TCP_RFC7323_PAWS"), lacks: lacksReason,
				set: func(c *bpf.Config) { c.DropsEstablished = 1 },
			},
			{rung: Fentry, object: "paws", programs: one("tws_fentry_validate")},
			{rung: Kprobe, object: "paws", programs: one("tws_kprobe_validate")},
			{rung: Counter, lost: pawsCounterLost},
		},
	}
}

func pawsSYNRecvLadder() ladder {
	return ladder{
		observation: PAWSSYNRecv,
		lost:        "segments refused by PAWS during a handshake",
		steps: []step{
			{
				// the commit that gave tcp_check_req() its reasons brought TSECR
				rung: Tracepoint, shared: true, has: hasReason("TCP_RFC7323_TSECR"), lacks: lacksReason,
				set:  func(c *bpf.Config) { c.DropsSynRecv = 1 },
				lost: "the ts_recent that a segment refused during a handshake was compared with, and the reply",
			},
			{rung: Fentry, object: "paws", programs: one("tws_fentry_check_req")},
			{rung: Kprobe, object: "paws", programs: one("tws_kprobe_check_req")},
			{rung: Counter, lost: pawsCounterLost},
		},
	}
}
