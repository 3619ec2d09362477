"""take.lua under fire: odd charges, epochs, references, clocks and stored values; and its arguments bent.

Two promises are held to: in any window no more is admitted than the limit, by a tally kept here; and whatever
stands in the store or in the arguments, the script ends, answers or refuses, and touches no key but its own.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from ratelimit import names
from ratelimit.windows.budgets import MAX_UNITS, Answer, Budget, Draw, Fence, Hold, Kind, Subject, Window, units_of
from ratelimit.windows.limiter import Limiter
from tests.fuzz.found import Found, Tally
from tests.fuzz.texts import mutated, odd_text
from tests.support.draws import draw

CELL: Final = "7"
EPOCH_KEY: Final = "tk:epoch:{7}"
FEED_KEY: Final = "tk:feed:{7}"
STEPS: Final = 25  # of one game on clean keys
START_MS: Final = 1_800_000_000_000
_KINDS: Final = {
    names.held_key(CELL).encode(): b"hash",
    names.due_key(CELL).encode(): b"zset",
    names.usage_prefix(CELL).encode(): b"hash",
}
_MOST: Final = 10**9  # of a limit that is offered; format 1 cannot count what is more than four times that
_LIMITS: Final = (1, 2, 5, 100, _MOST)
_COSTS: Final = (1, 1, 1, 1, 2, 2, 5, 5, 100, _MOST)
_NO_COSTS: Final = (-1, MAX_UNITS + 1)
_SUBJECTS: Final = ("k:a", "t:b", "p:c")


class _Sent(Exception):  # noqa: N818  the end of a bent exchange
    """The script was run with bent arguments; its reply is nobody's to read."""


class TakeTarget:
    """Feeds the limiter, a batch of charges an input."""

    name = "take"

    def __init__(self, store: redis.Redis, tally: Tally) -> None:
        self._store = store
        self._tally = tally
        self._format = 1
        self._limiter = Limiter(cell=CELL, epoch_key=EPOCH_KEY, feed_key=FEED_KEY, writes_format=lambda: self._format)

    def run(self, rng: random.Random, count: int) -> None:
        """Run the script this often; raises ``Found``."""
        for first in range(0, count, STEPS):
            self._store.flushdb()
            game = _Game(rng, self._store, self._limiter, self._tally)
            for _ in range(min(STEPS, count - first)):
                self._format = rng.choice((1, 2))
                game.step()


class _Game:
    """Some steps on three subjects, begun on an empty store."""

    def __init__(self, rng: random.Random, store: redis.Redis, limiter: Limiter, tally: Tally) -> None:
        self._rng = rng
        self._store = store
        self._limiter = limiter
        self._tally = tally
        self._now_ms = START_MS + rng.randrange(10**9)
        self._epoch = f"{rng.randrange(1, 10**6)}-{rng.randbytes(8).hex()}"
        store.set(EPOCH_KEY, self._epoch)
        self._subjects = [Subject(name, self._budgets()) for name in _SUBJECTS]
        self._tainted: set[str] = set()  # whose stored value was overwritten
        self._admitted: dict[str, list[tuple[int, Draw]]] = defaultdict(list)  # subject -> (time, charge)

    def _budgets(self) -> tuple[Budget, ...]:
        windows = self._rng.sample(list(Window), k=self._rng.randrange(4))
        return tuple(Budget(window, self._rng.choice(_LIMITS)) for window in windows)

    def step(self) -> None:
        self._now_ms += self._rng.choice((0, 1, 49, 50, 999, 1_000, 60_000, 3_600_000))
        if self._rng.random() < 0.05:
            self._taint()
        if self._rng.random() < 0.2:
            self._bent()
        else:
            self._straight()

    def _taint(self) -> None:
        rng, name = self._rng, self._rng.choice(_SUBJECTS)
        key = names.budget_key(CELL, name)
        now = self._store.get(key) if self._store.type(key) in {b"string", b"none"} else None
        self._store.delete(key)
        kind = rng.randrange(4)
        if kind == 0:
            self._store.rpush(key, "not a string")
        elif kind == 1:
            self._store.set(key, rng.randbytes(rng.randrange(60)))
        else:
            self._store.set(key, mutated(rng, now or b"\x01"))
        self._store.pexpire(key, 10**7)
        self._tainted.add(name)

    def _charges(self) -> list[Draw]:
        rng = self._rng
        return [
            draw(
                subjects=tuple(rng.sample(self._subjects, k=rng.randrange(4))),
                hits=rng.choice(_COSTS if rng.random() < 0.98 else _NO_COSTS),
                tokens=rng.choice((0, *_COSTS) if rng.random() < 0.98 else (-1, MAX_UNITS + 1)),
                hold=rng.choice((None, self._hold())),
                more=rng.choice((None, None, (1, 2, 5, 1))),
                valid_until_ms=rng.choice((0, 0, 0, 1, self._now_ms, self._now_ms + 1)),
                refs=tuple(odd_text(rng)[:50] for _ in range(rng.randrange(3))),
                usage=tuple(rng.sample(("k:a", "p:c", "x y", "é\n"), k=rng.randrange(3))),
            )
            for _ in range(rng.randrange(1, 7))
        ]

    def _hold(self) -> Hold:
        rng = self._rng
        ceiling = rng.choice((0, *_COSTS))
        presumed, timeout_ms = rng.choice((0, ceiling)), rng.choice((0, 1, 10**6))
        return Hold(odd_text(rng)[:50], ceiling, presumed, timeout_ms, rng.randbytes(rng.randrange(60)))

    # As the product calls it

    def _straight(self) -> None:
        rng, charges = self._rng, self._charges()
        look = rng.random() < 0.1
        epoch = self._epoch if rng.random() < 0.8 else rng.choice(("", "-", self._epoch[:-1], odd_text(rng)))
        try:
            taken = self._limiter.take(
                self._store.execute_command,
                charges,
                epoch=epoch,
                deadline_ms=rng.choice((0, 0, 0, self._now_ms, self._now_ms - 1)),
                now_ms=self._now_ms,
                look=look,
            )
        except ValueError:
            self._expect_nonsense(charges)
            return
        except RedisError as error:
            raise Found(f"the script failed: {error}") from error
        self._tally.add("take", taken.fence.value)
        if taken.fence is Fence.PASSED and epoch != self._epoch:
            raise Found(f"passed the fence on another epoch: {epoch!r}")
        if taken.fence is Fence.PASSED:
            self._judge(charges, [grant.answer for grant in taken.grants], is_look=look)

    def _expect_nonsense(self, charges: Sequence[Draw]) -> None:
        if all(0 <= charge.hits <= MAX_UNITS and 0 <= charge.tokens <= MAX_UNITS for charge in charges):
            raise Found("good charges were called nonsense")
        self._tally.add("take", "nonsense")

    def _judge(self, charges: Sequence[Draw], answers: Sequence[Answer], *, is_look: bool) -> None:
        for charge, answer in zip(charges, answers, strict=True):
            if answer is not Answer.ADMITTED:
                continue
            if 0 < charge.charge.valid_until_ms <= self._now_ms:
                raise Found("admitted what had expired")
            for subject in charge.charge.subjects:
                if subject.name in self._tainted:
                    self._judge_alone(subject, charge)
                elif not is_look:
                    self._count(subject, charge)

    def _judge_alone(self, subject: Subject, charge: Draw) -> None:
        if any(_cost(charge, budget) > budget.limit for budget in subject.budgets):
            raise Found(f"admitted {charge} where one of {subject.budgets} is less")

    def _count(self, subject: Subject, charge: Draw) -> None:
        log = self._admitted[subject.name]
        log.append((self._now_ms, charge))
        for budget in subject.budgets:
            begin_ms = self._now_ms - budget.shape.window_ms
            units = sum(_cost(each, budget) for at_ms, each in log if at_ms > begin_ms)
            if units > budget.limit:
                raise Found(f"{units} in one {budget.shape.name} of at most {budget.limit}")

    # With bent arguments

    def _bent(self) -> None:
        before = set(self._store.scan_iter())
        self._tainted |= set(_SUBJECTS)  # what a bent call writes is not ours to judge
        mine: set[bytes] = set()

        def execute(*command: Any) -> Any:
            words = [self._bytes(word) for word in command]
            keys = int(words[2])
            mine.update(words[3 : 3 + keys])
            at = self._rng.randrange(3 + keys, len(words))
            words[at] = mutated(self._rng, words[at], self._rng.randbytes(8))
            self._send(words)
            raise _Sent

        with contextlib.suppress(_Sent, ValueError):
            self._limiter.take(execute, self._charges(), epoch=self._epoch, now_ms=self._now_ms)
        foreign = {
            key
            for key in set(self._store.scan_iter()) - before
            if key not in mine and key.rpartition(b":")[0] not in mine
        }
        if foreign:
            raise Found(f"the script wrote {foreign}")
        self._store.set(EPOCH_KEY, self._epoch)
        self._clear_wreckage(mine)
        self._tally.add("take", "bent")

    def _clear_wreckage(self, written: Iterable[bytes]) -> None:
        """Remove what a bent call put where only it could: budgets' bytes under the name of a hash or a sorted set.

        The product's calls never do; meeting such a key they fail with the store's WRONGTYPE, which answers 503.
        """
        for key in written:
            expected = next((kind for prefix, kind in _KINDS.items() if key.startswith(prefix)), None)
            if expected and self._store.type(key) not in {expected, b"none"}:
                self._store.delete(key)

    def _send(self, words: Sequence[bytes]) -> None:
        try:
            self._store.execute_command(*words)
        except NoScriptError:
            raise
        except ResponseError:
            pass  # bent arguments may be refused
        except RedisError as error:
            raise Found(f"the store is gone: {error}") from error

    @staticmethod
    def _bytes(word: Any) -> bytes:
        return word if isinstance(word, bytes) else str(word).encode()


def _cost(charge: Draw, budget: Budget) -> int:
    return charge.hits if budget.shape.kind is Kind.CALLS else units_of(charge, budget.shape.kind)
