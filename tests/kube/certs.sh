#!/usr/bin/env bash
# Run a command for which a folder lies at /certs, where Envoy Gateway looks for its certificates in a cluster:
#
#   certs.sh CERTS ROOT COMMAND...
#
# Nothing of it is left on the machine: the command has a mount namespace of its own, and in it a root, laid out in the
# empty folder ROOT, that has everything of the machine's and that folder besides.
set -euo pipefail
if [[ $1 != --inside ]]; then
    own=(unshare --mount)
    if ((EUID)); then own+=(--map-root-user); fi
    exec "${own[@]}" "$0" --inside "$@"
fi
certs=$2 root=$3
shift 3

mount -t tmpfs tmpfs "$root"
for entry in /*; do
    if [[ -L $entry ]]; then
        cp -P "$entry" "$root/"
    elif [[ -d $entry ]]; then
        mkdir "$root$entry"
        mount --rbind "$entry" "$root$entry"
    fi
done
mkdir "$root/certs"
mount --bind "$certs" "$root/certs"
exec chroot "$root" "$@"
