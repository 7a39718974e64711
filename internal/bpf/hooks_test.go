// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

// hook is what a program takes for granted of what it is attached to.
type hook struct {
	// params are the leading parameters that programs read, by the name of
	// their type or of the type they point to; "_" is not read.
	params []string
	// exact: there are no more parameters. A fexit program finds the return
	// value behind the last.
	exact bool
}

var functionHooks = map[string]hook{
	"tcp_time_wait":              {[]string{"sock", "int", "int"}, false},
	"inet_twsk_alloc":            {[]string{"sock", "_", "int"}, true},
	"inet_twsk_kill":             {[]string{"inet_timewait_sock"}, false},
	"inet_twsk_deschedule_put":   {[]string{"inet_timewait_sock"}, false},
	"inet_hash_connect":          {[]string{"_", "sock"}, true},
	"inet6_hash_connect":         {[]string{"_", "sock"}, true},
	"tcp_v4_conn_request":        {[]string{"sock", "sk_buff"}, false},
	"tcp_v6_conn_request":        {[]string{"sock", "sk_buff"}, false},
	"subflow_v4_conn_request":    {[]string{"sock", "sk_buff"}, false},
	"subflow_v6_conn_request":    {[]string{"sock", "sk_buff"}, false},
	"tcp_timewait_state_process": {[]string{"inet_timewait_sock", "sk_buff"}, false},
	"tcp_check_req":              {[]string{"sock", "sk_buff", "request_sock"}, false},
	"tcp_validate_incoming":      {[]string{"sock", "sk_buff"}, false},
}

var tracepointHooks = map[string]hook{
	"inet_sock_set_state": {[]string{"sock", "int", "int"}, false},
	"kfree_skb":           {[]string{"sk_buff"}, false},
	"tcp_send_reset":      {[]string{"sock", "sk_buff"}, false},
	"tcp_retransmit_skb":  {[]string{"sock"}, false},
	"tcp_destroy_sock":    {[]string{"sock"}, false},
	"sched_process_fork":  {[]string{"task_struct", "task_struct"}, false},
	"sched_process_exit":  {[]string{"task_struct"}, false},
}

// absent lists the functions that a kernel was built without.
var absent = map[string][]string{
	"5.10-amd64": {"subflow_v4_conn_request", "subflow_v6_conn_request"}, // no MPTCP
}

// kfreeSkb are the parameters of the tracepoint kfree_skb: the reason came
// with 5.17, rx_sk with 6.11.
var kfreeSkb = map[string][]string{
	"5.10-amd64":          {"sk_buff", "void"},
	"6.1-amd64":           {"sk_buff", "void", "skb_drop_reason"},
	"6.12-amd64":          {"sk_buff", "void", "skb_drop_reason", "sock"},
	"6.12-arm64":          {"sk_buff", "void", "skb_drop_reason", "sock"},
	"6.18-hardened-amd64": {"sk_buff", "void", "skb_drop_reason", "sock"},
	"7-amd64":             {"sk_buff", "void", "skb_drop_reason", "sock"},
	"7-arm64":             {"sk_buff", "void", "skb_drop_reason", "sock"},
}

// TestHooks looks up what every program is attached to in every kernel.
func TestHooks(t *testing.T) {
	var programs []*ebpf.ProgramSpec
	for _, o := range Objects() {
		for _, p := range loadSpec(t, o).Programs {
			programs = append(programs, p)
		}
	}
	for _, k := range allKernels(t) {
		t.Run(k.name, func(t *testing.T) {
			var missing []string
			for _, p := range programs {
				kind, target, _ := strings.Cut(p.SectionName, "/")
				var found bool
				switch kind {
				case "fentry", "fexit", "kprobe", "kretprobe":
					found = checkHook(t, target, functionHooks, paramsOf(t, k.spec, target))
				case "tp_btf":
					found = checkHook(t, target, tracepointHooks, tracepointParams(t, k.spec, target))
				case "iter":
					found = len(typesNamed[*btf.Func](t, k.spec, "bpf_iter_"+target)) > 0
				default:
					t.Fatalf("%s: what kind of program is this?", p.SectionName)
				}
				if !found {
					missing = append(missing, target)
				}
			}
			if k.name == "running" {
				return
			}
			slices.Sort(missing)
			if diff := cmp.Diff(absent[k.name], slices.Compact(missing)); diff != "" {
				t.Errorf("hooks that do not exist (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(kfreeSkb[k.name], tracepointParams(t, k.spec, "kfree_skb")); diff != "" {
				t.Errorf("parameters of kfree_skb (-want +got):\n%s", diff)
			}
		})
	}
}

// checkHook compares the parameters of a hook with what programs assume. It
// returns false if the kernel has no such hook.
func checkHook(t *testing.T, target string, table map[string]hook, params []string) bool {
	t.Helper()
	want, ok := table[target]
	if !ok {
		t.Errorf("%s: no row in the table", target)
	}
	if params == nil {
		return false
	}
	if len(params) < len(want.params) || want.exact && len(params) != len(want.params) {
		t.Errorf("%s: parameters %v, want %+v", target, params, want)
		return true
	}
	for i, name := range want.params {
		if name != "_" && params[i] != name {
			t.Errorf("%s: parameter %d is %s, want %s", target, i, params[i], name)
		}
	}
	return true
}

func paramsOf(t *testing.T, spec *btf.Spec, function string) []string {
	t.Helper()
	for _, f := range typesNamed[*btf.Func](t, spec, function) {
		if proto, ok := f.Type.(*btf.FuncProto); ok {
			return paramNames(proto.Params)
		}
	}
	return nil
}

func tracepointParams(t *testing.T, spec *btf.Spec, name string) []string {
	t.Helper()
	for _, def := range typesNamed[*btf.Typedef](t, spec, "btf_trace_"+name) {
		ptr, ok := btf.UnderlyingType(def).(*btf.Pointer)
		if !ok {
			continue
		}
		if proto, ok := ptr.Target.(*btf.FuncProto); ok && len(proto.Params) > 0 {
			return paramNames(proto.Params[1:]) // the first is whoever registered the probe
		}
	}
	return nil
}

func paramNames(params []btf.FuncParam) []string {
	names := []string{}
	for _, p := range params {
		typ := btf.UnderlyingType(p.Type)
		if ptr, ok := typ.(*btf.Pointer); ok {
			typ = btf.UnderlyingType(ptr.Target)
		}
		name := typ.TypeName()
		if _, ok := typ.(*btf.Void); ok {
			name = "void"
		}
		names = append(names, name)
	}
	return names
}

func typesNamed[T btf.Type](t *testing.T, spec *btf.Spec, name string) []T {
	t.Helper()
	var found []T
	all, _ := spec.AnyTypesByName(name) // an error says that there is none
	for _, typ := range all {
		if typ, ok := typ.(T); ok {
			found = append(found, typ)
		}
	}
	return found
}
