"""A small HTTP/2 client that reads while it sends: an answer that comes before the end of an upload is kept.

curl 7.88 throws such an answer away when RST_STREAM (NO_ERROR) follows it, which RFC 9113 (8.1) forbids.
"""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

_READ = 64 * 1024


@dataclass
class Answer:
    """What came back, as far as it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False


def post(
    port: int,
    host: str,
    path: str,
    body: bytes,
    timeout_s: float,
    *headers: tuple[str, str],
    content_type: str = "application/json",
) -> Answer:
    """Send one POST with prior knowledge; return once the answer has ended, however much of the body went out.

    Raises:
        TimeoutError: Nothing could be read or written for ``timeout_s``.
    """
    talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    talk.initiate_connection()
    head = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path)]
    kind = (("content-type", content_type), ("content-length", str(len(body))))
    talk.send_headers(1, [*head, *kind, *headers])
    answer, rest, out = Answer(), memoryview(body), bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.setblocking(False)
        while not answer.whole:
            rest = _offered(talk, rest)
            out += talk.data_to_send()
            readable, writable, _ = select.select([connection], [connection] if out else [], [], timeout_s)
            if not readable and not writable:
                raise TimeoutError(path)
            if writable:
                del out[: connection.send(out)]
            if readable:
                _take(talk, answer, connection.recv(_READ))
    return answer


def _offered(talk: h2.connection.H2Connection, rest: memoryview) -> memoryview:
    """Hand over what the windows let pass; return what is left. A reset stream takes nothing more."""
    try:
        while rest and (room := min(talk.local_flow_control_window(1), talk.max_outbound_frame_size, len(rest))) > 0:
            talk.send_data(1, bytes(rest[:room]), end_stream=room == len(rest))
            rest = rest[room:]
    except h2.exceptions.StreamClosedError:
        return rest[:0]
    return rest


def _take(talk: h2.connection.H2Connection, answer: Answer, data: bytes) -> None:
    if not data:
        raise ConnectionError("closed before the answer's end")
    for event in talk.receive_data(data):
        match event:
            case h2.events.ResponseReceived():
                answer.headers = dict(event.headers)
                answer.status = int(answer.headers[":status"])
            case h2.events.DataReceived():
                answer.body += event.data
                talk.acknowledge_received_data(event.flow_controlled_length, 1)
            case h2.events.StreamEnded():
                answer.whole = True
            case h2.events.StreamReset() | h2.events.ConnectionTerminated() if not answer.whole:
                raise ConnectionError(f"{event} before the answer's end")
