"""All targets of the fuzzer on a store and a gate of their own, and the loop that feeds them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol

import redis
from gatebench import Catalog, make_gate, wait_until
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import SECRET_BYTES, Secrets
from extauth.edge import CheckService
from ratelimit.descriptors.reading import parse
from ratelimit.service.edge import RateLimitService
from tests.fuzz.checking import CheckTarget
from tests.fuzz.descriptors import FILE, DescriptorTarget
from tests.fuzz.found import Tally
from tests.fuzz.limits import TakeTarget
from tests.fuzz.records import AnnounceTarget, CommitTarget
from tests.fuzz.words import SecretsTarget, SettingsTarget, WordsTarget
from tests.fuzz.world import World

SHARES: Final = {
    "check": 0.82,
    "descriptors": 0.06,
    "take": 0.05,
    "words": 0.03,
    "announce": 0.015,
    "secrets": 0.015,
    "commit": 0.005,
    "settings": 0.005,
}
"""What part of the inputs goes to each target: most to what callers can reach."""
SLICE: Final = 10_000
"""Inputs between two looks at the clock and lines of progress."""


class Target(Protocol):
    """Something to feed."""

    name: str

    def run(self, rng: random.Random, count: int) -> None:
        """Feed it; raises ``Found``."""
        ...


class Rig:
    """The targets, fed in slices."""

    def __init__(self, targets: dict[str, Target], tally: Tally, seed: int) -> None:
        self.targets = targets
        self.tally = tally
        self._seed = seed
        self._slices = 0

    def run(self, inputs: int, go_on: Callable[[Tally], bool] = lambda _tally: True) -> None:
        """Feed this many inputs, or until ``go_on`` says no; raises ``Found``."""
        while self.tally.total < inputs and go_on(self.tally):
            self._slices += 1
            size = min(SLICE, inputs - self.tally.total)
            counts = {name: round(size * share) for name, share in SHARES.items()}
            counts["check"] += size - sum(counts.values())
            for name, count in counts.items():
                self.targets[name].run(random.Random(f"{self._seed}:{name}:{self._slices}"), count)
        for target in self.targets.values():
            if isinstance(target, CheckTarget | DescriptorTarget):
                target.verify()


@contextmanager
def rig(seed: int, url: Callable[[int], str]) -> Iterator[Rig]:
    """Everything, ready; ``url`` gives the address of an empty database of a Valkey by number, 0 to 2."""
    tally, secrets = Tally(), _secrets(random.Random(f"{seed}:secrets"))
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="tk-"))
        scripts, commits = (opened.enter_context(redis.Redis.from_url(url(number))) for number in (1, 2))
        world = World(Catalog(url(0), secrets), random.Random(f"{seed}:world")).build()
        check, rate_limit = opened.enter_context(_services(f"unix:{folder}/gate.sock", url(0), secrets))
        targets: list[Target] = [
            CheckTarget(world, check, tally),
            DescriptorTarget(rate_limit, tally),
            TakeTarget(scripts, tally),
            AnnounceTarget(scripts, tally),
            CommitTarget(url(2), commits, tally),
            SecretsTarget(Path(folder), tally),
            SettingsTarget(tally),
            WordsTarget(tally),
        ]
        yield Rig({target.name: target for target in targets}, tally, seed)


def _secrets(rng: random.Random) -> Secrets:
    made = {number: rng.randbytes(SECRET_BYTES) for number in (1, 2)}
    return Secrets(
        peppers=made,
        current_pepper=2,
        mac_keys=dict(made),
        current_mac_key=1,
        jwt_key=rng.randbytes(SECRET_BYTES),
        recovery_key=rng.randbytes(SECRET_BYTES),
    )


@contextmanager
def _services(target: str, url: str, secrets: Secrets) -> Iterator[tuple[CheckService, RateLimitService]]:
    gate = make_gate(target, url, secrets, CollectorRegistry())
    gate.ordinary.use(parse(FILE))
    gate.start()
    try:
        wait_until(lambda: gate.readiness().ready, timeout_s=30)
        check, rate_limit, *_ = gate._front._services  # type: ignore[attr-defined]
        assert isinstance(check, CheckService)
        assert isinstance(rate_limit, RateLimitService)
        yield check, rate_limit
    finally:
        gate.stop()
