"""A link tells every command's outcome apart, within one deadline, and never takes one reply for another's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis
from halting import halt
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from valkeys import Valkey, running_valkey

from runtime.clock import SystemClock
from runtime.store.link import NotConnectedError, NotSentError, StoreLink, _reply_error

CLOCK = SystemClock()


def soon() -> float:
    """A deadline no busy machine misses."""
    return CLOCK.monotonic_ms() + 10_000


@pytest.fixture
def link(redis_url: str) -> Iterator[StoreLink]:
    """A link to the test's own database."""
    made = StoreLink(redis_url, CLOCK)
    made.connect()
    yield made
    made.close()


@pytest.fixture
def own_valkey(valkey_binary: str) -> Iterator[Valkey]:
    """A Valkey that the test may stop and kill."""
    with running_valkey(valkey_binary) as valkey:
        yield valkey


def test_replies_come_in_order(link: StoreLink) -> None:
    """However many commands go together, each gets its own reply."""
    commands = [("SET" if n % 2 else "GET", f"k{n}", *(["x" * n] if n % 2 else [])) for n in range(500)]
    replies = link.execute_many(soon(), [*commands, *(("GET", f"k{n}") for n in range(500))])
    assert replies[:500] == [b"OK" if n % 2 else None for n in range(500)]
    assert replies[500:] == [b"x" * n if n % 2 else None for n in range(500)]


def test_an_error_reply_stands_in_its_place(link: StoreLink) -> None:
    """One refused command tells nothing of its neighbours, and the link stays good."""
    first, error, missing, last = link.execute_many(
        soon(), [("SET", "a", "1"), ("INCR",), ("EVALSHA", "0" * 40, 0), ("GET", "a")]
    )
    assert (first, last) == (b"OK", b"1")
    assert isinstance(error, ResponseError)
    assert isinstance(missing, NoScriptError)
    assert link.execute(soon(), "GET", "a") == b"1"


def test_nothing_to_send_is_nothing_done() -> None:
    """An empty batch needs no store."""
    assert StoreLink("redis://nowhere", CLOCK).execute_many(0, []) == []


def test_unsent_commands_are_told_apart(link: StoreLink, store: redis.Redis) -> None:
    """Without a connection, or past the deadline, surely nothing ran."""
    with pytest.raises(NotSentError):
        link.execute_many(CLOCK.monotonic_ms(), [("SET", "a", "1")])
    assert link.connected
    link.close()
    with pytest.raises(NotConnectedError):
        link.execute_many(soon(), [("SET", "a", "1")])
    assert not store.exists("a")


def test_a_hung_store_breaks_the_link_at_the_deadline(own_valkey: Valkey) -> None:
    """All replies share one deadline; afterwards the link is closed, so that a late reply is nobody's."""
    link = StoreLink(own_valkey.url, CLOCK)
    link.connect()
    halt(own_valkey.process.pid)
    begun_ms = CLOCK.monotonic_ms()
    with pytest.raises(redis.TimeoutError):
        link.execute_many(begun_ms + 50, [("PING",)] * 20)
    assert 50 <= CLOCK.monotonic_ms() - begun_ms < 1_000
    assert not link.connected
    os.kill(own_valkey.process.pid, signal.SIGCONT)
    link.connect()
    assert link.execute_many(soon(), [("ECHO", "new")]) == [b"new"]
    link.close()


def test_a_store_that_dies_breaks_the_link(own_valkey: Valkey) -> None:
    """What was sent has an unknown outcome: the error is neither of the two that prove that nothing ran."""
    link = StoreLink(own_valkey.url, CLOCK)
    link.connect()
    own_valkey.process.kill()
    own_valkey.process.wait()
    with pytest.raises(redis.ConnectionError) as caught:
        link.execute_many(soon(), [("PING",)] * 3)
    assert not isinstance(caught.value, NotConnectedError)
    assert not link.connected
    with suppress(redis.ConnectionError):
        link.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script.", NoScriptError),
        ("MOVED 3999 127.0.0.1:6381", MovedError),
        ("ASK 3999 127.0.0.1:6381", AskError),
        ("TRYAGAIN Multiple keys request during rehashing of slot", TryAgainError),
        ("CLUSTERDOWN Hash slot not served", ClusterDownError),
        ("READONLY You can't write against a read only replica.", ReadOnlyError),
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemoryError),
        ("MOVED somewhere", ResponseError),
        ("NOSCRIPTS no", ResponseError),
        ("", ResponseError),
    ],
)
def test_error_replies_are_told_apart(text: str, kind: type[ResponseError]) -> None:
    """By their first word, whole; an unreadable redirection is an error like any other."""
    assert type(_reply_error(text)) is kind


def test_a_redirection_names_slot_and_server() -> None:
    """Also for a server with an IPv6 address, and for one at the address that was asked."""
    moved = _reply_error("MOVED 3999 ::1:6381")
    assert isinstance(moved, MovedError)
    assert (moved.slot_id, moved.host, moved.port) == (3999, "::1", 6381)
    here = _reply_error("ASK 1 :6381")
    assert isinstance(here, AskError)
    assert (here.host, here.port) == ("", 6381)
