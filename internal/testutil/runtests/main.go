// SPDX-License-Identifier: Apache-2.0

// Command runtests runs `go test` with its arguments and says what ran: one
// line for each package, the output of what failed, the reason of each skip,
// and last the plain line "N passed, N failed, N skipped".
//
// With CI=true a skip for anything but a limit of the machine is a failure, so
// that tests which no longer run cannot pass for tests that succeed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv("CI") == "true", os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runtests:", err)
		os.Exit(1)
	}
}

// run runs `go test -json` with args. With strict, it fails on skips that are
// not for a limit of the machine.
func run(ctx context.Context, args []string, strict bool, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"test", "-json"}, args)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	rep := newReport(stdout, strict)
	readErr := rep.read(out)
	waitErr := cmd.Wait()
	endErr := rep.end()

	// What the report knows is more to the point than "exit status 1".
	switch {
	case readErr != nil:
		return errors.Join(readErr, waitErr)
	case endErr != nil:
		return endErr
	case waitErr != nil:
		return fmt.Errorf("go test: %w", waitErr)
	}
	return nil
}
