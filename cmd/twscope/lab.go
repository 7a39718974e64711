// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/lab/scenario"
)

func newLabCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Make happen what twscope knows, in network namespaces of its own",
		Long: "Build small networks out of network namespaces, make each situation happen that\n" +
			"twscope knows, with its control (the same without the cause), and hold the\n" +
			"verdict against the truth of the kernel. Nothing outside of these namespaces is\n" +
			"touched, and they are gone afterwards, also after SIGINT.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("lab: unknown command %q: want list or run", args[0])}
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newLabListCmd(), newLabRunCmd())
	return cmd
}

func newLabListCmd() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the scenarios",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := scenario.All()
			switch format {
			case "text":
				_, err := io.WriteString(cmd.OutOrStdout(), scenario.List(all))
				return err
			case "json":
				return writeScenarios(cmd.OutOrStdout(), all)
			}
			return errLabFormat(format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, or json: one object a line (`FORMAT`)")
	return cmd
}

func errLabFormat(format string) error {
	return usageError{fmt.Errorf("--format %s: want text or json", format)}
}

func writeScenarios(w io.Writer, list []scenario.Scenario) error {
	enc := json.NewEncoder(w)
	for i := range list {
		if err := enc.Encode(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// labOptions are the flags of lab run.
type labOptions struct {
	keep, verbose bool
	pcap          string
	rung          string
	format        string
}

func newLabRunCmd() *cobra.Command {
	var o labOptions
	cmd := &cobra.Command{
		Use:   "run NAME...|all",
		Short: "Run scenarios and their controls",
		Long: "Run scenarios, each with its control, and compare the verdict of a session with\n" +
			"the truth: the kernel's counters and sockets, and what was sent by whom. It fails\n" +
			"if one of them does. What this kernel cannot do is skipped, with the reason.",
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), args, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.keep, "keep", false, "leave the namespaces for a look, and tell how to remove them")
	f.StringVar(&o.pcap, "pcap", "", "save what passes each link to this directory (`DIR`)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "write all of each verdict")
	f.StringVar(&o.rung, "rung", "", "use this kind of hook and none better: fentry, kprobe or tracepoint (`RUNG`)")
	f.StringVar(&o.format, "format", "text", "text, or json: one object a line, for each scenario and control (`FORMAT`)")
	return cmd
}

func (o *labOptions) run(ctx context.Context, names []string, out io.Writer) error {
	list, err := scenario.Select(names)
	if err != nil {
		return usageError{err}
	}
	opts, err := o.options()
	if err != nil {
		return err
	}
	if err := requirePrivileges(); err != nil {
		return err
	}
	if o.pcap != "" {
		if err := os.MkdirAll(o.pcap, 0o755); err != nil {
			return fmt.Errorf("--pcap: %w", err)
		}
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	var results []scenario.Result
	for i := range list {
		if err := o.show(out, list[i].Head()); err != nil {
			return err
		}
		for _, cause := range []bool{true, false} {
			r, err := list[i].Run(ctx, opts, cause)
			if err != nil {
				return fmt.Errorf("%s: interrupted, everything is removed: %w", list[i].Name, err)
			}
			results = append(results, r)
			if err := o.tell(out, &r); err != nil {
				return err
			}
		}
		if err := o.show(out, "\n"); err != nil {
			return err
		}
	}
	return errors.Join(o.show(out, scenario.Summary(results)), failed(results))
}

// untilSignal returns a context that ends with a signal. None of them kills us:
// the namespaces have names, and would be left. That goes for a reader of the
// output who goes away, too.
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	reset := outlivePipes()
	return ctx, func() {
		reset()
		stop()
	}
}

func failed(results []scenario.Result) error {
	n := 0
	for i := range results {
		if results[i].Outcome == scenario.Fail {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d scenarios and controls failed", n, len(results))
}

// show writes what is for people only.
func (o *labOptions) show(out io.Writer, text string) error {
	if o.format != "text" {
		return nil
	}
	_, err := io.WriteString(out, text)
	return err
}

func (o *labOptions) tell(out io.Writer, r *scenario.Result) error {
	if o.format == "json" {
		return json.NewEncoder(out).Encode(r)
	}
	return o.show(out, r.Text(o.verbose))
}

func (o *labOptions) options() (scenario.Options, error) {
	opts := scenario.Options{Version: version, Keep: o.keep, PcapDir: o.pcap, Logger: zerolog.Nop()}
	if o.format != "text" && o.format != "json" {
		return opts, errLabFormat(o.format)
	}
	var err error
	if opts.Rung, err = checkRung(o.rung); err != nil {
		return opts, err
	}
	opts.Kernel, err = labKernel()
	return opts, err
}

// labKernel is what scenarios must know of this kernel.
func labKernel() (scenario.Kernel, error) {
	var k scenario.Kernel
	var err error
	if k.Facts, err = kernel.Local(); err != nil {
		return k, err
	}
	if k.Facts.Cgroup2 != "" {
		k.Cgroups = kernel.NewCgroups(k.Facts.Cgroup2)
	}
	b, err := inspectBTF(os.DirFS("/"))
	k.TSOffset = b.TSOffset
	return k, err
}
