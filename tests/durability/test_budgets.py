"""What a budgets store loses in a power cut: admissions of its last two seconds at most, under everysec."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from ratelimit.windows.budgets import Answer, Budget, Subject, Window
from ratelimit.windows.limiter import Limiter
from tests.durability.store import PoweredStore, powered_store
from tests.support.draws import draw

LIMIT = 10**9
STATED_LOSS_MS = 2_000
COUNTED = Subject("t:tenant-a", (Budget(Window.HOUR, LIMIT),))
LIMITER = Limiter(cell="0", epoch_key="tk:epoch:{0}", feed_key="tk:feed:{0}")


class Admissions:
    """Takes one unit after another until the store is gone; remembers when each was admitted, by the store's clock."""

    def __init__(self, store: PoweredStore) -> None:
        self._url = store.url
        self.times_ms: list[int] = []

    def keep_taking(self) -> None:
        """Take until the store is gone."""
        with redis.Redis.from_url(self._url) as client:
            try:
                while True:
                    taken = LIMITER.take(client.execute_command, [draw((COUNTED,))], epoch="")
                    assert taken.grants[0].answer is Answer.ADMITTED
                    self.times_ms.append(taken.now_ms)
            except redis.ConnectionError:
                return


def held(store: PoweredStore) -> int:
    """Units that the store still counts."""
    with redis.Redis.from_url(store.url) as client:
        looked = LIMITER.take(client.execute_command, [draw((COUNTED,))], epoch="", look=True)
    return LIMIT - looked.grants[0].states[0].remaining - 1  # a look tells what would be left


@contextmanager
def admitting(store: PoweredStore) -> Iterator[Admissions]:
    """Take in a thread; the body is to end the store."""
    admissions = Admissions(store)
    thread = threading.Thread(target=admissions.keep_taking, name="taker")
    thread.start()
    try:
        yield admissions
    finally:
        store.kill()
        thread.join()


@pytest.fixture
def everysec(valkey_binary: str, power_cut_library: Path, short_folder: Path) -> Iterator[PoweredStore]:
    """A store that syncs once a second."""
    with powered_store(valkey_binary, power_cut_library, short_folder / "store", "--appendfsync", "everysec") as store:
        yield store


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_power_cut_forgets_two_seconds_of_admissions_at_most(everysec: PoweredStore) -> None:
    """What is missing was admitted in the last two seconds before the cut, by the store's clock; it does lose some."""
    chance, before, missing = random.Random(9), 0, 0
    for _ in range(4):
        with admitting(everysec) as admissions:
            time.sleep(chance.uniform(1.2, 3.2))  # wherever in the store's second
        everysec.power_cut()
        everysec.start()
        kept = held(everysec) - before
        lost_ms = admissions.times_ms[kept:]
        assert 0 <= kept <= len(admissions.times_ms) + 1  # the last answer may have been on its way
        assert not lost_ms or admissions.times_ms[-1] - lost_ms[0] <= STATED_LOSS_MS
        before, missing = before + kept, missing + len(lost_ms)
    assert missing > 0


def test_a_killed_budgets_store_forgets_nothing_that_it_wrote(everysec: PoweredStore) -> None:
    """Without a power cut the system has all that was handed to it, synced or not."""
    with redis.Redis.from_url(everysec.url) as client:
        for _ in range(300):
            LIMITER.take(client.execute_command, [draw((COUNTED,))], epoch="")
    everysec.await_written()
    everysec.kill()
    everysec.start()
    assert held(everysec) == 300
