// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Must ends the test at an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Must1 returns the value that a call returns, and ends the test at its error.
func Must1[T any](tb testing.TB) func(T, error) T {
	tb.Helper()
	return func(v T, err error) T {
		tb.Helper()
		Must(tb, err)
		return v
	}
}

// Golden compares got with the file testdata/name, which it writes before if
// update is true.
func Golden(tb testing.TB, update bool, name, got string) {
	tb.Helper()
	path := filepath.Join("testdata", name)
	if update {
		Must(tb, os.WriteFile(path, []byte(got), 0o644))
	}
	want := Must1[[]byte](tb)(os.ReadFile(path))
	if diff := cmp.Diff(string(want), got); diff != "" {
		tb.Errorf("%s differs, -update rewrites it (-want +got):\n%s", path, diff)
	}
}
