// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/twscope/twscope/internal/event"
)

func newSchemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a line of the event log",
		Long: "Print the JSON Schema (draft 2020-12) of a line of the event log. Within one major\n" +
			"version of the format, members and events are only ever added.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(event.Schema())
			return err
		},
	}
}
