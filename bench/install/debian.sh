#!/usr/bin/env bash
# Installs what building, testing and measuring Heddle need and this machine
# lacks: Debian packages, and the linter at the version given as $1 into the
# folder given as $2, and Docker's engine there too. What is there already is
# left alone.
set -euo pipefail
lint_version=$1 bin=$2

# command:package pairs.
needs="
	gcc:gcc ip:iproute2 tc:iproute2 ping:iputils-ping ethtool:ethtool iperf3:iperf3
	sockperf:sockperf tcpdump:tcpdump tshark:tshark nft:nftables socat:socat
	curl:curl jq:jq git:git nsenter:util-linux"
missing=()
PATH=$PATH:/usr/sbin:/sbin
for need in $needs; do
	command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
	echo "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Docker's engine, for the tests only. It is unpacked and not installed: the
# package would start an engine here, which changes the machine's firewall.
docker=$bin/docker
packages=(busybox-static)
command -v dockerd >/dev/null || packages+=(docker.io containerd runc libdevmapper1.02.1 libseccomp2)

if [ ! -e "$docker/bin/busybox" ] || [ ${#packages[@]} -gt 1 ] && [ ! -e "$docker/usr/sbin/dockerd" ]; then
	echo "unpacking ${packages[*]} into $docker"
	mkdir -p "$bin"
	download=$(mktemp -d "$bin/download.XXXXXX")
	trap 'rm -rf "$download"' EXIT
	apt-get update -qq
	(cd "$download" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}")
	for package in "$download"/*.deb; do
		dpkg-deb -x "$package" "$download/root"
	done
	rm -rf "$docker"
	mv "$download/root" "$docker"
fi

if ! "$bin/golangci-lint" version 2>/dev/null | grep -qF "${lint_version#v}"; then
	echo "installing golangci-lint $lint_version"
	GOBIN=$bin GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$lint_version"
fi
