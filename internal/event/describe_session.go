// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"fmt"
)

func describeStart() description {
	texts := typed("string", "")
	return plain[Start](KindStart, "the first line of a run and of each file of it", []member{
		timeMember(func(t *Start) *Header { return &t.Header }),
		{
			name: "schema", schema: with(typed("string", "version of this format, major.minor"), "pattern", `^\d+\.\d+$`),
			// Members are only added within a major version, so there is
			// nothing to decide by it: unknown members are passed over.
			set: func(_ Event, raw []byte) error { _, err := parseString(raw); return err },
		},
		str("version", "version of twscope", func(t *Start) *string { return &t.Version }),
		str("host", "host name", func(t *Start) *string { return &t.Host }),
		str("kernel", "kernel release, as uname -r", func(t *Start) *string { return &t.Kernel }),
		str("arch", "architecture, as Go names it", func(t *Start) *string { return &t.Arch }),
		str("boot_id", "/proc/sys/kernel/random/boot_id", func(t *Start) *string { return &t.BootID }),
		integer("pid", "process id of twscope", func(t *Start) *int { return &t.PID }),
		integer("part", "0 in the first file of the run, then 1, 2, ...", func(t *Start) *int { return &t.Part }),
		value("coverage", mapOf("observation: the rung of the ladder that makes it", texts), func(t *Start) *map[string]string { return &t.Coverage }),
		value("lost", listOf("what the chosen rungs cannot see, in words", texts), func(t *Start) *[]string { return &t.Lost }),
		value("sysctls", listOf("the sysctls that decide about TIME_WAIT and PAWS, by network namespace",
			object("one network namespace", []member{
				inner(nameNetNS, countSchema[uint32]("inode of the network namespace")),
				inner("names", listOf("its names under /run/netns", texts)),
				inner("values", mapOf("full name of a sysctl: its value", texts)),
			})), func(t *Start) *[]NamespaceSysctls { return &t.Sysctls }),
		value("filters", mapOf("flag without dashes: its values; only those given", listOf("", texts)),
			func(t *Start) *map[string][]string { return &t.Filters }),
		value("census", listOf("the sockets that were in TIME_WAIT before this run, by network namespace",
			object("one network namespace", []member{
				inner(nameNetNS, countSchema[uint32]("inode of the network namespace")),
				inner("time_wait", countSchema[uint64]("sockets in TIME_WAIT")),
				inner("reusable", countSchema[uint64]("of these, those that connect() could take over now")),
				inner("refused", mapOf("the others by reason, named as in census", countSchema[uint64](""))),
			})), func(t *Start) *[]NamespaceCensus { return &t.Census }),
	}, opt(
		value("tw_recycle_lines", listOf("lines of configuration files that set tcp_tw_recycle, which kernels since 4.12 do not have; left out: there are none",
			object("one line", []member{
				inner("file", typed("string", "absolute path of the file")),
				inner("line", countSchema[uint32]("its number, from 1")),
				inner("text", typed("string", "its text")),
			})), func(t *Start) *[]ConfigLine { return &t.Recycle }),
		truncatedMember(func(t *Start) *bool { return &t.Truncated })))
}

func truncatedMember[E Event](at func(E) *bool) member {
	return boolean("truncated", "true: lists and maps were cut so that the line fits into 64 KiB", at)
}

func describeSysctlChange() description {
	return plain[SysctlChange](KindSysctlChange, "a sysctl of a network namespace has another value", []member{
		timeMember(func(c *SysctlChange) *Header { return &c.Header }),
		str("name", "full name, such as net.ipv4.tcp_tw_reuse", func(c *SysctlChange) *string { return &c.Name }),
	}, opt(
		count(nameNetNS, "inode of the network namespace", func(c *SysctlChange) *uint32 { return &c.NetNS }),
		str("old", "the value before; left out: it did not exist", func(c *SysctlChange) *string { return &c.Old }),
		str("new", "the value now; left out: it is gone", func(c *SysctlChange) *string { return &c.New }),
	))
}

func describeStats() description {
	return plain[Stats](KindStats, "the account of a run so far; all counts are totals since its start",
		totalsMembers(func(t *Stats) *Stats { return t }))
}

func describeStop() description {
	return plain[Stop](KindStop, "the last line of a run, with its final account",
		totalsMembers(func(t *Stop) *Stats { return &t.Stats }),
		[]member{str("reason", "what ended the run", func(t *Stop) *string { return &t.Reason })},
		opt(field("verdict", conclusionSchema(), func(t *Stop) *json.RawMessage { return &t.Conclusion }, parseObject)))
}

func parseObject(raw []byte) (json.RawMessage, error) {
	if raw[0] != '{' {
		return nil, fmt.Errorf("%s is not an object", raw)
	}
	return bytes.Clone(raw), nil
}

func reconciliationSchema() map[string]any {
	return object("one counter of one network namespace", append([]member{
		inner(nameNetNS, countSchema[uint32]("inode of the network namespace")),
		inner("counter", typed("string", "name in /proc/net/netstat")),
		inner("kernel", typed("integer", "growth of the counter")),
		inner("twscope", typed("integer", "how many twscope saw")),
		inner("difference", typed("integer", "kernel - twscope")),
	}, opt(inner("why", typed("string", "how the kernel's counting differs; left out: it does not")))...))
}

func totalsMembers[E Event](at func(E) *Stats) []member {
	counts := countSchema[uint64]("")
	return append([]member{
		timeMember(func(ev E) *Header { return &at(ev).Header }),
		count("uptime_ms", "ms since the start of the run", func(ev E) *uint64 { return &at(ev).UptimeMS }),
		value("seen", mapOf("kind of event: how many the kernel side counted, filters applied", counts),
			func(ev E) *map[string]uint64 { return &at(ev).Seen }),
		value("written", mapOf("kind of event: lines written", counts), func(ev E) *map[string]uint64 { return &at(ev).Written }),
		value("lost", mapOf("hop: how many were lost there", counts), func(ev E) *map[string]uint64 { return &at(ev).Lost }),
		value("reconcile", listOf("our counts beside the kernel's own",
			reconciliationSchema()),
			func(ev E) *[]Reconciliation { return &at(ev).Reconcile }),
		integer("clock_step_ms", "ms by which the wall clock was stepped since the start: wall clock now minus the log's clock",
			func(ev E) *int64 { return &at(ev).ClockStepMS }),
	}, opt(
		field("time_wait", countSchema[uint64]("sockets in TIME_WAIT now in the network namespaces that are watched, whoever's they are; left out: not known"),
			func(ev E) **uint64 { return &at(ev).TimeWait }, parseKnown),
		truncatedMember(func(ev E) *bool { return &at(ev).Truncated }))...)
}

// parseKnown parses a count that may be unknown, and then is not there.
func parseKnown(raw []byte) (*uint64, error) {
	n, err := parseCount[uint64](raw)
	return &n, err
}
