"""How answers are shown: tables for people, JSON, YAML and CSV for programs. Pure but for the console."""

from __future__ import annotations

import csv
import enum
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tollkeeper.client.columns import Column

UNLIMITED: Final = "unlimited"
NOTHING: Final = "-"
_WIDE: Final = 10_000
"""Columns of a console that is none: a line of a table is one line of a file."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula (OWASP, CSV injection)."""


class Form(enum.StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


def console(*, stderr: bool = False) -> Console:
    """Make a console; where nobody looks at it, it is as wide as it must be and has no colours."""
    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    return (
        made
        if made.is_terminal
        else Console(stderr=stderr, highlight=False, emoji=False, markup=False, width=_WIDE, no_color=True)
    )


def show_list(items: Sequence[Mapping[str, Any]], columns: Sequence[Column], form: Form, nothing: str) -> None:
    """Print a list; ``nothing``: what people read where it is empty."""
    if form is not Form.TABLE:
        _print(_encoded(list(items), form, columns))
    elif not items:
        click.echo(nothing, err=True)
    else:
        _draw(_table(items, columns))


def show_one(item: Mapping[str, Any], form: Form, columns: Sequence[Column]) -> None:
    """Print one thing, with all its fields."""
    if form is not Form.TABLE:
        _print(_encoded(item, form, columns))
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flat(item):
        table.add_row(name, _lines(value) if isinstance(value, str) else cell(value, name))
    _draw(table)


def show_usage(usage: Mapping[str, Any], form: Form) -> None:
    """Print what something was used: the sums, what is left of its budgets, and each hour and day with calls."""
    if form is Form.CSV:
        _print(_encoded(usage["days"], form, _BUCKETS))
    elif form is not Form.TABLE:
        _print(_encoded(usage, form, ()))
    else:
        show_one({name: value for name, value in usage.items() if name in _SUMS}, form, ())
        for title, items, columns in (
            ("Budgets now", usage["budgets"], _BUDGETS),
            ("Hours with calls", usage["hours"], _BUCKETS),
            ("Days with calls", usage["days"], _BUCKETS),
        ):
            if items:
                click.echo(f"\n{title}")
                _draw(_table(items, columns))


USED: Final = (
    Column("usage.totalRequests", "CALLS"),
    Column("usage.requestsToday", "TODAY"),
    Column("usage.tokensUsed", "TOKENS"),
    Column("usage.lastAccessTime", "LAST USED"),
)
"""Columns of a list that says usage."""
_SUMS: Final = ("totalRequests", "requestsToday", "tokensUsed", "lastAccessTime")
_BUDGETS: Final = (Column("budget"), Column("limit"), Column("remaining"), Column("resetsAt", "WHOLE AGAIN"))
_BUCKETS: Final = (Column("start"), Column("requests", "CALLS"), Column("tokens"))


def _draw(table: Table) -> None:
    """Print a table; where it goes into a file, without the spaces that fill it up."""
    shown = console()
    with shown.capture() as drawn:
        shown.print(table)
    lines = drawn.get().splitlines()
    _print("\n".join(lines if shown.is_terminal else map(str.rstrip, lines)) + "\n")


def _lines(text: str) -> str:
    """A text as it is, line by line; what a terminal would obey is taken out."""
    return _time(text) or "\n".join(map(printable, text.splitlines())) or NOTHING


def _table(items: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        is_number = all(_is_number(column.value(item)) for item in items)
        table.add_column(column.title, justify="right" if is_number else "left", overflow="fold")
    for item in items:
        if item.get("damaged") is True:
            table.add_row(
                Text(printable(f"damaged record {item.get('id', '')}: {item.get('remove', '')}"), style="red")
            )
        else:
            table.add_row(*(cell(column.value(item), column.path) for column in columns))
    return table


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def cell(value: Any, path: str = "") -> str:
    """Return a value as people read it. What a terminal would obey is taken out."""
    if value is None:
        return UNLIMITED if _is_limit(path) else NOTHING
    if value is True or value is False:
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={cell(one)}" for name, one in value.items()) or NOTHING
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(cell, value)) or NOTHING
    return _time(str(value)) or printable(str(value)) or NOTHING


def printable(text: str) -> str:
    """Take out what moves a cursor or changes a terminal; line breaks become spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _is_limit(path: str) -> bool:
    return path.rpartition(".")[2] in {"requestsPerMinute", "requestsPerHour", "tokensPerHour", "burstLimit"}


def _time(text: str) -> str:
    """``2026-12-01T11:00:00.123Z`` as ``2026-12-01 11:00:00 UTC``; "" of what is no time."""
    if len(text) < len("2026-12-01T00:00:00Z") or text[10:11] != "T":
        return ""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return ""
    zone = "UTC" if time.utcoffset() is not None and not time.utcoffset() else time.strftime("%z")
    return f"{time:%Y-%m-%d %H:%M:%S} {zone}".strip()


def _flat(item: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """The fields of an object, those of objects in it by NAME.NAME; empty lists of warnings are left out."""
    rows: list[tuple[str, Any]] = []
    for name, value in item.items():
        full = f"{before}{name}"
        if isinstance(value, Mapping) and value and name not in {"labels", "metadata", "detail"}:
            rows += _flat(value, f"{full}.")
        elif not (name == "warnings" or (isinstance(value, list) and value and isinstance(value[0], Mapping))):
            rows.append((full, value))
        elif name != "warnings":
            rows += _flat({str(place): one for place, one in enumerate(value)}, f"{full}.")
    return rows


def _encoded(value: Any, form: Form, columns: Sequence[Column]) -> str:
    if form is Form.JSON:
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if form is Form.YAML:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return _csv(value if isinstance(value, list) else [value], columns)


def _csv(items: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Comma-separated values (RFC 4180), the titles by their API's names; lists parted by spaces."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([column.path for column in columns])
    for item in items:
        writer.writerow([_csv_cell(column.value(item)) for column in columns])
    return written.getvalue()


def _csv_cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False)  # names and values may hold any sign
    elif isinstance(value, list):
        text = " ".join(map(str, value))
    else:
        text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _print(text: str) -> None:
    """Print it in the encoding of standard output; what that has no sign for is escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)
