// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// observer is a program that watches TCP and writes what it sees to a file.
type observer struct {
	name    string
	command func(log string) []string // log: where the events are to go
	stdout  bool                      // the events go to standard output
	tracefs bool                      // it needs tracefs
	read    func(log string, s field) (account, error)
	version func(ctx context.Context) string
}

// account is what an observer's output says.
type account struct {
	TimeWaits uint64            `json:"time_waits"`        // events that tell of the client's end of a connection of the load
	Lost      uint64            `json:"lost"`              // by its own words
	LostAt    map[string]uint64 `json:"lost_at,omitempty"` // twscope's: hop
}

// process is a running observer.
type process struct {
	*observer
	cmd    *exec.Cmd
	log    string
	stderr string
	files  []*os.File
	rested time.Time     // when it last had nothing to do
	took   time.Duration // from start until attached and at rest
	done   chan struct{}
	err    error
}

// usage is what a process has used.
type usage struct {
	User   time.Duration `json:"user_ns"`
	System time.Duration `json:"system_ns"`
	RSS    uint64        `json:"peak_rss_bytes"`
}

const tracefsPath = "/sys/kernel/tracing"

// start returns when the observer is attached and has nothing more to do.
func (o *observer) start(ctx context.Context, dir string) (*process, error) {
	p := &process{
		observer: o, log: filepath.Join(dir, o.name+".out"), stderr: filepath.Join(dir, o.name+".err"), done: make(chan struct{}),
	}
	args := o.command(p.log)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, fmt.Errorf("%s is not installed", args[0])
	}
	p.cmd = exec.Command(path, args[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if o.tracefs && !isMounted(tracefsPath) {
		p.mountTracefs()
	}
	if err := p.run(); err != nil {
		return nil, errors.Join(err, p.closeFiles())
	}
	if err := p.attached(ctx); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// mountTracefs gives the observer a mount namespace, so that the host's is
// left as it is.
func (p *process) mountTracefs() {
	script := "mount -t tracefs tracefs " + tracefsPath + ` && exec "$@"`
	inner := append([]string{p.cmd.Path}, p.cmd.Args[1:]...)
	attr := p.cmd.SysProcAttr
	attr.Unshareflags = syscall.CLONE_NEWNS
	p.cmd = exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, inner...)...)
	p.cmd.SysProcAttr = attr
}

func isMounted(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.TRACEFS_MAGIC
}

func (p *process) run() error {
	out := os.DevNull
	if p.stdout {
		out = p.log
	}
	for i, name := range []string{out, p.stderr} {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		p.files = append(p.files, f)
		if i == 0 {
			p.cmd.Stdout = f
		} else {
			p.cmd.Stderr = f
		}
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		// The kernel kills the process when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := p.cmd.Start(); err != nil {
			started <- err
			return
		}
		close(started)
		p.err = errors.Join(p.cmd.Wait(), p.closeFiles())
	}()
	return <-started
}

func (p *process) closeFiles() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// attached waits until the process holds an attached BPF program and rests:
// the peers do not say when they are ready.
func (p *process) attached(ctx context.Context) error {
	started := time.Now()
	err := settle(ctx, reach, func() (bool, error) {
		select {
		case <-p.done:
			return false, errors.New(p.lastWords())
		default:
		}
		fds, err := p.fds()
		return len(fds.links) > 0 || fds.perf && len(fds.programs) > 0, err
	})
	if err != nil {
		return err
	}
	err = p.rest(ctx)
	p.took = p.rested.Sub(started)
	return err
}

// rest waits until the process has used next to no CPU time for a while, and
// was never seen to want any.
func (p *process) rest(ctx context.Context) error {
	const window, idle = 150 * time.Millisecond, 3 * time.Millisecond

	since := time.Now()
	before, err := p.cpu()
	if err != nil {
		return err
	}
	err = settle(ctx, reach, func() (bool, error) {
		now, err := p.cpu()
		if err != nil {
			return false, err
		}
		if now-before >= idle || wantsCPU(p.cmd.Process.Pid) {
			before, since = now, time.Now()
		}
		return time.Since(since) >= window, nil
	})
	p.rested = since
	return err
}

// wantsCPU tells whether a thread of the process runs, waits for a CPU or for
// a disk.
func wantsCPU(pid int) bool {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false
	}
	for _, name := range names {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		state := bytes.TrimLeft(stat[bytes.LastIndexByte(stat, ')')+1:], " ")
		if len(state) > 0 && (state[0] == 'R' || state[0] == 'D') {
			return true
		}
	}
	return false
}

// cpu is the CPU time of the process, user and system.
func (p *process) cpu() (time.Duration, error) {
	t, err := cpuOf(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", p.name, err, p.lastWords())
	}
	return t, nil
}

// cpuOf is the CPU time of a process, user and system, to the nanosecond: the
// kernel's process clock (MAKE_PROCESS_CPUCLOCK of posix-timers.h,
// CPUCLOCK_SCHED).
func cpuOf(pid int) (time.Duration, error) {
	const clockSched = 2

	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|clockSched, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// used is what the process has used so far. System and User divide the exact
// sum as the kernel's ticks are divided.
func (p *process) used() (usage, error) {
	total, err := p.cpu()
	if err != nil {
		return usage{}, err
	}
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return usage{}, err
	}
	user, system, err := parseStat(stat)
	if err != nil {
		return usage{}, err
	}
	u := usage{User: total}
	if sum := user + system; sum > 0 {
		u.User = time.Duration(float64(total) * float64(user) / float64(sum))
	}
	u.System = total - u.User
	u.RSS, err = parseHWM(status)
	return u, err
}

// parseStat returns utime and stime of /proc/PID/stat, in ticks (proc(5)).
func parseStat(stat []byte) (user, system uint64, err error) {
	const afterComm = 2 // number of the field that follows the name in brackets, from 0

	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 16 {
		return 0, 0, errors.New("/proc/PID/stat: too few fields")
	}
	user, err = strconv.ParseUint(fields[13-afterComm], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/PID/stat: utime: %w", err)
	}
	system, err = strconv.ParseUint(fields[14-afterComm], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("/proc/PID/stat: stime: %w", err)
	}
	return user, system, nil
}

// parseHWM returns the peak resident set size of /proc/PID/status, in bytes.
// That of rusage would be that of this program, from before exec.
func parseHWM(status []byte) (uint64, error) {
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseUint(f[1], 10, 54)
			if err != nil {
				return 0, fmt.Errorf("/proc/PID/status: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/PID/status: no VmHWM")
}

// stop has the observer end by itself, so that it writes what it still holds.
func (p *process) stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	timer := time.NewTimer(reach)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil // some peers end with an error when interrupted
	case <-ctx.Done():
	case <-timer.C:
	}
	p.kill()
	return fmt.Errorf("%s does not end after SIGINT", p.name)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// lastWords is what the observer said of its end. Some say it on standard
// output.
func (p *process) lastWords() string {
	var said strings.Builder
	for _, name := range []string{p.stderr, p.log} {
		data, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err.Error()
		}
		said.Write(data)
	}
	return complaint(said.String())
}

// complaints are words of a cause, the deepest cause first: bcc, for one, goes
// on to complain about what follows from it.
var complaints = []*regexp.Regexp{
	regexp.MustCompile(`(?i)kernel headers`),
	regexp.MustCompile(`(?i)error|failed|cannot|not found`),
}

func complaint(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, re := range complaints {
		for _, line := range lines {
			if re.MatchString(line) {
				return strings.TrimSpace(line)
			}
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
