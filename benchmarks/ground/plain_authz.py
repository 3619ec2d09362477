"""A plain ext_authz service that admits everybody: the least that a second callout costs.

    python -m benchmarks.ground.plain_authz unix:PATH|HOST:PORT

It reads nothing and decides nothing; its answer is made once. A real one would look a key up as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NoReturn

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from extauth.edge import CHECK_PATH
from protos.external_auth_pb2 import CheckResponse, OkHttpResponse

BATCH: Final = 64
PATIENCE_MS: Final = 100


def serve(target: str, answer: Callable[[bytes], bytes], on_bound: Callable[[], object] = lambda: None) -> NoReturn:
    """Answer every Check at once, until killed."""
    front = NativeGrpcFront(target, [(CHECK_PATH, False)], io_threads=1)
    front.start()
    on_bound()
    while True:
        for kind, call_id, _method, payload, _key in front.recv_batch(BATCH, PATIENCE_MS) or ():
            if kind == EVENT_CALL:
                front.respond(call_id, answer(payload or b""))


def main() -> None:
    """Serve until killed."""
    admitted = CheckResponse(ok_response=OkHttpResponse()).SerializeToString()
    serve(sys.argv[1], lambda _payload: admitted)


if __name__ == "__main__":
    main()
