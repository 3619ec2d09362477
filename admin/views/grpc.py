"""Calls of gRPC to copy."""

from __future__ import annotations

from urllib.parse import urlsplit

from admin.schemas.schemas import Examples
from admin.services import Gateway
from catalog import inference
from catalog.records import PublicationRecord


def grpc_examples(record: PublicationRecord, gateway: Gateway) -> Examples:
    """By curl whether the server is ready, an empty message of five bytes; by Triton's client whether the model is."""
    url, called_as = gateway.reachable_url(record, inference.READY), inference.called_as(record.path)
    is_tls, header = url.startswith("https:"), inference.MODEL_HEADERS[0]
    key, python_key = ('-H "X-API-Key: $API_KEY" ', "'x-api-key': os.environ['API_KEY'], ")
    if not record.require_api_key:
        key, python_key = "", ""
    curl = (
        f"printf '\\0\\0\\0\\0\\0' | curl -s -o /dev/null -D - {'--http2' if is_tls else '--http2-prior-knowledge'} "
        f"{key}-H '{header}: {called_as}' -H 'Content-Type: application/grpc' -H 'TE: trailers' --data-binary @- {url}"
    )
    python = (
        "import os, tritonclient.grpc as triton\n"
        f"client = triton.InferenceServerClient({_target(url)!r}, ssl={is_tls})\n"
        f"headers = {{{python_key}{header!r}: {called_as!r}}}\n"
        f"print(client.is_model_ready({record.served_as!r}, headers=headers))\n"
    )
    return Examples(curl=curl, python=python)


def _target(url: str) -> str:
    """Host and port, as a channel is opened."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{port}"
