// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

const holdArg = "test-hold"

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == holdArg {
		os.Exit(Hold(os.Args[3:]))
	}
	os.Exit(m.Run())
}

func start(t *testing.T, argv ...string) *Command {
	t.Helper()
	c, err := Start(argv, holdArg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestHeld: nothing of the command happens before it is let go, and then it is
// the process that was announced.
func TestHeld(t *testing.T) {
	testutil.NoLeakedFDs(t)
	out := filepath.Join(t.TempDir(), "out")
	c := start(t, "sh", "-c", `echo "$0 $$" >"$1"`, "zero", out)
	if _, err := os.Stat(out); err == nil {
		t.Error("it runs before it is let go")
	}
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	text, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(text), "zero ") {
		t.Fatalf("%q, %v", text, err)
	}
	if pid := strings.TrimSpace(strings.TrimPrefix(string(text), "zero ")); pid != strconv.Itoa(c.PID()) {
		t.Errorf("pid %s, announced was %d", pid, c.PID())
	}
	c.Signal(unix.SIGKILL) // to nobody
}

func TestAbandoned(t *testing.T) {
	testutil.NoLeakedFDs(t)
	out := filepath.Join(t.TempDir(), "out")
	c := start(t, "touch", out)
	c.Abandon()
	if _, err := os.Stat(out); err == nil {
		t.Error("it has run")
	}
	if c.Exit().Code != CannotRun {
		t.Errorf("%s", c.Exit())
	}
}

func TestKilledBeforeItRuns(t *testing.T) {
	testutil.NoLeakedFDs(t)
	c := start(t, "true")
	c.Signal(unix.SIGKILL)
	<-c.Done()
	if err, ok := errors.AsType[*StartError](c.Run()); !ok || err.Code != 128+9 {
		t.Errorf("%v", err)
	}
	if got := c.Exit(); got.Status() != 128+9 || got.String() != "killed by SIGKILL" {
		t.Errorf("%+v", got)
	}
}

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		script string
		status int
		text   string
	}{
		{"exit 0", 0, "exit code 0"},
		{"exit 255", 255, "exit code 255"},
		{"kill -TERM $$", 143, "killed by SIGTERM"},
		// it is the group that is signalled, the command that counts
		{"trap 'exit 3' USR1; kill -USR1 $$; exit 4", 3, "exit code 3"},
		{"(kill -STOP $PPID; sleep 0.05; kill -CONT $PPID) & wait; exit 6", 6, "exit code 6"},
	} {
		c := start(t, "sh", "-c", tt.script)
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if got := c.Exit(); got.Status() != tt.status || got.String() != tt.text {
			t.Errorf("%s: %d, %s", tt.script, got.Status(), got)
		}
	}
}

func TestCannotStart(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", "/usr/bin:/bin:"+dir)
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		name string
		code int
		text string
	}{
		{"no-such-command", NotFound, "PATH"},
		{dir + "/missing", NotFound, "no such file"},
		{dir, CannotRun, "directory"},
		{file("data", "text", 0o600), CannotRun, "permission denied"},
		{file("empty", "text", 0o700), CannotRun, "exec format error"},
		{file("script", "#!/missing\n", 0o700), CannotRun, "interpreter"},
	} {
		c, err := Start([]string{tt.name}, holdArg)
		if err == nil {
			err = c.Run()
			<-c.Done()
		}
		start, ok := errors.AsType[*StartError](err)
		if !ok || start.Code != tt.code || !strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), filepath.Base(tt.name)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
