"""Callers who never stop: whatever they are answered is held to what was acknowledged at that moment."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from catalog.store import names
from tests.durability.history import Belief
from tests.durability.operators import Operator, key_id_of
from tests.durability.whole import Ask, require
from tests.support.gatebench import Asker, question, status

HEAL_S: Final = 30
"""Longest wait for a gate to answer again after its store is back; generous, for a busy machine."""
_NEWEST: Final = 12
_ADMITTED: Final = 200
_AWAY: Final = 503


@dataclass(frozen=True, slots=True)
class _Place:
    """The publication whose route a call came by."""

    uid: str
    path: str = "/called"  # whose it is, the route alone says


class Publications:
    """Which publication a key was made for; learnt from the store, and kept when the key is gone."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: dict[str, str] = {}  # key id -> uid

    def of(self, text: str) -> _Place | None:
        """Return the publication of a key's text, ``None`` where its record cannot be had any more."""
        key_id = key_id_of(text)
        if key_id not in self._known:
            raw = self._ask("GET", names.record(f"key:{key_id}"))
            if raw is None:
                return None
            (self._known[key_id],) = json.loads(raw)["publications"]
        return _Place(self._known[key_id])


class Caller:
    """Calls through a gate with keys that live and keys that are dead."""

    def __init__(self, target: str, publications: Publications, chance: random.Random) -> None:
        self._asker = Asker(target)
        self._publications = publications
        self._chance = chance
        self.answers: Counter[int] = Counter()

    def keep_calling(self, operators: Sequence[Operator], stop: threading.Event) -> None:
        """Call until told to stop; raises ``Lost`` for an answer that no acknowledged state allows."""
        while not stop.is_set():
            operator = self._chance.choice(operators)
            if texts := operator.texts[-self._chance.choice((1, _NEWEST)) :]:
                self._call(operator, self._chance.choice(texts))

    def _call(self, operator: Operator, text: str) -> None:
        before = operator.belief
        answer = self._ask(text)
        if answer is not None and operator.belief is before:  # nothing was begun or answered meanwhile
            _require_allowed(answer, before, text)

    def _ask(self, text: str) -> int | None:
        try:
            place: Any = self._publications.of(text)
        except redis.RedisError:  # the store is away
            return None
        if place is None:
            return None
        answer = status(self._asker.ask(question(key=text, publication=place), timeout_s=10))
        self.answers[answer] += 1
        return answer

    def await_in_force(self, operator: Operator, belief: Belief) -> None:
        """Wait until the gate answers by what nobody was told of; raises ``Lost`` when it takes too long."""
        deadline_s = time.monotonic() + HEAL_S
        for text in operator.texts:
            while (answer := self._settled(text)) is not None and (fault := _fault(answer, belief, text)):
                require(time.monotonic() < deadline_s, fault)
                time.sleep(0.05)  # whoever owes the gates the news tells it by and by

    def require_in_force(self, operator: Operator) -> None:
        """Hold every text that the operator was told to what is in force, waiting while the gate has no store."""
        for text in operator.texts:
            if (answer := self._settled(text)) is not None:
                _require_allowed(answer, operator.belief, text)

    def await_healed(self, operator: Operator) -> None:
        """Wait until the gate decides a call; raises ``Lost`` when it takes too long."""
        for text in operator.texts[-1:]:
            self._settled(text)

    def _settled(self, text: str) -> int | None:
        deadline_s = time.monotonic() + HEAL_S
        while (answer := self._ask(text)) == _AWAY:
            require(time.monotonic() < deadline_s, f"the gate did not heal within {HEAL_S} s")
            time.sleep(0.01)  # the gate's healing has no event here
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._asker.close()


def _require_allowed(answer: int, belief: Belief, text: str) -> None:
    fault = _fault(answer, belief, text)
    require(not fault, fault)


def _fault(answer: int, belief: Belief, text: str) -> str:
    """Say what is wrong with an answer; nothing where some possible state allows it."""
    shown = text[:9]
    if answer == _ADMITTED and belief.refuses(text):
        return f"{shown}… was admitted, and should be dead: {_shown(belief)}"
    if answer not in {_ADMITTED, _AWAY} and belief.admits(text):
        return f"{shown}… was answered {answer}, and should live: {_shown(belief)}"
    return ""


def _shown(belief: Belief) -> str:
    """Say what may be admitted, with no text whole."""
    return " or ".join(str(sorted(f"{text[:9]}…" for text in state.admitted)) for state in belief.possible)


class Watcher:
    """Reads the epoch without a pause: what it was told, others may have built on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.last = ""
        self.reads = threading.Event()
        """Set once it was told an epoch."""

    def keep_reading(self, stop: threading.Event) -> None:
        """Read until told to stop."""
        with redis.Redis.from_url(self._url, socket_timeout=5) as client:
            while not stop.is_set():
                try:
                    self.last = (client.get(names.epoch("0")) or b"").decode() or self.last
                    if self.last:
                        self.reads.set()
                except redis.RedisError:
                    stop.wait(0.01)
