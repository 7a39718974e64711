// SPDX-License-Identifier: Apache-2.0

package ports

import (
	"math/rand/v2"
	"runtime"
	"testing"
)

// TestTable compares the table with a map.
func TestTable(t *testing.T) {
	type key struct {
		dest uint32
		port uint16
		tag  uint32
	}
	r := rand.New(rand.NewPCG(1, 2))
	tab := newTable()
	want := map[key]uint32{}
	var keys []key
	for step := range 200_000 {
		// grows to tens of thousands, and shrinks to nothing
		if growing := step/50_000%2 == 0; len(keys) == 0 || growing && r.IntN(5) > 0 || !growing && r.IntN(5) == 0 {
			k := key{r.Uint32N(100) + 1, uint16(r.Uint32()), 0}
			if r.IntN(4) == 0 {
				k.tag = r.Uint32N(1000) + 1
			}
			if i := tab.find(k.dest, k.port, k.tag); i != want[k] {
				t.Fatalf("step %d: found %d, want %d", step, i, want[k])
			}
			if want[k] == 0 {
				want[k] = tab.insert(k.dest, k.port, k.tag)
				keys = append(keys, k)
			}
			continue
		}
		n := r.IntN(len(keys))
		k := keys[n]
		keys[n] = keys[len(keys)-1]
		keys = keys[:len(keys)-1]
		if i := tab.find(k.dest, k.port, k.tag); i != want[k] {
			t.Fatalf("step %d: found %d, want %d", step, i, want[k])
		}
		tab.remove(want[k])
		delete(want, k)
		if tab.used != len(want) {
			t.Fatalf("step %d: %d used, want %d", step, tab.used, len(want))
		}
	}
	for _, k := range keys {
		if i := tab.find(k.dest, k.port, k.tag); i != want[k] {
			t.Fatalf("at the end: found %d, want %d", i, want[k])
		}
		tab.remove(want[k])
	}
	if len(tab.chunks) != 1 || tab.used != 0 {
		t.Errorf("an empty table holds %d chunks and %d sockets", len(tab.chunks), tab.used)
	}
}

func TestTableFull(t *testing.T) {
	tab := newTable()
	tab.top = maxSockets // as if so many were there
	if i := tab.insert(1, 1, 0); i != 0 {
		t.Errorf("a full table takes one more, as %d", i)
	}
}

// TestMemory measures what a million sockets in TIME_WAIT take, with all that
// the book needs for them.
func TestMemory(t *testing.T) {
	const sockets, limit = 1_000_000, 32
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := New(Options{HZ: 250})
	b.Namespace(1, start, Facts{RangeLow: 1024, RangeHigh: 65535, TWReuse: 1, ReuseDelayMS: 1000})
	e := timeWait(start, client, 0, server)
	for i := range sockets {
		e.Remote = port(server, uint16(1+i/50_000))
		e.Local = port(client, uint16(2000+i%50_000))
		b.Enter(e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := b.TimeWait(1, start); n != sockets {
		t.Fatalf("the book holds %d", n)
	}
	each := float64(after.HeapAlloc-before.HeapAlloc) / sockets
	t.Logf("%.2f bytes for a socket in TIME_WAIT", each)
	if each > limit {
		t.Errorf("%.2f bytes for a socket in TIME_WAIT, more than %d", each, limit)
	}
	runtime.KeepAlive(b)
}
