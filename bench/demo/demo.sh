#!/usr/bin/env bash
# Two containers on one switch, and the same two on the kernel's bridge:
#
#    namespace a            namespace host             namespace b
#   198.18.0.1 eth0 ──TAP── swd (network demo) ──TAP── eth0 198.18.0.2
#   198.18.1.1 eth1 ─veth── br0 (kernel bridge) ─veth── eth1 198.18.1.2
#
# Everything is made in namespaces of its own and removed again.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PWD/bin:$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || { echo "error: make demo: needs root, for namespaces and TAP devices" >&2; exit 1; }

rounds=3 seconds=3
host=heddle-demo-$$ a=heddle-demo-$$-a b=heddle-demo-$$-b
dir=$(mktemp -d)
export SWCTL_SOCKET=$dir/swd.sock
pids=()

cleanup() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	for ns in $a $b $host; do
		ip netns del "$ns" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "${*//$dir/…}"; "$@"; }

for ns in $host $a $b; do
	ip netns add "$ns"
	ip -n "$ns" link set lo up
done

step "swd starts"
mkfifo "$dir/ready"
ip netns exec "$host" swd --socket "$SWCTL_SOCKET" --state-dir "$dir/state" >"$dir/ready" 2>"$dir/log" &
pids+=($!)
if ! read -r -t 10 word <"$dir/ready" || [ "$word" != ready ]; then
	echo "error: swd did not start:" >&2
	cat "$dir/log" >&2
	exit 1
fi
echo "$word"

step "a network, and a port for each container"
run swctl network add demo --subnet 198.18.0.0/24 --subnet 2001:db8::/64
run swctl port add a --network demo --netns "/run/netns/$a" --ip 198.18.0.1/24 --ip 2001:db8::1/64
run swctl port add b --network demo --netns "/run/netns/$b" --ip 198.18.0.2/24 --ip 2001:db8::2/64

step "they reach each other"
run ip netns exec "$a" ping -c 3 -i 0.2 198.18.0.2
run ip netns exec "$a" ping -c 3 -i 0.2 2001:db8::2

# The kernel's bridge between the same namespaces.
ip -n "$host" link add br0 type bridge
ip -n "$host" link set br0 up
for end in "$a 1" "$b 2"; do
	read -r ns n <<<"$end"
	ip -n "$host" link add "veth$n" type veth peer name eth1 netns "$ns"
	ip -n "$host" link set "veth$n" master br0 up
	ip -n "$ns" addr add "198.18.1.$n/24" dev eth1
	ip -n "$ns" link set eth1 up
done

# serve ADDRESS starts an iperf3 server in b and waits until it listens.
serve() {
	ip netns exec "$b" iperf3 -s -B "$1" --forceflush >"$dir/iperf3-$1" 2>&1 &
	pids+=($!)
	for _ in $(seq 100); do
		grep -q listening "$dir/iperf3-$1" && return
		sleep 0.05
	done
	echo "error: iperf3 does not listen on $1" >&2
	exit 1
}
# measure ADDRESS prints one TCP stream's Gb/s as the receiver saw it.
measure() {
	ip netns exec "$a" iperf3 -C cubic -c "$1" -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 1e9'
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

step "TCP, one stream, $rounds rounds of $seconds s in turn"
serve 198.18.0.2
serve 198.18.1.2
swd_gbps=() bridge_gbps=()
for _ in $(seq $rounds); do
	swd_gbps+=("$(measure 198.18.0.2)")
	bridge_gbps+=("$(measure 198.18.1.2)")
done

step "what the switch saw"
run swctl port ls
run swctl fdb ls
run swctl drops

step "figures"
swd_median=$(median "${swd_gbps[@]}") bridge_median=$(median "${bridge_gbps[@]}")
printf '%-28s %s\n' "" "Gb/s (median of $rounds)"
printf '%-28s %.1f\n' "swd, TAP ports" "$swd_median" "kernel bridge, veth" "$bridge_median"
jq -nr --argjson s "$swd_median" --argjson k "$bridge_median" '"ratio                        \($s / $k * 100 | round / 100)"'
