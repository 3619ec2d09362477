"""`make bench-smoke`: whether a call has become dearer beside envoyproxy/ratelimit, in less than three minutes.

    python -m benchmarks.smoke [--rounds 4] [--seconds 1]

Ratios of processor time alone, of medians of rounds that take turns: those hold on a busy machine where times do not. A
row fails that is worse than one and a half times its bar (benchmarks/ground/bars.py), or, where the bar is not reached
yet, than one and a half times what was reached when that was last written down; the table says which. A row that fails
is measured once more, and the better of both counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks import decisions, endings_cost, latency, through_envoy
from benchmarks.ground import h2load
from benchmarks.ground.bars import BARS
from benchmarks.ground.rows import Row, parser_of, save, tell

ENDINGS: Final = 2_000
"""In a round."""

Measure = Callable[[Sequence[str], int, float], list[Row]]


def _alone(_names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    with latency.both() as pair:
        return latency.one_at_a_time(pair, rounds, seconds)


def _through_envoy(_names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    return through_envoy.measure(rounds, seconds)


def _endings(_names: Sequence[str], rounds: int, _seconds: float) -> list[Row]:
    rows = endings_cost.rows_of(endings_cost.measure(ENDINGS, rounds))
    return [tell(row) for row in rows]


PARTS: Final[Mapping[Measure, Sequence[str]]] = {
    decisions.measure: ["limits", "check3", "check6", "openai", "refused"],
    _alone: ["alone_cpu"],
    _endings: ["ending"],
    _through_envoy: ["envoy_one", "envoy_two"],
}
"""What measures which rows."""


def measured(rounds: int, seconds: float) -> dict[str, Row]:
    """Every row of the smoke; the better of two where the first failed."""
    rows: dict[str, Row] = {}
    for measure, names in PARTS.items():
        rows |= {row.name: row for row in _patiently(measure, names, rounds, seconds) if row.name in names}
        failed = [name for name in names if _fails(rows[name])]
        if failed:
            print(f"once more: {', '.join(failed)}", flush=True)
            for row in measure(failed, rounds, seconds):
                if row.name in failed and row.value.median < rows[row.name].value.median:
                    rows[row.name] = row
    return rows


def _patiently(measure: Measure, names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Measure; once more where a round came to nothing."""
    try:
        return measure(names, rounds, seconds)
    except SystemExit as reason:
        print(f"once more: {reason}", flush=True)
        return measure(names, rounds, seconds)


def _fails(row: Row) -> bool:
    return row.value.median > BARS[row.name].smoke


def table(rows: Mapping[str, Row]) -> str:
    """What every row is beside its bar and beside what fails."""
    lines = [f"\n{'processor time a call, a ratio':76} {'now':>5} {'bar':>5} {'fails above':>11}"]
    for name, row in rows.items():
        bar = BARS[name]
        held = f"bar missed; held at what was reached, {bar.missed_at:.2f}" if bar.missed_at else ""
        numbers = f"{row.value.median:5.2f} {bar.bar:5.2f} {bar.smoke:11.2f}"
        lines.append(f"{bar.title:76} {numbers}  {'FAILED' if _fails(row) else held}")
    return "\n".join(lines)


def main() -> None:
    """Run; exit 1 where a row fails."""
    options = parser_of(__doc__, rounds=4, seconds=1).parse_args()
    h2load.require()
    rows = measured(options.rounds, options.seconds)
    save(list(rows.values()), options.json)
    print(table(rows))
    sys.exit(any(map(_fails, rows.values())))


if __name__ == "__main__":
    main()
