// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// explainLoadError adds what the user can do about an error of bpf(2).
func explainLoadError(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; "+
			"`twscope check` tells which is missing", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: this kernel is older than 5.8, or has no BPF ring buffer", err)
	default:
		return err
	}
}
