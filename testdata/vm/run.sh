#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots Debian kernels under QEMU and runs tests as root inside; "run.sh -h" explains the arguments.
set -eu
cd "$(dirname "$0")/../.."
command -v go >/dev/null || { echo "run.sh: go is not installed" >&2; exit 1; }
mkdir -p .cache
# Built and then exec'ed, so that a signal to this script reaches the runner, which ends the machine.
go build -o .cache/vm-runner ./testdata/vm/runner
exec .cache/vm-runner "$@"
