"""What four ways to hold a token budget admit and overshoot: a simulation of four traffics. Pure, seeded, no store.

Usage: ``python -m benchmarks.token_budgets [--write]``. ``--write`` puts the table into
benchmarks/results/token-budgets.md and the plot into docs/token-budgets.svg. Windows are exact; what is reserved and
charged is ``ratelimit.tokens.costs``.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import Asked, Policy, terms_of

HOUR_S: Final = 3_600
HOURS: Final = 4
LIMIT: Final = 1_000_000  # tokens in any hour
CALLS_AN_HOUR: Final = 20_000
ROOT: Final = Path(__file__).parents[1]
SECONDS_A_TOKEN: Final = 0.02


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of one kind; four bytes of prompt are a token."""

    name: str
    prompt: Callable[[random.Random], int]
    most: int | None  # completion tokens asked for; None: the call names no most
    real: Callable[[random.Random], int]  # completion tokens that come
    context: int


LONG_SHARE: Final = 0.1


def _reasoned(dice: random.Random) -> int:
    """Completion tokens of a model that thinks: one answer in ten is longer than what is held for it."""
    return dice.randint(4_097, 12_000) if dice.random() < LONG_SHARE else dice.randint(200, 3_000)


TRAFFICS: Final = (
    Traffic("chat", lambda dice: dice.randint(50, 800), 1_000, lambda dice: dice.randint(50, 600), 8_192),
    Traffic(
        "long prompts", lambda dice: dice.randint(5_000, 30_000), 1_000, lambda dice: dice.randint(100, 800), 32_768
    ),
    Traffic("coding agent", lambda dice: dice.randint(500, 4_000), 32_000, lambda dice: dice.randint(200, 600), 65_536),
    Traffic("names no most", lambda dice: dice.randint(500, 4_000), None, _reasoned, 131_072),
)


@dataclass(slots=True)
class Window:
    """Tokens by when they are counted: an exact trailing hour."""

    entries: deque[list[float]] = field(default_factory=deque)  # [time, tokens], oldest first
    total: float = 0

    def drop(self, now_s: float) -> None:
        """Forget what an hour has passed over."""
        while self.entries and self.entries[0][0] <= now_s - HOUR_S:
            self.total -= self.entries.popleft()[1]

    def add(self, now_s: float, tokens: float) -> list[float]:
        """Count tokens now; their entry may be changed later."""
        entry = [now_s, tokens]
        self.entries.append(entry)
        self.total += tokens
        return entry


@dataclass(frozen=True, slots=True)
class Way:
    """How a budget is held."""

    name: str
    held: Callable[[Traffic, int], int]  # tokens counted at admission, of this prompt
    settles: bool  # whether the real cost replaces them when the call has ended
    needs_room: bool = True  # whether what is held must fit; else any room at all is enough


def _ours(*, adaptive: bool) -> Callable[[Traffic, int], int]:
    def held(traffic: Traffic, prompt: int) -> int:
        usual = [traffic.real(random.Random(seed)) for seed in range(400)]  # noqa: S311  what 400 calls taught
        most = sorted(usual)[int(0.95 * len(usual))]
        share = min(1.0, most / traffic.most) if traffic.most else None
        learned = Learned(0.25, share, unbounded_completion=most) if adaptive else UNLEARNED
        policy = Policy(traffic.context, adaptive=adaptive)
        return terms_of(Asked(prompt * 4, traffic.most), policy, learned).reserved

    cache: dict[tuple[str, int], int] = {}

    def cached(traffic: Traffic, prompt: int) -> int:
        key = (traffic.name, prompt)
        if key not in cache:
            cache[key] = held(traffic, prompt)
        return cache[key]

    return cached


WAYS: Final = (
    Way("charge after", lambda _traffic, _prompt: 0, settles=True, needs_room=False),
    Way("charge what is asked", lambda traffic, prompt: prompt + (traffic.most or traffic.context), settles=False),
    Way("ours, strict", _ours(adaptive=False), settles=True),
    Way("ours, adaptive", _ours(adaptive=True), settles=True),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one way came to on one traffic."""

    work: float  # real tokens of admitted calls, of what the budget allows in the time
    overshoot: float  # the most real tokens in any hour, of the limit, less 1
    admitted: int


def simulate(traffic: Traffic, way: Way, seed: int = 1) -> Result:
    """Run the traffic against the budget."""
    dice = random.Random(seed)  # noqa: S311  a seed, so that it can be repeated
    counted, real = Window(), Window()
    running: list[tuple[float, int, list[float], int]] = []  # (end, number, entry, real cost)
    work, admitted, worst = 0, 0, 0.0
    for number, now_s in enumerate(_arrivals(dice)):
        while running and running[0][0] <= now_s:
            ended_s, _, entry, cost = heapq.heappop(running)
            _settle(counted, entry, cost, ended_s, way)
        counted.drop(now_s)
        real.drop(now_s)
        prompt, completion = traffic.prompt(dice), traffic.real(dice)
        held = way.held(traffic, prompt)
        if counted.total + (held if way.needs_room else 1) > LIMIT:
            continue
        entry = counted.add(now_s, held)
        heapq.heappush(running, (now_s + completion * SECONDS_A_TOKEN, number, entry, prompt + completion))
        real.add(now_s, prompt + completion)
        work, admitted, worst = work + prompt + completion, admitted + 1, max(worst, real.total)
    return Result(work / (LIMIT * HOURS), max(0.0, worst / LIMIT - 1), admitted)


def _settle(counted: Window, entry: list[float], cost: int, ended_s: float, way: Way) -> None:
    if not way.settles:
        return
    if not way.needs_room:
        counted.add(ended_s, cost)  # it is only now that anybody counts it
    elif entry[0] > ended_s - HOUR_S:
        counted.total += cost - entry[1]
        entry[1] = cost


def _arrivals(dice: random.Random) -> Iterator[float]:
    """Bursts: every ten minutes a tenth of the calls at once, the rest evenly."""
    times = [dice.uniform(0, HOURS * HOUR_S) for _ in range(int(CALLS_AN_HOUR * HOURS * 0.5))]
    times += [600 * dice.randrange(HOURS * 6) + dice.uniform(0, 5) for _ in range(int(CALLS_AN_HOUR * HOURS * 0.5))]
    return iter(sorted(times))


Results = dict[str, dict[str, Result]]


def results() -> Results:
    """Every way on every traffic."""
    return {traffic.name: {way.name: simulate(traffic, way) for way in WAYS} for traffic in TRAFFICS}


def table(found: Results) -> str:
    """The results as Markdown."""
    lines = ["| traffic | way | admitted work | overshoot |", "|---|---|---|---|"]
    for traffic, ways in found.items():
        lines += [f"| {traffic} | {way} | {one.work:.0%} | {one.overshoot:.1%} |" for way, one in ways.items()]
    return "\n".join(lines) + "\n"


COLOURS: Final = ("#b0413e", "#c9a227", "#3a6ea5", "#4a9d5b")


def plot(found: Results) -> str:
    """Admitted work of each way as bars, what overshoots the limit marked above them."""
    bars, x = [], 60
    for traffic, ways in found.items():
        bars.append(f'<text x="{x + 55}" y="285" text-anchor="middle">{traffic}</text>')
        for colour, (_, one) in zip(COLOURS, ways.items(), strict=True):
            height, over = 180 * min(one.work, 1.3), 180 * min(one.overshoot, 1.3)
            bars.append(f'<rect x="{x}" y="{260 - height:.0f}" width="22" height="{height:.0f}" fill="{colour}"/>')
            bars.append(
                f'<rect x="{x + 6}" y="{260 - height - over:.0f}" width="10" height="{over:.0f}" '
                f'fill="none" stroke="{colour}" stroke-dasharray="3 2"/>'
            )
            x += 28
        x += 60
    legend = [
        f'<rect x="60" y="{308 + 18 * n}" width="12" height="12" fill="{COLOURS[n]}"/>'
        f'<text x="80" y="{318 + 18 * n}">{way.name}</text>'
        for n, way in enumerate(WAYS)
    ]
    axis = '<line x1="50" y1="80" x2="760" y2="80" stroke="#888" stroke-dasharray="4 3"/><text x="46" y="84" text-anchor="end">100 %</text><line x1="50" y1="260" x2="760" y2="260" stroke="#444"/>'  # noqa: E501
    title = '<text x="60" y="24">Admitted work, and (dashed) how far the worst hour passes the limit</text>'
    body = "\n".join((title, axis, *bars, *legend))
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 790 390" {style}>\n{body}\n</svg>\n'


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Compare ways to hold a token budget.")
    parser.add_argument("--write", action="store_true", help="write the table and the plot")
    arguments = parser.parse_args()
    found = results()
    print(table(found))
    if arguments.write:
        head = (
            "# Ways to hold a token budget\n\n`python -m benchmarks.token_budgets --write` (a simulation, seed 1)\n\n"
        )
        (ROOT / "benchmarks/results/token-budgets.md").write_text(head + table(found))
        (ROOT / "docs/token-budgets.svg").write_text(plot(found))


if __name__ == "__main__":
    main()
