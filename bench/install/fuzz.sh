#!/usr/bin/env bash
# Runs every fuzz test of the module for the time given as $1, one after the
# other: `go test -fuzz` takes one target of one package at a time.
set -euo pipefail
fuzztime=$1
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || true); do
		echo "$pkg $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$pkg"
	done
done
