// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

const stamp = `"time":"2026-11-22T12:00:00.000000001Z"`

func TestDecodeErrors(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"empty", "", "an empty line"},
		{"blank", " \t\r\n", "an empty line"},
		{"cut short", `{"time":"2026-11-22T12:0`, "not JSON"},
		{"two values", `{} {}`, "not JSON"},
		{"a list", `[1]`, "not a JSON object"},
		{"a number", `1`, "not a JSON object"},
		{"no event", `{` + stamp + `}`, `member "event" is missing`},
		{"event is no text", `{` + stamp + `,"event":7}`, `member "event": 7 is not a string`},
		{"no time", `{"event":"loss","hop":"ring","count":1}`, `loss: member "time" is missing`},
		{"no time, unknown kind", `{"event":"comet"}`, `member "time" is missing`},
		{"bad time", `{"time":"yesterday","event":"loss"}`, `loss: member "time": "yesterday" is not a time`},
		{"time out of range", `{"time":"9999-01-01T00:00:00Z","event":"loss"}`, `between 1678 and 2262`},
		{"member missing", `{` + stamp + `,"event":"loss","hop":"ring"}`, `loss: member "count" is missing`},
		{"negative", `{` + stamp + `,"event":"loss","hop":"ring","count":-1}`, `loss: member "count": -1 is not a whole number from 0`},
		{"fraction", `{` + stamp + `,"event":"loss","hop":"ring","count":1.5}`, `"count": 1.5 is not a whole number`},
		{"null", `{` + stamp + `,"event":"loss","hop":null}`, `"hop": null is not a string`},
		{"port too great", `{` + stamp + `,"event":"tw_reuse","lport":65536}`, `"lport": 65536 is not a port`},
		{"bad address", `{` + stamp + `,"event":"tw_reuse","laddr":"10.0.0"}`, `"laddr": "10.0.0" is not an IP address`},
		{"bad enum", `{` + stamp + `,"event":"time_wait","role":"judge"}`, `"role": unknown value "judge", want one of: unknown, client`},
		{"bad bool", `{` + stamp + `,"event":"time_wait","timestamps":1}`, `"timestamps": 1 is neither true nor false`},
		{"bad errno", `{` + stamp + `,"event":"connect_fail","errno":"EWHAT"}`, `"errno": "EWHAT" is no errno name`},
		{"errno without E", `{` + stamp + `,"event":"connect_fail","errno":"99"}`, `"99" is no errno name`},
		{"delta too great", `{` + stamp + `,"event":"paws_reject","delta":2147483648}`, `"delta": 2147483648 is not a whole number`},
		{"inner type", `{` + stamp + `,"event":"start","sysctls":[{"netns":"x"}]}`, `start: member "sysctls": netns: a string cannot stand here`},
		{"bad cause", `{` + stamp + `,"event":"connect_fail","cause":"magic"}`, `"cause": unknown value "magic", want one of: unknown, time_wait_not_reusable`},
		{"evidence is a list", `{` + stamp + `,"event":"finding","evidence":[]}`, `finding: member "evidence": [] is not an object`},
		{"evidence in a list", `{` + stamp + `,"event":"finding","evidence":{"a":[1]}}`, `member "evidence": a: [1] is not a number`},
		{"confidence", `{` + stamp + `,"event":"finding","confidence":"high"}`, `"confidence": "high" is not a number`},
		{"destination", `{` + stamp + `,"event":"destinations","destinations":[{"rport":-1}]}`, `destinations: member "destinations":`},
		{"subject", `{` + stamp + `,"event":"finding","subject":{"raddr":"here"}}`, `finding: member "subject":`},
		{"list for map", `{` + stamp + `,"event":"stats","seen":[]}`, `stats: member "seen":`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := event.Decode([]byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDecodeUnknown(t *testing.T) {
	line := []byte(`{"event":"comet",` + stamp + `,"tail":{"length":[1,{"x":"}]"}]}}`)
	ev, err := event.Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	want := &event.Unknown{Header: at("2026-11-22T12:00:00.000000001Z"), Name: "comet", Line: append([]byte(nil), line...)}
	for i := range line {
		line[i] = 'x' // the event must not hold on to it
	}
	if diff := cmp.Diff(want, ev); diff != "" {
		t.Error(diff)
	}
	if ev.Kind() != event.KindUnknown {
		t.Errorf("kind is %s", ev.Kind())
	}
}

func TestDecodeIgnoresOrderSpaceAndStrangers(t *testing.T) {
	line := " { \"count\" :\t7 , \"novel\" : { \"hop\" : \"x\\\"}\" , \"a\" : [ [ ] , { } ] } ,\r\"hop\":\"r\\u0069ng\",\"later\":null,\n" +
		`"event" : "loss" , ` + stamp + " } \r\n"
	got, err := event.Decode([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	want := &event.Loss{Header: at("2026-11-22T12:00:00.000000001Z"), Hop: "ring", Count: 7}
	want.Strangers = 2 // novel and later
	if diff := cmp.Diff(event.Event(want), got); diff != "" {
		t.Error(diff)
	}
}

// FuzzDecode holds Decode to: no panic, an error for what is not JSON, and
// what was decoded can be encoded and decoded again without change.
func FuzzDecode(f *testing.F) {
	enc := event.NewEncoder()
	for _, k := range event.Kinds() {
		f.Add(enc.Append(nil, eventtest.Random(rand.New(rand.NewPCG(5, uint64(k))), k)))
	}
	f.Add([]byte(`{"event":"comet",` + stamp + `}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		ev, err := event.Decode(line)
		if err != nil {
			return
		}
		if !json.Valid(line) {
			t.Fatal("decoded what is not JSON")
		}
		once := enc.Append(nil, ev)
		again, err := event.Decode(once)
		if err != nil {
			t.Fatalf("%v: %s", err, once)
		}
		if twice := enc.Append(nil, again); string(twice) != string(once) {
			t.Fatalf("got  %swant %s", twice, once)
		}
	})
}
