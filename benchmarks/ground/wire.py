"""A generator of gRPC calls of which each may be another, and whose every answer is looked at; h2load's are all alike.

HTTP/2 as far as a client of one unary method needs it: headers are encoded once, answers' headers are not decoded. Some
connections, each with so many calls under way, driven by one thread; a closed loop.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from benchmarks.ground.h2load import CONNECTIONS, STREAMS

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_HUGE: Final = 2**31 - 1
_WINDOW_AT_FIRST: Final = 65_535
_HEAD: Final = struct.Struct(">BHBBI")  # length 3 bytes, type, flags, stream
_READ: Final = 256 * 1024

OnAnswer = Callable[[bytes, bytes], None]
"""Hears of an answer: the question, and the message that came back (empty: a gRPC error)."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def _headers(path: str) -> bytes:
    """POST of a path, as literals that are not indexed (RFC 7541, 6.2.2)."""
    text = [b"\x83\x86\x04", _literal(path), b"\x01", _literal("localhost"), b"\x0f\x10", _literal("application/grpc")]
    return b"".join([*text, b"\x00", _literal("te"), _literal("trailers")])


def _literal(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


@dataclass
class _Connection:
    """One connection and the calls under way on it."""

    socket: socket.socket
    questions: dict[int, bytes] = field(default_factory=dict)  # by stream
    answers: dict[int, bytes] = field(default_factory=dict)
    stream: int = 1
    window: int = _WINDOW_AT_FIRST
    unread: bytes = b""
    received: int = 0


class Caller:
    """Calls one method."""

    def __init__(self, port: int, path: str, *, connections: int = CONNECTIONS, streams: int = STREAMS) -> None:
        self._streams = streams
        self._head = _headers(path)
        self._selector = selectors.DefaultSelector()
        self._all = [self._connect(port) for _ in range(connections)]

    def close(self) -> None:
        """End the connections."""
        for one in self._all:
            one.socket.close()
        self._selector.close()

    def _connect(self, port: int) -> _Connection:
        made = _Connection(socket.create_connection(("127.0.0.1", port)))
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = struct.pack(">HIHI", 1, 0, 4, _HUGE)  # no table of headers, no window of a stream
        more = struct.pack(">I", _HUGE - _WINDOW_AT_FIRST)
        made.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, more))
        self._selector.register(made.socket, selectors.EVENT_READ, made)
        return made

    def call(self, questions: Iterator[bytes], on_answer: OnAnswer) -> float:
        """Ask all of these; returns the seconds that it took."""
        began_s = time.monotonic()
        for one in self._all:
            self._fill(one, questions)
        while any(one.questions for one in self._all):
            for ready, _ in self._selector.select(10):
                self._read(ready.data, on_answer)
                self._fill(ready.data, questions)
        return time.monotonic() - began_s

    def _fill(self, one: _Connection, questions: Iterator[bytes]) -> None:
        out = []
        while len(one.questions) < self._streams and one.window > _WINDOW_AT_FIRST // 2:
            question = next(questions, None)
            if question is None:
                break
            body = b"\0" + len(question).to_bytes(4, "big") + question
            out += [
                _frame(_HEADERS, _END_HEADERS, one.stream, self._head),
                _frame(_DATA, _END_STREAM, one.stream, body),
            ]
            one.questions[one.stream], one.answers[one.stream] = question, b""
            one.window -= len(body)
            one.stream += 2
        if out:
            one.socket.sendall(b"".join(out))

    def _read(self, one: _Connection, on_answer: OnAnswer) -> None:
        text = one.unread + one.socket.recv(_READ)
        if len(text) == len(one.unread):
            raise SystemExit("the server closed a connection")
        at = 0
        while len(text) - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(text, at)
            end = at + _HEAD.size + (high << 16 | low)
            if end > len(text):
                break
            self._take(one, kind, flags, stream & _HUGE, text[at + _HEAD.size : end])
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                on_answer(one.questions.pop(stream), one.answers.pop(stream)[5:])
            at = end
        one.unread = text[at:]

    def _take(self, one: _Connection, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            one.answers[stream] += payload
            self._make_room(one, len(payload))
        elif kind == _WINDOW and stream == 0:
            one.window += int.from_bytes(payload, "big")
        elif kind in {_SETTINGS, _PING} and not flags & _ACK:
            one.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in {_RST, _GOAWAY}:
            raise SystemExit(f"the server ended a call or a connection: {payload!r}")

    @staticmethod
    def _make_room(one: _Connection, size: int) -> None:
        one.received += size
        if one.received > _HUGE // 4:
            one.socket.sendall(_frame(_WINDOW, 0, 0, struct.pack(">I", one.received)))
            one.received = 0
