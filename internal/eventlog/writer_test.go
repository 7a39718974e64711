// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twscope/twscope/internal/event"
	"github.com/twscope/twscope/internal/event/eventtest"
)

func TestWriteAllKinds(t *testing.T) {
	o := testOptions(t)
	w := mustOpen(t, o, openOS)
	want := map[string]uint64{"start": 1}
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		for _, k := range event.Kinds() {
			w.Put(eventtest.Random(r, k))
			want[k.String()]++
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := eventtest.ValidateFile(t, o.Path); n != 1+50*len(event.Kinds()) {
		t.Errorf("%d lines", n)
	}
	if got := w.Counts(); !maps.Equal(got.Written, want) || len(got.Lost) != 0 {
		t.Errorf("counts are %v, want %v written", got, want)
	}
	info, err := os.Stat(o.Path)
	if err != nil || info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v, %v, want at most 0640", info.Mode(), err)
	}
	if err := w.Flush(); err == nil {
		t.Error("Flush after Close reports no error")
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestPutIsOnDiskAfterFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		w := mustOpen(t, o, openOS)
		defer w.Close()
		w.Put(numberedEvent(0))
		time.Sleep(200*time.Millisecond + 1)
		synctest.Wait()
		wantNumbers(t, readLog(t, o.Path).numbers, 1)
	})
}

func TestConcurrentPut(t *testing.T) {
	o := testOptions(t)
	o.MaxSize = 1 << 20
	w := mustOpen(t, o, openOS)
	const workers, each = 4, 5000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range each {
				w.Put(numberedEvent(i))
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c := readLog(t, o.Path)
	if len(c.numbers) != workers*each || len(c.parts) < 2 {
		t.Errorf("%d events in %d files", len(c.numbers), len(c.parts))
	}
}

func TestKinds(t *testing.T) {
	o := testOptions(t)
	o.Kinds = []event.Kind{event.KindSYN}
	w := mustOpen(t, o, openOS)
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range event.Kinds() {
		w.Put(eventtest.Random(r, k))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"start": 2, "syn": 1, "loss": 1, "stats": 1, "stop": 1}
	if got := w.Counts(); !maps.Equal(got.Written, want) || len(got.Lost) != 0 {
		t.Errorf("counts are %v, want %v written", got, want)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Rate = 10
		w := mustOpen(t, o, openOS)
		defer w.Close()
		second := int64(time.Second)
		for i := range 25 {
			if took := w.Put(&event.TimeWait{Header: event.Header{Time: 100 * second}}); took != (i < 10) {
				t.Errorf("line %d is taken: %t", i+1, took)
			}
			w.Put(&event.Stats{Header: event.Header{Time: 100 * second}})
			if !w.Put(&event.Finding{Header: event.Header{Time: 100 * second}}) {
				t.Error("a finding is withheld")
			}
		}
		w.Put(&event.SYN{Header: event.Header{Time: 100 * second}})
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		if c := readLog(t, o.Path); len(c.losses) != 1 || c.losses[0].Count != 15 ||
			c.losses[0].Hop != HopRate || c.losses[0].Of != "time_wait" || c.losses[0].Time != 1e18 {
			t.Errorf("after a second the losses are %+v, want 15 time_wait of hop rate", c.losses)
		}
		for i := range 12 {
			w.Put(&event.TimeWait{Header: event.Header{Time: 101*second + int64(i)}})
			w.Put(&event.TimeWait{Header: event.Header{Time: 100 * second}}) // late, from another CPU
		}
		w.Put(&event.Stop{})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c := readLog(t, o.Path)
		if len(c.losses) != 2 || c.losses[1].Count != 14 {
			t.Errorf("the losses are %+v, want 14 in the second one", c.losses)
		}
		got := w.Counts()
		if got.Written["time_wait"] != 20 || got.Lost[HopRate]["time_wait"] != 29 || got.LostByHop()[HopRate] != 29 {
			t.Errorf("counts are %v", got)
		}
		data, err := os.ReadFile(o.Path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"event":"stop"`) {
			t.Errorf("the last line is %s", last)
		}
	})
}

func TestPutAllocatesNothing(t *testing.T) {
	o := testOptions(t)
	o.Path = os.DevNull
	w := mustOpen(t, o, openOS)
	ev := numberedEvent(1)
	for range 100_000 {
		w.Put(ev) // until there are chunks to re-use
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10_000, func() { w.Put(ev) }); n != 0 {
		t.Errorf("%v allocations per Put", n)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, to := range []string{"file", "null"} {
		b.Run(to, func(b *testing.B) {
			o := Options{
				Path: os.DevNull, MaxSize: 32 << 20, MaxFiles: 1, MaxPending: 1 << 40,
				Start: func(part int) *event.Start { return &event.Start{Part: part} },
			}
			if to == "file" {
				o.Path = b.TempDir() + "/events.json"
			}
			w, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			ev := eventtest.Random(rand.New(rand.NewPCG(1, 9)), event.KindTimeWait)
			b.ReportAllocs()
			for b.Loop() {
				w.Put(ev)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
