// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twscope/twscope/testdata/vm/debkernel"
	"github.com/twscope/twscope/testdata/vm/wire"
)

const qemu = "qemu-system-x86_64"

// modules are those that twscope's tests need or that decide what is observed. The machine has no modprobe, so nothing is
// loaded on demand. What a kernel has built in, or not at all, is skipped: the self check tells whether enough is there.
var modules = []string{
	"veth", "dummy", "af_packet", "inet_diag", "tcp_diag", "mptcp_diag", "netlink_diag",
	"nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nf_nat",
	"nft_ct", "nft_nat", "nft_masq", "nft_chain_nat", "nft_redir", "nft_counter", "nft_limit", "nft_reject_inet", "nft_fib_inet",
	"sch_ingress", "cls_bpf", "act_bpf", "sch_netem", "sch_fq", "sch_prio",
}

// bootFiles says where one boot leaves its files.
type bootFiles struct{ tmp, logs string }

func needQEMU() error {
	if _, err := exec.LookPath(qemu); err != nil {
		return fmt.Errorf("%s is not installed: install the package qemu-system-x86", qemu)
	}
	return nil
}

// bootKernel runs the plan on one kernel. Its error means that the runner could not do its work; what the machine did
// wrong is in the result.
func bootKernel(ctx context.Context, o *options, k *debkernel.Kernel, load *guestLoad, at bootFiles, out io.Writer) (*bootResult, error) {
	initramfs := filepath.Join(at.tmp, "initramfs")
	if err := packInitramfs(ctx, k, load, initramfs); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.boot)
	defer cancel()
	console := filepath.Join(at.logs, "console.log")
	cmd := qemuCommand(ctx, o, k.Image(), initramfs, console)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// Pdeathsig goes by the thread that starts the process, so that thread must live as long as the machine.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	res := newBootResult(k, load, at.logs)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "kernel %s\n", k.Release)
	readErr := res.follow(stdout, began, out)
	if readErr != nil {
		// Nothing more can be believed; Cancel is what ends the machine.
		cancel()
	}
	waitErr := cmd.Wait()
	res.took = time.Since(began)
	switch {
	case readErr != nil:
		res.failure = readErr.Error()
	case res.ended:
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		res.failure = fmt.Sprintf("not done after %s (raise -t)", o.boot)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		res.failure = "the machine went down before the plan was done"
		if waitErr != nil {
			res.failure += fmt.Sprintf(": %v: %s", waitErr, strings.TrimSpace(stderr.String()))
		}
	}
	if res.failure != "" {
		res.reportBroken(out)
		fmt.Fprintf(out, "  end of %s:\n%s", console, tail(console, 40))
	}
	return res, res.closeLogs()
}

func qemuCommand(ctx context.Context, o *options, image, initramfs, console string) *exec.Cmd {
	// One thread runs both processors in turn. With a thread for each, kernels panicked (int3) where one processor ran code
	// that the other was patching to attach a program (QEMU 7.2); where machines are as many as CPUs it is no quicker either.
	cmd := exec.CommandContext(ctx, qemu, "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(o.memory),
		"-nodefaults", "-no-reboot", "-display", "none", "-nic", "none",
		"-kernel", image, "-initrd", initramfs,
		// Mitigations cost an emulated processor much and protect nobody here.
		"-append", "console=ttyS0 panic=-1 oops=panic mitigations=off",
		"-serial", "file:"+console, "-serial", "stdio")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func packInitramfs(ctx context.Context, k *debkernel.Kernel, load *guestLoad, name string) error {
	mods, _, err := k.Modules(ctx, modules)
	if err != nil {
		return err
	}
	extra := map[string][]byte{
		"/etc/hosts":  []byte("127.0.0.1 localhost twscope-vm\n::1 localhost\n"),
		"/etc/passwd": []byte("root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"),
		"/etc/group":  []byte("root:x:0:\nnogroup:x:65534:\n"),
	}
	plan := wire.Plan{Runs: load.runs}
	for _, m := range mods {
		p := path.Join("/modules", m.Name+".ko")
		plan.Modules = append(plan.Modules, p)
		extra[p] = m.Data
	}
	// The self check compares the kernel that runs with the one that was meant.
	plan.Runs = append([]wire.Run(nil), load.runs...)
	for i := range plan.Runs {
		plan.Runs[i].Env = append([]string{"TWSCOPE_VM_KERNEL=" + k.Release}, plan.Runs[i].Env...)
	}
	if extra[wire.PlanPath], err = json.Marshal(plan); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(writeInitramfs(f, load, extra), f.Close())
}

// tail returns the last lines of a file, indented.
func tail(name string, lines int) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return "  " + err.Error() + "\n"
	}
	return quote(text, lines)
}

// quote indents the last lines of a text.
func quote(text []byte, lines int) string {
	all := strings.Split(strings.TrimRight(strings.ReplaceAll(string(text), "\r", ""), "\n"), "\n")
	var b strings.Builder
	for _, l := range all[max(0, len(all)-lines):] {
		b.WriteString("  | " + l + "\n")
	}
	return b.String()
}
