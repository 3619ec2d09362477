"""The spare link: proved, kept fresh, and handed over at once, on a real Valkey that may be stopped and restarted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from gatebench import wait_until
from halting import halt
from valkeys import Valkey, running_valkey

from runtime.clock import SystemClock
from runtime.store.keeper import StoreKeeper
from runtime.store.link import StoreLink
from runtime.store.spare import Proved, Spare, TakeUp

CLOCK = SystemClock()
PATIENT_MS = 10_000


@pytest.fixture
def own_valkey(valkey_binary: str) -> Iterator[Valkey]:
    """A Valkey that the test may stop and kill."""
    with running_valkey(valkey_binary) as valkey:
        yield valkey


def connected(valkey: Valkey) -> StoreLink:
    """A link that works."""
    link = StoreLink(valkey.url, CLOCK)
    link.connect()
    return link


def ping(link: StoreLink) -> TakeUp:
    """See that the store answers."""
    link.execute(CLOCK.monotonic_ms() + PATIENT_MS, "PING")
    return lambda: None


def held(link: StoreLink, take_up: TakeUp = lambda: None) -> Spare[StoreLink]:
    """A spare that holds this link."""
    spare: Spare[StoreLink] = Spare()
    spare.put(Proved(link, take_up))
    return spare


def test_a_spare_is_handed_over_once(own_valkey: Valkey) -> None:
    """Whoever takes it has it for himself."""
    link = connected(own_valkey)
    spare = held(link)
    taken = spare.take(0)
    assert taken is not None
    assert taken.link is link
    assert spare.take(0) is None
    assert not spare.ready
    link.close()


def test_a_spare_of_a_restarted_store_is_not_handed_over(own_valkey: Valkey) -> None:
    """A store that came back may be older: it is proved again before it is asked."""
    link = connected(own_valkey)
    spare = held(link)
    own_valkey.process.kill()
    own_valkey.process.wait()
    assert spare.take(0) is None
    assert not link.connected


def test_a_doubted_spare_is_not_handed_over(own_valkey: Valkey) -> None:
    """Its server refuses what it is asked; a link put there later is another matter."""
    spare = held(connected(own_valkey))
    spare.doubt()
    assert not spare.ready
    assert spare.take(0) is None
    spare.drop_if_useless()
    spare.put(Proved(connected(own_valkey), lambda: None))
    assert spare.ready
    spare.put(None)


def test_a_look_that_fails_closes_the_spare(own_valkey: Valkey) -> None:
    """It says of what; the link is nobody's any more."""
    link = connected(own_valkey)
    spare = held(link)

    def fail(_link: StoreLink) -> TakeUp:
        raise redis.ResponseError("READONLY it is a replica")

    assert isinstance(spare.look(fail), redis.ResponseError)
    assert not spare.ready
    assert not link.connected


def test_a_look_under_way_is_waited_for_in_bounded_time(own_valkey: Valkey) -> None:
    """Two threads never send on one link: who needs the spare waits for the look, up to its own deadline."""
    spare = held(connected(own_valkey))
    looking = threading.Event()

    def look(link: StoreLink) -> TakeUp:
        looking.set()
        return ping(link)

    halt(own_valkey.process.pid)
    keeper = threading.Thread(target=spare.look, args=(look,))
    keeper.start()
    assert looking.wait(PATIENT_MS / 1000)
    begun_ms = CLOCK.monotonic_ms()
    assert spare.take(0.05) is None
    assert 50 <= CLOCK.monotonic_ms() - begun_ms < 1_000
    os.kill(own_valkey.process.pid, signal.SIGCONT)
    taken = spare.take(PATIENT_MS / 1000)
    assert taken is not None
    ping(taken.link)
    keeper.join()
    taken.link.close()


# With its keeper


@contextmanager
def kept(url: str, prove: Callable[[StoreLink], TakeUp], **hooks: Any) -> Iterator[StoreKeeper[StoreLink]]:
    """A keeper at work, with a link and a spare."""
    keeper = StoreKeeper(
        lambda: StoreLink(url, CLOCK),
        prove,
        look=prove,
        clock=CLOCK,
        name="test-keeper",
        on_proved=hooks.get("on_proved", lambda: None),
        on_error=hooks.get("on_error", lambda _error: None),
        on_fault=lambda: pytest.fail("the keeper ended by a fault"),
    )
    keeper.start()
    wait_until(lambda: is_complete(keeper))
    yield keeper
    keeper.stop(5)


def is_complete(keeper: StoreKeeper[StoreLink]) -> bool:
    """Whether the link and the spare are there."""
    return keeper._link is not None and keeper._link.connected and keeper._spare.ready


def test_the_spare_follows_a_broken_link_at_once(own_valkey: Valkey) -> None:
    """Also while no new link can be had; then a new spare is made. What its proof taught is learnt only then."""
    taught: list[StoreLink] = []

    def prove(link: StoreLink) -> TakeUp:
        ping(link)
        return lambda: taught.append(link)

    with kept(own_valkey.url, prove) as keeper:
        first = keeper.current(0)
        assert first is not None
        assert taught == [first]
        make, keeper._make = keeper._make, lambda: StoreLink("unix:///nonexistent/store.sock", CLOCK)
        first.close()  # as after a late answer
        second = keeper.current(0)
        assert second is not None
        assert second is not first
        assert taught == [first, second]
        ping(second)
        assert not keeper._spare.ready
        keeper._make = make
        wait_until(lambda: is_complete(keeper))
        assert keeper.current(0) is second


def test_links_in_use_are_counted_and_spares_are_not(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare that is made again and again, because names may lead elsewhere, is no sign of trouble."""
    monkeypatch.setattr("runtime.store.keeper.SPARE_S", 0.0)
    used: list[int] = []
    proofs: list[StoreLink] = []

    def prove(link: StoreLink) -> TakeUp:
        proofs.append(link)
        return ping(link)

    with kept(own_valkey.url, prove, on_proved=lambda: used.append(1)):
        wait_until(lambda: len(set(proofs)) >= 4)
    assert used == [1]


def test_a_spare_that_can_be_used_no_more_is_replaced_without_any_call(own_valkey: Valkey) -> None:
    """About a second after its store has become another, the spare is proved no more: a demoted master, for one."""
    errors: list[Exception] = []
    demoted = threading.Event()

    def prove(link: StoreLink) -> TakeUp:
        if demoted.is_set():
            raise redis.ResponseError("READONLY it is a replica")
        return ping(link)

    with kept(own_valkey.url, prove, on_error=errors.append) as keeper:
        link = keeper.current(0)
        demoted.set()
        wait_until(lambda: not keeper._spare.ready)
        wait_until(lambda: bool(errors))  # told once the spare is gone
        assert keeper.current(0) is link  # it still answers: its own calls find out
        demoted.clear()
        wait_until(lambda: is_complete(keeper))


def test_an_idle_link_that_died_is_followed_by_the_spare(own_valkey: Valkey) -> None:
    """Without any call, and the store counts as up all the time."""
    with kept(own_valkey.url, ping) as keeper:
        first = keeper.current(0)
        assert first is not None
        with own_valkey.client() as client:
            ours = first._socket.getsockname()  # type: ignore[union-attr]
            client.client_kill_filter(addr=f"{ours[0]}:{ours[1]}")
        wait_until(lambda: keeper.current(0) is not first)
        assert keeper.ready
        wait_until(lambda: is_complete(keeper))
