#!/bin/sh
# Generates the Python code of every .proto here. Usage: protos/generate.sh [PYTHON [FOLDER]]
# PYTHON has the locked grpcio-tools and mypy-protobuf (default .venv/bin/python); FOLDER receives protos/*_pb2.py and .pyi
# (default: the repository, so that the committed files are replaced).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${1:-$root/.venv/bin/python}
folder=${2:-$root}
cd "$root"
exec "$python" -m grpc_tools.protoc -I . \
    --plugin=protoc-gen-mypy="$(dirname "$python")/protoc-gen-mypy" \
    --python_out="$folder" --mypy_out="$folder" protos/*.proto
