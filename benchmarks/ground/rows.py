"""A measured row: its ratio beside its bar, what every contender did round by round; printed, and kept as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ground.bars import BARS
from benchmarks.ground.contenders import Contender
from benchmarks.ground.stats import Spread, ratio

Rounds = Mapping[str, Sequence[float]]
"""What was measured of a contender, by what it is ("server us"), round by round."""


@dataclass(frozen=True)
class Row:
    """One line of the price list."""

    name: str  # in BARS
    value: Spread
    contenders: Mapping[str, Rounds] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def is_reached(self) -> bool:
        """Whether the bar is."""
        return BARS[self.name].holds(self.value.median)

    def told(self) -> str:
        """A line with the bar, and one of each contender."""
        bar = BARS[self.name]
        lines = [f"{bar.title}: {self.value}, bar {bar.told} {'reached' if self.is_reached else 'MISSED'}"]
        for name, rounds in self.contenders.items():
            lines.append(f"  {name:12} " + ", ".join(f"{what} {Spread.of(of)}" for what, of in rounds.items()))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def noted(self, note: str) -> Row:
        """The same with a note."""
        return dataclasses.replace(self, notes=[*self.notes, note])

    def document(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {"row": self.name, **dataclasses.asdict(self.value), "rounds": self.contenders, "notes": self.notes}


def of_document(told: Mapping[str, Any]) -> Row:
    """A row from a file."""
    value = Spread(told["median"], told["least"], told["most"])
    return Row(told["row"], value, told["rounds"], told["notes"])


def rounds_of(contender: Contender) -> Rounds:
    """What was measured of one: microseconds of processor time a call by part, and calls a second."""
    costs = {f"{part} us": costs for part, costs in contender.us_a_call.items()}
    return {**costs, "calls/s": contender.rates}


def cost_row(name: str, ours: Contender, theirs: Contender) -> Row:
    """Processor time a call, ours beside theirs."""
    both = {one.name: rounds_of(one) for one in (ours, theirs)}
    return Row(name, ratio(ours.sums, theirs.sums), both)


def parser_of(description: str | None, *, rounds: int = 0, seconds: float = 0) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds)
    if seconds:
        parser.add_argument("--seconds", type=float, default=seconds, help="of load for each contender and round")
    parser.add_argument("--json", type=Path, help="also write the rows with every round into this file")
    return parser


def save(rows: Sequence[Row], path: Path | None) -> None:
    """Write rows to a file, where one is named."""
    if path:
        path.write_text(json.dumps([row.document() for row in rows]), encoding="utf-8")


def table(rows: Sequence[Row]) -> list[str]:
    """Every row beside its bar, as a page shows it."""
    lines = ["| what | measured | bar | stretch | |", "|---|---|---|---|---|"]
    for row in rows:
        bar = BARS[row.name]
        stretch, sign = f"{bar.stretch:g}" if bar.stretch else "", "≥" if bar.more_is_better else "≤"
        verdict = "reached" if row.is_reached else "**missed**"
        lines.append(f"| {bar.title} | {row.value} | {sign} {bar.bar:g} | {stretch} | {verdict} |")
    return lines


def tell(row: Row) -> Row:
    """Print a row as soon as it is there; and give it back."""
    print(row.told(), flush=True)
    return row
