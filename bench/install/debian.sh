#!/usr/bin/env bash
# Installs what building, testing and measuring Heddle need and this machine
# lacks: Debian packages, and the linter at the version given as $1 into the
# folder given as $2, and Docker's engine, coturn's and Open vSwitch's programs
# there too. What is there already is left alone.
set -euo pipefail
lint_version=$1 bin=$2

# command:package pairs.
needs="
	gcc:gcc ip:iproute2 tc:iproute2 ping:iputils-ping ethtool:ethtool iperf3:iperf3
	sockperf:sockperf ab:apache2-utils tcpdump:tcpdump tshark:tshark nft:nftables socat:socat
	curl:curl jq:jq git:git nsenter:util-linux
	nmap:nmap traceroute:traceroute tracepath:iputils-tracepath"
missing=()
PATH=$PATH:/usr/sbin:/sbin
for need in $needs; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
[ -e /usr/lib/usrsctp/client ] || missing+=(libusrsctp-examples)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

# install PACKAGE… installs packages that start nothing.
install() {
	echo "installing $*"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
[ ${#missing[@]} -eq 0 ] || install "${missing[@]}"

# unpack DIRECTORY PACKAGE… puts packages' files into a directory. It is for
# programs that the tests start themselves and whose packages would start a
# service here.
unpack() {
	local directory=$1 download package
	shift
	echo "unpacking $* into $directory"
	mkdir -p "$bin"
	download=$(mktemp -d "$bin/download.XXXXXX")
	# shellcheck disable=SC2064 # It is this directory that is to go.
	trap "rm -rf '$download'" EXIT
	apt-get update -qq
	(cd "$download" && apt-get download -qq -o APT::Sandbox::User=root "$@")
	for package in "$download"/*.deb; do
		dpkg-deb -x "$package" "$download/root"
	done
	rm -rf "$directory"
	mv "$download/root" "$directory"
	rm -rf "$download"
}

# Docker's engine would change the machine's firewall.
docker=$bin/docker
packages=(busybox-static)
command -v dockerd >/dev/null || packages+=(docker.io containerd runc libdevmapper1.02.1 libseccomp2)
if [ ! -e "$docker/bin/busybox" ] || [ ${#packages[@]} -gt 1 ] && [ ! -e "$docker/usr/sbin/dockerd" ]; then
	unpack "$docker" "${packages[@]}"
fi

# coturn would start a server on the machine's addresses. Its libraries start
# nothing.
coturn=$bin/coturn
[ -e "$coturn/usr/bin/turnserver" ] || unpack "$coturn" coturn
if [[ $(ldd "$coturn"/usr/bin/turn*) == *"not found"* ]]; then
	install libevent-core-2.1-7 libevent-extra-2.1-7 libevent-openssl-2.1-7 libevent-pthreads-2.1-7 \
		libhiredis0.14 libmariadb3 libpq5 libsqlite3-0 libssl3 libsystemd0
fi

# Open vSwitch's package would start its daemons. Its libraries start nothing.
openvswitch=$bin/openvswitch
if ! command -v ovs-vswitchd >/dev/null; then
	if [ ! -e "$openvswitch/usr/sbin/ovs-vswitchd" ]; then
		unpack "$openvswitch" openvswitch-switch openvswitch-common
		ln -s ../lib/openvswitch-switch/ovs-vswitchd "$openvswitch/usr/sbin/ovs-vswitchd"
	fi
	if [[ $(ldd "$openvswitch"/usr/sbin/ovs*d "$openvswitch"/usr/bin/ovs-vsctl) == *"not found"* ]]; then
		install libbpf1 libcap-ng0 libnuma1 libssl3 libunbound8 libxdp1
	fi
fi

if ! "$bin/golangci-lint" version 2>/dev/null | grep -qF "${lint_version#v}"; then
	echo "installing golangci-lint $lint_version"
	GOBIN=$bin GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$lint_version"
fi
