// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/probe"
)

func TestParseEndpoint(t *testing.T) {
	for _, tt := range []struct {
		value, prefix string
		port          uint16
	}{
		{"10.0.0.0/8", "10.0.0.0/8", 0},
		{"10.0.0.1", "10.0.0.1/32", 0},
		{"10.0.0.1:443", "10.0.0.1/32", 443},
		{"10.0.0.0/8:443", "10.0.0.0/8", 443},
		{"0.0.0.0/0", "0.0.0.0/0", 0},
		{":443", "::/0", 443},
		{"2001:db8::1", "2001:db8::1/128", 0},
		{"2001:db8::/32", "2001:db8::/32", 0},
		{"[2001:db8::1]", "2001:db8::1/128", 0},
		{"[2001:db8::1]:443", "2001:db8::1/128", 443},
		{"[2001:db8::/32]:443", "2001:db8::/32", 443},
		{"::/0", "::/0", 0},
		{"::1", "::1/128", 0},
		{"::ffff:10.0.0.1", "10.0.0.1/32", 0},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1/32", 80},
		{"::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104", 0},
		{"10.0.0.1:65535", "10.0.0.1/32", 65535},
	} {
		t.Run(tt.value, func(t *testing.T) {
			got, err := parseEndpoint(tt.value)
			want := probe.Endpoint{Prefix: netip.MustParsePrefix(tt.prefix), Port: tt.port}
			if err != nil || got != want {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		})
	}
}

func TestParseEndpointRefuses(t *testing.T) {
	for value, text := range map[string]string{
		"":                     "want an address",
		":":                    "want 1 to 65535",
		"10.0.0.1:":            "want 1 to 65535",
		"10.0.0.1:0":           "want 1 to 65535",
		"10.0.0.1:65536":       "want 1 to 65535",
		"10.0.0.1:http":        "want 1 to 65535",
		"10.0.0.1:-1":          "want 1 to 65535",
		"10.0.0.1/33":          "want an address",
		"10.0.0.1/8":           "want 10.0.0.0/8",
		"10.0.0.1/-1":          "want an address",
		"10.0.0/8":             "want an address",
		"256.0.0.1":            "want an address",
		"example.org":          "want an address",
		"example.org:443":      "want an address",
		"fe80::1%eth0":         "want an address",
		"[2001:db8::1":         "want an address",
		"2001:db8::1]":         "want an address",
		"[[2001:db8::1]]":      "want an address",
		"[10.0.0.1":            "want an address",
		"[2001:db8::/32]:":     "want 1 to 65535",
		"[2001:db8::]/32:443x": "want",
		"2001:db8::1/32":       "want 2001:db8::/32",
		"2001:db8::/129":       "want an address",
		"::ffff:10.0.0.0/8":    "beyond the prefix",
	} {
		t.Run(value, func(t *testing.T) {
			if e, err := parseEndpoint(value); err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v, %v; want an error with %q", e, err, text)
			}
		})
	}
}

// FuzzParseEndpoint: what is taken has a prefix that is what it seems, and
// reads the same when written out.
func FuzzParseEndpoint(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8:443", ":443", "[2001:db8::/32]:443", "::ffff:10.0.0.0/104", "fe80::1%eth0", "[]:1", "::", "1:2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		e, err := parseEndpoint(value)
		if err != nil {
			return
		}
		if !e.Prefix.IsValid() || e.Prefix != e.Prefix.Masked() || e.Prefix.Addr().Zone() != "" {
			t.Fatalf("%q became %v", value, e)
		}
		written := e.Prefix.String()
		if e.Port != 0 {
			written = fmt.Sprintf("[%s]:%d", e.Prefix, e.Port)
		}
		if again, err := parseEndpoint(written); err != nil || again != e {
			t.Errorf("%q became %v, but %q %v, %v", value, e, written, again, err)
		}
	})
}

func TestResolve(t *testing.T) {
	facts := kernel.Facts{InitialPIDNS: true}
	pid := strconv.Itoa(os.Getpid())
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	s := selectors{
		dst: []string{"10.0.0.0/8:443", "::1"}, src: []string{"10.1.0.0/16"}, pid: []string{pid},
		comm: []string{"curl", "nginx"}, netns: []string{"/proc/self/ns/net"},
	}
	f, err := s.resolve(facts, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Remote) != 2 || len(f.Local) != 1 || len(f.Comms) != 2 || f.PIDs[0] != uint32(os.Getpid()) ||
		len(f.NetNS) != 1 || own != fmt.Sprintf("net:[%d]", f.NetNS[0]) {
		t.Errorf("%+v", f)
	}
	text := s.text()
	if len(text) != 5 || text["dst"][1] != "::1" {
		t.Errorf("text %v", text)
	}
}

func TestResolveRefuses(t *testing.T) {
	inside := kernel.Facts{InitialPIDNS: true}
	for name, tt := range map[string]struct {
		s       selectors
		facts   kernel.Facts
		cgroups *kernel.Cgroups
		text    string
	}{
		"dst":               {selectors{dst: []string{"nowhere"}}, inside, nil, "--dst nowhere: want an address"},
		"src with a port":   {selectors{src: []string{"10.0.0.1:80"}}, inside, nil, "--src 10.0.0.1:80: want an address"},
		"pid":               {selectors{pid: []string{"init"}}, inside, nil, "--pid init: want the number"},
		"pid 0":             {selectors{pid: []string{"0"}}, inside, nil, "--pid 0: want the number"},
		"no such pid":       {selectors{pid: []string{"2147483647"}}, inside, nil, "no process has the pid 2147483647"},
		"own pid namespace": {selectors{pid: []string{"1"}}, kernel.Facts{}, nil, "run it in the host's"},
		"no comm":           {selectors{comm: []string{""}}, inside, nil, "want the name"},
		"long comm":         {selectors{comm: []string{"gunicorn: worker"}}, inside, nil, `want "gunicorn: worke"`},
		"netns":             {selectors{netns: []string{"no such"}}, inside, nil, "ip netns list"},
		"netns inode":       {selectors{netns: []string{"17"}}, inside, nil, "lsns -t net"},
		"netns path":        {selectors{netns: []string{"/no/such"}}, inside, nil, "--netns /no/such"},
		"no cgroup v2":      {selectors{cgroup: []string{"/"}}, inside, nil, "no cgroup v2 hierarchy"},
		"no such cgroup":    {selectors{cgroup: []string{"/no/such"}}, inside, kernel.NewCgroups(t.TempDir()), "no cgroup"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.s.resolve(tt.facts, tt.cgroups)
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("%v, want an error with %q", err, tt.text)
			}
			if _, ok := errors.AsType[usageError](err); !ok {
				t.Errorf("%v is not an error of usage", err)
			}
		})
	}
}

func TestResolveTellsEveryMistake(t *testing.T) {
	s := selectors{dst: []string{"a", "b"}, pid: []string{"c"}}
	_, err := s.resolve(kernel.Facts{}, nil)
	for _, text := range []string{"--dst a", "--dst b", "--pid c"} {
		if !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%v does not name %s", err, text)
		}
	}
}
