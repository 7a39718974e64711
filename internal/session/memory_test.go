// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"runtime"
	"testing"

	"github.com/twscope/twscope/internal/testutil"
)

// TestIdleMemory: types and instructions, which only loading needs, are given
// back, or they would be most of what an idle daemon holds.
func TestIdleMemory(t *testing.T) {
	testutil.Root(t)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	w := watch(t, nil)
	const most = 4 << 20
	if grown := int64(heap()) - int64(before); grown > most {
		t.Errorf("the session holds %d bytes, want %d at most", grown, most)
	} else {
		t.Logf("%d bytes", grown)
	}
	w.stop()
}
