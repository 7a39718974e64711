// SPDX-License-Identifier: Apache-2.0

package bpf

//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -type tws_tcpopt_case -type tws_paws_case -type tws_jiffies_case -type tws_tcpopt -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" selftest ../../bpf/selftest.bpf.c
