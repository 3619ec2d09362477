"""Calls with odd hosts, paths and bodies: a repeatable sequence, sent to a proxy, with the server that each reached."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.e2e.proxy import Caller, Reply, head, kserve_v2, openai, publication, stripped

CONNECTIONS = 4
HOST, OTHER = "odd.example.test", "other.test"

KeyOf = Callable[[random.Random, int, str], str]
"""The text of a call's key: of its number and of the publication whose path it resembles."""

SHAPES = [
    (publication, "iris", HOST, "/models/iris"),
    (publication, "iris2", HOST, "/models/iris2"),
    (publication, "nested", HOST, "/models/iris/v2"),
    (stripped, "plain", HOST, "/models/plain"),
    (stripped, "inner", HOST, "/models/plain/inner"),
    (stripped, "predict", HOST, "/models/iris2/predict"),
    (openai, "llm", HOST, "/v1/models/llm"),
    (openai, "llm-x", HOST, "/v1/models/llm-x"),
    (openai, "deep", HOST, "/v1/models/llm/deep"),
    (stripped, "shadow", HOST, "/v1/chat"),
    (publication, "iris-o", OTHER, "/models/iris"),
    (openai, "llm-o", OTHER, "/llm"),
    (kserve_v2, "tensor", HOST, "/models/tensor"),
]
TAILS = [
    "",
    "",
    "/predict",
    "/explain",
    "/",
    "/chat/completions",
    "/x/y",
    "/inner",
    "/v2",
    "/v2/predict",
    "/deep/models",
    "/v1/models/iris:predict",
    "/v2/models/tensor/infer",
    "/v2/models/tensor/versions/1/infer",
]
ENTRIES = ["/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/v1/models", "/v1", "/v1/", "/v1/chatter"]
BY_PATH = [
    "/v1/models/iris:predict",
    "/v1/models/iris2",
    "/v2/models/tensor/infer",
    "/v2/models/tensor/versions/../infer",
    "/v2/models/iris-o/infer",
    "/v2",
    "/",
    "/:kserve/v2/models/tensor/infer",
]
"""Where a host's models are named by the path, in KServe's words, and where Check alone leads."""
MODELS = ["llm", "llm-x", "deep", "llm-o", "iris", "LLM", "llm ", "", "tenant-a/llm", "../llm"]
INSERTS = [
    "/",
    "//",
    "/.",
    "/./",
    "/../",
    "/..",
    "%2e",
    "%2e%2e/",
    "%2f",
    "%5c",
    "\\",
    ";",
    ";x=1",
    "?",
    "?/models/plain",
    "#",
    "%00",
    "%",
    "%zz",
    "%25",
    "%252f",
    "\xe9",
    "\xff",
    "~",
    "*",
    ":",
    "@",
    "&",
    "+",
    "\t",
    "x",
    "iris",
    "/models/plain",
]
SPELLINGS = ["{}", "{}:8080", "{}.", "{}.:1"]
ODD_HOSTS = [
    "nobody.test",
    f"x.{HOST}",
    f"{HOST}x",
    f"{HOST}, {OTHER}",
    f"{OTHER}@{HOST}",
    "",
    "127.0.0.1",
    "[::1]",
    f"{HOST}/",
    f"{HOST}\\",
    "*",
    f"{HOST}:x",
    f"{HOST}..",
]


@dataclass(frozen=True)
class Call:
    """One call."""

    number: int
    key: str
    text: bytes


def _odd_host(chance: random.Random, host: str) -> str:
    if chance.random() < 0.1:
        return chance.choice(ODD_HOSTS)
    spelled = chance.choice(SPELLINGS).format(host)
    return spelled.upper() if chance.random() < 0.2 else spelled


def _odd_path(chance: random.Random, path: str) -> str:
    path = chance.choice([*ENTRIES, *BY_PATH]) if chance.random() < 0.3 else path + chance.choice(TAILS)
    if chance.random() < 0.05:
        path = path.swapcase()
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        at = chance.randrange(len(path) + 1)
        path = path[:at] + chance.choice(INSERTS) + path[at + chance.choice([0, 0, 1, 2]) :]
    return path.replace("\t", "%09").replace(" ", "%20") or "/"


def _odd_body(chance: random.Random) -> bytes:
    model = json.dumps(chance.choice(MODELS))
    shapes = [
        '{"model": %s}',
        '{"a": {"model": "llm"}, "model": %s}',
        '{"model": "iris", "model": %s}',
        '[{"model": %s}]',
        '{"model": %s',
        '{"model": [%s]}',
        '{"Model": %s}',
        '\ufeff{"model": %s}',
    ]
    shape = chance.choice(shapes) if chance.random() < 0.4 else shapes[0]
    return (shape % model).encode()


def odd_calls(seed: int, count: int, key_of: KeyOf) -> list[Call]:
    """Make so many."""
    chance = random.Random(seed)  # noqa: S311  a repeatable sequence, no secret
    return [_call(chance, number, key_of) for number in range(count)]


def _call(chance: random.Random, number: int, key_of: KeyOf) -> Call:
    _, uid, published_host, published_path = chance.choice(SHAPES)
    target, host = _odd_path(chance, published_path), _odd_host(chance, published_host)
    if chance.random() < 0.05:
        target, host = f"http://{host}{target}", chance.choice(ODD_HOSTS)
    key = key_of(chance, number, uid)
    headers = [f"host: {host}", f"x-api-key: {key}"]
    if chance.random() < 0.1:
        headers.append(f"x-tollkeeper-publication: {chance.choice(SHAPES)[1]}")
    return Call(number, key, _text(chance, target, headers))


def _text(chance: random.Random, target: str, headers: Sequence[str]) -> bytes:
    if chance.random() < 0.5:
        body = _odd_body(chance)
        kind = chance.choice(["application/json", "application/json", "application/json; charset=utf-8", "text/plain"])
        return head("POST", target, *headers, f"content-type: {kind}", f"content-length: {len(body)}") + body
    return head("GET", target, *headers)


def all_reached(envoy: Caller, calls: Sequence[Call]) -> dict[int, str]:
    """Send them all; the server that each reached, by number, empty where it reached none."""
    reached: dict[int, str] = {}
    threads = [
        threading.Thread(target=_send_all, args=(envoy, calls[n::CONNECTIONS], reached)) for n in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reached


def _send_all(envoy: Caller, calls: Sequence[Call], reached: dict[int, str]) -> None:
    """Send on one connection after the other, a new one whenever Envoy closed the last."""
    left = iter(calls)
    call = next(left, None)
    while call is not None:
        with envoy.connect() as connection:
            while call is not None:
                reply = _exchange(connection, call)
                reached[call.number] = reply.upstream
                call = next(left, None)
                if not reply.status or reply.headers.get("connection") == "close":
                    break


def _exchange(connection: socket.socket, call: Call) -> Reply:
    try:
        connection.sendall(call.text)
        return Reply.read(connection)
    except (BrokenPipeError, ConnectionResetError):
        return Reply(0, {}, "")
