"""The messages and stubs of the Open Inference Protocol, and what explains refusals, compiled from the files here."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import grpc_tools
from grpc_tools import protoc

_HERE: Final = Path(__file__).parent
_GOOGLES: Final = Path(grpc_tools.__file__).parent / "_proto"


def _compiled() -> list[Any]:
    files = [file.name for file in sorted(_HERE.glob("*.proto"))]
    with tempfile.TemporaryDirectory(prefix="tollkeeper-protos-") as folder:
        made = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main(["protoc", f"-I{_HERE}", f"-I{_GOOGLES}", *made, *files]) == 0
        sys.path.insert(0, folder)
        try:
            names = ("open_inference_pb2", "open_inference_pb2_grpc", "google_rpc_pb2")
            return [importlib.import_module(name) for name in names]
        finally:
            sys.path.remove(folder)


messages, services, google_rpc = _compiled()
