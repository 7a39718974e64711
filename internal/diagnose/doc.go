// SPDX-License-Identifier: Apache-2.0

// Package diagnose draws conclusions from the event log: findings, each with
// its evidence, a confidence, what would prove it wrong, and remedies that
// were checked against the host it is about.
//
// It is pure. An Engine is fed the events of a log in the order of the log,
// takes time from them alone, and answers each with the findings that follow
// it in the log. Findings among the events it is fed are passed over, so a
// log that was recorded with its findings replays to the same ones, byte for
// byte, wherever it ends.
//
// # The life of a finding
//
// A finding opens once, with an identity that is made of its code and a
// number: "port-exhaustion/2" is the second of its code in the run. It is
// updated when a destinations event (for tw-bucket-overflow a stats event, for
// those about SYNs a sources or a stats event) shows that its numbers have
// changed notably, and it closes when its cause
// has gone for a while. The same trouble, come back, is a new finding, and
// each time that happens its close is put off for twice as long, so that a
// load that comes and goes does not make the log flap.
//
// A stop event makes no findings, because it is the last line of a run: what
// is open then stays open, and is what the run has found. A run puts a
// destinations event before it stops, for the final numbers.
//
// A start event begins anew if it is the first of a run (part 0). That of a
// later file of the same run is passed over, unless it is the first event at
// all: a log whose first files are gone replays to the findings of the rest,
// with numbers that begin at 1.
//
// # What is documented
//
// Codes holds all that is to be known about each code; `twscope explain`
// prints it.
package diagnose
