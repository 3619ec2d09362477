#!/usr/bin/env bash
# Install people's own packages, with which tests call the gateway, once, into a cache outside the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" tests/support/clients.py "$@"
