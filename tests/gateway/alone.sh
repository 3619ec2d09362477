#!/usr/bin/env bash
# Run a command in a network of its own, with nothing but loopback: Envoy Gateway's ports cannot be chosen. Its processes
# are its own too: whatever it has started ends with it, however it ends.
# Where the machine gives no such network, the command runs in the machine's own, and those ports must be free.
set -euo pipefail
own=(unshare --net --pid --fork --kill-child --mount-proc)
if ((EUID)); then own+=(--map-root-user); fi

if "${own[@]}" ip link set lo up 2>/dev/null; then
    exec "${own[@]}" sh -c 'ip link set lo up && "$@"; exit $?' alone "$@"  # the shell is what init is elsewhere
fi
echo "no network of its own (unshare --net, ip): Envoy Gateway's ports must be free on this machine" >&2
exec "$@"
