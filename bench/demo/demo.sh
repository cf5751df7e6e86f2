#!/usr/bin/env bash
# Two containers on one switch, and the same two on the kernel's bridge; the two
# and an outside host, by NAT; and a container on a second host, by the mesh:
#
#    namespace a            namespace host             namespace b
#   198.18.0.1 eth0 ──TAP── swd (network demo) ──TAP── eth0 198.18.0.2
#   198.18.1.1 eth1 ─veth── br0 (kernel bridge) ─veth── eth1 198.18.1.2
#                           wan0 192.0.2.9, uplink
#                            │                                 namespace c
#                           eth0 192.0.2.80, outside       eth0 198.18.0.3 ──TAP─┐
#                                                                                │
#                           u0 203.0.113.1 ── u0 203.0.113.2, namespace host2: swd
#
# Everything is made in namespaces of its own and removed again.
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PWD/bin:$PATH:/usr/sbin:/sbin:$PWD/.tools/docker/bin
[ "$(id -u)" = 0 ] || { echo "error: make demo: needs root, for namespaces and TAP devices" >&2; exit 1; }

rounds=3 seconds=3
host=heddle-demo-$$ a=heddle-demo-$$-a b=heddle-demo-$$-b outside=heddle-demo-$$-out
host2=heddle-demo-$$-2 c=heddle-demo-$$-c
dir=$(mktemp -d)
export SWCTL_SOCKET=$dir/swd.sock no_proxy='*'
pids=()

cleanup() {
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
	done
	for ns in $a $b $c $outside $host $host2; do
		ip netns del "$ns" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "${*//$dir/…}"; "$@"; }

for ns in $host $host2 $a $b $c $outside; do
	ip netns add "$ns"
	ip -n "$ns" link set lo up
done
# The wire between the hosts.
ip -n "$host" link add u0 up type veth peer name u0 netns "$host2"
ip -n "$host2" link set u0 up
ip -n "$host" addr add 203.0.113.1/24 dev u0
ip -n "$host2" addr add 203.0.113.2/24 dev u0

# launch HOST SOCKET FLAG… starts swd there and waits until it is ready.
launch() {
	local word
	rm -f "$dir/ready"
	mkfifo "$dir/ready"
	printf '$ swd %s\n' "${*:3}"
	ip netns exec "$1" swd --socket "$2" --state-dir "$2.state" "${@:3}" >"$dir/ready" 2>"$2.log" &
	pids+=($!)
	if ! read -r -t 10 word <"$dir/ready" || [ "$word" != ready ]; then
		echo "error: swd did not start:" >&2
		cat "$2.log" >&2
		exit 1
	fi
	echo "$word"
}

step "swd starts"
launch "$host" "$SWCTL_SOCKET" --node host1 --mesh-listen 203.0.113.1

step "a network, and a port for each container"
run swctl network add demo --subnet 198.18.0.0/24 --gateway 198.18.0.254 --subnet 2001:db8::/64
run swctl port add a --network demo --netns "/run/netns/$a" --ip 198.18.0.1/24 --ip 2001:db8::1/64 --default-route
run swctl port add b --network demo --netns "/run/netns/$b" --ip 198.18.0.2/24 --ip 2001:db8::2/64 --default-route

step "they reach each other"
run ip netns exec "$a" ping -c 3 -i 0.2 198.18.0.2
run ip netns exec "$a" ping -c 3 -i 0.2 2001:db8::2

# What is outside: a host with a web server, on the wire of the host's wan0.
ip -n "$host" link add wan0 up type veth peer name eth0 netns "$outside"
ip -n "$host" addr add 192.0.2.9/24 dev wan0
ip -n "$outside" addr add 192.0.2.80/24 dev eth0
ip -n "$outside" link set eth0 up

# web NAMESPACE TEXT starts a web server there and waits until it listens.
web() {
	mkdir -p "$dir/$1"
	echo "$2" >"$dir/$1/index.html"
	ip netns exec "$1" busybox httpd -f -v -p 80 -h "$dir/$1" 2>"$dir/$1.log" &
	pids+=($!)
	for _ in $(seq 100); do
		ip netns exec "$1" ss -Hlnt 'sport = 80' | grep -q . && return
		sleep 0.05
	done
	echo "error: httpd does not listen in $1" >&2
	exit 1
}

step "a way out: NAT by the host's own interface"
web "$outside" "the world greets you"
web "$b" "container b greets you"
run swctl uplink add wan --interface wan0
run swctl nat add masquerade --network demo --uplink wan
run ip netns exec "$a" curl -sS --max-time 5 http://192.0.2.80/
echo "the web server outside was asked by $(grep -o '192\.0\.2\.[0-9]*' "$dir/$outside.log" | head -1)"

step "a way in: b's port 80, published as the host's 8080"
run swctl nat add publish --uplink wan --listen 8080/tcp --to b:80
run ip netns exec "$outside" curl -sS --max-time 5 http://192.0.2.9:8080/
run ip netns exec "$host" curl -sS --max-time 5 http://127.0.0.1:8080/
run swctl nat ls
run swctl conn ls

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
# CUBIC on both ways from a connection's beginning: BBR, where it is the default,
# paces, which costs the two unequally.
tcp=/proc/sys/net/ipv4/tcp
if ! grep -qx cubic ${tcp}_congestion_control && grep -qw cubic ${tcp}_available_congestion_control; then
	for ns in "$a" "$b"; do
		for net in 198.18.0.0/24 198.18.1.0/24; do
			read -ra route <<<"$(ip -n "$ns" route show "$net")"
			ip -n "$ns" route change "${route[@]}" congctl cubic
		done
	done
fi

# serve NAMESPACE ADDRESS starts an iperf3 server there and waits until it listens.
serve() {
	ip netns exec "$1" iperf3 -s -B "$2" --forceflush >"$dir/iperf3-$2" 2>&1 &
	pids+=($!)
	for _ in $(seq 100); do
		grep -q listening "$dir/iperf3-$2" && return
		sleep 0.05
	done
	echo "error: iperf3 does not listen on $2" >&2
	exit 1
}
# measure ADDRESS prints one TCP stream's Gb/s as the receiver saw it.
measure() {
	ip netns exec "$a" iperf3 -c "$1" -t "$seconds" -J | jq '.end.sum_received.bits_per_second / 1e9'
}
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

step "TCP, one stream, $rounds rounds of $seconds s in turn"
serve "$b" 198.18.0.2
serve "$b" 198.18.1.2
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

step "a second host: it joins the mesh, and its container the network"
SWCTL_SOCKET=$dir/two.sock
launch "$host2" "$SWCTL_SOCKET" --node host2
run swctl mesh join 203.0.113.1
run swctl network add demo
run swctl port add c --network demo --netns "/run/netns/$c" --ip 198.18.0.3/24 --ip 2001:db8::3/64

step "the containers of both hosts talk"
run ip netns exec "$a" ping -c 3 -i 0.2 198.18.0.3
run ip netns exec "$c" ping -c 3 -i 0.2 2001:db8::1
run ip netns exec "$c" curl -sS --max-time 5 http://198.18.0.2/
run swctl mesh members
run swctl mesh members --endpoints
