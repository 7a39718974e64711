// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestRow(t *testing.T) {
	p := &page{}
	p.row(2, []int{4, 3}, "name", "v", strings.Repeat("word ", 30))
	p.row(2, []int{4}, "too long", "text")
	p.row(0, []int{4}, "none", "")
	const want = "" +
		"  name  v    word word word word word word word word word word word word word word word word word\n" +
		"             word word word word word word word word word word word word word\n" +
		"  too long  text\n" +
		"none\n"
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func FuzzWrap(f *testing.F) {
	f.Add("the quick brown fox", 9)
	f.Add("", 0)
	f.Add("überlänge /a/path/that/stays/whole", 5)
	f.Fuzz(func(t *testing.T, s string, width int) {
		lines := wrap(s, width)
		if len(lines) == 0 {
			t.Fatal("no line")
		}
		if got, want := strings.Join(lines, " "), strings.Join(strings.Fields(s), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, line := range lines {
			if strings.Contains(line, " ") && utf8.RuneCountInString(line) > width {
				t.Errorf("%q is wider than %d", line, width)
			}
		}
	})
}
