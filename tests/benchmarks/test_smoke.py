"""`make bench-smoke` fails for what has become dearer, and for nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pytest

from benchmarks import smoke
from benchmarks.ground.bars import BARS
from benchmarks.ground.rows import Row
from benchmarks.ground.stats import Spread, ratio

NAME = "check3"


def _told(*values: float) -> smoke.Measure:
    """What measures this row again and again, and finds these ratios."""
    left: Iterator[float] = iter(values)

    def measure(names: Sequence[str], _rounds: int, _seconds: float) -> list[Row]:
        value = next(left)
        return [Row(name, Spread(value, value, value)) for name in names]

    return measure


def _run(monkeypatch: pytest.MonkeyPatch, *values: float) -> int:
    monkeypatch.setattr(smoke, "PARTS", {_told(*values): [NAME]})
    monkeypatch.setattr(sys, "argv", ["smoke"])
    monkeypatch.setattr(smoke.h2load, "require", lambda: None)
    with pytest.raises(SystemExit) as ended:
        smoke.main()
    return int(ended.value.code or 0)


def test_a_row_within_its_bounds_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured once."""
    assert _run(monkeypatch, BARS[NAME].smoke) == 0


def test_a_row_that_fails_once_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine may be busy."""
    assert _run(monkeypatch, BARS[NAME].smoke * 2, BARS[NAME].smoke) == 0


def test_a_round_that_came_to_nothing_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not decided in time on a busy machine says nothing of what calls cost."""
    measure = _told(0.0)

    def once_in_vain(names: Sequence[str], rounds: int, seconds: float) -> list[Row]:
        if not vain:
            vain.append(True)
            raise SystemExit("calls were not decided")
        return measure(names, rounds, seconds)

    vain: list[bool] = []
    monkeypatch.setattr(smoke, "PARTS", {once_in_vain: [NAME]})
    assert smoke.measured(1, 1)[NAME].value.median == 0.0


def test_a_row_that_fails_twice_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table says so."""
    assert _run(monkeypatch, BARS[NAME].smoke * 2, BARS[NAME].smoke * 1.01) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["limits", "check3", "check6", "openai", "refused", "alone_cpu"])
def test_the_smoke_fails_at_one_and_a_half_times_the_bar(name: str) -> None:
    """Or at one and a half times what was reached where the bar is missed, which the table tells."""
    bar = BARS[name]
    assert bar.smoke == 1.5 * max(bar.bar, bar.missed_at or 0)
    assert bar.missed_at is None or bar.missed_at > bar.bar


def test_a_missed_bar_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Never silently."""
    missed = next(name for name, bar in BARS.items() if bar.missed_at)
    monkeypatch.setattr(smoke, "PARTS", {_told(0.0): [missed]})
    rows = smoke.measured(1, 1)
    assert "bar missed; held at what was reached" in smoke.table(rows)
    capsys.readouterr()


def test_ratios_are_of_medians_and_spreads_of_rounds() -> None:
    """One round that went wrong moves the spread alone."""
    assert ratio([1.0, 2.0, 90.0], [4.0, 4.0, 4.0]) == Spread(0.5, 0.25, 22.5)
