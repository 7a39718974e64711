// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the compiled kernel side of twscope, one object per
// capability, and the Go types of its records. Both are generated from
// bpf/*.bpf.c and committed, so that building twscope needs Go alone.
package bpf

//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -type tws_time_wait -type tws_time_wait_end -type tws_reuse -type tws_connect_fail -type tws_syn -type tws_syn_refused -type tws_paws_reject -type tws_syn_reject -type tws_turns -type tws_syn_header -type tws_rule -type tws_census -type tws_open -type tws_closes -type tws_sock -type tws_listener_key -type tws_listener -type tws_tally -type tws_prefix_key -type tws_config -type tws_orders -type tws_netns_place -type tws_header -type tws_tuple -type tws_owner -type tws_tcpopt -type tws_kind -type tws_role -type tws_substate -type tws_end -type tws_signature -type tws_where -type tws_segment -type tws_reply -type tws_counter -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" connect ../../bpf/connect.bpf.c
//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" timewait ../../bpf/timewait.bpf.c
//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" paws ../../bpf/paws.bpf.c
//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" syn ../../bpf/syn.bpf.c
//go:generate go tool bpf2go -target amd64,arm64 -no-global-types -cflags "-O2 -mcpu=v3 -Wall -Wextra -Wpadded -Werror -Wno-unused-parameter -Wno-unused-function -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" census ../../bpf/census.bpf.c
