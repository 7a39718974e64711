// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// ReadTimeWaits returns how many TCP sockets are in TIME_WAIT, from "sockstat"
// in dir. IPv6 is included.
func ReadTimeWaits(root fs.FS, dir string) (uint32, error) {
	name := dir + "/sockstat"
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(fields); i += 2 {
			if fields[i] != "tw" {
				continue
			}
			n, err := strconv.ParseUint(fields[i+1], 10, 32)
			if err != nil {
				return 0, fmt.Errorf("%s: tw: %w", name, err)
			}
			return uint32(n), nil
		}
	}
	return 0, fmt.Errorf("%s has no tw in its line TCP", name)
}
