// SPDX-License-Identifier: Apache-2.0

// Command twscope tells why TCP connections are not made.
package main

import (
	"os"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
