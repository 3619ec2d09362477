"""The publisher's lease: never two holders, whatever happens; a model says who it is, on a time of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.status import State, Status
from publisher.turns import names
from publisher.turns.board import Board, Failure, read_board
from publisher.turns.lease import Lease, lease

LIFE_MS = 10_000
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["hold", "release"]), st.integers(-2 * LIFE_MS, 2 * LIFE_MS)),
    max_size=20,
)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the test's database."""
    async with redis.asyncio.Redis.from_url(redis_url) as opened:
        yield opened


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_the_lease_is_as_its_model(redis_url: str, store: redis.Redis, steps: list[tuple[str, str, int]]) -> None:
    """Free, ended or one's own: it is held for one life. Another's: not. A clock set back shortens it to one life."""

    async def run() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            store.flushdb()
            now_ms, holder, until_ms = 10**9, "", 0
            for who, act, step_ms in steps:
                now_ms += step_ms
                answer = await lease(client, act, who, life_ms=LIFE_MS, now_ms=now_ms)
                if holder not in {"", who} and until_ms > now_ms:
                    until_ms = min(until_ms, now_ms + LIFE_MS)
                    assert not answer.held
                    continue
                assert answer.held
                if act == "hold":
                    holder, until_ms = who, now_ms + LIFE_MS
                elif holder == who:
                    holder = ""

    asyncio.run(run())


async def test_a_holder_stops_before_another_can_begin(client: redis.asyncio.Redis) -> None:
    """By its own clock from before it asked, less a margin: at that time the store still refuses everybody else."""
    clock = [100.0]
    mine = Lease(client, "a", life_ms=4_000, monotonic_s=lambda: clock[0])
    assert not mine.held()
    assert await mine.hold()
    clock[0] += 3.499
    assert mine.held()
    clock[0] += 0.002
    assert not mine.held()
    assert not await Lease(client, "b", life_ms=4_000).hold()


async def test_given_back_it_is_free_at_once(client: redis.asyncio.Redis) -> None:
    """After a graceful stop nobody waits; what is not one's own cannot be given back."""
    mine, other = Lease(client, "a"), Lease(client, "b")
    assert await mine.hold()
    await other.release()
    assert not await other.hold()
    await mine.release()
    assert not mine.held()
    assert await other.hold()


async def test_who_does_not_hold_it_hears_what_the_holder_says(client: redis.asyncio.Redis) -> None:
    """The holder's board is the others' board; nobody else can write it."""
    mine, other = Lease(client, "a"), Lease(client, "b")
    said = Board({"u": 3}, {"v": Failure(2, "the proxy said no")}, "the proxy is away")
    await mine.hold(said)
    assert not await other.hold(Board({"u": 99}))
    assert other.board == said
    assert await client.pttl(names.BOARD) > 0
    assert await client.pttl(names.LEASE) > 0


async def test_what_somebody_wrote_over_them_does_no_harm(client: redis.asyncio.Redis) -> None:
    """A lease that is none is free; a board that is none tells nothing."""
    await client.set(names.LEASE, "nonsense")
    await client.set(names.BOARD, "[1")
    assert await Lease(client, "a").hold()
    other = Lease(client, "b")
    assert not await other.hold()
    assert other.board == Board()


def test_a_board_tells_where_a_version_stands() -> None:
    """Live from the served version back, failed from the refused one back, pending else, with what is in the way."""
    board = read_board(Board({"u": 3}, {"u": Failure(4, "no"), "v": Failure(1, "never")}, "away").written())
    assert board.status("u", 3) == Status(State.LIVE)
    assert board.status("u", 4) == Status(State.FAILED, "no")
    assert board.status("u", 5) == Status(State.PENDING, "away")
    assert board.status("v", 1) == Status(State.FAILED, "never")
    assert board.status("w", 1) == Status(State.PENDING, "away")
