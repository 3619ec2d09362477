"""A failover by Sentinel to a replica that lags: what is admitted beyond a limit is what the replica never heard of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError
from valkeysentinel import Watched, await_that, watched_master

from ratelimit.windows.budgets import Answer, Budget, Subject, Window
from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.link import StoreLink
from tests.ratelimit.windows.test_promises import most_within
from tests.support.draws import draw

CLOCK = SystemClock()
LIMIT = 300
BEFORE_FREEZE, BEFORE_DEATH = 120, 80
SUBJECT = Subject("p:1", (Budget(Window.HOUR, LIMIT),))
BEAT = "tk:test:{0}:beat"


@pytest.fixture
def watched(valkey_binary: str) -> Iterator[Watched]:
    """A master with a replica and three Sentinels."""
    with watched_master(valkey_binary) as found:
        yield found


class Caller:
    """Takes all it can get through the link, and writes the number of its last admission behind each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._limiter = Limiter(cell="0", epoch_key="tk:epoch:{0}", feed_key="tk:feed:{0}")
        self._link = StoreLink(url, CLOCK)
        self.admitted: list[tuple[int, int]] = []  # (store time, units)

    def take(self) -> Answer:
        """Ask once; raises where there is no answer."""
        if not self._link.connected:
            self._link = StoreLink(self._url, CLOCK)
            self._link.connect()
        taken = self._limiter.take(self.execute, [draw((SUBJECT,))], epoch="")
        answer = taken.grants[0].answer
        if answer is Answer.ADMITTED:
            self.admitted.append((taken.now_ms, 1))
            self.execute("SET", BEAT, len(self.admitted), "PX", 600_000)
        return answer

    def execute(self, *command: Any) -> Any:
        """Send one command."""
        return self._link.execute(CLOCK.monotonic_ms() + 5_000, *command)

    def take_through(self, failover: Callable[[], bool]) -> None:
        """Go on taking, answered or not, until the failover is over and the budget is empty."""

        def empty() -> bool:
            with contextlib.suppress(RedisError):
                return self.take() is Answer.REFUSED and failover()
            return False

        await_that(empty)

    def close(self) -> None:
        """Close the link."""
        self._link.close()


def test_the_excess_is_what_the_replica_had_not_received(watched: Watched) -> None:
    """In the worst trailing window no more than the limit and the admissions after the last replicated write."""
    caller = Caller(watched.url)
    for _ in range(BEFORE_FREEZE):
        assert caller.take() is Answer.ADMITTED
    caller.execute("WAIT", 1, 10_000)
    watched.relay.freeze()
    for _ in range(BEFORE_DEATH):
        assert caller.take() is Answer.ADMITTED
    watched.kill_master()
    dead_at = len(caller.admitted)
    with watched.replica.client() as replica:
        received = int(replica.get(BEAT) or 0)
        caller.take_through(lambda: replica.role()[0] == b"master")
    caller.close()
    lag = dead_at - received  # admissions that the replica may not have heard of
    excess = most_within(caller.admitted, Window.HOUR.value.window_ms) - LIMIT
    assert received >= BEFORE_FREEZE
    assert 0 < lag <= LIMIT
    assert 0 < excess <= lag  # the failover did cost something, or this test shows nothing


def test_a_server_that_is_no_master_is_not_used(watched: Watched) -> None:
    """Sentinels still name it, it says itself that it is none: better no link than one that reads what is old."""
    with watched.master.client() as master:
        master.replicaof("127.0.0.1", watched.replica.port)
        await_that(lambda: master.role()[0] == b"slave")
    link = StoreLink(watched.url, CLOCK)
    with pytest.raises(redis.ConnectionError, match="calls itself slave"):
        link.connect()
    assert not link.connected
