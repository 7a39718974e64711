#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the captures beside it anew, as root: real kernels' connections between
# two network namespaces, taken by tcpdump, and what tcpdump reads in them.
# Needs ip, tcpdump, python3, and for pcapng editcap and mergecap (Wireshark).
set -euo pipefail
cd "$(dirname "$0")"

a=captures-$$-a b=captures-$$-b
work=$(mktemp -d)
cleanup() {
	# the dump of a run that failed
	[ -z "${dump:-}" ] || kill "$dump" 2>/dev/null || true
	ip netns del "$a" 2>/dev/null || true
	ip netns del "$b" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

ip netns add "$a"
ip netns add "$b"
ip -n "$a" link add eth0 type veth peer name eth0 netns "$b"
number=0
for ns in "$a" "$b"; do
	number=$((number + 1))
	ip -n "$ns" link set lo up
	ip -n "$ns" link set eth0 up
	ip -n "$ns" addr add "10.77.0.$number/24" dev eth0
	ip -n "$ns" addr add "fd77::$number/64" dev eth0 nodad
done

cat >"$work/talk.py" <<'PY'
"""Connects to each address, and has the other side close first."""
import ctypes, os, socket, sys

ns, addresses = sys.argv[1], sys.argv[2:]
setns = ctypes.CDLL(None).setns  # os.setns is of Python 3.12
fd = os.open("/run/netns/" + ns, os.O_RDONLY)
servers = []
own = os.open("/proc/self/ns/net", os.O_RDONLY)
assert setns(fd, 0) == 0
for address in addresses:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, 50007))
    s.listen()
    servers.append(s)
assert setns(own, 0) == 0
for address, s in zip(addresses, servers):
    c = socket.create_connection((address, 50007))
    p, _ = s.accept()
    c.sendall(b"some bytes")
    p.recv(10)
    p.close()
    c.recv(1)
    c.close()
    try:
        socket.create_connection((address, 50008))  # refused
    except ConnectionRefusedError:
        pass
PY

# take NAME NETNS TCPDUMP-OPTIONS -- SERVER-NETNS ADDRESS...
take() {
	local name=$1 ns=$2 options=()
	shift 2
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	rm -f "$work/log"
	touch "$work/log"
	ip netns exec "$ns" tcpdump -Z root -U --immediate-mode -w "$name.pcap" "${options[@]}" tcp 2>"$work/log" &
	dump=$!
	until grep -q 'listening on' "$work/log"; do kill -0 "$dump"; done
	ip netns exec "$a" python3 "$work/talk.py" "$@"
	# tcpdump has them once the last packet, the refusal, is in the file
	polls=0
	until tcpdump -nr "$name.pcap" 2>/dev/null | tail -1 | grep -q 'Flags \[R'; do
		polls=$((polls + 1))
		if [ "$polls" -gt 300 ]; then
			echo "$name: the last packet did not come" >&2
			exit 1
		fi
	done
	kill -INT "$dump"
	wait "$dump"
	dump=
}

take ethernet "$b" -i eth0 -- "$b" 10.77.0.2 fd77::2
take snap60 "$b" -i eth0 -s 60 -- "$b" 10.77.0.2
take nano "$a" -i lo --time-stamp-precision=nano -- "$a" ::1 127.0.0.1
take sll "$b" -i any -y LINUX_SLL -- "$b" 10.77.0.2 fd77::2
take sll2 "$b" -i any -y LINUX_SLL2 -- "$b" 10.77.0.2 fd77::2

# Other encapsulations of the same packets, and the other byte order.
python3 - <<'PY'
import struct


def rewrite(name, link, frame, order="<"):
    data = open("ethernet.pcap", "rb").read()
    out = bytearray(struct.pack(order + "IHHiIII", *struct.unpack("<IHHiII", data[:20]), link))
    at = 24
    while at < len(data):
        seconds, micros, captured, wire = struct.unpack("<IIII", data[at : at + 16])
        new = frame(data[at + 16 : at + 16 + captured])
        out += struct.pack(order + "IIII", seconds, micros, len(new), wire + len(new) - captured) + new
        at += 16 + captured
    open(name, "wb").write(out)


def family(frame):  # AF_INET, AF_INET6 of macOS
    return struct.pack("<I", 2 if frame[12:14] == b"\x08\0" else 30) + frame[14:]


rewrite("bigendian.pcap", 1, lambda f: f, ">")
rewrite("vlan.pcap", 1, lambda f: f[:12] + bytes.fromhex("81000005") + f[12:])
rewrite("qinq.pcap", 1, lambda f: f[:12] + bytes.fromhex("88a8000a81000014") + f[12:])
rewrite("raw.pcap", 101, lambda f: f[14:])
rewrite("null.pcap", 0, family)
PY

editcap -F pcapng ethernet.pcap ethernet.pcapng
mergecap -F pcapng -w merged.pcapng ethernet.pcap nano.pcap sll2.pcap

# libpcap reads no capture of several link types, such as merged.pcapng
for f in *.pcap ethernet.pcapng; do
	tcpdump -nnvttS --time-stamp-precision=nano -r "$f" >"$f.txt" 2>/dev/null
done
