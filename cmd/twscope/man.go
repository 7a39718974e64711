// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCmd writes the manual pages, for packages.
func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages",
		Long:   "Write one manual page (section 8) for each command into DIR, which is made if it is not there.",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make the directory for manual pages: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			page := doc.GenManHeader{
				Title: "TWSCOPE", Section: "8", Source: "twscope " + version, Manual: "System administration",
				// so that a build repeats itself
				Date: &time.Time{},
			}
			if err := doc.GenManTree(root, &page, args[0]); err != nil {
				return fmt.Errorf("write manual pages to %s: %w", args[0], err)
			}
			return nil
		},
	}
}
