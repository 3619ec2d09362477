"""What `make bench` saves is what the page shows."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ground.results import Run, newest, page, read, write
from benchmarks.ground.rows import Row
from benchmarks.ground.stats import Spread
from benchmarks.plots import draw, with_table

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*-bench.json"))


def _row(name: str, value: float) -> Row:
    sides = {"Tollkeeper": {"all us": [value, value]}, "ratelimit": {"all us": [1.0, 2.0]}}
    return Row(name, Spread(value, value, value), sides, ["a note"])


def test_a_saved_run_is_read_as_it_was(tmp_path: Path) -> None:
    """Every round of it."""
    runs = [Run({"commit": "1"}, ["a command"], ["latency"], [_row("check3", 0.4)])]
    write(tmp_path / "x.json", runs)
    assert read(tmp_path / "x.json") == runs
    assert read(tmp_path / "none.json") == []


def test_of_each_row_the_newest_run_holds() -> None:
    """In the order of the bars."""
    runs = [Run({}, rows=[_row("check3", 0.9), _row("p50", 1.0)]), Run({}, rows=[_row("check3", 0.4)])]
    assert [(row.name, row.value.median) for row in newest(runs)] == [("check3", 0.4), ("p50", 1.0)]


def test_the_page_tells_what_is_missed_and_what_could_not_run() -> None:
    """Never silently."""
    told = page([Run({}, failed=["latency"], rows=[_row("check3", 0.9), _row("limits", 0.3)])])
    assert told.count("**missed**") == 2
    assert "`latency` could not run" in told


def test_the_price_list_and_its_drawings_are_made_of_the_newest_results() -> None:
    """`python -m benchmarks.plots` makes them again."""
    rows, docs = newest(read(RESULTS[-1])), ROOT / "docs"
    told = (docs / "performance.md").read_text(encoding="utf-8")
    assert with_table(told, rows) == told
    for name, drawing in draw(rows).items():
        assert (docs / f"performance-{name}.svg").read_text(encoding="utf-8") == drawing
