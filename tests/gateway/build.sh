#!/usr/bin/env bash
# Build the Envoy Gateway that the tests run, once, into a cache outside the repository.
#
# With the options of tests/kube/build.sh, so that what both have in common is compiled once: Envoy Gateway and the
# Kubernetes of those tests use the same versions of its libraries.
set -euo pipefail
version=1.9.1
folder=${XDG_CACHE_HOME:-$HOME/.cache}/tollkeeper/envoy-gateway-$version
binary=$folder/envoy-gateway

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9  # a second run waits for the first
if [[ -x $binary ]]; then exit 0; fi
if ! command -v go >/dev/null; then
    echo "Go is missing: Envoy Gateway $version cannot be built, and its tests cannot run" >&2
    if [[ ${CI:-} ]]; then exit 1; fi
    exit 0  # at home the tests are skipped
fi
echo "building Envoy Gateway $version into $folder: about six minutes on two cores, once" >&2
export GOBIN=$folder/building CGO_ENABLED=0 GOTOOLCHAIN=auto
export GOGC=off GOMEMLIMIT=2GiB  # compilers end before they need to collect: a quarter less CPU
go install -trimpath -ldflags "-s -w" "github.com/envoyproxy/gateway/cmd/envoy-gateway@v$version"
mv "$folder/building/envoy-gateway" "$binary"
rmdir "$folder/building"
