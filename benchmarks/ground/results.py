"""The file that `make bench` saves: one run or several of a day, of which the newest holds for each row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.ground.bars import BARS
from benchmarks.ground.rows import Row, of_document, table
from benchmarks.ground.stats import Spread

_INTRODUCTION: Final = (
    "Made by `make bench`. Medians of rounds that took turns, the least and the most.",
    "Ratios compare what ran in the same rounds; nothing else here does.",
)


@dataclass
class Run:
    """What one run of some benchmarks found."""

    about: dict[str, str]  # machine, versions, commit
    commands: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """All of it."""
        rows = [row.document() for row in self.rows]
        return {"machine": self.about, "commands": self.commands, "failed": self.failed, "rows": rows}


def read(path: Path) -> list[Run]:
    """The runs of a file, the oldest first; none where there is no file."""
    if not path.exists():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return [Run(one["machine"], one["commands"], one["failed"], list(map(of_document, one["rows"]))) for one in told]


def write(path: Path, runs: Sequence[Run]) -> None:
    """Save runs, with a page to read beside them."""
    document = {"runs": [run.document() for run in runs]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(runs), encoding="utf-8")


def newest(runs: Sequence[Run]) -> list[Row]:
    """Each row as it was measured last, in the order of the bars."""
    found = {row.name: row for run in runs for row in run.rows}
    return [found[name] for name in BARS if name in found]


def page(runs: Sequence[Run]) -> str:
    """The page to read."""
    rows = newest(runs)
    lines = [
        "# Every bar, measured",
        "",
        "Made by `make bench`. Medians of interleaved rounds, the least and the most.",
    ]
    lines += ["Ratios compare what ran in the same rounds; nothing else here does.", "", *table(rows)]
    lines += [f"| `{name}` could not run | | | | **missed** |" for run in runs for name in run.failed]
    lines += ["", "## What each side did", "", "| row | side | |", "|---|---|---|"]
    for row in rows:
        for side, rounds in row.contenders.items():
            told = ", ".join(f"{what} {Spread.of(of)}" for what, of in rounds.items())
            lines.append(f"| {row.name} | {side} | {told} |")
    notes = [f"- {row.name}: {note}" for row in rows for note in row.notes]
    lines += ["", "## Notes", "", *notes] if notes else []
    for number, run in enumerate(runs):
        lines += ["", *_run(run, rows, f"Run {number + 1} of {len(runs)}")]
    return "\n".join([*lines, ""])


def _run(run: Run, shown: Sequence[Row], title: str) -> list[str]:
    names = [row.name for row in run.rows if any(row is one for one in shown)]
    lines = [f"## {title}: {', '.join(names)}", "", *(f"- {name}: {value}" for name, value in run.about.items())]
    return [*lines, "", "```", *run.commands, "```"]
