// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/attach"
)

// The exit codes, beside those of a wrapped command.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	exitMatch = 3
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// matchError is what a gate such as --fail-on was set for: nothing went wrong
// but what was looked at.
type matchError struct{ what string }

func (e matchError) Error() string { return e.what }

// statusError passes on the exit code of a command that attach has started.
type statusError struct{ status int }

func (e statusError) Error() string { return fmt.Sprintf("exit code %d", e.status) }

// run runs a command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	return execute(newRootCmd(), args, stdout, stderr)
}

func execute(root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[statusError](err); ok {
		return e.status
	}
	fmt.Fprintf(stderr, "twscope: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "See '%s --help'.\n", cmd.CommandPath())
		return exitUsage
	}
	if _, ok := errors.AsType[matchError](err); ok {
		return exitMatch
	}
	if e, ok := errors.AsType[*attach.StartError](err); ok {
		return e.Code
	}
	return exitError
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "twscope",
		Short: "Why was this TCP connection not made?",
		Long: "twscope tells why TCP connections are not made: because a client has used up its ports\n" +
			"on sockets in TIME_WAIT, or because a SYN was refused as an old duplicate (PAWS).\n" +
			"It only looks: it changes nothing on the host.",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRunCmd(), newAttachCmd(), newHoldCmd(), newCheckCmd(), newTailCmd(), newReplayCmd(), newCompareCmd(), newLabCmd(), newExplainCmd(), newSchemaCmd(), newVersionCmd(), newManCmd())
	for _, cmd := range root.Commands() {
		cmd.Args = usageArgs(cmd.Args)
	}
	return root
}

// usageArgs makes an error about arguments one of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func newVersionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "twscope", version)
			return err
		},
	}
}
