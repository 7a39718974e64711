// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/testutil"
)

// terminal is a pseudo terminal and what it has shown.
type terminal struct {
	t     *testing.T
	keys  *os.File // the keyboard
	tty   string
	shown *output
}

func newTerminal(t *testing.T, columns uint16) *terminal {
	t.Helper()
	testutil.Root(t)
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(keys.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, keys: keys, tty: fmt.Sprintf("/dev/pts/%d", number), shown: &output{}}
	term.resize(columns)
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(term.shown, keys) // EIO when the last one closes it
	}()
	t.Cleanup(func() {
		_ = keys.Close()
		<-read
	})
	return term
}

func (p *terminal) resize(columns uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.keys.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		p.t.Fatal(err)
	}
}

// run runs a script in an interactive way: a shell with job control on the
// terminal.
func (p *terminal) run(script string, args ...string) *exec.Cmd {
	p.t.Helper()
	tty, err := os.OpenFile(p.tty, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer tty.Close()
	cmd := exec.Command("bash", append([]string{"--norc", "--noprofile", "-c", "set -m; " + script, "/proc/self/exe"}, args...)...)
	cmd.Env = append(os.Environ(), processEnv+"=1", "TERM=xterm", "NO_COLOR=", "TWSCOPE_SELF="+self(p.t))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // the leader of the session: the terminal hangs up
		_ = cmd.Wait()
	})
	return cmd
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *terminal) until(text string) {
	p.t.Helper()
	testutil.Eventually(p.t, deadline, func() bool { return strings.Contains(p.shown.String(), text) }, "%q on the terminal", text)
}

func (p *terminal) typed(keys string) {
	p.t.Helper()
	if _, err := p.keys.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

// TestAttachTerminalIsTheCommands: it reads the keys, Ctrl-C is its, and
// afterwards the terminal is the shell's again.
func TestAttachTerminalIsTheCommands(t *testing.T) {
	p := newTerminal(t, 80)
	p.run(`"$TWSCOPE_SELF" attach -- sh -c 'echo "begun $(ps -o tpgid= -p $$) $$"; read line; trap "echo trapped; exit 4" INT; echo "got <$line>"; while :; do sleep 0.05; done'; echo "code $?"; read more; echo "shell <$more>"`)
	p.until("begun ")
	p.typed("some keys\n")
	p.until("got <some keys>")
	p.typed(ctrlC)
	p.until("trapped")
	p.until("code 4")
	p.typed("more keys\n")
	p.until("shell <more keys>")
	_, rest, _ := strings.Cut(p.shown.String(), "begun ")
	var foreground, pid int
	if _, err := fmt.Sscan(rest, &foreground, &pid); err != nil || foreground != pid {
		t.Errorf("the foreground is group %d, the command is %d, %v", foreground, pid, err)
	}
	if strings.Contains(p.shown.String(), "\x1b[J") {
		t.Errorf("a block was drawn into the command's output: %q", p.shown.String())
	}
}

// TestAttachStops: Ctrl-Z gives the shell its terminal, and fg goes on.
func TestAttachStops(t *testing.T) {
	p := newTerminal(t, 80)
	p.run(`"$TWSCOPE_SELF" attach -- sh -c 'echo begun; read line; echo "got <$line>"; exit 6'; echo "stopped $?"; read more; echo "shell <$more>"; fg; echo "code $?"`)
	p.until("begun")
	p.typed(ctrlZ)
	p.until("stopped 148") // 128 + SIGTSTP
	p.typed("to the shell\n")
	p.until("shell <to the shell>")
	p.typed("to the command\n")
	p.until("got <to the command>")
	p.until("code 6")
}

// TestAttachBlock: the block is redrawn in place, fits the terminal also after it
// was made narrower, and is gone in the end.
func TestAttachBlock(t *testing.T) {
	s := newScene(t)
	s.serve(t)
	p := newTerminal(t, 80)
	p.run(`"$TWSCOPE_SELF" attach --netns "$1"; echo "code $?"`, s.netns)
	p.until("watching --netns")
	connect(t, s.client, s.target, scenePorts)
	p.until("0 of 1,000 ports left")
	p.resize(40)
	mark := len(p.shown.String())
	testutil.Eventually(t, deadline, func() bool { return strings.Count(p.shown.String()[mark:], "\x1b[J") >= 3 }, "three more blocks")
	p.typed(ctrlC)
	p.until("code 0")
	text := p.shown.String()
	blocks := strings.Split(text[mark:], "\x1b[J")
	for _, block := range blocks[2 : len(blocks)-1] {
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(strings.TrimRight(line, "\r\n"), "\r")
			if visible(line) > 40 {
				t.Errorf("%q has %d columns", line, visible(line))
			}
		}
	}
	// behind the last block comes the verdict
	last := blocks[len(blocks)-1]
	if !strings.Contains(last, "Evidence") || strings.Contains(last, "connections/s,") {
		t.Errorf("the end is %q", last)
	}
	for line := range strings.Lines(last) {
		if strings.Contains(line, " ") && visible(strings.TrimRight(line, "\r\n")) > 40 {
			t.Errorf("%q of the verdict is longer than 40 columns", line)
		}
	}
}
