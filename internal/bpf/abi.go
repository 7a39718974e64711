// SPDX-License-Identifier: Apache-2.0

package bpf

import "github.com/cilium/ebpf"

// The records and map values of bpf/abi.h, where each is described: addresses
// in network order with IPv4 mapped, ports in host order, times of
// CLOCK_BOOTTIME in ns.
type (
	Census      = connectTwsCensus
	Closes      = connectTwsCloses
	Config      = connectTwsConfig
	ConnectFail = connectTwsConnectFail
	Open        = connectTwsOpen
	Orders      = connectTwsOrders
	Counter     = connectTwsCounter
	End         = connectTwsEnd
	Header      = connectTwsHeader
	Kind        = connectTwsKind
	Listener    = connectTwsListener
	ListenerKey = connectTwsListenerKey
	NetnsPlace  = connectTwsNetnsPlace
	Owner       = connectTwsOwner
	PawsReject  = connectTwsPawsReject
	PrefixKey   = connectTwsPrefixKey
	Reply       = connectTwsReply
	Reuse       = connectTwsReuse
	Role        = connectTwsRole
	Segment     = connectTwsSegment
	Signature   = connectTwsSignature
	Sock        = connectTwsSock
	Substate    = connectTwsSubstate
	Syn         = connectTwsSyn
	Rule        = connectTwsRule
	SynHeader   = connectTwsSynHeader
	SynReject   = connectTwsSynReject
	SynRefused  = connectTwsSynRefused
	Turns       = connectTwsTurns
	Tally       = connectTwsTally
	Tcpopt      = connectTwsTcpopt
	TimeWait    = connectTwsTimeWait
	TimeWaitEnd = connectTwsTimeWaitEnd
	Tuple       = connectTwsTuple
	Where       = connectTwsWhere
)

// The kinds of records in the ring buffer.
const (
	KindNone        = connectTwsKindTWS_KIND_NONE
	KindTimeWait    = connectTwsKindTWS_KIND_TIME_WAIT
	KindTimeWaitEnd = connectTwsKindTWS_KIND_TIME_WAIT_END
	KindTWReuse     = connectTwsKindTWS_KIND_TW_REUSE
	KindConnectFail = connectTwsKindTWS_KIND_CONNECT_FAIL
	KindSYN         = connectTwsKindTWS_KIND_SYN
	KindSYNRefused  = connectTwsKindTWS_KIND_SYN_REFUSED
	KindPAWSReject  = connectTwsKindTWS_KIND_PAWS_REJECT
	KindSYNReject   = connectTwsKindTWS_KIND_SYN_REJECT
	KindConnected   = connectTwsKindTWS_KIND_CONNECTED
	KindMax         = connectTwsKindTWS_KIND_MAX
)

// The MIB counters that a PAWS reject moves.
const (
	CounterNone          = connectTwsCounterTWS_COUNTER_NONE
	CounterPAWSEstab     = connectTwsCounterTWS_COUNTER_PAWS_ESTAB
	CounterPAWSTimewait  = connectTwsCounterTWS_COUNTER_PAWS_TIMEWAIT
	CounterPAWSActive    = connectTwsCounterTWS_COUNTER_PAWS_ACTIVE
	CounterPAWSOldAck    = connectTwsCounterTWS_COUNTER_PAWS_OLD_ACK
	CounterTSEcrRejected = connectTwsCounterTWS_COUNTER_TSECR_REJECTED
)

// Object is one compiled capability.
type Object struct {
	Name string // the file in bpf/ without its suffix
	Load func() (*ebpf.CollectionSpec, error)
}

// Objects lists the capabilities that twscope attaches.
func Objects() []Object {
	return []Object{
		{"connect", loadConnect},
		{"timewait", loadTimewait},
		{"paws", loadPaws},
		{"syn", loadSyn},
		{"census", loadCensus},
	}
}
