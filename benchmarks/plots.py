"""Draw docs/performance-*.svg, and write the table of docs/performance.md, from what `make bench` saved.

    python -m benchmarks.plots [benchmarks/results/DATE-bench.json]

`bars`: every row as a share of its bar. `costs`: where the processor time of a call goes, ours beside theirs. `growth`:
what stays flat. The newest file is drawn where none is named. Plain SVG, without a library.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.ground.bars import BARS
from benchmarks.ground.results import newest, read
from benchmarks.ground.rows import Rounds, Row, table

COLOURS: Final = {"Envoy": "#c9a227", "server": "#3a6ea5", "ext_authz": "#4a9d5b", "store": "#b0413e"}
REACHED, MISSED, GREY = "#4a9d5b", "#b0413e", "#777"
COSTS: Final = ("limits", "check3", "check6", "openai", "refused", "limitador", "alone_cpu", "envoy_one", "envoy_two")
GROWTH: Final = ("million", "publications", "live_3000", "host_5000", "workers")
BEGIN, END = "<!-- made by python -m benchmarks.plots -->", "<!-- until here -->"
WIDTH: Final = 860
_LEFT, _ROW, _WIDEST = 430, 26, 3.0


def svg(height: float, parts: Iterable[str]) -> str:
    """A drawing on white, so that it is read on a dark page too."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"'
    paper = '<rect width="100%" height="100%" fill="#fff"/>'
    body = "\n".join([paper, *parts])
    return f'{head} font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'


def text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    """Words at a place."""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" fill="{colour}"/>'


def upright(x: float, top: float, bottom: float, dash: str = "") -> str:
    """A vertical line."""
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#333"{dashed}/>'


def bars(rows: Sequence[Row]) -> str:
    """Every row as a share of its bar: what ends left of the line has reached it."""
    shown = [row for row in rows if BARS[row.name].bar]
    scale, height = (WIDTH - _LEFT - 70) / _WIDEST, 70 + _ROW * len(shown)
    parts = [
        text(10, 24, "Measured as a share of its bar (line), with the stretch (tick); less is better", weight="bold")
    ]
    for number, row in enumerate(shown):
        bar, y = BARS[row.name], 44 + _ROW * number
        share = bar.bar / row.value.median if bar.more_is_better else row.value.median / bar.bar
        colour = REACHED if row.is_reached else MISSED
        parts += [_small(bar.title, y)]
        parts += [box(_LEFT, y, min(share, _WIDEST) * scale, 18, colour)]
        at = _LEFT + min(max(share, 1), _WIDEST) * scale + 6
        parts += [text(at, y + 14, str(row.value).partition(" ")[0])]
        if bar.stretch:
            stretch = bar.bar / bar.stretch if bar.more_is_better else bar.stretch / bar.bar
            parts += [upright(_LEFT + stretch * scale, y - 2, y + 20)]
    parts += [upright(_LEFT + scale, 36, height - 24, "4 3"), text(_LEFT + scale, height - 8, "bar", anchor="middle")]
    return svg(height, parts)


def _small(words: str, y: float) -> str:
    return text(_LEFT - 8, y + 14, words, anchor="end").replace("<text ", '<text font-size="10.5" ')


def costs(rows: Sequence[Row]) -> str:
    """Processor time a call by process, ours above theirs."""
    found = {row.name: row for row in rows if row.name in COSTS}
    shown = [(name, side, of) for name in COSTS if name in found for side, of in found[name].contenders.items()]
    most = max(_median(of, "all us") for *_, of in shown)
    scale, height, parts, y = (WIDTH - 330) / most, 0.0, [], 64.0
    parts += [text(10, 24, "Processor time a call, microseconds", weight="bold")]
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts += [box(330 + 110 * number, 32, 12, 12, colour), text(346 + 110 * number, 42, name)]
    last = ""
    for name, side, of in shown:
        y += 10 if name != last else 0
        words = f"{name}: {side}" if name != last else side
        parts += [text(230, y + 13, words, anchor="end")]
        x = 238.0
        for part, colour in COLOURS.items():
            width = _median(of, f"{part} us") * scale
            parts += [box(x, y, width, 16, colour)]
            x += width
        parts += [text(x + 4, y + 13, f"{_median(of, 'all us'):,.0f}")]
        last, y = name, y + 20
    height = y + 16
    return svg(height, parts)


def growth(rows: Sequence[Row]) -> str:
    """What each size costs, one panel a row."""
    shown = [row for row in rows if row.name in GROWTH and len(row.contenders) > 1]
    parts, y = [], 0.0
    for row in shown:
        told = {side: _first(of) for side, of in row.contenders.items()}
        most = max(value for _, value in told.values()) or 1.0
        what = next(iter(told.values()))[0]
        parts += [text(10, y + 24, f"{BARS[row.name].title}: {what}", weight="bold")]
        for number, (side, (_, value)) in enumerate(told.items()):
            at = y + 36 + 22 * number
            parts += [text(230, at + 13, side, anchor="end"), box(238, at, value / most * 500, 16, COLOURS["server"])]
            parts += [text(244 + value / most * 500, at + 13, f"{value:,.1f}")]
        y += 50 + 22 * len(told)
    return svg(y + 10, parts)


def _first(of: Rounds) -> tuple[str, float]:
    """The sum where there is one, or whatever was measured first."""
    what = "all us" if "all us" in of else next(iter(of))
    return what, _median(of, what)


def _median(of: Rounds, what: str) -> float:
    return statistics.median(of[what]) if of.get(what) else 0.0


def draw(rows: Sequence[Row]) -> Mapping[str, str]:
    """All drawings, by name."""
    return {"bars": bars(rows), "costs": costs(rows), "growth": growth(rows)}


def with_table(page: str, rows: Sequence[Row]) -> str:
    """The page with the table between its marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *table(rows), END + after])


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    saved = sorted((ROOT / "benchmarks" / "results").glob("*-bench.json"))
    parser.add_argument("file", type=Path, nargs="?", default=saved[-1] if saved else None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    rows, page = newest(read(options.file)), options.out / "performance.md"
    for name, drawing in draw(rows).items():
        (options.out / f"performance-{name}.svg").write_text(drawing, encoding="utf-8")
    if page.exists():
        page.write_text(with_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    main()
