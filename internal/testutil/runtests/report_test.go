// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const (
		pass  = "func TestPass(t *testing.T) { t.Log(\"quiet\") }\n"
		sub   = "func TestSub(t *testing.T) { t.Run(\"a b\", func(*testing.T) {}) }\n"
		fail  = "func TestFail(t *testing.T) { t.Error(\"is 3, want 4\") }\n"
		crash = "func TestPanic(*testing.T) { var m map[int]int; m[0] = 1 }\n"
		exit  = "func TestExit(*testing.T) { os.Exit(0) }\n"
		limit = "func TestLimit(t *testing.T) { t.Skip(\"machine limit: no fentry\") }\n"
		lazy  = "func TestLazy(t *testing.T) { t.Skip(\"flaky\") }\n"
		mute  = "func TestMute(t *testing.T) { t.SkipNow() }\n"
		bad   = "func TestBad(t *testing.T) { t.Nonsense() }\n"
	)
	for _, tt := range []struct {
		name   string
		tests  string
		strict bool
		err    string // empty: none
		want   []string
		not    string
	}{
		{"pass", pass, true, "", []string{"ok    example.test ", "\n1 passed, 0 failed, 0 skipped\n"}, "quiet"},
		{"subtests count", sub, true, "", []string{"\n2 passed, 0 failed, 0 skipped\n"}, ""},
		{"fail", pass + fail, false, "tests failed", []string{
			"--- FAIL: example.test TestFail\n", "is 3, want 4", "FAIL  example.test ", "\n1 passed, 1 failed, 0 skipped\n",
		}, "quiet"},
		{"panic", crash, false, "tests failed", []string{
			"TestPanic", "assignment to entry in nil map", "\n0 passed, 1 failed, 0 skipped\n",
		}, ""},
		{"exit", pass + exit, false, "tests failed", []string{"TestExit", "\n1 passed, 1 failed, 0 skipped\n"}, ""},
		{"build error", bad, false, "tests failed", []string{
			"t.Nonsense undefined", "FAIL  example.test ", "\n0 passed, 1 failed, 0 skipped\n",
		}, ""},
		{"limit of the machine", pass + limit, true, "", []string{
			"--- SKIP: example.test TestLimit: ", "machine limit: no fentry", "\n1 passed, 0 failed, 1 skipped\n",
		}, ""},
		{"excuse", pass + lazy, false, "", []string{"TestLazy: ", "flaky", "\n1 passed, 0 failed, 1 skipped\n"}, ""},
		{"excuse in CI", pass + lazy, true, "no limit of the machine: example.test TestLazy", nil, ""},
		{"mute skip in CI", pass + mute, true, "no limit of the machine: example.test TestMute", []string{"no reason given"}, ""},
		{"nothing but skips", limit, false, "no test passed", []string{"\n0 passed, 0 failed, 1 skipped\n"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(module(t, tt.tests))
			var out, diag bytes.Buffer
			err := run(t.Context(), []string{"./..."}, tt.strict, &out, &diag)
			switch {
			case tt.err == "" && err != nil:
				t.Errorf("got error %v", err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output has no %q", want)
				}
			}
			if tt.not != "" && strings.Contains(out.String(), tt.not) {
				t.Errorf("output has %q", tt.not)
			}
			if t.Failed() {
				t.Logf("output:\n%s%s", out.String(), diag.String())
			}
		})
	}
}

// module writes a module whose only package holds tests, and returns where.
func module(t *testing.T, tests string) string {
	t.Helper()
	dir := t.TempDir()
	src := "package test\n\nimport \"testing\"\n\n" + tests
	if strings.Contains(tests, "os.") {
		src = strings.Replace(src, "import", "import \"os\"\nimport", 1)
	}
	for name, text := range map[string]string{
		"go.mod":     "module example.test\n\ngo 1.26\n",
		"it_test.go": src,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRunUsage(t *testing.T) {
	t.Chdir(module(t, "func TestPass(*testing.T) {}\n"))
	var out, diag bytes.Buffer
	if err := run(t.Context(), []string{"-nonsense", "./..."}, false, &out, &diag); err == nil {
		t.Error("no error for an unknown flag")
	}
	if all := out.String() + diag.String(); !strings.Contains(all, "-nonsense") {
		t.Errorf("the flag is not named in %q", all)
	}
}

// TestReportStopped is about a stream that ends in the middle, as it does when
// go test is killed.
func TestReportStopped(t *testing.T) {
	var out bytes.Buffer
	rep := newReport(&out, false)
	err := rep.read(strings.NewReader(`{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"half"}
{"Action":"out`))
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.end(); err == nil {
		t.Error("no error for a test that did not end")
	}
	if !strings.Contains(out.String(), "TestA: did not end\nhalf") ||
		!strings.HasSuffix(out.String(), "0 passed, 1 failed, 0 skipped\n") {
		t.Errorf("output: %s", out.String())
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte("{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"T\"}\n{\"Action\":\"fail\",\"Package\":\"p\"}\n"), true)
	f.Add([]byte("{\"Action\":\"skip\",\"Package\":\"p\",\"Test\":\"T\"}\n{\"Action\":\"pass\",\"Package\":\"p\"}\n"), true)
	f.Add([]byte("{\"ImportPath\":\"p\",\"Action\":\"build-output\",\"Output\":\"x\"}\nFAIL\n"), false)
	f.Fuzz(func(t *testing.T, stream []byte, strict bool) {
		rep := newReport(&bytes.Buffer{}, strict)
		if err := rep.read(bytes.NewReader(stream)); err != nil {
			t.Fatal(err)
		}
		if err := rep.end(); err == nil && (rep.failed > 0 || rep.passed == 0) {
			t.Errorf("%d passed, %d failed, and no error", rep.passed, rep.failed)
		}
	})
}
