// SPDX-License-Identifier: Apache-2.0

// Command guest is the first process of the test machine: it mounts what twscope needs, loads modules, runs the plan
// and reports over the second serial port. It needs no other program in the initramfs.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/testdata/vm/wire"
)

const (
	resultPort = "/dev/ttyS1"
	// grace is how long a run that is out of time may print its goroutines before it is killed.
	grace = 5 * time.Second
)

func main() {
	if os.Getpid() != 1 {
		if err := work(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		return
	}
	// Process 1 only reaps, so that orphans of a test do not stay as zombies and no Wait of the worker is stolen.
	if err := superviseWorker(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	unix.Sync()
	// The virtual machine is started so that a reboot ends it.
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintln(os.Stderr, "guest: reboot:", err)
}

func superviseWorker() error {
	if err := mountAll(); err != nil {
		return err
	}
	worker, err := os.StartProcess("/init", []string{"/init"}, &os.ProcAttr{
		Env:   []string{"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp"},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == worker.Pid && st.ExitStatus() != 0:
			return fmt.Errorf("the worker ended with wait status %#x", uint32(st))
		case pid == worker.Pid:
			return nil
		}
	}
}

func mountAll() error {
	for _, m := range []struct{ kind, dir, options string }{
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", ""},
		{"tmpfs", "/dev/shm", ""},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"bpf", "/sys/fs/bpf", ""},
		{"tracefs", "/sys/kernel/tracing", ""},
		{"debugfs", "/sys/kernel/debug", ""},
		{"tmpfs", "/run", "mode=0755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		// Mount points below sysfs exist already; there mkdir fails and the mount decides.
		_ = os.MkdirAll(m.dir, 0o755)
		// The kernel may have mounted devtmpfs itself.
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	return nil
}

func work() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	out := wire.NewWriter(port)
	text, err := os.ReadFile(wire.PlanPath)
	if err != nil {
		return err
	}
	var plan wire.Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		return fmt.Errorf("%s: %w", wire.PlanPath, err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	if err := out.Write(wire.Record{Kind: wire.KindHello, Text: unix.ByteSliceToString(uts.Release[:])}); err != nil {
		return err
	}
	if err := prepare(out, plan.Modules); err != nil {
		return err
	}
	for i := range plan.Runs {
		code, err := runOne(out, i, &plan.Runs[i])
		if err != nil {
			return err
		}
		if code != 0 && plan.Runs[i].Vital {
			break
		}
	}
	if err := out.Write(wire.Record{Kind: wire.KindEnd}); err != nil {
		return err
	}
	// TCSBRK with a non-zero argument is tcdrain: the machine must not go down with bytes still in the port.
	return unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1)
}

// openPort opens the serial port as a clean byte pipe: no echo, no new line translation.
func openPort() (*os.File, error) {
	port, err := os.OpenFile(resultPort, os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	tio, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: read settings: %w", resultPort, err), port.Close())
	}
	tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
	tio.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, tio); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: set raw: %w", resultPort, err), port.Close())
	}
	return port, nil
}

func prepare(out *wire.Writer, modules []string) error {
	if err := unix.Sethostname([]byte("twscope-vm")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	// The first process inherits the kernel's small limit; a service manager would give about this.
	lim := unix.Rlimit{Cur: 1 << 16, Max: 1 << 19}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("raise the file limit: %w", err)
	}
	for _, m := range modules {
		if err := insmod(m); err != nil {
			if err := out.Write(wire.Record{Kind: wire.KindWarn, Text: fmt.Sprintf("module %s: %v", filepath.Base(m), err)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func insmod(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// runOne runs a command, sends all it prints, and returns its exit code (-1 if a signal ended it or it could not start).
// The error is about the link to the runner only.
func runOne(out *wire.Writer, index int, r *wire.Run) (int, error) {
	began := time.Now()
	exit := func(code int, why string) (int, error) {
		return code, out.Write(wire.Record{Kind: wire.KindExit, Run: index, Code: code, Millis: time.Since(began).Milliseconds(), Text: why})
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		return exit(-1, err.Error())
	}
	defer rd.Close()
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Dir, cmd.Env = r.Dir, append(os.Environ(), r.Env...)
	cmd.Stdout, cmd.Stderr = wr, wr
	// A group of its own, so that a run that hangs is ended with its children, and the port is nobody's terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		wr.Close()
		return exit(-1, err.Error())
	}
	wr.Close()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	expired := endAfter(cmd.Process.Pid, time.Duration(r.TimeoutSec)*time.Second, done, rd)
	if err := forward(out, index, rd); err != nil {
		return 0, err
	}
	late := <-expired
	code, why := cmd.ProcessState.ExitCode(), ""
	if code < 0 {
		why = cmd.ProcessState.String()
	}
	if late {
		code, why = -1, fmt.Sprintf("killed after %d s", r.TimeoutSec)
	}
	return exit(code, why)
}

// endAfter waits for the process group leader, killing the group when its time is up, then closes the door on children
// that still hold the pipe. The channel tells whether time ran out.
func endAfter(pid int, limit time.Duration, done <-chan error, rd *os.File) <-chan bool {
	expired := make(chan bool, 1)
	go func() {
		late := false
		select {
		case <-done:
		case <-time.After(limit):
			late = true
			// The Go runtime answers SIGQUIT with the stacks of all goroutines.
			_ = unix.Kill(pid, unix.SIGQUIT)
			select {
			case <-done:
			case <-time.After(grace):
				_ = unix.Kill(-pid, unix.SIGKILL)
				<-done
			}
		}
		_ = unix.Kill(-pid, unix.SIGKILL)
		_ = rd.SetReadDeadline(time.Now().Add(time.Second))
		expired <- late
	}()
	return expired
}

// forward copies all output into records until every writer has closed the pipe.
func forward(out *wire.Writer, index int, rd *os.File) error {
	buf := make([]byte, wire.MaxOut)
	for {
		n, err := rd.Read(buf)
		if n > 0 {
			if err := out.Write(wire.Record{Kind: wire.KindOut, Run: index, Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading output: %w", err)
		}
	}
}
