#!/usr/bin/env bash
# Build the envoyproxy/ratelimit that the benchmarks compare with, once, into a cache outside the repository.
set -euo pipefail
version=v1.4.1-0.20260122083618-3fb702589d36
folder=${XDG_CACHE_HOME:-$HOME/.cache}/tollkeeper/peers/ratelimit-$version
binary=$folder/service_cmd

mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9  # a second run waits for the first
if [[ ! -x $binary ]]; then
    if ! command -v go >/dev/null; then
        echo "Go is missing: envoyproxy/ratelimit cannot be built, and there is nothing to compare with" >&2
        exit 1
    fi
    echo "building envoyproxy/ratelimit $version into $folder, once" >&2
    export GOBIN=$folder/building CGO_ENABLED=0 GOTOOLCHAIN=auto
    go install -trimpath -ldflags "-s -w" "github.com/envoyproxy/ratelimit/src/service_cmd@$version" >&2
    mv "$folder/building/service_cmd" "$binary"
    rmdir "$folder/building"
fi
echo "$binary"
