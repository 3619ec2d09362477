"""One side of a comparison: what it is asked, what of it is counted, and whether its answers add up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.ground.h2load import Load, Target, load
from benchmarks.ground.processes import cpu_us

REFUSED: Final = -1
"""What a probe says of a call that was refused."""
_HOUR_S: Final = 3_600
_PATIENCE: Final = 4
_BUSY_SHARE: Final = 0.02
"""So few calls may run into their deadlines on a busy machine that a round is worth repeating; it never counts."""


@dataclass
class Contender:
    """A server with its store under one kind of call."""

    name: str
    target: Target
    parts: Mapping[str, Sequence[int]]  # "server", "store", ... -> processes that are counted
    probe: Callable[[], int]  # makes one such call: what then remains, or REFUSED
    load: Callable[[int], Load] | None = None  # another generator, or another shape of load
    us_a_call: dict[str, list[float]] = field(default_factory=dict)  # by part; "all": the sum
    loads: list[Load] = field(default_factory=list)

    def round(self, calls: int) -> None:
        """Make calls and note what each cost; every one must have been counted, or refused."""
        for _ in range(_PATIENCE):
            hour, before = _hour(), self.probe()
            spent_us = {part: cpu_us(pids) for part, pids in self.parts.items()}
            told = self.load(calls) if self.load else load(self.target, calls)
            spent_us = {part: cpu_us(pids) - spent_us[part] for part, pids in self.parts.items()}
            after = self.probe()
            if before == after == REFUSED or before - after == calls + 1:
                self._note(calls, told, spent_us)
                return
            if hour == _hour():  # where an hour begins, fixed windows begin anew
                uncounted = calls + 1 - (before - after)
                print(f"{self.name}: {uncounted} of {calls} calls were not decided; the round is repeated", flush=True)
                if not 0 < uncounted < calls * _BUSY_SHARE:
                    break
        raise SystemExit(f"{self.name}: {calls} calls, and what remains went from {before} to {after}")

    def _note(self, calls: int, told: Load, spent_us: Mapping[str, float]) -> None:
        self.loads.append(told)
        for part, spent in {**spent_us, "all": sum(spent_us.values())}.items():
            self.us_a_call.setdefault(part, []).append(spent / calls)

    @property
    def sums(self) -> list[float]:
        """Microseconds a call of all that is counted, round by round."""
        return self.us_a_call["all"]

    @property
    def rates(self) -> list[float]:
        """Calls a second, round by round."""
        return [one.calls_a_second for one in self.loads]

    def forget(self) -> None:
        """The rounds so far were for warming up."""
        self.us_a_call.clear()
        self.loads.clear()


def take_turns(contenders: Sequence[Contender], rounds: int, seconds: float) -> None:
    """Warm up, then measure round by round, every other backwards: as many calls as each answers in ``seconds``."""
    calls = {}
    for one in contenders:
        one.probe()  # may be the one call that a limit lets pass
        one.round(_WARM_UP_CALLS)
        one.round(_WARM_UP_CALLS)
        calls[one.name] = max(_LEAST_CALLS, int(one.loads[-1].calls_a_second * seconds)) // 2 * 2  # for two workers
        one.forget()
    for number in range(rounds):
        for one in contenders[:: -1 if number % 2 else 1]:
            one.round(calls[one.name])


_WARM_UP_CALLS: Final = 1_000
_LEAST_CALLS: Final = 500


def _hour() -> int:
    return int(time.time()) // _HOUR_S
